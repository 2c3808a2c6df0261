"""A host: power, watchdog, guests as the hardware has them, the guard's process, and the agent's copy of the log."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ha.guard.lease_clock import Phase
from ha.guard.loop import Guard
from ha.guard.settings import Settings
from ha.guard.watchdog import NoWatchdog
from ha.lease import LeaseBatcher, LeaseJudge, Renewal
from ha.profile import Profile
from tests.sim_ha.guard_parts import (
    GivenSettings,
    Renewals,
    SeenGuests,
    SimWatchdog,
)
from tests.sim_ha.log import Records
from tests.sim_ha.rules import Rules, Stamps
from tests.sim_ha.timeline import HostClock, Timeline

KILL_S_MAX = 0.1


@dataclass(eq=False)
class Guest:
    """A QEMU. A paused one waits for its agent, or for its memory from another host."""

    generation: int
    paused: bool = True
    arriving: bool = False
    killed: bool = False


@dataclass
class Events:
    """Whom a host tells what happens to it; `laws` and counters listen."""

    lease_ended: Callable[[SimHost], None]
    reset: Callable[[SimHost], None]
    guest_killed: Callable[[SimHost, str], None]


class SimHost:
    """`starts` counts boots and starts of the agent: who waits for something looks whether it is still the same."""

    def __init__(
        self,
        name: str,
        timeline: Timeline,
        clock: HostClock,
        settings: Settings,
        rng: random.Random,
        events: Events,
        *,
        has_watchdog: bool,
        nowayout: bool,
        rules: Rules,
    ) -> None:
        self.name, self.timeline, self.clock = name, timeline, clock
        self._settings, self._rng, self._events = GivenSettings(settings), rng, events
        self._has_watchdog, self.nowayout, self._rules = has_watchdog, nowayout, rules
        self.up, self.agent_down, self.lags, self.stuck = True, False, False, False
        self.loop_frozen = self.threads_frozen = self.guard_dead = False
        self.never_returns = False
        self.boots = self.starts = 0
        self.fed_s = self.hindered_s = float("-inf")
        self.watchdog_s, self._armings = 0.0, 0
        self.guests: dict[str, Guest] = {}
        self.records = Records()
        self.leads_since_s: float | None = None
        self.suspected: frozenset[str] = frozenset()
        self.lost: frozenset[str] = frozenset()
        self.working_on: set[str] = set()
        self.kept_s = 0.0  # how long the guard took a lease for, when it looked around last
        self.carried_s = float("-inf")  # when the last renewal was sent that the network carried
        self.saved_wall_s: dict[str, float] = {}  # only a broken rule reads it
        self.caught_up = False
        self.closing = False  # it goes down in order, and starts nothing any more
        self.judge = LeaseJudge(clock)
        self.batcher: LeaseBatcher
        self.guard: Guard
        self.renewals: Renewals
        self.start_guard()

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot{self.boots}"

    @property
    def agent_runs(self) -> bool:
        return self.up and not self.agent_down

    # ---- the agent's process

    def start_agent(self, stamps: Stamps) -> None:
        """A new agent: it has what was applied before, and judges all leases anew."""
        self.stop_agent()
        self.agent_down = self.caught_up = self.closing = False
        self.judge = LeaseJudge(self.clock)
        self.judge.reset(self.records.leases.values())
        if stamps is not Stamps.NOW:
            for host_id in self.records.leases:
                self.judge._stamps_s[host_id] -= self._age_s(host_id, stamps)
        judge, records = self.judge, self.records
        self.batcher = LeaseBatcher(
            commit=_never,
            host_of=records.hosts.get,
            lease_of_host=records.leases.get,
            age_s_of=judge.age_s,
        )

    def stop_agent(self) -> None:
        self.starts += 1
        self.working_on.clear()
        self.leads_since_s = None
        self.suspected = self.lost = frozenset()

    def _age_s(self, host_id: str, stamps: Stamps) -> float:
        if stamps is Stamps.LONG_AGO:
            return 1000.0
        return self.clock.wall_s() - self.saved_wall_s.get(host_id, self.clock.wall_s())

    # ---- the guard's process

    def start_guard(self) -> None:
        """The first guard of a boot."""
        self.guard_dead = False
        self.renewals = Renewals()
        self.guard = Guard(
            boot_id=self.boot_id,
            clock=self._rules.clock(epoch_s=self.clock.boottime_s()),
            settings=self._settings,  # type: ignore[arg-type]  # what the loop needs of it
            guests=SeenGuests(self),
            renewer=self.renewals,
            open_watchdog=lambda: SimWatchdog(self) if self._has_watchdog else NoWatchdog(),
            save=lambda clock: None,
            terms=self._rules.terms,
        )
        guard = self.guard

        def tick() -> None:
            if guard is self.guard and self.up and not self.guard_dead:
                self.timeline.after(max(0.001, self.tick_guard()) / self.clock.rate, tick)

        self.timeline.after(0.0, tick)

    def tick_guard(self) -> float:
        """Let the guard look around, unless it is frozen."""
        if not self.guard_works:
            self.hindered_s = self.timeline.now_s
            return 0.2
        held, self.kept_s = self.guard.clock.phase is Phase.HELD, self.guard.clock.kept_s
        wait_s = self.guard.tick(self.clock.boottime_s())
        if held and self.guard.clock.phase is not Phase.HELD:
            self._events.lease_ended(self)
        return wait_s

    @property
    def guard_works(self) -> bool:
        return self.up and not (self.guard_dead or self.loop_frozen or self.threads_frozen)

    def kill_guard(self) -> None:
        self.guard_dead, self.hindered_s = True, self.timeline.now_s
        self.renewals.order = None

    def configure(self, profile: Profile, *, disarm: bool) -> None:
        """Give the guard new settings."""
        self._settings.settings = Settings(
            host_id=self.name,
            lease_s=profile.lease_s,
            watchdog_s=profile.watchdog_s,
            peers=(),
            disarm=disarm,
        )

    # ---- the hardware

    def disarm_watchdog(self) -> None:
        self._armings += 1

    def arm_watchdog(self, timeout_s: float) -> None:
        self.watchdog_s, self.fed_s = timeout_s, self.timeline.now_s
        self._armings += 1
        boots, armings = self.boots, self._armings

        def look() -> None:
            if not self.up or self.boots != boots or self._armings != armings:
                return
            left_s = self.fed_s + self.watchdog_s - self.timeline.now_s
            if left_s > 1e-9:
                self.timeline.after(left_s, look)
            else:
                self._events.reset(self)

        self.timeline.after(timeout_s, look)

    def kill(self, vm_id: str) -> bool:
        """SIGKILL a guest; a stuck one dies when it is stuck no more. Returns True the first time."""
        guest = self.guests.get(vm_id)
        if guest is None or guest.killed:
            return False
        guest.killed = True
        self._events.guest_killed(self, vm_id)
        self._die(vm_id, guest)
        return True

    def _die(self, vm_id: str, guest: Guest) -> None:
        def dead() -> None:
            if self.guests.get(vm_id) is not guest:
                return
            if self.stuck:
                self._die(vm_id, guest)
            else:
                del self.guests[vm_id]

        self.timeline.after(1.0 if self.stuck else self._rng.uniform(0, KILL_S_MAX), dead)

    def power_off(self) -> None:
        self.up = False
        self.stop_agent()
        self.guests.clear()
        self.renewals.order = None

    def power_on(self, stamps: Stamps) -> None:
        """Boot."""
        self.up, self.loop_frozen, self.threads_frozen = True, False, False
        self.boots += 1
        self.carried_s = float("-inf")
        self.clock.began_anew(self._rng.uniform(1, 5))
        self.start_guard()
        self.start_agent(stamps)


async def _never(renewals: tuple[Renewal, ...]) -> int:
    raise AssertionError("the world commits renewals itself")
