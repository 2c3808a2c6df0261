"""How long a host's own renewals failed to arrive in its copy of the log: what its network and the elections really take.

Fed with each renewal of this host that its agent applies, by the agent's monotonic clock; kept in memory for a while.
A gap in which the lease ended is no measure of the network: then this host was cut off or stood still, which others tell.
"""

from __future__ import annotations

from collections import deque

from core.clock import Clock

WINDOW_S = 600.0


class RenewalGaps:
    """The longest time between two renewals within the last ten minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s: float | None = None
        self._worst: deque[tuple[float, float]] = deque()  # (when, gap), gaps falling

    def renewed(self, lease_s: float) -> None:
        """Note a renewal that was applied now; `lease_s` is the length of its lease, 0 when it doesn't say."""
        now_s = self._clock.monotonic_s()
        gap_s = now_s - self._last_s if self._last_s is not None else 0.0
        if self._last_s is not None and not 0 < lease_s <= gap_s:
            while self._worst and self._worst[-1][1] <= gap_s:
                self._worst.pop()
            self._worst.append((now_s, gap_s))
        self._last_s = now_s

    def worst_s(self) -> float | None:
        """Return the longest gap in seconds, one that lasts included; None before there were two renewals."""
        now_s = self._clock.monotonic_s()
        while self._worst and now_s - self._worst[0][0] > WINDOW_S:
            self._worst.popleft()
        if self._last_s is None:
            return None
        known = [self._worst[0][1]] if self._worst else []
        open_s = now_s - self._last_s
        return max(known, default=None) if open_s <= 2.0 else max([*known, open_s])
