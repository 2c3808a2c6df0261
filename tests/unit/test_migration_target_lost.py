"""A live migration whose target loses power and never comes back: it ends by itself, and the VM can be worked on again."""

import asyncio
from dataclasses import replace

import pytest

from core.errors import ConflictError, TemporaryError, UnavailableError
from core.model import Event, Host, PowerState, StepMark, Task, TaskState, VMPhase
from nodeagent.api.requests import Ids
from nodeagent.services.host_service import confirm_off
from nodeagent.services.migration import END_TIMEOUT_S, MigrationService
from nodeagent.services.placing import Placing
from nodeagent.services.task_runner import TaskRunner
from nodeagent.services.vm_requests import MigrateVM, StopVM
from nodeagent.services.vm_service import VmService
from nodeagent.workflows.registry import StepMaker, load_registry
from nodeagent.workflows.work import Workshop
from tests.one_member import HOST_ID, OTHER_ID, running
from tests.unit.test_ha_controller import RUNNING, SAFE_S, cluster_test, until

SOON_S = 5.0
"""After the proof."""


class Moving:
    """The source's side of a move: the guest leaves when told to `arrive`; a host that has no power answers nothing, not even with an error."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.job = False
        self.here = True
        self.arrived = self.aborted = False
        self._over = asyncio.Event()
        self.calls: list[str] = []
        self.silent_s = 10.0

    async def prepare(self, vm, target) -> None:
        await self._ask(target)

    async def release(self, vm_id, target) -> None:
        self.calls.append("release")
        await self._ask(target)

    async def move(self, vm, target) -> None:
        self.job = True
        self.aborted = False
        if not self.arrived:
            self._over.clear()
        await self._over.wait()
        self.job = False
        if self.aborted:
            raise ConflictError("aborted on request")
        self.here = False
        raise TemporaryError("the connection is lost")

    def arrive(self) -> None:
        """Let the guest reach its target."""
        self.arrived = True
        self._over.set()

    async def abort(self, vm_id) -> None:
        self.calls.append("abort")
        self.aborted = True
        self._over.set()

    async def end(self, vm_id) -> None:
        assert not self.job, "the move's own call ends first"
        self.calls.append("end")

    async def settle(self, vm, target) -> bool:
        if self.here:
            return False
        await self._ask(target)
        return True

    async def _ask(self, target) -> None:
        if target.id not in self.cluster.alive:
            await asyncio.sleep(self.silent_s)
            raise UnavailableError(f"host {target.name} does not answer")


def agent(cluster, moving: Moving):
    """Return what this host's agent runs: its tasks, and failover, as it leads."""
    node = cluster.member.node
    registry = load_registry(())
    shop = Workshop(node=node, power=None, storages=None, migration=moving)

    async def prepare() -> None:
        return

    runner = TaskRunner(
        node, registry.definitions, StepMaker(shop, registry.steps), prepare=prepare
    )
    return runner.run


def service(cluster) -> VmService:
    return VmService(cluster.member.node, Placing(cluster.member.node, cluster.judge))


async def begun(cluster, moving: Moving):
    """Return a VM in the middle of its move from h1 to h2, and the task."""
    vm = await cluster.member.add_vm(host_id=HOST_ID, **RUNNING)
    opened = await service(cluster).migrate(vm, MigrateVM(host="h2"), Ids("move"))
    await until(lambda: moving.job)
    assert cluster.member.vm(vm.id).phase is VMPhase.MIGRATING
    return vm, opened.task.id


@cluster_test
async def test_the_vm_is_running_at_its_source_soon_after_the_proof_and_can_be_stopped(cluster):
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    async with cluster.running(), running(agent(cluster, moving)):
        vm, task_id = await begun(cluster, moving)
        cluster.alive.remove(OTHER_ID)
        lost_s = member.clock.monotonic_s()
        await until(lambda: member.vm(vm.id).phase is VMPhase.RUNNING)
        took_s = member.clock.monotonic_s() - lost_s
        await until(lambda: member.store.need(Task, task_id).state is TaskState.FAILED, 5)
        now = member.vm(vm.id)
        stopping = await service(cluster).stop(now, StopVM(), Ids("stop"))
    assert SAFE_S - 1 <= took_s <= SAFE_S + SOON_S, "not before the proof, and soon after it"
    assert (now.host_id, now.migrating_to_host_id, now.generation) == (HOST_ID, "", 4)
    assert moving.calls[0] == "abort" and moving.calls[-1] == "end"
    assert "release" not in moving.calls, "nobody is there to be asked"
    assert member.store.need(Task, task_id).error_code == "migration-target-lost"
    assert (stopping.task.workflow, stopping.vm.power) == ("stop-vm", PowerState.STOPPED)
    (told,) = [one for one in cluster.store.since(Event, 0) if one.code == "migration-ended"]
    assert told.message == "VM web1 stays on h1: h2, where it was moving to, is lost (proof: time)"


@cluster_test
async def test_a_move_that_failed_before_the_proof_stops_asking_the_lost_host_with_it(cluster):
    """libvirt was quicker to see that the target is gone: what is left is to tell the target, which never answers."""
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    async with cluster.running(), running(agent(cluster, moving)):
        vm, task_id = await begun(cluster, moving)
        cluster.alive.remove(OTHER_ID)
        lost_s = member.clock.monotonic_s()
        await asyncio.sleep(1)
        task = member.store.need(Task, task_id)
        moving.job = False
        await moving.abort("")
        await until(lambda: "release" in moving.calls)
        assert member.vm(vm.id).phase is VMPhase.MIGRATING
        await until(lambda: member.vm(vm.id).phase is VMPhase.RUNNING)
        took_s = member.clock.monotonic_s() - lost_s
    assert SAFE_S - 1 <= took_s <= SAFE_S + SOON_S
    assert task.state is TaskState.RUNNING
    assert member.vm(vm.id).generation == 4, "the guest was not touched"


@cluster_test
async def test_a_guest_that_died_with_its_target_is_free_to_be_started_at_its_source(cluster):
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    async with cluster.running(), running(agent(cluster, moving)):
        vm, _ = await begun(cluster, moving)
        cluster.alive.remove(OTHER_ID)
        lost_s = member.clock.monotonic_s()
        moving.arrive()
        await until(lambda: not member.store.claim_holder(f"task.subject/vm/{vm.id}"))
        took_s = member.clock.monotonic_s() - lost_s
    assert SAFE_S - 1 <= took_s <= SAFE_S + 10 + SOON_S, "one question to the lost host may be open"
    assert (member.vm(vm.id).host_id, member.vm(vm.id).migrating_to_host_id) == (HOST_ID, "")


@cluster_test
async def test_a_target_that_is_lost_while_it_gets_ready_is_not_waited_for(cluster):
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    moving.silent_s = 60
    async with cluster.running(), running(agent(cluster, moving)):
        vm = await member.add_vm(host_id=HOST_ID, **RUNNING)
        await service(cluster).migrate(vm, MigrateVM(host="h2"), Ids("move"))
        cluster.alive.remove(OTHER_ID)
        lost_s = member.clock.monotonic_s()
        await until(lambda: member.vm(vm.id).phase is VMPhase.MIGRATING)
        await until(lambda: member.vm(vm.id).phase is VMPhase.RUNNING)
        took_s = member.clock.monotonic_s() - lost_s
    assert SAFE_S - 1 <= took_s <= SAFE_S + SOON_S


@cluster_test
async def test_without_a_proof_the_move_is_not_ended(cluster):
    cluster.armed = False
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    async with cluster.running(), running(agent(cluster, moving)):
        vm, _ = await begun(cluster, moving)
        cluster.alive.remove(OTHER_ID)
        await asyncio.sleep(120)
        now = member.vm(vm.id)
        assert (now.phase, now.migrating_to_host_id) == (VMPhase.MIGRATING, OTHER_ID)
        assert "kvorum host confirm-off h2" in now.blocked_reason
        assert moving.job and moving.calls == []


@cluster_test
async def test_a_task_that_is_stuck_meanwhile_looks_at_once_when_a_person_gives_the_proof(cluster):
    cluster.armed = False
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    moving.silent_s = 0.1
    async with cluster.running(), running(agent(cluster, moving)):
        vm, _ = await begun(cluster, moving)
        cluster.alive.remove(OTHER_ID)
        moving.arrive()
        await asyncio.sleep(400)  # it is tried each five minutes by now
        assert member.store.claim_holder(f"task.subject/vm/{vm.id}")
        await confirm_off(member.node, member.store.need(Host, OTHER_ID), 400.0)
        await until(lambda: not member.store.claim_holder(f"task.subject/vm/{vm.id}"), SOON_S)


@cluster_test
async def test_an_agent_that_was_restarted_meanwhile_does_not_move_the_guest_again(cluster):
    await cluster.begin()
    moving, member = Moving(cluster), cluster.member
    async with cluster.running():
        async with running(agent(cluster, moving)):
            vm, task_id = await begun(cluster, moving)
        cluster.alive.remove(OTHER_ID)
        moving.job = False  # its caller is gone; libvirt's job isn't
        await until(lambda: not member.vm(vm.id).migrating_to_host_id)
        async with running(agent(cluster, moving)):
            await until(lambda: member.vm(vm.id).phase is VMPhase.RUNNING, 10)
    assert not moving.job and moving.calls == ["end"]
    marks = [(one.step, one.mark) for one in member.store.need(Task, task_id).journal]
    assert ("move-guest", StepMark.UNDONE) in marks


# -- ending libvirt's job


class Hypervisor:
    """One with a job that ends after some more times that it is asked to."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, 0

    async def abort_migration(self, vm_id: str) -> bool:
        self.asked += 1
        return self.asked <= self.times


@cluster_test
async def test_a_job_is_ended_once_none_is_under_way(cluster):
    hypervisor = Hypervisor(3)
    node = replace(cluster.member.node, hypervisor=hypervisor)
    await MigrationService(node, None, trust_shared_storage=True).end("vm")
    assert hypervisor.asked == 4


@cluster_test
async def test_a_job_that_does_not_end_is_an_error_so_that_the_vm_is_not_freed(cluster):
    node = replace(cluster.member.node, hypervisor=Hypervisor(10_000))
    service = MigrationService(node, None, trust_shared_storage=True)
    began_s = cluster.member.clock.monotonic_s()
    with pytest.raises(TemporaryError, match="does not end"):
        await service.end("vm")
    assert cluster.member.clock.monotonic_s() - began_s <= END_TIMEOUT_S + 1
