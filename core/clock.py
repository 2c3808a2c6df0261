"""Time and chance as things that are handed in, so that tests and simulations can own them.

Used by every package; the only module that may ask the operating system for the time.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

_FIXED_BITS = 0xF000 << 64 | 0xC000 << 48  # RFC 9562 sections 5.4 and 5.7
_VERSION_4 = 0x4000 << 64 | 0x8000 << 48
_VERSION_7 = 0x7000 << 64 | 0x8000 << 48
_48_BITS = (1 << 48) - 1
_VERSION_7 = 0x7000 << 64 | 0x8000 << 48
_48_BITS = (1 << 48) - 1


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
    return _text(rng.getrandbits(128) & ~_FIXED_BITS | _VERSION_4)


def new_ordered_id(rng: random.Random, now_ms: int) -> str:
    """Return a version 7 UUID: later ones sort behind earlier ones, so that an index of many grows at its end only.

    It tells when it was made. For records of what happened, and requests; not for what must not be guessed.
    """
    random_bits = rng.getrandbits(80) & ~_FIXED_BITS | _VERSION_7
    return _text((now_ms & _48_BITS) << 80 | random_bits)


def _text(bits: int) -> str:
    text = f"{bits:032x}"  # twice as fast as by uuid.UUID, and there are some for each request
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
