"""The laws of HA in virtual time, on the product's own code: guard's lease clock, judge and manager.

Around it everything goes wrong: renewals and answers are late or lost, guards freeze while their guests run on, guests
survive SIGKILL for a while, nodes lag behind the log, every node thinks that it leads, starts are delayed until long
after they were committed, guests migrate all the time and the word of it is late, and clocks run at different rates. The
law: no VM is ever running on two hosts.

The same world with one rule broken must break the law: otherwise the world would be too kind.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.model import VM, DataStorage, DataStorageKind, Disk, Host, Lease, VMPhase
from ha.guard.lease_clock import LeaseClock, Phase, Refusal
from ha.lease import LeaseJudge
from ha.manager import EndMigration, HAView, Recover, decide
from ha.profile import PROFILES, Profile

pytestmark = pytest.mark.timeout(90)

PROFILE = PROFILES["default"]
HOSTS = ("h1", "h2", "h3")
VMS = ("vm1", "vm2")
END_S = 110.0
TICK_S = 0.1
REBOOT_S = 3.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong on a host for a while: cut, freeze (guard), lag (log) or stuck (kills take effect late)."""

    kind: str
    host: str
    at_s: float
    for_s: float


@dataclass(frozen=True)
class Rules:
    """What the world is played with; the defaults are the product's."""

    holder_lease_s: float = PROFILE.lease_s
    judge_profile: Profile = PROFILE
    check_index: bool = True
    feed_while_killing: bool = False
    see_migrations: bool = True
    reread_vm: bool = True


@dataclass
class State:
    """The replicated state at one log index."""

    index: int
    leases: dict[str, Lease]
    vms: dict[str, VM]


@dataclass
class NodeClock:
    """A monotonic clock with an offset and a rate of its own."""

    world: World
    offset_s: float
    rate: float

    def monotonic_s(self) -> float:
        return self.offset_s + self.world.now_s * self.rate

    boottime_s = monotonic_s

    def wall_ms(self) -> int:
        raise AssertionError("wall time decides nothing")


@dataclass(eq=False)
class SimGuest:
    """A QEMU. `dies_s` is set once it was killed; a paused one is the target of a migration."""

    generation: int
    paused: bool = False
    dies_s: float | None = None


@dataclass
class SimHost:
    """A host: guard, guests as the hardware sees them, and the agent's view of the log."""

    name: str
    clock: NodeClock
    judge: LeaseJudge
    guard: LeaseClock
    boots: int = 0
    up: bool = True
    fed_s: float = 0.0
    killed_s: float | None = None
    applied: int = 0
    guests: dict[str, SimGuest] = field(default_factory=dict)
    answers: list[tuple[float, int]] = field(default_factory=list)
    working_on: set[str] = field(default_factory=set)

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot{self.boots}"


class World:
    """Everything, driven by a heap of (time, number, action)."""

    def __init__(self, rng: random.Random, faults: list[Fault], rules: Rules) -> None:
        self.rng, self.faults, self.rules = rng, faults, rules
        self.now_s = 0.0
        self.recoveries = self.migrations = 0
        self.double: str | None = None
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        disk = {name: f"{name}-disk" for name in VMS}
        self.disks = {
            disk[name]: Disk(
                id=disk[name], name=disk[name], vm_id=name, data_storage_id="s", size_bytes=1
            )
            for name in VMS
        }
        shared = DataStorage(
            id="s", name="s", data_center_id="d", kind=DataStorageKind.SHARED, path="/s"
        )
        self.storages = {"s": shared}
        self.host_records = {
            name: Host(id=name, name=name, cluster_id="c", address=name, cpus=4, memory_mib=8192)
            for name in HOSTS
        }
        vms = {
            name: VM(
                id=name,
                name=name,
                cluster_id="c",
                host_id=HOSTS[number],
                cpus=1,
                memory_mib=256,
                revision=1,
            )
            for number, name in enumerate(VMS)
        }
        vms = {
            name: msgspec.structs.replace(vm, phase=VMPhase.STARTING) for name, vm in vms.items()
        }
        self.log = [State(1, {}, vms)]
        self.hosts: dict[str, SimHost] = {}
        for name in HOSTS:
            clock = NodeClock(self, rng.uniform(0, 1000), rng.uniform(0.998, 1.002))
            host = SimHost(name, clock, LeaseJudge(clock), LeaseClock(epoch_s=clock.boottime_s()))
            self.hosts[name] = host
            self.every(TICK_S, lambda host=host: self.guard_tick(host))
            self.every(1.0, lambda host=host: self.send_renewal(host))
            self.every(0.3, lambda host=host: self.apply_log(host))
            self.every(0.5, lambda host=host: self.agent_tick(host))
            self.every(1.0, lambda host=host: self.manager_tick(host))
            self.every(TICK_S, lambda host=host: self.hardware_tick(host))

    # ---- the heap

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._numbers), action))

    def every(self, period_s: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.at(period_s * self.rng.uniform(0.95, 1.05), again)

        self.at(self.rng.uniform(0, period_s), again)

    def run(self) -> World:
        while self._heap and self.now_s < END_S and self.double is None:
            self.now_s, _, action = heapq.heappop(self._heap)
            action()
        return self

    def suffers(self, host: SimHost, kind: str) -> bool:
        return any(
            fault.kind == kind
            and fault.host == host.name
            and fault.at_s <= self.now_s < fault.at_s + fault.for_s
            for fault in self.faults
        )

    # ---- the replicated log: whatever is committed is committed once, in one order

    @property
    def state(self) -> State:
        return self.log[-1]

    def commit(self, *, leases: tuple[Lease, ...] = (), vms: tuple[VM, ...] = ()) -> int:
        index = self.state.index + 1
        put = {lease.id: msgspec.structs.replace(lease, revision=index) for lease in leases}
        written = {vm.id: msgspec.structs.replace(vm, revision=index) for vm in vms}
        self.log.append(State(index, self.state.leases | put, self.state.vms | written))
        return index

    def view_of(self, host: SimHost) -> State:
        return self.log[min(host.applied, len(self.log) - 1)]

    def apply_log(self, host: SimHost) -> None:
        if not host.up or self.suffers(host, "lag") or self.suffers(host, "cut"):
            return
        while host.applied < len(self.log) - 1:
            host.applied += 1
            for lease in self.log[host.applied].leases.values():
                host.judge.applied(lease)

    # ---- the guard

    def send_renewal(self, host: SimHost) -> None:
        if not host.up or host.guard.phase is Phase.ENDED:
            return  # the threads renew even while the guard's loop is frozen
        sent_s, boot = host.clock.boottime_s(), host.boot_id
        lease = Lease(
            id=host.name, name=host.name, boot_id=boot, seq=int(sent_s * 1000), watchdog_armed=True
        )

        def arrive() -> None:
            if self.suffers(host, "cut") or not host.up or host.boot_id != boot:
                return
            index = self.commit(leases=(lease,))
            if self.rng.random() < 0.9:
                self.at(self.delay_s(), lambda: answered(index))

        def answered(index: int) -> None:
            if not self.suffers(host, "cut") and host.boot_id == boot:
                host.answers.append((sent_s, index))

        if self.rng.random() < 0.9:
            self.at(self.delay_s(), arrive)

    def delay_s(self) -> float:
        return self.rng.choice([0.05, 0.1, 0.3, 1.0, self.rng.uniform(0, 15)])

    def guard_tick(self, host: SimHost) -> None:
        if not host.up or self.suffers(host, "freeze"):
            return
        guard, now_s = host.guard, host.clock.boottime_s()
        if guard.is_over(now_s):
            guard.end()
        for sent_s, index in host.answers:
            guard.renewed(
                sent_s=sent_s, lease_s=self.rules.holder_lease_s, index=index, now_s=now_s
            )
        host.answers.clear()
        bound = [vm_id for vm_id in host.guests if guard.is_bound(vm_id)]
        if guard.phase is Phase.IDLE and bound:
            guard.end()
        if guard.phase is Phase.ENDED:
            for vm_id in bound:
                if host.guests[vm_id].dies_s is None:
                    late_s = 60.0 if self.suffers(host, "stuck") else self.rng.uniform(0, 0.1)
                    host.guests[vm_id].dies_s = self.now_s + late_s
            if not bound:
                guard.guests_gone(now_s)
        if guard.may_feed(now_s) or self.rules.feed_while_killing:
            host.fed_s = self.now_s

    # ---- the hardware

    def hardware_tick(self, host: SimHost) -> None:
        if host.up and self.now_s - host.fed_s >= PROFILE.watchdog_s:
            host.up = False
            host.guests.clear()
            self.at(REBOOT_S, lambda: self.boot(host))
        for vm_id, guest in list(host.guests.items()):
            if guest.dies_s is not None and self.now_s >= guest.dies_s:
                del host.guests[vm_id]

    def boot(self, host: SimHost) -> None:
        host.up, host.fed_s = True, self.now_s
        host.boots += 1
        host.answers.clear()
        host.working_on.clear()
        host.guard = LeaseClock(epoch_s=host.clock.boottime_s())
        host.judge.reset(self.view_of(host).leases.values())

    # ---- agents: start what is mine; lead, or think so

    def agent_tick(self, host: SimHost) -> None:
        if not self.reaches(host):
            return
        for vm in self.view_of(host).vms.values():
            guest = host.guests.get(vm.id)
            mine = vm.host_id == host.name
            wanted = mine or vm.migrating_to_host_id == host.name
            if guest is not None and (not wanted or guest.generation < vm.generation):
                del host.guests[vm.id]  # belongs elsewhere, or is a former run
            elif not mine or vm.id in host.working_on:
                continue
            elif vm.migrating_to_host_id:
                host.working_on.add(vm.id)
                self.settle(host, vm)
            elif guest is None:
                host.working_on.add(vm.id)
                self.begin_start(host, vm)
            elif not guest.paused and self.rng.random() < 0.05:
                host.working_on.add(vm.id)
                self.begin_migration(host, vm)

    def reaches(self, host: SimHost) -> bool:
        """Tell whether the host's agent lives and is connected."""
        return host.up and not self.suffers(host, "cut")

    def put_vm(self, read: VM, **changes: object) -> VM | None:
        """Commit a change of a VM unless it changed since it was read."""
        if self.state.vms[read.id].revision != read.revision:
            return None
        self.commit(vms=(msgspec.structs.replace(read, **changes),))
        return self.state.vms[read.id]

    # ---- live migration, as the source's agent runs it

    def begin_migration(self, source: SimHost, vm: VM) -> None:
        target = self.hosts[self.rng.choice([name for name in HOSTS if name != source.name])]
        reserved = self.put_vm(vm, migrating_to_host_id=target.name)
        if reserved is None:
            source.working_on.discard(vm.id)
            return
        boot = source.boot_id

        def prepare() -> None:
            seen = self.view_of(target)
            known = seen.vms[vm.id]
            if not self.reaches(target) or self.suffers(target, "freeze"):
                return give_up()
            if known.migrating_to_host_id != target.name or known.generation != vm.generation:
                return give_up()
            try:
                now_s = target.clock.boottime_s()
                target.guard.grant(
                    vm.id,
                    generation=vm.generation,
                    lease_bound=True,
                    applied_index=seen.index,
                    now_s=now_s,
                )
            except Refusal:
                return give_up()
            target.guests[vm.id] = SimGuest(vm.generation, paused=True)
            return self.at(self.rng.uniform(0.5, 15), switch)

        def switch() -> None:
            here, there = source.guests.get(vm.id), target.guests.get(vm.id)
            whole = (
                here is not None and there is not None and there.paused and source.boot_id == boot
            )
            if whole and self.reaches(source) and self.reaches(target):
                del source.guests[vm.id]
                self.migrations += 1
                self.guest_runs(target, vm.id, vm.generation)
            self.at(self.rng.choice([0.1, 1.0, 30.0]), give_up)

        def give_up() -> None:
            if source.boot_id == boot:
                self.settle(source, reserved)

        self.at(self.rng.choice([0.1, 1.0, 10.0]), prepare)

    def settle(self, source: SimHost, vm: VM) -> None:
        """Hand over when the guest runs there; else take back what was prepared; ask again while not known."""
        boot, target = source.boot_id, self.hosts[vm.migrating_to_host_id]

        def ask() -> None:
            if source.boot_id != boot or not source.up:
                return
            if self.state.vms[vm.id].revision != vm.revision:
                source.working_on.discard(vm.id)  # someone else settled it
            elif not (self.reaches(source) and self.reaches(target)):
                self.at(1.0, ask)
            else:
                arrived = target.guests.get(vm.id)
                if arrived is not None and not arrived.paused:
                    self.put_vm(
                        vm, host_id=target.name, migrating_to_host_id="", boot_id=target.boot_id
                    )
                else:
                    target.guests.pop(vm.id, None)
                    self.put_vm(vm, migrating_to_host_id="")
                source.working_on.discard(vm.id)

        self.at(0.1, ask)

    # ---- start

    def begin_start(self, host: SimHost, vm: VM) -> None:
        boot, generation = host.boot_id, vm.generation + 1
        if self.put_vm(vm, generation=generation, boot_id=boot) is None:
            host.working_on.discard(vm.id)
            return

        def grant() -> None:
            if host.boot_id != boot or not host.up:
                return
            host.working_on.discard(vm.id)
            seen = self.view_of(host)  # reread: who may run it, and how much of the log is known
            mine = seen.vms[vm.id].host_id == host.name and seen.vms[vm.id].generation <= generation
            if (self.rules.reread_vm and not mine) or self.suffers(host, "freeze"):
                return
            try:
                host.guard.grant(
                    vm.id,
                    generation=generation,
                    lease_bound=True,
                    applied_index=seen.index if self.rules.check_index else 10**9,
                    now_s=host.clock.boottime_s(),
                )
            except Refusal:
                return
            host.working_on.add(vm.id)
            self.at(self.rng.choice([0.1, 0.5, 20.0]), run)

        def run() -> None:
            if host.boot_id != boot or not host.up:
                return
            host.working_on.discard(vm.id)
            if self.suffers(host, "freeze"):
                return
            try:
                host.guard.check(vm.id, generation, host.clock.boottime_s())
            except Refusal:
                return
            self.guest_runs(host, vm.id, generation)

        self.at(self.rng.choice([0.1, 0.5, self.rng.uniform(0, 45)]), grant)

    def guest_runs(self, host: SimHost, vm_id: str, generation: int) -> None:
        host.guests[vm_id] = SimGuest(generation)
        for other in self.hosts.values():
            guest = other.guests.get(vm_id)
            if other is not host and guest is not None and not guest.paused:
                self.double = f"{vm_id} runs on {host.name} and {other.name} at {self.now_s:.1f} s"

    def manager_tick(self, host: SimHost) -> None:
        if not host.up or self.suffers(host, "cut"):
            return
        seen = self.view_of(host)
        view = HAView(
            profile=self.rules.judge_profile,
            leader_since_s=host.clock.monotonic_s() - 100,
            hosts=self.host_records,
            vms=seen.vms if self.rules.see_migrations else without_migrations(seen.vms),
            disks=self.disks,
            storages=self.storages,
            leases=seen.leases,
            stamps_s=host.judge.stamps_s(),
        )
        for decision in decide(view, host.clock.monotonic_s()):
            if isinstance(decision, Recover | EndMigration):
                self.at(
                    self.rng.choice([0.1, self.rng.uniform(0, 8)]),
                    lambda decision=decision: self.perform(decision),
                )

    def perform(self, decision: Recover | EndMigration) -> None:
        vm = self.state.vms[decision.vm_id]
        lost = decision.from_host if isinstance(decision, Recover) else decision.lost_host
        guards = {lost: decision.lease_revision}
        if isinstance(decision, Recover) and decision.other_lease is not None:
            guards[decision.other_lease.host_id] = decision.other_lease.revision
        if vm.revision != decision.vm_revision:
            return
        if any(self.state.leases[name].revision != revision for name, revision in guards.items()):
            return
        if isinstance(decision, EndMigration):
            self.put_vm(vm, migrating_to_host_id="")
            return
        self.recoveries += 1
        self.put_vm(
            vm,
            host_id=decision.to_host,
            generation=vm.generation + 1,
            boot_id="",
            migrating_to_host_id="",
        )


def without_migrations(vms: dict[str, VM]) -> dict[str, VM]:
    """Return the VMs as one sees them who knows of no migration."""
    return {name: msgspec.structs.replace(vm, migrating_to_host_id="") for name, vm in vms.items()}


def faults_of(rng: random.Random) -> list[Fault]:
    """Return a few faults; related ones on one host are what makes trouble."""
    unlucky = rng.choice(HOSTS)
    return [
        Fault(
            rng.choice(["cut", "cut", "freeze", "lag", "stuck"]),
            rng.choice([unlucky, unlucky, rng.choice(HOSTS)]),
            rng.uniform(2, 60),
            rng.choice([3.0, 10.0, 25.0, 60.0]),
        )
        for _ in range(rng.randint(1, 6))
    ]


FAULTS = st.builds(
    Fault,
    st.sampled_from(["cut", "freeze", "lag", "stuck"]),
    st.sampled_from(HOSTS),
    st.floats(0, 60),
    st.floats(1, 60),
)


class NoVmRunsTwice:
    """The law, for faults that hypothesis looks for and for many random ones."""

    def check(self, seed: int, faults: list[Fault]) -> World:
        world = World(random.Random(seed), faults, Rules()).run()
        assert world.double is None, world.double
        return world


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), faults=st.lists(FAULTS, max_size=6))
def test_no_vm_runs_twice_whatever_fails(seed: int, faults: list[Fault]) -> None:
    NoVmRunsTwice().check(seed, faults)


def test_no_vm_runs_twice_in_many_random_worlds() -> None:
    worlds = []
    for seed in range(120):
        rng = random.Random(seed)
        worlds.append(NoVmRunsTwice().check(seed, faults_of(rng)))
    # A world in which nothing happens would keep any law.
    assert sum(world.recoveries for world in worlds) > 30
    assert sum(world.migrations for world in worlds) > 100


def test_a_host_cut_off_for_long_loses_its_vm_to_another_in_time() -> None:
    world = World(random.Random(1), [Fault("cut", "h1", 20.0, 60.0)], Rules())
    world.rng.random = lambda: 0.5  # type: ignore[method-assign]  # no message is lost
    world.delay_s = lambda: 0.1  # type: ignore[method-assign]
    moved_s = None
    while world.now_s < END_S - 1 and moved_s is None:
        world.now_s, _, action = heapq.heappop(world._heap)
        action()
        if world.state.vms["vm1"].host_id != "h1":
            moved_s = world.now_s
    assert moved_s is not None
    assert PROFILE.safe_s < moved_s - 19.0 < PROFILE.safe_s + 12


CUT = Fault("cut", "h1", 20.0, 60.0)
BROKEN_RULES = [
    pytest.param([CUT], Rules(holder_lease_s=2 * PROFILE.lease_s), id="the holder kills at 2L"),
    pytest.param(
        [CUT, Fault("freeze", "h1", 30.5, 60.0)],
        Rules(judge_profile=Profile("broken", 1.0, 12.0, 0.0, 1.0)),
        id="the judge does not wait for the watchdog",
    ),
    pytest.param(
        [Fault("cut", "h1", 10.0, 26.0), Fault("lag", "h1", 10.0, 80.0)],
        Rules(check_index=False),
        id="the guard ignores how far the agent has applied",
    ),
    pytest.param(
        [Fault("cut", "h1", 10.0, 26.0)],
        Rules(reread_vm=False),
        id="an agent asks for a grant on what it read before it waited",
    ),
    pytest.param(
        [CUT, Fault("stuck", "h1", 20.0, 60.0)],
        Rules(feed_while_killing=True),
        id="the watchdog is fed although guests survive the kill",
    ),
    pytest.param(
        [CUT, Fault("lag", "h2", 25.0, 60.0)],
        Rules(see_migrations=False),
        id="a recovery does not look where the VM was migrating to",
    ),
]


@pytest.mark.parametrize(("faults", "rules"), BROKEN_RULES)
def test_the_simulation_finds_a_broken_rule(faults: list[Fault], rules: Rules) -> None:
    for seed in range(300):
        NoVmRunsTwice().check(seed, faults)
        if World(random.Random(seed), faults, rules).run().double is not None:
            return
    pytest.fail("two guests of one VM were never seen")
