"""The typed client, in two kinds: `AsyncKvorum` is awaited, `Kvorum` blocks. `kvorum_sdk` offers both to programs.

Both know all agents' addresses and go on at another one when theirs dies: changes are repeated with the same
Idempotency-Key, tasks are waited for and events followed on, wherever they are asked for.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import msgspec

from tools.sdk.blocking import BlockingCollection, Runner
from tools.sdk.calls import Api
from tools.sdk.client import Client, OnProgress
from tools.sdk.collection import Collection
from tools.sdk.connecting import OnRetry, client_of, silent
from tools.sdk.endpoints import Endpoint
from tools.sdk.generated import blocking, models, operations
from tools.sdk.items import Item
from tools.sdk.settings import Settings, settings_from
from tools.sdk.started import Started, TaskFailedError
from tools.sdk.tasks import NOTHING_TO_DO, TaskView
from tools.sdk.transport import DEADLINE_S

Work = Started[object] | TaskView | models.Task | str


class AsyncKvorum(operations.Operations):
    """A cluster, through any of its agents; `async with connect_async() as kvorum`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        super().__init__(Api(client.transport))

    async def __aenter__(self) -> AsyncKvorum:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.__aexit__(None, None, None)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every agent that may be asked: those named, and those that the cluster told of."""
        return self._client.transport.endpoints

    def collection(self, plural: str) -> Collection[Item]:
        """Return a collection of any kind in JSON objects, also of one that this version has no model for."""
        return Collection(self._api, plural, Item)

    async def request(self, method: str, path: str, body: object = None) -> Any:
        """Send anything, with fail-over and retries: `path` is as in a URL. Return the JSON values of the answer."""
        encoded = b"" if body is None else msgspec.json.encode(body)
        reply = await self._client.request(method, path, encoded)
        return msgspec.json.decode(reply.body) if reply.body.strip() else None

    async def wait(
        self,
        work: Work,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> TaskView:
        """Return a task when it has succeeded; `work` is what a method answered, or a task or its id.

        `on_progress` hears of the task as it stands first, and of every change. Whatever becomes of the agents meanwhile,
        the same task is asked for at the next one.

        Raises:
            TaskFailedError: it failed or was cancelled.
            TimeoutError: it takes longer than `timeout_s`; the work goes on.
        """
        last: TaskView | None = None
        async for task in self.states(work, timeout_s):
            last = task
            if on_progress is not None:
                on_progress(task)
        return finished(last)

    def states(self, work: Work, timeout_s: float | None = None) -> AsyncGenerator[TaskView, None]:
        """Yield a task as it stands first, after every change, and as it has ended, well or not.

        Raises:
            TimeoutError: it takes longer than `timeout_s`; the work goes on.
        """
        task_id = task_id_of(work)
        return self._client.watch_task(
            task_id, known=not isinstance(work, str), timeout_s=timeout_s
        )

    async def follow(self, after: int | str = "") -> AsyncGenerator[models.Event, None]:
        """Yield events as they happen, without end and without loss over a change of agent.

        `after` is the revision of the last event that was seen; without it, from now on.
        """
        events = self._client.follow_events(str(after))
        try:
            async for event in events:
                yield msgspec.convert(event.raw, models.Event)
        finally:
            await events.aclose()


def task_id_of(work: Work) -> str:
    """Return the id of the task that is meant; empty when there was nothing to do."""
    match work:
        case str():
            return work
        case Started(task=None):
            return ""
        case Started(task=TaskView() as task):
            return task.id
        case TaskView() | models.Task():
            return work.id
    raise TypeError(f"{type(work).__name__} is no work to wait for")


def finished(task: TaskView | None) -> TaskView:
    """Return a task that has succeeded.

    Raises:
        TaskFailedError: it did not.
    """
    if task is None:
        return NOTHING_TO_DO
    if not task.succeeded:
        raise TaskFailedError(task)
    return task


class Kvorum(blocking.Operations):
    """A cluster, through any of its agents, for programs that don't use asyncio; `with connect() as kvorum`.

    Any thread may use it. Callbacks run in the thread that called, but for those about bytes of a file.
    """

    def __init__(self, client: Client) -> None:
        self._kvorum = AsyncKvorum(client)
        super().__init__(self._kvorum, Runner())
        atexit.register(self.close)

    def __enter__(self) -> Kvorum:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread behind them; safe to repeat."""
        atexit.unregister(self.close)
        if not self._runner.closed:
            self._runner.run(self._kvorum.close())
            self._runner.close()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every agent that may be asked: those named, and those that the cluster told of."""
        return self._kvorum.endpoints

    def collection(self, plural: str) -> BlockingCollection[Item]:
        """Return a collection of any kind in JSON objects, also of one that this version has no model for."""
        return BlockingCollection(self._kvorum.collection(plural), self._runner)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send anything, with fail-over and retries: `path` is as in a URL. Return the JSON values of the answer."""
        return self._runner.run(self._kvorum.request(method, path, body))

    def wait(
        self,
        work: Work,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> TaskView:
        """Return a task when it has succeeded; `work` is what a method answered, or a task or its id.

        Raises:
            TaskFailedError: it failed or was cancelled.
            TimeoutError: it takes longer than `timeout_s`; the work goes on.
        """
        last: TaskView | None = None
        for task in self._runner.iterate(self._kvorum.states(work, timeout_s)):
            last = task
            if on_progress is not None:
                on_progress(task)
        return finished(last)

    def follow(self, after: int | str = "") -> Iterator[models.Event]:
        """Yield events as they happen, without end and without loss over a change of agent.

        `after` is the revision of the last event that was seen; without it, from now on.
        """
        return self._runner.iterate(self._kvorum.follow(after))


def _settings(
    addresses: str | Sequence[str],
    token: str,
    access_key: tuple[str, str],
    ca_file: str,
    *,
    anonymous: bool,
) -> Settings:
    """Return the settings of the environment, but for what is given."""
    environ = dict(os.environ)
    if addresses:
        environ["KVORUM_ADDRESS"] = addresses if isinstance(addresses, str) else ",".join(addresses)
    found = settings_from(environ, needs_token=not (anonymous or token or access_key[0]))
    if token or access_key[0]:
        found = replace(found, token=token, access_key=access_key)
    return replace(found, ca_file=ca_file) if ca_file else found


def connect(
    addresses: str | Sequence[str] = "",
    *,
    token: str = "",
    access_key: tuple[str, str] = ("", ""),
    ca_file: str = "",
    anonymous: bool = False,
    deadline_s: float = DEADLINE_S,
    on_retry: OnRetry = silent,
) -> Kvorum:
    """Return a client that blocks. What isn't given comes from the environment and the user's files, as for `kvorum`.

    `addresses` are agents (`h1`, `10.0.0.1:7443`, `unix:/run/kvorum/api.sock`); one that answers is enough. `access_key`
    is the id and the secret of a key with which each request is signed, in place of a token. `anonymous` is for logging in. No request takes longer than `deadline_s` with all its tries, but for uploads and waits.

    Raises:
        InvalidError: an address is none, or there is no token.
    """
    settings = _settings(addresses, token, access_key, ca_file, anonymous=anonymous)
    return Kvorum(
        client_of(settings, anonymous=anonymous, deadline_s=deadline_s, on_retry=on_retry)
    )


def connect_async(
    addresses: str | Sequence[str] = "",
    *,
    token: str = "",
    access_key: tuple[str, str] = ("", ""),
    ca_file: str = "",
    anonymous: bool = False,
    deadline_s: float = DEADLINE_S,
    on_retry: OnRetry = silent,
) -> AsyncKvorum:
    """Return a client whose methods are awaited; otherwise as `connect`."""
    settings = _settings(addresses, token, access_key, ca_file, anonymous=anonymous)
    return AsyncKvorum(
        client_of(settings, anonymous=anonymous, deadline_s=deadline_s, on_retry=on_retry)
    )
