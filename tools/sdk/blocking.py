"""The same client for programs that don't use asyncio: an event loop in a thread of its own, and calls that wait for it.

Any thread may call; the calls of several threads run side by side on the one loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Generic, TypeVar

from core.errors import InvalidError
from tools.sdk.collection import Collection, Consistency
from tools.sdk.items import Item, Page

T = TypeVar("T")
JOIN_TIMEOUT_S = 10.0


class Runner:
    """An event loop in a thread; runs coroutines for whoever waits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="kvorum-sdk", daemon=True)
        self._closed = False
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether nothing can be run any more."""
        return self._closed

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the work returns; an interrupt of the waiting thread cancels the work.

        Raises:
            InvalidError: the client is closed, or this is a callback on the loop's own thread.
        """
        if self._closed or threading.current_thread() is self._thread:
            work.close()
            where = "from a callback of it" if not self._closed else "after it was closed"
            raise InvalidError(f"the client can't be used {where}")
        waited = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waited.result()
        except (KeyboardInterrupt, SystemExit):
            waited.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yield what a generator yields; it ends when the caller has enough."""
        try:
            while True:
                try:
                    item = self.run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if not self._closed:
                self.run(items.aclose())

    @contextmanager
    def stream(
        self, opened: AbstractAsyncContextManager[AsyncIterator[bytes]]
    ) -> Iterator[Iterator[bytes]]:
        """Give the pieces of a file for the block."""
        pieces = self.run(_enter(opened))

        def each() -> Iterator[bytes]:
            while True:
                try:
                    piece = self.run(_next(pieces))
                except StopAsyncIteration:
                    return
                yield piece

        try:
            yield each()
        finally:
            self.run(_leave(opened))

    def close(self) -> None:
        """End the thread; safe to repeat."""
        if self._closed:
            return
        self.run(self._loop.shutdown_asyncgens())
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _enter(opened: AbstractAsyncContextManager[T]) -> T:
    return await opened.__aenter__()


async def _leave(opened: AbstractAsyncContextManager[Any]) -> None:
    await opened.__aexit__(None, None, None)


class BlockingCollection(Generic[T]):
    """`tools.sdk.collection.Collection` for programs that don't use asyncio."""

    def __init__(self, collection: Collection[T], runner: Runner) -> None:
        self._collection = collection
        self._runner = runner

    def list(
        self,
        *,
        q: str | Sequence[str] = (),
        sort: str = "",
        limit: int = 0,
        cursor: str = "",
        consistency: Consistency = "local",
        also: Mapping[str, str] | None = None,
    ) -> Page[T]:
        """Return one page: `limit` of them, 1000 when it is 0. To go on, give `next` of the page before as `cursor`."""
        return self._runner.run(
            self._collection.list(
                q=q, sort=sort, limit=limit, cursor=cursor, consistency=consistency, also=also
            )
        )

    def find(
        self,
        *,
        q: str | Sequence[str] = (),
        sort: str = "",
        page_size: int = 0,
        consistency: Consistency = "local",
        also: Mapping[str, str] | None = None,
    ) -> Iterator[T]:
        """Yield all that match, page by page; one that stays as it is meanwhile comes exactly once."""
        return self._runner.iterate(
            self._collection.find(
                q=q, sort=sort, page_size=page_size, consistency=consistency, also=also
            )
        )

    def list_all(
        self,
        *,
        q: str | Sequence[str] = (),
        sort: str = "",
        limit: int = 0,
        consistency: Consistency = "local",
        also: Mapping[str, str] | None = None,
    ) -> Page[T]:
        """Return all that match, or the first `limit`, as one page; its index is that of the first part."""
        return self._runner.run(
            self._collection.list_all(
                q=q, sort=sort, limit=limit, consistency=consistency, also=also
            )
        )

    def select(
        self,
        *fields: str,
        q: str | Sequence[str] = (),
        sort: str = "",
        limit: int = 0,
        consistency: Consistency = "local",
    ) -> Page[Item]:
        """Return these attributes of all that match, also through relations: `select("name", "host.name")`."""
        return self._runner.run(
            self._collection.select(*fields, q=q, sort=sort, limit=limit, consistency=consistency)
        )

    def count(self, *, q: str | Sequence[str] = (), consistency: Consistency = "local") -> int:
        """Return how many match."""
        return self._runner.run(self._collection.count(q=q, consistency=consistency))

    def explain(self, *, q: str | Sequence[str] = (), sort: str = "") -> Item:
        """Return how a query would be run: `plan`, a list of `step` and `reads_rows`, and the sum of the latter."""
        return self._runner.run(self._collection.explain(q=q, sort=sort))

    def get(self, ref: str, /, *, consistency: Consistency = "local") -> T:
        """Return one by name or id.

        Raises:
            NotFoundError: there is none.
        """
        return self._runner.run(self._collection.get(ref, consistency=consistency))
