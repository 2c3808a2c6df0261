"""Which host may carry the management address (VIP), and until when: the rules, without any I/O.

Used by `nodeagent.services.vip` on every host. The leader holds the address for a time that begins when a quorum was asked
whether it still leads, and the kernel takes the address away when that time is over, whatever became of the agent. Whoever
leads next waits until that must have happened. Why this is enough is in docs/decisions/0027. Times are seconds of this
host's own monotonic clock; clocks of different hosts are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LEASE_S = 2.5
"""From the moment a quorum was asked to the moment by which the kernel is told to take the address away, at most."""

KERNEL_LATE_S = 1.0
"""So much later than told the kernel may act: it rounds its timer, and looks at all lifetimes at least a second apart."""

CLAIM_WAIT_S = LEASE_S + KERNEL_LATE_S
PROBE_FRESH_S = 2.0
CONFLICT_PAUSE_S = 5.0
FIRST_ANNOUNCEMENTS = 5
FIRST_ANNOUNCE_EVERY_S = 0.4
ANNOUNCE_EVERY_S = 10.0
NEVER_S = float("-inf")


class Action(StrEnum):
    """What is to be done about the address on this host now.

    `RELEASE`: have it no more. `LEAVE`: nothing; the kernel takes it away in time. `PROBE`: look whether another machine
    has it. `HOLD`: have it until the given time.
    """

    RELEASE = "release"
    LEAVE = "leave"
    PROBE = "probe"
    HOLD = "hold"


class Phase(StrEnum):
    """Where this host stands with the address. `WAITING`: until the former leader's has run out. `VETOED`: it leads, but
    doesn't reach the arbitration address that others do (`ha.arbitration`)."""

    NONE = "none"
    WAITING = "waiting"
    VETOED = "vetoed"
    CONFLICT = "conflict"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round found. `leads`: it led in `term` before and after a quorum was asked, or would have been.

    `confirmed`: a quorum said so in that term; it was asked at `began_s`, and now it is `now_s`. `vetoed`: it shall neither
    take nor hold the address though it leads.
    """

    vip: str
    leads: bool
    term: int
    confirmed: bool
    began_s: float
    now_s: float
    vetoed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`until_s` and `announce` are of `HOLD`."""

    action: Action
    until_s: float = 0.0
    announce: bool = False


def lifetime_s(until_s: float, now_s: float) -> int:
    """Return for how many whole seconds the kernel may keep the address; 0: not at all."""
    return max(0, int(min(until_s - now_s, LEASE_S)))


class VipRules:
    """Remembers since when this host leads, what a probe found, and until when it holds."""

    def __init__(self) -> None:
        self.phase = Phase.NONE
        self.foreign_mac = ""
        self._vip, self._term = "", -1
        self._since_s: float | None = None
        self._until_s = self._probed_s = self._announced_s = NEVER_S
        self._announced = 0

    def decide(self, seen: Seen) -> Decision:
        """Return what to do now."""
        if not seen.vip or not seen.leads:
            self._forget()
            return Decision(Action.RELEASE)
        if (seen.vip, seen.term) != (self._vip, self._term):
            self._forget()
            self._vip, self._term, self.phase = seen.vip, seen.term, Phase.WAITING
        if seen.vetoed:
            self._give_up()
            return Decision(Action.RELEASE)
        if self.phase is Phase.VETOED:
            self.phase = Phase.WAITING
        if not seen.confirmed:
            return Decision(Action.LEAVE if self._until_s > seen.now_s else Action.RELEASE)
        if self._since_s is None:
            self._since_s = seen.now_s
        if seen.now_s - self._since_s < CLAIM_WAIT_S:
            return Decision(Action.RELEASE)
        if seen.now_s < self._until_s:
            return self._hold(seen)
        return self._claim(seen)

    def probed(self, foreign_mac: str, now_s: float) -> None:
        """A probe is over; nobody answered when `foreign_mac` is empty."""
        self._probed_s, self.foreign_mac = now_s, foreign_mac
        if foreign_mac:
            self.phase = Phase.CONFLICT
        elif self.phase is Phase.CONFLICT:
            self.phase = Phase.WAITING

    def held(self, until_s: float, *, announced_s: float | None) -> None:
        """The kernel has the address, and takes it away by `until_s` (and a bit). `announced_s`: it was told to all then."""
        self._until_s, self.phase = until_s, Phase.HELD
        if announced_s is not None:
            self._announced_s, self._announced = announced_s, self._announced + 1

    def _claim(self, seen: Seen) -> Decision:
        """The address is not here: look whether it is elsewhere, then take it."""
        if self.phase is Phase.HELD:  # it ran out, as the quorum took too long
            self.phase = Phase.WAITING
            self._announced_s, self._announced = NEVER_S, 0
        age_s = seen.now_s - self._probed_s
        if self.foreign_mac:
            return Decision(Action.PROBE if age_s >= CONFLICT_PAUSE_S else Action.RELEASE)
        return self._hold(seen) if age_s < PROBE_FRESH_S else Decision(Action.PROBE)

    def _hold(self, seen: Seen) -> Decision:
        until_s = seen.began_s + LEASE_S
        if not lifetime_s(until_s, seen.now_s):
            return Decision(Action.LEAVE)
        first = self._announced < FIRST_ANNOUNCEMENTS
        every_s = FIRST_ANNOUNCE_EVERY_S if first else ANNOUNCE_EVERY_S
        announce = seen.now_s - self._announced_s >= every_s
        return Decision(Action.HOLD, until_s, announce)

    def _give_up(self) -> None:
        """Have it no more while leading on: it is looked for and told anew when the veto ends."""
        self.phase, self.foreign_mac = Phase.VETOED, ""
        self._until_s = self._probed_s = self._announced_s = NEVER_S
        self._announced = 0

    def _forget(self) -> None:
        self.phase, self.foreign_mac = Phase.NONE, ""
        self._vip, self._term = "", -1
        self._since_s = None
        self._until_s = self._probed_s = self._announced_s = NEVER_S
        self._announced = 0
