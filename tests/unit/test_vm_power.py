"""Starting a guest in the one safe order, and keeping guests as the store wants them."""

import asyncio
import dataclasses
import itertools
import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.errors import (
    ConflictError,
    PermanentError,
    PlatformError,
    TemporaryError,
    UnavailableError,
)
from core.model import (
    VM,
    DataStorage,
    Event,
    Host,
    Lease,
    Nic,
    PortGroup,
    PowerState,
    Protocol,
    SecurityGroup,
    Task,
    TaskState,
    VMPhase,
    VMPriority,
)
from ha.guard_client import GuardGrant
from ha.health_facts import StorageSeen
from ha.placement import Candidate
from ha.shutdown import Going
from netfabric.memory import InMemoryNetwork
from nodeagent.compute.domain_spec import Accelerator, DiskCache
from nodeagent.compute.hypervisor import DomainStatus, EventKind
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor
from nodeagent.plugins.plugins import Plugins
from nodeagent.services.event_log import EventLog
from nodeagent.services.host_shutdown import HostShutdown
from nodeagent.services.moving_on import MovingOn
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.storage_loss import StorageLoss
from nodeagent.services.storage_watch import StorageWatch
from nodeagent.services.vm_controller import VmController
from nodeagent.services.vm_power import VmPower
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    FakeGuard,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)

THIRD_ID = "33333333-3333-4333-8333-333333333333"
STRANGER = "99999999-9999-4999-8999-999999999999"


class ToldHypervisor(InMemoryHypervisor):
    """Notes what is done to it among what the guard is told; `fail` names calls that fail."""

    def __init__(self, guard: FakeGuard) -> None:
        super().__init__(host_name="h1")
        self.told = guard.told
        self.fail: dict[str, PlatformError] = {}

    def note(self, call: str) -> None:
        self.told.append(call)
        if call in self.fail:
            raise self.fail[call]

    async def define_and_start(self, spec, *, paused):
        self.spec = spec
        self.note(f"define {spec.generation} {'paused' if paused else 'RUNNING'}")
        return await super().define_and_start(spec, paused=paused)

    async def resume(self, vm_id):
        self.note("resume")
        await super().resume(vm_id)

    async def destroy(self, vm_id):
        self.note("destroy")
        await super().destroy(vm_id)

    def pause_as(self, vm_id: str, reason: str) -> None:
        self._set(vm_id, status=DomainStatus.PAUSED, reason=reason)


class PathsOnly:
    """The part of `Storages` that a start needs."""

    def disk_path(self, disk):
        return Path(f"/srv/{disk.id}.qcow2")

    def seed_path(self, disk):
        return Path(f"/srv/{disk.vm_id}.iso")


class SeenStorages:
    """Storage checks that find `failing` away and `full` full, by id."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.full: set[str] = set()

    def see(self, storage: DataStorage) -> StorageSeen:
        usable = storage.id not in self.failing | self.full
        return StorageSeen(
            storage_id=storage.id,
            name=storage.name,
            usable=usable,
            why="" if usable else "it is away",
            full=storage.id in self.full,
        )

    async def look(self, storages):
        return tuple(self.see(storage) for storage in storages)

    async def look_at(self, storages, *, timeout_s: float):
        del timeout_s
        return await self.look(storages)


class Bench:
    def __init__(self, member: OneMember) -> None:
        self.member = member
        self.guard = member.guard
        self.told = member.guard.told
        member.hypervisor = self.hypervisor = ToldHypervisor(member.guard)
        member.node = member.node_of(HOST_ID, "h1")
        self.driver = InMemoryNetwork()
        self.network = NetworkController(member.store, HOST_ID, self.driver, member.clock)
        self.checks = SeenStorages()
        self.watch = StorageWatch(member.node, self.checks)
        self.power = VmPower(
            member.node,
            PathsOnly(),
            self.network,
            accelerator=Accelerator.TCG,
            cache=DiskCache.NONE,
            storages_answer=self.watch.check,
        )
        self.others: list[str] = []
        events = EventLog(member.node)
        moving_on = MovingOn(member.node, self.power, self, events)
        storage_loss = StorageLoss(member.node, self.watch, moving_on)
        self.controller = VmController(member.node, self.power, events, moving_on, storage_loss)
        member.machine.on_applied(self.note_generation)
        self.seen: dict[str, int] = {}

    def note_generation(self, index, keys) -> None:
        del index
        for key in sorted(keys):
            if key.startswith("vm/"):
                vm = self.member.vm(key[3:])
                if vm.generation != self.seen.get(vm.id, 0):
                    self.seen[vm.id] = vm.generation
                    self.told.append(f"commit {vm.generation}")

    def choose(self, vm: VM, disks, *, never: str, prefer) -> str:
        """Place a VM on one of the `others`, in turn."""
        hosts = [self.member.store.need(Host, id_) for id_ in self.others if id_ != never]
        if not hosts:
            raise ConflictError(f"no other host can take {vm.name}")
        return prefer(None, tuple(Candidate(host, 1024, 0) for host in hosts))

    def without_controller(self):
        return running(self.hypervisor.run, self.network.run)

    def with_controller(self):
        return running(self.hypervisor.run, self.network.run, self.watch.run, self.controller.run)

    async def status(self, vm_id: str):
        domain = await self.hypervisor.get(vm_id)
        return domain.status if domain else None

    def phase_is(self, vm_id: str, phase: VMPhase):
        return lambda: self.member.vm(vm_id).phase is phase


def bench_test(test):
    def wrapper() -> None:
        async def main() -> None:
            await test(Bench(await founded(clock=LoopClock())))

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


START = ["commit 1", "grant 1", "define 1 paused", "check 1", "resume"]


def words(told: list[str]) -> list[str]:
    return [line.split(" at ")[0] for line in told]


@bench_test
async def test_a_start_goes_in_the_one_safe_order(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        await bench.power.start(vm.id)
        assert await bench.status(vm.id) is DomainStatus.RUNNING
    assert words(bench.told) == START
    after = bench.member.vm(vm.id)
    assert (after.phase, after.generation, after.boot_id) == (VMPhase.RUNNING, 1, "boot-1")


@bench_test
async def test_the_guard_is_asked_with_the_index_of_the_claim_or_later(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        before = bench.member.store.index
        await bench.power.start(vm.id)
    grant = next(line for line in bench.told if line.startswith("grant"))
    assert int(grant.split(" at ")[1]) > before


@bench_test
async def test_a_system_tag_takes_effect_at_the_start(bench):
    power = VmPower(
        bench.member.node,
        PathsOnly(),
        bench.network,
        accelerator=Accelerator.TCG,
        cache=DiskCache.NONE,
        shape=Plugins([]).system_tags.shape,
    )
    vm = await bench.member.add_vm()
    await bench.member.change_vm(vm.id, tags=("prod", "smbios::serial::S-1"))
    async with bench.without_controller():
        await power.start(vm.id)
    assert bench.hypervisor.spec.smbios_serial == "S-1"
    assert words(bench.told) == START


@bench_test
async def test_only_a_vm_that_could_run_elsewhere_is_bound_to_the_lease(bench):
    shared = await bench.member.add_vm("shared1")
    local = await bench.member.add_vm("local1", shared=False)
    async with bench.without_controller():
        for vm in (shared, local):
            await bench.power.start(vm.id)
    assert bench.guard.grants[shared.id].lease_bound
    assert not bench.guard.grants[local.id].lease_bound


@bench_test
async def test_the_network_is_in_place_before_the_guest_is_defined(bench):
    vm = await bench.member.add_vm()
    bench.driver.failures[100] = "no such device"
    async with bench.without_controller():
        with pytest.raises(TemporaryError, match="no such device"):
            await bench.power.start(vm.id)
        assert words(bench.told) == ["commit 1"], "nothing was granted or defined"
        bench.driver.failures.clear()
        await bench.power.start(vm.id)
    plan = bench.driver.plans[-1]
    assert [port.device for group in plan.port_groups for port in group.ports] == [
        bench.hypervisor.spec.nics[0].tap
    ]


@bench_test
async def test_a_guest_that_runs_here_already_is_only_reported(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        await bench.power.start(vm.id)
        await bench.member.change_vm(vm.id, phase=VMPhase.STARTING)
        bench.told.clear()
        await bench.power.start(vm.id)
    assert bench.told == ["check 1"]
    assert bench.member.vm(vm.id).phase is VMPhase.RUNNING


@bench_test
async def test_a_guest_of_a_killed_agent_that_waits_paused_is_let_run(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        bench.hypervisor.fail["resume"] = asyncio.CancelledError()
        with pytest.raises(asyncio.CancelledError):
            await bench.power.start(vm.id)
        bench.hypervisor.fail.clear()
        assert await bench.status(vm.id) is None, "a cancelled start leaves nothing"
        await bench.power.start(vm.id)
        bench.hypervisor.pause_as(vm.id, "user")
        await bench.member.change_vm(vm.id, phase=VMPhase.STARTING)
        bench.told.clear()
        await bench.power.start(vm.id)
        assert bench.told == ["check 2", "resume"]
        assert await bench.status(vm.id) is DomainStatus.RUNNING


@bench_test
async def test_a_guest_paused_by_a_migration_is_never_resumed(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        await bench.power.start(vm.id)
        bench.hypervisor.pause_as(vm.id, "migration")
        await bench.member.change_vm(vm.id, phase=VMPhase.STARTING)
        bench.told.clear()
        await bench.power.start(vm.id)
    assert bench.told.index("destroy") < bench.told.index("commit 2")
    assert bench.told.index("commit 2") < bench.told.index("resume")


@bench_test
async def test_a_former_run_is_taken_down_before_a_new_generation_begins(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        await bench.power.start(vm.id)
        await bench.member.change_vm(vm.id, generation=5)
        bench.told.clear()
        await bench.power.start(vm.id)
    assert words(bench.told)[:4] == ["destroy", "revoke", "commit 6", "grant 6"]


@pytest.mark.parametrize("refused", ["grant", "check"])
def test_a_refusal_of_the_guard_leaves_nothing_running(refused):
    async def main() -> None:
        bench = Bench(await founded(clock=LoopClock()))
        vm = await bench.member.add_vm()
        setattr(bench.guard, f"refuse_{refused}", "guard-no-lease")
        async with bench.without_controller():
            with pytest.raises(ConflictError) as caught:
                await bench.power.start(vm.id)
            assert caught.value.code == "guard-no-lease"
            assert await bench.status(vm.id) is None
        assert "resume" not in bench.told
        assert bench.guard.grants == {}
        assert bench.member.vm(vm.id).phase is not VMPhase.RUNNING

    in_virtual_time(main)


@pytest.mark.parametrize("call", ["define 1 paused", "resume"])
def test_a_failure_of_the_hypervisor_leaves_nothing_running_and_no_grant(call):
    async def main() -> None:
        bench = Bench(await founded(clock=LoopClock()))
        vm = await bench.member.add_vm()
        bench.hypervisor.fail[call] = PermanentError("no")
        async with bench.without_controller():
            with pytest.raises(PermanentError):
                await bench.power.start(vm.id)
            assert await bench.status(vm.id) is None
        assert bench.guard.grants == {}

    in_virtual_time(main)


@bench_test
async def test_a_claim_lost_while_the_network_was_made_is_not_granted(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await bench.member.add_vm()
    bench.driver.failures[100] = "wait"
    async with bench.without_controller(), asyncio.TaskGroup() as group:
        starting = group.create_task(refusal_of(bench.power.start(vm.id)), name="start")
        await until(lambda: "commit 1" in bench.told)
        await bench.member.change_vm(vm.id, host_id=OTHER_ID, generation=2)
        bench.driver.failures.clear()
        assert "taken over" in await starting
        assert await bench.status(vm.id) is None
    assert not any(line.startswith(("grant", "define")) for line in bench.told)


async def refusal_of(start) -> str:
    with pytest.raises(ConflictError) as caught:
        await start
    return caught.value.message


@bench_test
async def test_another_hosts_vm_and_one_wanted_stopped_are_not_started(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    other = await bench.member.add_vm("a", host_id=OTHER_ID)
    stopped = await bench.member.add_vm("b", power=PowerState.STOPPED)
    async with bench.without_controller():
        assert "another host" in await refusal_of(bench.power.start(other.id))
        assert "stopped" in await refusal_of(bench.power.start(stopped.id))
    assert bench.told == []


@bench_test
async def test_two_starts_of_one_vm_do_not_run_at_once(bench):
    vm = await bench.member.add_vm()
    bench.driver.failures[100] = "wait"
    async with bench.without_controller(), asyncio.TaskGroup() as group:
        group.create_task(bench.power.start(vm.id), name="start")
        await until(lambda: "commit 1" in bench.told)
        with pytest.raises(TemporaryError, match="already"):
            await bench.power.start(vm.id)
        bench.driver.failures.clear()
    assert words(bench.told) == START


@bench_test
async def test_a_graceful_stop_ends_as_stopped_and_a_stubborn_guest_goes_on(bench):
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        await bench.power.start(vm.id)
        deaf, bench.hypervisor.shutdown = bench.hypervisor.shutdown, _deaf
        assert not await bench.power.shut_down(vm.id, timeout_s=5)
        assert await bench.status(vm.id) is DomainStatus.RUNNING
        assert bench.member.vm(vm.id).phase is VMPhase.RUNNING
        bench.hypervisor.shutdown = deaf
        assert await bench.power.shut_down(vm.id, timeout_s=5)
        await bench.power.finish_stop(vm.id)
    assert bench.member.vm(vm.id).phase is VMPhase.STOPPED
    assert bench.guard.grants == {}


async def _deaf(vm_id: str) -> None:
    del vm_id


# -- the controller


@bench_test
async def test_a_vm_that_should_run_is_started_and_told(bench):
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        await until(lambda: bench.member.store.all(Event))
    (event,) = bench.member.store.all(Event)
    assert (event.code, event.subject) == ("vm-started", f"vm/{vm.id}")


@bench_test
async def test_a_guest_that_died_is_started_again_with_a_growing_pause(bench):
    vm = await bench.member.add_vm()
    clock, started_s = bench.member.clock, []
    async with bench.with_controller():
        for number in range(1, 6):
            await until(
                lambda n=number: (
                    bench.member.vm(vm.id).generation == n
                    and bench.member.vm(vm.id).phase is VMPhase.RUNNING
                )
            )
            started_s.append(clock.monotonic_s())
            bench.hypervisor.lose_guest(vm.id, EventKind.FAILED)
            await bench.member.change_vm(vm.id, description=f"died {number} times")
    pauses_s = [b - a for a, b in itertools.pairwise(started_s)]
    assert pauses_s[0] < 1.5
    for pause_s, least_s in zip(pauses_s[1:], [5, 10, 20], strict=True):
        assert least_s - 0.5 <= pause_s <= least_s + 2


@bench_test
async def test_a_guest_that_belongs_elsewhere_is_destroyed(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        await bench.member.change_vm(vm.id, host_id=OTHER_ID, generation=2)
        await until(lambda: "destroy" in bench.told)
        assert await bench.status(vm.id) is None
        assert bench.guard.grants == {}
    assert bench.member.vm(vm.id).phase is VMPhase.RUNNING, "its owner says what is true of it"


@bench_test
async def test_a_guest_that_nobody_knows_is_left_alone_and_told_once(bench):
    vm = await bench.member.add_vm()
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logging.getLogger("nodeagent.services.vm_controller").addHandler(handler)
    try:
        async with bench.with_controller():
            await until(bench.phase_is(vm.id, VMPhase.RUNNING))
            known = bench.hypervisor.spec
            await bench.hypervisor.define_and_start(
                dataclasses.replace(known, vm_id=STRANGER), paused=False
            )
            await asyncio.sleep(60)
            assert await bench.status(STRANGER) is DomainStatus.RUNNING
    finally:
        logging.getLogger("nodeagent.services.vm_controller").removeHandler(handler)
    assert seen.count("a guest runs here that the cluster does not know") == 1


@bench_test
async def test_a_vm_with_an_open_task_is_left_to_it(bench):
    vm = await bench.member.add_vm()
    task = Task(id="t", name="t", workflow="start-vm", subject=f"vm/{vm.id}")
    await bench.member.store.apply(puts=(task,))
    async with bench.with_controller():
        await asyncio.sleep(30)
        assert bench.told == []
        ended = replace(bench.member.store.need(Task, "t"), state=TaskState.FAILED)
        await bench.member.store.apply(puts=(ended,))
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))


@bench_test
async def test_a_vm_that_cannot_start_says_why_and_runs_when_it_can(bench):
    vm = await bench.member.add_vm()
    bench.guard.refuse_grant = "guard-no-lease"
    async with bench.with_controller():
        await asyncio.sleep(20)
        assert bench.member.vm(vm.id).blocked_reason == "", "hosts get a lease soon after a boot"
        await until(bench.phase_is(vm.id, VMPhase.BLOCKED))
        assert "no lease" in bench.member.vm(vm.id).blocked_reason
        bench.guard.refuse_grant = ""
        await until(bench.phase_is(vm.id, VMPhase.RUNNING), deadline_s=3)
    assert bench.member.vm(vm.id).blocked_reason == ""


@bench_test
async def test_a_vm_waits_for_more_important_ones_elsewhere_a_minute_at_most(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await bench.member.store.apply(
        puts=(Lease(id=OTHER_ID, name=OTHER_ID, boot_id="h2-boot", seq=1),)
    )
    a, b, c = [
        (await bench.member.add_vm(name, priority=priority, host_id=host_id)).id
        for name, priority, host_id in (
            ("a", VMPriority.LOW, HOST_ID),
            ("b", VMPriority.HIGH, HOST_ID),
            ("c", VMPriority.HIGH, OTHER_ID),
        )
    ]
    async with bench.with_controller():
        await until(bench.phase_is(b, VMPhase.RUNNING), deadline_s=3)
        await asyncio.sleep(30)
        assert bench.member.vm(a).generation == 0, "its turn has not come"
        await bench.member.change_vm(c, phase=VMPhase.RUNNING, boot_id="h2-boot")
        await until(bench.phase_is(a, VMPhase.RUNNING), deadline_s=3)
        await bench.member.change_vm(c, boot_id="h2-boot-before")
        bench.hypervisor.lose_guest(a, EventKind.FAILED)
        await asyncio.sleep(30)
        assert bench.member.vm(a).generation == 1
        await until(bench.phase_is(a, VMPhase.RUNNING), deadline_s=40)


@bench_test
async def test_a_start_that_hung_leaves_a_guest_alone_that_came_since(bench):
    vm = await bench.member.add_vm()
    define = bench.hypervisor.define_and_start

    async def hang(spec, *, paused):
        bench.hypervisor.define_and_start = define
        newer = dataclasses.replace(spec, generation=spec.generation + 2)
        await define(newer, paused=False)  # recovered elsewhere, and migrated back meanwhile
        bench.guard.grants[vm.id] = GuardGrant(generation=newer.generation, lease_bound=True)
        raise TemporaryError("libvirt did not answer in time")

    bench.hypervisor.define_and_start = hang
    async with bench.without_controller():
        with pytest.raises(TemporaryError):
            await bench.power.start(vm.id)
        assert await bench.status(vm.id) is DomainStatus.RUNNING
    assert bench.guard.grants[vm.id].generation == 3


@bench_test
async def test_a_vm_that_its_host_cannot_start_goes_to_the_next_in_turn(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await bench.member.add_host(THIRD_ID, "h0", "192.0.2.3")
    bench.others = [THIRD_ID, OTHER_ID]
    vm = await bench.member.add_vm()
    bench.hypervisor.fail["define 1 paused"] = PermanentError("no such machine type")
    bench.hypervisor.fail["define 2 paused"] = PermanentError("no such machine type")
    async with bench.with_controller():
        await until(lambda: bench.member.vm(vm.id).host_id != HOST_ID, deadline_s=10)
        await asyncio.sleep(60)
    after = bench.member.vm(vm.id)
    assert (after.host_id, after.generation) == (OTHER_ID, 3), "h2 comes after h1"
    assert (after.boot_id, after.blocked_reason, after.phase) == ("", "", VMPhase.STARTING)
    given = [e.message for e in bench.member.store.all(Event) if e.code == "vm-moved-on"]
    assert given == ["VM web1 goes to h2, since h1 can't start it: no such machine type"]
    assert bench.guard.grants == {}
    tries = [line for line in words(bench.told) if line.startswith("define")]
    assert tries == ["define 1 paused", "define 2 paused"], "it is the other's now"


@bench_test
async def test_a_vm_is_kept_while_what_is_left_of_it_cannot_be_taken_down(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    bench.others = [OTHER_ID]
    vm = await bench.member.add_vm()
    for generation in range(1, 20):
        bench.hypervisor.fail[f"define {generation} paused"] = TemporaryError("libvirt is away")
    bench.hypervisor.fail["destroy"] = TemporaryError("libvirt is away")
    async with bench.with_controller():
        await until(lambda: bench.member.vm(vm.id).generation >= 3)
        assert bench.member.vm(vm.id).host_id == HOST_ID
        del bench.hypervisor.fail["destroy"]
        await until(lambda: bench.member.vm(vm.id).host_id == OTHER_ID)


@pytest.mark.parametrize("why", ["not ha", "nobody has room", "no lease", "another started it"])
def test_a_vm_stays_where_it_is(why):
    async def main() -> None:
        bench = Bench(await founded(clock=LoopClock()))
        await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
        bench.others = [] if why == "nobody has room" else [OTHER_ID]
        vm = await bench.member.add_vm(ha=why != "not ha")
        if why == "no lease":
            bench.guard.refuse_grant = "guard-no-lease"
        failures = (1,) if why == "another started it" else range(1, 20)
        for generation in failures:
            bench.hypervisor.fail[f"define {generation} paused"] = PermanentError("no")
        async with bench.with_controller():
            await asyncio.sleep(120)
        assert bench.member.vm(vm.id).host_id == HOST_ID

    in_virtual_time(main)


@bench_test
async def test_a_guest_whose_storage_fails_raises_an_alarm_and_is_not_restarted(bench):
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        bench.checks.failing = {it.id for it in bench.member.store.all(DataStorage)}
        bench.hypervisor.pause_as(vm.id, "io-error")
        await until(bench.phase_is(vm.id, VMPhase.PAUSED))
        await asyncio.sleep(60)
        assert await bench.status(vm.id) is DomainStatus.PAUSED
    assert bench.member.vm(vm.id).blocked_reason == "its storage fails"
    alarms = [e.code for e in bench.member.store.all(Event) if e.severity == "alarm"]
    assert alarms == ["vm-paused"]


@bench_test
async def test_a_guest_that_shut_itself_down_as_wanted_is_reported_stopped(bench):
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        await bench.member.change_vm(vm.id, power=PowerState.STOPPED)
        await until(bench.phase_is(vm.id, VMPhase.STOPPED))
        assert await bench.status(vm.id) is None


@bench_test
async def test_a_hypervisor_that_hangs_is_asked_again_and_guests_go_on(bench):
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        bench.hypervisor.set_away(True)
        await asyncio.sleep(30)
        bench.told.clear()
        bench.hypervisor.set_away(False)
        await asyncio.sleep(10)
        assert bench.told == []
        assert await bench.status(vm.id) is DomainStatus.RUNNING


# -- the network controller


@bench_test
async def test_waiting_for_the_network_ends_when_the_plan_of_that_index_is_in_place(bench):
    await bench.member.add_vm()
    async with running(bench.network.run):
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        assert len(bench.driver.plans[-1].port_groups) == 1
        future = bench.member.store.index + 1
        with pytest.raises(TemporaryError, match="not ready"):
            await bench.network.ensure(future, {100}, timeout_s=5)
        await bench.member.add_vm("web2")
        await bench.network.ensure(future, {100}, timeout_s=5)


@bench_test
async def test_a_problem_of_another_port_group_holds_nobody_up(bench):
    member = bench.member
    default = member.store.find(PortGroup, "default")
    other = replace(
        default, id=STRANGER, name="other", vni=200, cidr="10.200.0.0/16", revision=0,
        service_ip="10.200.0.2", pool_first="10.200.1.1", pool_last="10.200.1.9",
    )  # fmt: skip
    await member.store.apply(puts=(other,))
    await member.add_vm()
    broken = await member.add_vm("web2")
    nic = next(n for n in member.store.all(Nic) if n.vm_id == broken.id)
    await member.store.apply(puts=(replace(nic, port_group_id=other.id, ip="10.200.1.1"),))
    bench.driver.failures[200] = "broken"
    async with running(bench.network.run):
        await bench.network.ensure(member.store.index, {100}, timeout_s=5)
        with pytest.raises(TemporaryError, match="broken"):
            await bench.network.ensure(member.store.index, {100, 200}, timeout_s=5)
        bench.driver.failures.clear()
        await bench.network.ensure(member.store.index, {100, 200}, timeout_s=5)


@bench_test
async def test_a_driver_that_cannot_work_at_all_is_tried_again(bench):
    await bench.member.add_vm()
    apply, calls = bench.driver.apply, []

    async def broken(plan):
        calls.append(plan)
        if len(calls) < 4:
            raise OSError("no netlink")
        return await apply(plan)

    bench.driver.apply = broken
    async with running(bench.network.run):
        with pytest.raises(TemporaryError, match="no netlink"):
            await bench.network.ensure(bench.member.store.index, {100}, timeout_s=1)
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=20)
    assert len(calls) >= 4


@bench_test
async def test_what_somebody_changed_by_hand_is_put_right_without_a_change_of_the_store(bench):
    await bench.member.add_vm()
    async with running(bench.network.run):
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        before = len(bench.driver.plans)
        await asyncio.sleep(40)
        assert len(bench.driver.plans) > before


@bench_test
async def test_a_change_that_does_not_concern_the_network_is_not_applied(bench):
    vm = await bench.member.add_vm()
    async with running(bench.network.run):
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        before = len(bench.driver.plans)
        for number in range(5):
            await bench.member.change_vm(vm.id, description=str(number))
            await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        assert len(bench.driver.plans) == before
    assert bench.member.store.need(Host, HOST_ID)


@bench_test
async def test_a_vm_that_is_placed_elsewhere_is_a_change_that_concerns_the_network(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await bench.member.add_vm()
    async with running(bench.network.run):
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        assert [group.ports for group in bench.driver.plans[-1].port_groups] != [()]
        await bench.member.change_vm(vm.id, host_id=OTHER_ID)
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        assert [group.ports for group in bench.driver.plans[-1].port_groups] == [()]


@bench_test
async def test_very_many_changes_at_once_come_into_few_plans(bench):
    vm = await bench.member.add_vm()
    apply = bench.driver.apply

    async def slowly(plan):
        await asyncio.sleep(0.2)
        return await apply(plan)

    async with running(bench.network.run):
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        bench.driver.apply = slowly
        before = len(bench.driver.plans)
        for number in range(40):
            await bench.member.change_vm(vm.id, name=f"web{number}")
            await asyncio.sleep(0.05)
        await bench.network.ensure(bench.member.store.index, {100}, timeout_s=5)
        assert bench.driver.plans[-1].port_groups[0].endpoints[0].name == "web39"
        assert len(bench.driver.plans) - before <= 7, "two seconds, of which half are for plans"


@bench_test
async def test_guests_are_looked_at_a_twentieth_of_the_time_however_much_changes(bench):
    vm = await bench.member.add_vm()
    list_domains, looks = bench.hypervisor.list_domains, []

    async def slowly():
        looks.append(vm.id)
        await asyncio.sleep(0.05)
        return await list_domains()

    bench.hypervisor.list_domains = slowly
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        looks.clear()
        for number in range(200):
            await bench.member.change_vm(vm.id, description=str(number))
            await asyncio.sleep(0.05)
    assert 8 <= len(looks) <= 11, "ten seconds of changes"


@bench_test
async def test_rules_count_on_this_host_from_the_moment_a_card_is_in_their_group(bench):
    """Groups that no card is in aren't even read, so nothing of one may be missed when a card joins it."""
    store = bench.member.store
    vm = await bench.member.add_vm()
    default = store.find(SecurityGroup, "default")
    open_, closed = (replace(default.rules[0], id=f"rule-{n}", port_first=n, port_last=n,
                             protocol=Protocol.TCP) for n in (80, 443))  # fmt: skip
    other = replace(default, id=STRANGER, name="other", rules=(open_,), revision=0)

    async def rules_in_place(group_id: str) -> list[str]:
        await bench.network.ensure(store.index, {100}, timeout_s=5)
        groups = bench.driver.plans[-1].groups
        return [rule.id for group in groups if group.id == group_id for rule in group.rules]

    async with running(bench.network.run):
        await bench.network.ensure(store.index, {100}, timeout_s=5)
        before = len(bench.driver.plans)
        await store.apply(puts=(other,))
        assert await rules_in_place(other.id) == []
        await store.apply(puts=(replace(store.need(SecurityGroup, other.id), rules=(closed,)),))
        assert await rules_in_place(other.id) == []
        assert len(bench.driver.plans) == before
        nic = next(n for n in store.all(Nic) if n.vm_id == vm.id)
        await store.apply(puts=(replace(nic, security_group_ids=(default.id, other.id)),))
        assert await rules_in_place(other.id) == ["rule-443"]
        await store.apply(puts=(replace(store.need(SecurityGroup, other.id), rules=(open_,)),))
        assert await rules_in_place(other.id) == ["rule-80"]
        await store.apply(puts=(replace(store.need(SecurityGroup, default.id), rules=()),))
        assert await rules_in_place(default.id) == []


@bench_test
async def test_groups_that_no_card_is_in_cost_the_host_nothing(bench):
    store, reads = bench.member.store, []

    class Noting:
        def __getattr__(self, name):
            return getattr(store, name)

        def all(self, type_):
            reads.append(type_)
            return store.all(type_)

    await bench.member.add_vm()
    network = NetworkController(Noting(), HOST_ID, bench.driver, bench.member.clock)
    default = store.find(SecurityGroup, "default")
    async with running(network.run):
        await network.ensure(store.index, {100}, timeout_s=5)
        before = len(reads)
        for number in range(10):
            name = f"other{number}"
            await store.apply(puts=(replace(default, id=name, name=name, revision=0),))
            await network.ensure(store.index, {100}, timeout_s=5)
        assert len(reads) == before


@bench_test
async def test_a_change_of_no_concern_does_not_hide_that_the_last_plan_is_not_in_place(bench):
    store = bench.member.store
    await bench.member.add_vm()
    apply = bench.driver.apply

    async def broken(plan):
        raise OSError("no netlink")

    async with running(bench.network.run):
        await bench.network.ensure(store.index, {100}, timeout_s=5)
        bench.driver.apply = broken
        await bench.member.add_vm("web2")
        default = store.find(SecurityGroup, "default")
        await store.apply(puts=(replace(default, id=STRANGER, name="other", revision=0),))
        with pytest.raises(TemporaryError, match="no netlink"):
            await bench.network.ensure(store.index, {100}, timeout_s=1)
        bench.driver.apply = apply
        await bench.network.ensure(store.index, {100}, timeout_s=5)


@bench_test
async def test_a_guest_started_by_what_this_copy_has_not_applied_yet_is_left_alone(bench):
    """An agent that starts anew has an older copy than its own last start was made by."""
    vm = await bench.member.add_vm()
    async with bench.without_controller():
        await bench.power.start(vm.id)
    newest = bench.member.vm(vm.id)
    store = bench.member.store
    await store.apply(puts=(replace(newest, generation=0, phase=VMPhase.STOPPED),))
    tries = iter(range(3))

    async def read_barrier(*, timeout_s: float) -> int:
        if next(tries, None) is not None:
            raise UnavailableError("no quorum yet")
        await store.apply(puts=(replace(store.need(VM, vm.id), generation=1),))
        return store.index

    bench.member.engine.read_barrier = read_barrier
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        assert await bench.status(vm.id) is DomainStatus.RUNNING
    assert "destroy" not in bench.told
    assert words(bench.told).count("grant 1") == 1, "it is the guest that ran before"


@bench_test
async def test_the_network_waits_a_little_for_the_state_and_not_for_a_quorum(bench):
    """Cards of a guest that was just started could be missing in an older copy; but guests need their DHCP."""
    quorum = False

    async def read_barrier(*, timeout_s: float) -> int:
        await asyncio.sleep(0.5)
        if not quorum:
            raise UnavailableError("no quorum")
        return bench.member.store.index

    bench.member.engine.read_barrier = read_barrier
    async with running(bench.network.run):
        await asyncio.sleep(4)
        assert bench.driver.plans == []
        await until(lambda: bench.driver.plans, deadline_s=3)
    bench.driver.plans.clear()
    quorum = True
    anew = NetworkController(bench.member.store, HOST_ID, bench.driver, bench.member.clock)
    async with running(anew.run):
        await until(lambda: bench.driver.plans, deadline_s=1)


# -- an orderly shutdown of the host, with the reconciler at work


class Ages:
    """Leases are fresh."""

    def age_s(self, host_id: str) -> float:
        del host_id
        return 0.5


class OnOther:
    """A placer that knows one other host."""

    def choose(self, vm, disks, *, only="", never="", joined=()) -> str:
        del vm, disks, only
        assert never == HOST_ID
        return OTHER_ID


def shutdown_of(bench: Bench) -> HostShutdown:
    node = bench.member.node
    return HostShutdown(node, bench.power, OnOther(), Ages(), EventLog(node))


@bench_test
async def test_a_guest_that_ends_for_a_reboot_stays_down_until_the_host_is_back(bench):
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        shutdown = shutdown_of(bench)
        bench.told.clear()
        done = await shutdown.shut_down(Going.REBOOT)
        assert done.waiting == ("web1",)
        assert words(bench.told) == ["destroy", "revoke"]
        await asyncio.sleep(120)
        assert await bench.status(vm.id) is None, "nobody starts it again meanwhile"
        with pytest.raises(ConflictError, match="is being shut down"):
            await bench.power.start(vm.id)
    assert bench.member.vm(vm.id).host_id == HOST_ID
    back = Bench(bench.member)  # a new boot: another agent, and no guests
    async with back.with_controller(), running(shutdown_of(back).run):
        await until(back.phase_is(vm.id, VMPhase.RUNNING))
    after = bench.member.vm(vm.id)
    assert (after.blocked_reason, after.generation) == ("", 2)
    assert not bench.member.store.need(Host, HOST_ID).down_boot_id


@bench_test
async def test_a_guest_that_goes_elsewhere_at_a_power_off_is_gone_and_revoked_before(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        bench.told.clear()
        done = await shutdown_of(bench).shut_down(Going.POWER_OFF)
        assert done.given == ("web1",)
        assert words(bench.told)[:3] == ["destroy", "revoke", "commit 2"]
        await asyncio.sleep(60)
    after = bench.member.vm(vm.id)
    assert (after.host_id, after.phase) == (OTHER_ID, VMPhase.STARTING)


@bench_test
async def test_a_guest_that_can_not_be_taken_down_keeps_its_vm_here(bench):
    await bench.member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await bench.member.add_vm()
    async with bench.with_controller():
        await until(bench.phase_is(vm.id, VMPhase.RUNNING))
        bench.hypervisor.fail["destroy"] = TemporaryError("libvirt does not answer")
        done = await shutdown_of(bench).shut_down(Going.POWER_OFF)
        assert done.left == ("web1",)
    assert bench.member.vm(vm.id).host_id == HOST_ID
