"""Calls the API at the VIP from the wire all the time: when does it answer again after its holder was lost?"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from core.errors import PlatformError
from tools.ha_matrix.ground import VIP, Ground

PAUSE_S = 0.1
ANSWER_S = "1"
HELD_DEADLINE_S = 30.0
AGAIN_DEADLINE_S = 60.0
URL = f"https://{VIP}:7443/v1/openapi.json"


class VipProbe:
    """Calls between `async with` and its end; the VIP answers when it begins. Times are seconds of the monotonic clock."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._answers: list[tuple[float, float]] = []  # asked, answered
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._task = self._group.create_task(self._call(), name="vip-probe")
        await self._ground.until("the VIP answers", self._any, deadline_s=HELD_DEADLINE_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None, "entered before"
        self._task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def again_s(self, since_s: float, lost_s: float) -> float:
        """Wait for an answer to what was asked after `lost_s`, when the holder was certainly gone; return the seconds since `since_s`.

        Raises:
            Missed: none within a minute.
        """

        def first() -> float | None:
            return next((done_s for asked_s, done_s in self._answers if asked_s > lost_s), None)

        async def again() -> bool:
            return first() is not None

        await self._ground.until("the VIP answers again", again, deadline_s=AGAIN_DEADLINE_S)
        found_s = first()
        assert found_s is not None, "waited for"
        return found_s - since_s

    async def _any(self) -> bool:
        return bool(self._answers)

    async def _call(self) -> None:
        while True:
            asked_s = time.monotonic()
            try:
                await self._ground.lab.run(
                    "wire", "curl", "-sk", "-m", ANSWER_S, "-o", "/dev/null", URL
                )
            except PlatformError:
                pass
            else:
                self._answers.append((asked_s, time.monotonic()))
            await asyncio.sleep(PAUSE_S)
