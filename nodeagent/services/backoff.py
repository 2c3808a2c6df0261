"""How long to wait before trying again to bring a VM up: 0, 5, 10, 20 … 300 s, forgotten after 10 good minutes.

One per VM, kept by the VM controller. Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S, LIMIT_S, GOOD_S = 5.0, 300.0, 600.0
RETRY_S = 1.0


@dataclass(slots=True)
class Backoff:
    """The start history of one VM."""

    counted: int = 0
    due_s: float = 0.0
    last_s: float = 0.0

    def is_due(self, now_s: float) -> bool:
        """Tell whether the next try may begin."""
        return now_s >= self.due_s

    def note_done(self, now_s: float, *, counts: bool) -> None:
        """An action succeeded. A start counts: a guest that dies again at once must wait longer each time."""
        if counts:
            self._grow(now_s)
        else:
            self.due_s = now_s

    def note_failed(self, now_s: float, *, counts: bool) -> None:
        """An action failed; what is not the VM's own fault (no lease yet) is retried soon and not counted."""
        if counts:
            self._grow(now_s)
        self.due_s = max(self.due_s, now_s + RETRY_S)

    def note_good(self, now_s: float) -> None:
        """The VM is as wanted; after long enough its history is forgotten."""
        if self.counted and now_s - self.last_s >= GOOD_S:
            self.counted = 0

    def _grow(self, now_s: float) -> None:
        wait_s = 0.0 if self.counted == 0 else min(FIRST_S * 2 ** (self.counted - 1), LIMIT_S)
        self.counted += 1
        self.last_s = now_s
        self.due_s = now_s + wait_s
