"""Time and chance as things that are handed in, so that tests and simulations can own them.

Used by every package; the only module that may ask the operating system for the time.
"""

from __future__ import annotations

import random
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Intervals use `monotonic_s` or `boottime_s`; wall time is for people."""

    def monotonic_s(self) -> float:
        """Seconds that never jump; do not count suspend."""
        ...

    def boottime_s(self) -> float:
        """Seconds since boot, counting suspend (CLOCK_BOOTTIME)."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


def system_random() -> random.Random:
    """Return the operating system's randomness behind the `random.Random` interface."""
    return random.SystemRandom()


def new_id(rng: random.Random) -> str:
    """Return a random (version 4) UUID in canonical text form."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
