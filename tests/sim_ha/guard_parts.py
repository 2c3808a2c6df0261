"""What the product's guard (`ha.guard.loop`) has around it, in the world: settings, guests, renewals, watchdog."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from ha.guard.lease_clock import LeaseClock
from ha.guard.renewal import Order, Renewed
from ha.guard.settings import Settings
from ha.guard.terms import Said, Terms

if TYPE_CHECKING:
    from tests.sim_ha.host import SimHost


class GivenSettings:
    """The file that the agent writes; it outlives the guard."""

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings | None = settings

    def reload(self) -> bool:
        return False


class SeenGuests:
    """Guests as the guard sees them: new ones only when it looks, dead ones at once."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._seen: frozenset[str] = frozenset()

    def refresh(self, known: Collection[str] = ()) -> None:
        self._seen = frozenset(self._host.guests)

    def drop_gone(self) -> None:
        if self._seen:
            self._seen &= self._host.guests.keys()

    def running(self) -> frozenset[str]:
        return self._seen

    def kill(self, vm_ids: Collection[str]) -> int:
        return sum(self._host.kill(vm_id) for vm_id in vm_ids)


class Renewals:
    """The guard's order to its threads, and their answers."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self.answers: deque[Renewed] = deque(maxlen=64)
        self.seq = 0


class SimWatchdog:
    """Resets the host W after the last feeding, by a clock of its own."""

    kind = "simulated"

    def __init__(self, host: SimHost) -> None:
        self.armed = False
        self._host = host

    def arm(self, timeout_s: float) -> None:
        self.armed = True
        self._host.arm_watchdog(timeout_s)

    def feed(self) -> None:
        if self.armed:
            self._host.fed_s = self._host.timeline.now_s

    def disarm(self) -> None:
        assert not self._host.guard.clock.enforced, "only a guard that enforces nothing disarms"
        self.armed = False
        self._host.disarm_watchdog()

    def may_disarm(self) -> bool:
        return not self._host.nowayout


class SlowClock(LeaseClock):
    """A lease clock with a broken rule: a lease lasts twice as long as was said."""

    def renewed(self, *, sent_s: float, lease_s: float, index: int, now_s: float) -> bool:
        return LeaseClock.renewed(
            self, sent_s=sent_s, lease_s=2 * lease_s, index=index, now_s=now_s
        )


class LongAtOnce(Terms):
    """Broken: a longer lease counts before it was announced."""

    def strengthen(self, *, lease_s: float, disarm: bool, bound: bool, now_s: float) -> bool:
        if self.clock.kept_s:
            self.clock.kept_s = max(self.clock.kept_s, lease_s)
            self.said = replace(self.said, lease_s=self.clock.kept_s)
        return Terms.strengthen(self, lease_s=lease_s, disarm=disarm, bound=bound, now_s=now_s)


class OldLeaseKept(Terms):
    """Broken: a shorter lease is announced while the present one goes on as it was."""

    def strengthen(self, *, lease_s: float, disarm: bool, bound: bool, now_s: float) -> bool:
        ends_s = self.clock.deadline_s
        changed = Terms.strengthen(self, lease_s=lease_s, disarm=disarm, bound=bound, now_s=now_s)
        self.clock.deadline_s = ends_s
        return changed


class WatchdogAtOnce(Terms):
    """Broken: the watchdog gets a longer time before that was announced."""

    def may_arm(self, watchdog_s: float) -> bool:
        return True


class DisarmedAtOnce(Terms):
    """Broken: nothing is enforced any more before that was announced."""

    def relax(self, *, disarm: bool) -> bool:
        if disarm:
            self.clock.enforced = False
        return disarm


class ArmedInWords(Terms):
    """Broken: says that it enforces, and does so when that was acknowledged."""

    def strengthen(self, *, lease_s: float, disarm: bool, bound: bool, now_s: float) -> bool:
        told = self.acknowledged and not self.said.disarmed
        return Terms.strengthen(
            self, lease_s=lease_s, disarm=disarm or not told, bound=bound, now_s=now_s
        )

    def say(self, *, lease_s: float, watchdog_s: float, disarm: bool) -> Said:
        said = Said(max(self.clock.kept_s, lease_s), max(self.clock.watchdog_s, watchdog_s), disarm)
        if said != self.said:
            self._announce(said)
        return said


class HungryClock(LeaseClock):
    """A lease clock with a broken rule: the watchdog is fed although guests survive the kill."""

    def may_feed(self, now_s: float) -> bool:
        return True
