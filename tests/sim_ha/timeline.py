"""Virtual time: a heap of things to do, and the clocks of hosts, which are never the same clock.

Everything in the world is driven by `Timeline.run`; nothing waits.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

Deed = Callable[[], None]


class Timeline:
    """Does what was put into it, in the order of its time; ties in the order of putting."""

    def __init__(self, rng: random.Random) -> None:
        self.now_s = 0.0
        self._rng = rng
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Deed]] = []

    def after(self, delay_s: float, deed: Deed) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._numbers), deed))

    def every(self, period_s: float, deed: Deed) -> None:
        """Do it again and again, a little irregularly."""
        rng = self._rng

        def again() -> None:
            deed()
            self.after(period_s * rng.uniform(0.95, 1.05), again)

        self.after(rng.uniform(0, period_s), again)

    def run(self, until_s: float, stop: Callable[[], bool]) -> None:
        """Go on until that time, or until `stop` says so."""
        heap = self._heap
        while heap and heap[0][0] <= until_s and not stop():
            self.now_s, _, deed = heapq.heappop(heap)
            deed()


@dataclass
class HostClock:
    """A clock of one boot of one host: it began anywhere, runs at a rate of its own, and has a wall time that people set wrong."""

    timeline: Timeline
    offset_s: float
    rate: float
    wall_step_s: float = 0.0

    def monotonic_s(self) -> float:
        return self.offset_s + self.timeline.now_s * self.rate

    boottime_s = monotonic_s

    def wall_ms(self) -> int:
        raise AssertionError("wall time decides nothing")

    def wall_s(self) -> float:
        """Return the wall time. Only a broken rule reads it."""
        return self.timeline.now_s + self.wall_step_s

    def began_anew(self, after_s: float) -> None:
        """A boot: the clock starts again at a few seconds."""
        self.offset_s = after_s - self.timeline.now_s * self.rate
