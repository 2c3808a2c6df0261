"""The terms that a guard keeps to (lease length, watchdog time, whether it enforces at all), and what it says of them.

Pure. One rule makes changes safe, whoever misses a message: *what weakens the guard is announced, and known to be
committed, before it acts; what strengthens it is announced only after it acts.* So whoever judges by the last committed
renewal never waits for a shorter time than this host really takes.

An announcement has a number. An answer counts for the present announcement only, and the cluster refuses a renewal of
an older one that comes late (`ha.lease.check_renewal`), so that the last committed renewal says what is acted on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ha.guard.lease_clock import LeaseClock, Phase


@dataclass(frozen=True, slots=True)
class Said:
    """What a renewal says: L and W in seconds, and whether the end of the lease may have no consequence."""

    lease_s: float
    watchdog_s: float
    disarmed: bool


NOTHING_SAID = Said(0.0, 0.0, disarmed=False)


@dataclass(slots=True)
class Terms:
    """Changes what the clock keeps to, as it is wanted and as answers allow it.

    `said` is the present announcement, `number` its number, `acknowledged` whether a renewal with it is known to be
    committed.
    """

    clock: LeaseClock
    said: Said = NOTHING_SAID
    number: int = 0
    acknowledged: bool = False

    def answered(self, number: int, *, lease_s: float, heard: bool) -> None:
        """Note that a renewal was committed; `heard`: with all that it said.

        An older agent on the way drops what it doesn't know. Then only a guard that has no terms yet takes `lease_s`,
        as all guards did before, or what it says by now if that is shorter.
        """
        if heard and number == self.number:
            self.acknowledged = True
            self.clock.kept_s = self.said.lease_s
        elif not self.clock.kept_s:
            self.clock.kept_s = min(lease_s, self.said.lease_s or lease_s)

    def strengthen(self, *, lease_s: float, disarm: bool, bound: bool, now_s: float) -> bool:
        """Take on what is stricter than before, at once; True when something changed.

        A guard that was disarmed enforces again only while it holds a lease, or has nothing to lose (`bound` False).
        """
        clock, changed = self.clock, False
        if lease_s < clock.kept_s:
            clock.shorten(lease_s, now_s)
            changed = True
        held = clock.phase is Phase.HELD and not clock.is_over(now_s)
        if not disarm and not clock.enforced and (held or not bound):
            clock.enforced = True
            self._announce(replace(self.said, disarmed=True))  # anew: to be acknowledged since
            changed = True
        return changed

    def relax(self, *, disarm: bool) -> bool:
        """Stop enforcing if that is wanted and the cluster counts with it; True when that changed something."""
        if not (disarm and self.clock.enforced and self.acknowledged and self.said.disarmed):
            return False
        self.clock.enforced = False
        return True

    def may_arm(self, watchdog_s: float) -> bool:
        """Tell whether the watchdog may be given this time: a longer one than before only when that is known."""
        longer = watchdog_s > self.clock.watchdog_s > 0
        return not longer or (self.acknowledged and self.said.watchdog_s >= watchdog_s)

    def say(self, *, lease_s: float, watchdog_s: float, disarm: bool) -> Said:
        """Return what to announce; to be called after everything stricter is in force."""
        clock = self.clock
        rearming = clock.enforced and self.said.disarmed and not self.acknowledged
        said = Said(
            lease_s=max(clock.kept_s, lease_s),
            watchdog_s=max(clock.watchdog_s, watchdog_s),
            disarmed=disarm or not clock.enforced or rearming,
        )
        if said != self.said:
            self._announce(said)
        return self.said

    def _announce(self, said: Said) -> None:
        self.said, self.acknowledged = said, False
        self.number += 1
