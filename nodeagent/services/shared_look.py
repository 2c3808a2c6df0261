"""One measurement for all who ask at about the same time.

Used where looking is dear (`nodeagent.services.health`): whoever asks while one is under way gets that one's result, and a
result is good for a moment after. So any number of callers costs as much as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from core.errors import UnavailableError

T = TypeVar("T")


class SharedLook(Generic[T]):
    """What `look` returns, at most `kept_s` seconds old."""

    def __init__(self, look: Callable[[], Awaitable[T]], *, kept_s: float) -> None:
        self._look, self._kept_s = look, kept_s
        self._last: tuple[float, T] | None = None
        self._under_way: asyncio.Future[T] | None = None

    async def get(self) -> T:
        """Return the last result if it is fresh, else that of a look that ends later.

        Raises:
            UnavailableError: whoever looked was cancelled.
        """
        loop = asyncio.get_running_loop()
        if self._last is not None and loop.time() - self._last[0] < self._kept_s:
            return self._last[1]
        if self._under_way is not None:
            return await asyncio.shield(self._under_way)
        under_way = self._under_way = loop.create_future()
        try:
            found = await self._look()
            self._last = (loop.time(), found)
            under_way.set_result(found)
            return found
        finally:
            self._under_way = None
            if not under_way.done():
                under_way.set_exception(UnavailableError("the look was broken off: ask again"))
                under_way.exception()  # nobody has to wait for it
