"""Arbitration addresses: whether this host reaches one, and what follows from it. The rules, without any I/O.

Used by `nodeagent.services.arbitration`. An address that is pinged is a veto on the VIP and nothing more: it is no vote, and
no lease, VM or election depends on it. Hosts say in their records whether they reach one; a leader that doesn't, while
another live host does, gives the VIP up. If no other says that it does, the address itself is dead, and there is no veto.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.model import Arbitration

ROUND_S = 1.0
LOST_ROUNDS = 3
"""So many rounds in a row without any answer: not reached. Rounds are counted, not seconds: an agent that stood still didn't ask."""

TOLD_ROUNDS = 4
"""So long it must be one way before it is said to others: each word is a write to the replicated state."""

VETO_ROUNDS = 9
"""So long it must be lost here before a veto: what others say of the same loss has arrived by then."""


class Reach:
    """What the rounds so far say. `state` is `UNKNOWN` until an answer came, or `LOST_ROUNDS` brought none."""

    def __init__(self) -> None:
        self.state = Arbitration.UNKNOWN
        self.rounds = 0
        self._unanswered = 0

    def note(self, *, answered: bool) -> None:
        """A round is over; some address answered, or none did."""
        self._unanswered = 0 if answered else self._unanswered + 1
        before = self.state
        if answered:
            self.state = Arbitration.REACHED
        elif self._unanswered >= LOST_ROUNDS:
            self.state = Arbitration.LOST
        self.rounds = self.rounds + 1 if self.state is before else 1

    def to_tell(self) -> Arbitration | None:
        """Return what others shall know; None while it isn't certain enough."""
        if self.state is Arbitration.UNKNOWN or self.rounds < TOLD_ROUNDS:
            return None
        return self.state

    def is_lost_for_good(self) -> bool:
        """Tell whether it has been lost for so long that others have said what they see."""
        return self.state is Arbitration.LOST and self.rounds >= VETO_ROUNDS


def is_vetoed(own: Reach, others: Iterable[Arbitration]) -> bool:
    """Tell whether this host may not have the VIP. `others`: what other live hosts said last."""
    return own.is_lost_for_good() and Arbitration.REACHED in set(others)


def is_dead(own: Reach, others: Iterable[Arbitration]) -> bool:
    """Tell whether nobody known to be alive reaches an address."""
    return own.is_lost_for_good() and Arbitration.REACHED not in set(others)
