"""Writes to the API of several hosts all the time: when is none acknowledged, and for how long?

Two writers a host, each tags a security group of its own, so that a request that hangs doesn't hide that others are
answered, and no write waits for another's. A write that gets no answer within two seconds counts as not acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from types import TracebackType
from typing import Self

from tools.ha_matrix.ground import Ground
from tools.ha_matrix.verdict import Missed

WRITERS = 2
PAUSE_S = 0.1
ANSWER_S = 2.0
AGAIN_DEADLINE_S = 60.0


class WriteProbe:
    """Writes between `async with` and its end. Times are seconds of the monotonic clock."""

    def __init__(self, ground: Ground, hosts: tuple[str, ...]) -> None:
        self._ground = ground
        self._hosts = hosts
        self._acknowledged_s: dict[str, list[float]] = {host: [] for host in hosts}
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self.refused = 0

    @property
    def acknowledged(self) -> int:
        return sum(len(times) for times in self._acknowledged_s.values())

    async def __aenter__(self) -> Self:
        names = [f"probe-{host}-{n}" for host in self._hosts for n in range(WRITERS)]
        for name in names:
            body = json.dumps({"name": name}).encode()
            path = "/v1/security-groups"
            await self._ground.ask(self._hosts[0], path, method="POST", content=body)
        await self._group.__aenter__()
        for host in self._hosts:
            for number in range(WRITERS):
                name = f"probe-{host}-{number}"
                self._tasks.append(self._group.create_task(self._write(host, name), name=name))
        await self._ground.until("writes are acknowledged", self._all_write, deadline_s=30.0)
        return self

    async def _all_write(self) -> bool:
        return all(len(times) > WRITERS for times in self._acknowledged_s.values())

    async def _write(self, host: str, name: str) -> None:
        count = 0
        while True:
            count += 1
            body = json.dumps({"add": [f"count={count}"]}).encode()
            reply = await self._ground.ask(
                host,
                f"/v1/security-groups/{name}/tags",
                method="PATCH",
                content=body,
                timeout_s=ANSWER_S,
            )
            if reply is not None and reply.status == 200:
                self._acknowledged_s[host].append(time.monotonic())
            else:
                self.refused += 1
            await asyncio.sleep(PAUSE_S)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def again_s(self, since_s: float) -> float:
        """Wait until every host acknowledged a write after its longest gap since a moment; return the latest of
        these moments, in seconds since then.

        Raises:
            Missed: a host acknowledges none within a minute.
        """

        async def writes() -> bool:
            return all(times and times[-1] > since_s for times in self._acknowledged_s.values())

        await self._ground.until(
            "writes are acknowledged again", writes, deadline_s=AGAIN_DEADLINE_S
        )
        return (
            max(longest_gap(times, since_s)[1] for times in self._acknowledged_s.values()) - since_s
        )

    def gap_s(self, since_s: float) -> float:
        """Return the longest time that a host acknowledged nothing, of those that ended after a moment."""
        return max(longest_gap(times, since_s)[0] for times in self._acknowledged_s.values())


def longest_gap(times: list[float], since_s: float) -> tuple[float, float]:
    """Return length and end of the longest gap that ended after a moment.

    Raises:
        Missed: none did.
    """
    gaps = [(after - before, after) for before, after in pairwise(times) if after > since_s]
    if not gaps:
        raise Missed("no write was acknowledged after the fault")
    return max(gaps)
