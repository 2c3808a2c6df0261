"""What the product's guard (`ha.guard.loop`) has around it, in the world: settings, guests, renewals, watchdog."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from ha.guard.lease_clock import LeaseClock
from ha.guard.renewal import Order, Renewed
from ha.guard.settings import Settings

if TYPE_CHECKING:
    from tests.sim_ha.host import SimHost


class GivenSettings:
    """Settings that never change."""

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
        raise AssertionError("nothing here lets a guard disarm")


class HungryClock(LeaseClock):
    """A lease clock with a broken rule: the watchdog is fed although guests survive the kill."""

    def may_feed(self, now_s: float) -> bool:
        return True
