"""A whole cluster in virtual time: hosts, links, log and leader, and the parts of the product that decide about failover.

`play` runs one world to its end. In the first 70 seconds everything may go wrong; then all heals, and what should run must.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from core.model import VM, DataStorage, DataStorageKind, Disk, Host, Lease, VMPhase
from ha.cold_start import SETTLE_S
from ha.guard.settings import Settings
from ha.profile import PROFILES
from tests.sim_ha.boards import Boards
from tests.sim_ha.faults import HEAL_S, Fault, Setting, names
from tests.sim_ha.going_down import Shutdowns
from tests.sim_ha.host import Events, SimHost
from tests.sim_ha.laws import Laws, Violation
from tests.sim_ha.leadership import Leadership
from tests.sim_ha.links import Links
from tests.sim_ha.log import MESH, Log, Record
from tests.sim_ha.managing import Managers, Operator
from tests.sim_ha.migrating import Migrations
from tests.sim_ha.misfortune import Misfortune
from tests.sim_ha.refusing import Refusing
from tests.sim_ha.renewing import Renewing
from tests.sim_ha.rules import PRODUCT, Rules, Stamps
from tests.sim_ha.schedule import random_faults, random_setting
from tests.sim_ha.starting import Agents
from tests.sim_ha.timeline import Deed, HostClock, Timeline
from tests.sim_ha.wishes import Wishes

RESTART_S = 25.0  # after T_safe: resets, boots, an election, the age of a leader, a start
QUIET_S = 3.0
CALM_S = 8.0  # so that guests run when trouble begins


class World:
    """`reached` counts what happened; `told` is the story of it, empty unless asked for."""

    def __init__(
        self,
        rng: random.Random,
        setting: Setting,
        faults: Iterable[Fault],
        rules: Rules = PRODUCT,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self.rng, self.setting, self.rules, self._write = rng, setting, rules, write
        self.profile = PROFILES[setting.profile]
        self.reached: Counter[str] = Counter()
        self.timeline = Timeline(rng)
        self.log = Log(_records(setting))
        self.disks, self.storages = _shared_disks(self.log.state.vms, bool(setting.refusing))
        self.refusing = Refusing(self)
        self.links = Links(names(setting.hosts))
        events = Events(self._lease_ended, self._reset, self._guest_killed)
        self.hosts = {name: self._host(name, events) for name in names(setting.hosts)}
        self._eager = {name for name in self.hosts if rng.random() < 0.6}
        self.laws = Laws(self.hosts, self.log.state, self.refusing.can_write)
        self.leadership = Leadership(self.hosts, self.links, self.timeline, rng, self.reached)
        self.agents, self.migrations = Agents(self), Migrations(self)
        self.managers, self.operator = Managers(self), Operator(self)
        self.renewing, self.misfortune = Renewing(self), Misfortune(self)
        self.boards, self.shutdowns = Boards(self), Shutdowns(self)
        self.wishes = Wishes(self)
        self.reached[f"worlds of {setting.hosts} hosts"] += 1
        self.reached[f"clocks {setting.rate_spread:.1%} apart at most"] += 1
        for host in self.hosts.values():
            self.catch_up(host)
            self._begin(host)
        self.timeline.every(0.5, self.leadership.review)
        for fault in faults:
            self.misfortune.plan(fault)
        self.timeline.after(HEAL_S, self.misfortune.heal)

    def _host(self, name: str, events: Events) -> SimHost:
        rng, spread = self.rng, self.setting.rate_spread
        clock = HostClock(
            self.timeline,
            rng.uniform(0, 1000),
            1 + rng.choice([-1, 1, rng.uniform(-1, 1)]) * spread,
        )
        return SimHost(
            name,
            self.timeline,
            clock,
            Settings(
                host_id=name,
                lease_s=self.profile.lease_s,
                watchdog_s=self.profile.watchdog_s,
                peers=(),
            ),
            rng,
            events,
            has_watchdog=name not in self.setting.no_watchdog,
            nowayout=name in self.setting.nowayout,
            rules=self.rules,
        )

    def _begin(self, host: SimHost) -> None:
        host.start_agent(Stamps.NOW)
        every = self.timeline.every
        every(self.profile.renew_s, lambda: self.renewing.send(host))
        every(0.5, lambda: self.agents.tick(host))
        every(0.5, lambda: self.wishes.follow(host))
        every(1.0, lambda: self.managers.tick(host))
        if self.setting.boards:
            every(0.5, lambda: self.boards.tick(host))
        if self.setting.refusing:
            every(0.5, lambda: self.refusing.tick(host))

    # ---- time and chance

    @property
    def healed(self) -> bool:
        return self.timeline.now_s >= HEAL_S

    def message_is_lost(self) -> bool:
        if self.healed or self.timeline.now_s < CALM_S:
            return False
        return self.rng.random() < self.setting.losses

    def message_s(self) -> float:
        """Return how long a message is on its way."""
        if self.healed or self.timeline.now_s < CALM_S:
            return 0.05
        rng = self.rng
        if self.setting.slow:
            return rng.choice((0.05, 0.1, 0.3, 1.0, rng.uniform(0, 15)))
        return rng.choice((0.05, 0.05, 0.1, 0.5))

    def pause_s(self, most_s: float, late: float = 0.25) -> float:
        """Return how long an agent takes to its next step; so often it is late.

        No pause lasts far into the time when all is well again.
        """
        rng = self.rng
        if self.healed:
            return 0.05
        if not self.setting.slow or self.timeline.now_s < CALM_S:
            return rng.choice((0.0, 0.1, 0.3))
        pause_s = rng.uniform(0, most_s) if rng.random() < late else rng.choice((0.0, 0.1, 0.5))
        return min(pause_s, HEAL_S - self.timeline.now_s)

    def steps_of(self, host: SimHost) -> Callable[[float, Deed], None]:
        """Return `after` for the steps of this agent: none happens when it is not the same any more."""
        starts = host.starts

        def soon(delay_s: float, deed: Deed) -> None:
            def step() -> None:
                if host.starts == starts and host.agent_runs:
                    deed()

            self.timeline.after(delay_s, step)

        return soon

    # ---- the log

    def commit(self, host: SimHost, *puts: Record, guards: tuple[Record, ...] = ()) -> int | None:
        """Have this host's agent commit; None when it could not, was rejected, or does not know that it did."""
        if not self.leadership.serves(host):
            return None
        index = self.log.commit(puts, guards)
        if index is None:
            return None
        self.laws.committed(self.log.entries[index])
        for other in self.hosts.values():
            hears = other.name in self._eager and self.leadership.hears(other)
            if (hears or other is host) and not other.lags:
                self.catch_up(other)
        if self.setting.slow and not self.healed and self.rng.random() < 0.02:
            self.reached["commits whose answer was lost"] += 1
            return None
        return index

    def catch_up(self, host: SimHost) -> None:
        """Have this host apply all that is committed. The judge stamps renewals as they are applied."""
        records, entries = host.records, self.log.entries
        while records.index < len(entries) - 1:
            records.index += 1
            for record in entries[records.index]:
                records.put(record)
                if isinstance(record, Lease):
                    host.judge.applied(record)
                    if self.rules.stamps_after_start is Stamps.BY_WALL_CLOCK:
                        host.saved_wall_s[record.id] = host.clock.wall_s()

    def when_applied(self, host: SimHost, index: int, deed: Deed, too_late: Deed) -> None:
        """Do it when this host has applied the log up to there; give up after a while."""
        soon, until_s = self.steps_of(host), self.timeline.now_s + 15.0

        def look() -> None:
            if host.records.index >= index:
                deed()
            elif self.timeline.now_s > until_s:
                too_late()
            else:
                soon(0.5, look)

        look()

    # ---- what happens

    def tell(self, what: str) -> None:
        if self._write is not None:
            self._write(f"{self.timeline.now_s:7.2f} {what}")

    def guest_runs(self, host: SimHost, vm_id: str) -> None:
        self.reached["guests started"] += 1
        self.tell(f"{vm_id} runs on {host.name}, generation {host.guests[vm_id].generation}")
        self.laws.guest_runs(host, vm_id)

    def _lease_ended(self, host: SimHost) -> None:
        self.reached["leases ended"] += 1
        self.tell(f"the lease of {host.name} ends")
        self.laws.lease_ended(host)

    def _guest_killed(self, host: SimHost, vm_id: str) -> None:
        self.reached["guests killed"] += 1
        self.tell(f"the guard of {host.name} kills {vm_id}")

    def _reset(self, host: SimHost) -> None:
        self.reached["hosts reset"] += 1
        self.tell(f"the watchdog resets {host.name}")
        self.laws.reset(host)
        self.misfortune.power_cycle(host)

    # ---- a whole run

    def play(self) -> World:
        """Run to the end.

        Raises:
            Violation: a law was broken.
        """
        end_s = HEAL_S + max(it.safe_s for it in PROFILES.values()) + RESTART_S
        well_since_s = [float("inf")]

        def look() -> None:
            now_s = self.timeline.now_s
            if self.laws.missing():
                well_since_s[0] = float("inf")
            else:
                well_since_s[0] = min(well_since_s[0], now_s)
            self.timeline.after(0.5, look)

        self.timeline.after(HEAL_S + 0.5, look)

        def is_well() -> bool:
            return self.timeline.now_s - well_since_s[0] > QUIET_S

        self.timeline.run(end_s, is_well)
        if self.laws.missing() and self.managers.waited_s > HEAL_S:
            end_s += SETTLE_S
            self.timeline.run(end_s, is_well)
        if missing := self.laws.missing():
            raise Violation(
                f"liveness: {end_s - HEAL_S:.0f} s after all healed {'; '.join(missing)}"
            )
        took_s = well_since_s[0] - HEAL_S
        self.reached[f"all well within {10 * (1 + int(took_s // 10))} s"] += 1
        return self


def play_seed(
    seed: int, rules: Rules = PRODUCT, write: Callable[[str], None] | None = None
) -> World:
    """Play the world of one seed."""
    rng = random.Random(seed)
    setting = random_setting(rng)
    faults = random_faults(rng, names(setting.hosts), PROFILES[setting.profile].safe_s)
    if write is not None:
        write(str(setting))
        for fault in sorted(faults, key=lambda fault: fault.at_s):
            write(f"  planned: {fault}")
    return World(rng, setting, faults, rules, write).play()


def quiet() -> None:
    """Keep the guard's log out of the way: it tells of each renewal that begins a lease."""
    logging.getLogger("ha.guard").setLevel(logging.CRITICAL + 1)


def _records(setting: Setting) -> list[Record]:
    hosts = names(setting.hosts)
    mesh = msgspec.structs.replace(MESH, ha_profile=setting.profile)
    records: list[Record] = [
        mesh,
        *(
            Host(id=name, name=name, cluster_id="c", address=name, cpus=4, memory_mib=8192)
            for name in hosts
        ),
    ]
    for number in range(setting.vms):
        name = f"vm{number + 1}"
        records.append(
            VM(
                id=name,
                name=name,
                cluster_id="c",
                host_id=hosts[number % len(hosts)],
                cpus=1,
                memory_mib=256,
                phase=VMPhase.STARTING,
            )
        )
    return records


def _shared_disks(vms: Iterable[str], two: bool) -> tuple[dict[str, Disk], dict[str, DataStorage]]:
    """Return a disk on storage `s` for each VM; with `two` every second has another on `t`."""
    storages = {
        id_: DataStorage(
            id=id_, name=id_, data_center_id="d", kind=DataStorageKind.SHARED, path=f"/{id_}"
        )
        for id_ in "st"
    }
    disks = {
        f"{vm}-disk-{id_}": Disk(
            id=f"{vm}-disk-{id_}",
            name=f"{vm}-disk-{id_}",
            vm_id=vm,
            data_storage_id=id_,
            size_bytes=1,
        )
        for number, vm in enumerate(vms)
        for id_ in ("st" if two and number % 2 == 0 else "s")
    }
    return disks, storages
