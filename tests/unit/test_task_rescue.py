"""What becomes of a lost host's tasks, and that it takes a proof."""

import asyncio
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from core.bus import Bus
from core.errors import ConflictError
from core.model import (
    VM,
    Arming,
    Host,
    HostState,
    Lease,
    Mesh,
    PowerState,
    Task,
    TaskState,
    VMPhase,
)
from ha.lease import LeaseJudge
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.mesh_carrier import MeshCarrier
from nodeagent.services.task_rescue import Rescue, RescueTask, TaskRescue, rescue
from nodeagent.services.vm_service import VmService
from nodeagent.services.whereabouts import Whereabouts
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)

LOST = "lost"


def vm_of(host_id: str = LOST, **fields) -> VM:
    return VM(id="v", name="v", cluster_id="c", host_id=host_id, cpus=1, memory_mib=64, **fields)


def task_of(workflow: str) -> Task:
    return Task(id="t", name="t", workflow=workflow, subject="vm/v", runner_host_id=LOST)


STOPPED, RUNNING = PowerState.STOPPED, PowerState.RUNNING

TABLE = [
    # workflow, VM, disks are shared, decision
    ("create-vm", None, True, Rescue.END_FAILED),
    ("delete-vm", None, True, Rescue.END_FAILED),
    ("start-vm", vm_of("elsewhere"), True, Rescue.END_FAILED),
    ("delete-vm", vm_of("elsewhere"), True, Rescue.END_FAILED),
    ("create-vm", vm_of(), True, Rescue.MOVE),
    ("create-vm", vm_of(), False, Rescue.WAIT),
    ("delete-vm", vm_of(power=STOPPED), True, Rescue.MOVE),
    ("delete-vm", vm_of(power=STOPPED), False, Rescue.WAIT),
    ("stop-vm", vm_of(power=STOPPED), True, Rescue.END_STOPPED),
    ("stop-vm", vm_of(power=STOPPED), False, Rescue.END_STOPPED),
    ("start-vm", vm_of(power=RUNNING), True, Rescue.WAIT),
    ("migrate-vm", vm_of(power=RUNNING), True, Rescue.WAIT),
    ("reboot-vm", vm_of(power=RUNNING, ha=False), True, Rescue.END_FAILED),
    ("migrate-vm", vm_of(power=RUNNING, ha=False), True, Rescue.END_FAILED),
    ("start-vm", vm_of(power=STOPPED), True, Rescue.END_FAILED),
]


@pytest.mark.parametrize(("workflow", "vm", "shared", "decision"), TABLE)
def test_what_becomes_of_a_lost_hosts_task(workflow, vm, shared, decision):
    assert rescue(task_of(workflow), vm, disks_are_shared=shared) is decision


@dataclass
class Chooser:
    """A placer that always chooses this host."""

    def choose(self, vm, disks, *, only="", never="", joined=()) -> str:
        assert never == OTHER_ID
        return HOST_ID


class Ages:
    """Lease ages as a judge has them."""

    def __init__(self, judge: LeaseJudge) -> None:
        self.judge = judge

    def age_s(self, host_id: str) -> float:
        age_s = self.judge.age_s(host_id)
        return float("inf") if age_s is None else age_s


def rescue_of(member: OneMember, judge: LeaseJudge) -> TaskRescue:
    """Return the service of the one agent, with a bus of its own."""
    node = member.node
    where = Whereabouts(node, Ages(judge))
    bus = Bus(HOST_ID, where, MeshCarrier(node), node.queues, node.faults, node.clock)
    return TaskRescue(node, judge, VmService(node, Chooser()), Chooser(), bus)


class Scene:
    """Host `h2` works on a task of a VM; it is lost or not."""

    def __init__(self, member: OneMember) -> None:
        self.member = member
        self.judge = LeaseJudge(member.clock)

    async def begin(self, workflow: str, *, armed: bool = True, shared: bool = True, **fields):
        await self.member.add_host(OTHER_ID, "h2", "192.0.2.2")
        await self.member.renew(OTHER_ID, armed=armed)
        self.judge.reset(self.member.store.all(Lease))
        self.vm_id = (await self.member.add_vm(host_id=OTHER_ID, shared=shared, **fields)).id
        task = Task(
            id="t",
            name="t",
            workflow=workflow,
            subject=f"vm/{self.vm_id}",
            runner_host_id=OTHER_ID,
            state=TaskState.RUNNING,
        )
        await self.member.store.apply(puts=(task,))

    async def run(self, seconds: float) -> None:
        service = rescue_of(self.member, self.judge)
        async with running(service.run, self.keep_renewing):
            await asyncio.sleep(seconds)

    async def keep_renewing(self) -> None:
        while True:
            self.judge.applied(await self.member.renew(HOST_ID))
            await asyncio.sleep(1)

    def task(self) -> Task:
        return self.member.store.need(Task, "t")

    def vm(self) -> VM:
        return self.member.vm(self.vm_id)


def scene_test(test):
    def wrapper() -> None:
        async def main() -> None:
            await test(Scene(await founded(clock=LoopClock())))

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


@scene_test
async def test_a_host_that_missed_its_renewals_keeps_its_task_until_the_time_is_proof(scene):
    await scene.begin("stop-vm", power=STOPPED, phase=VMPhase.RUNNING)
    await scene.run(18.5)
    assert scene.task().state is TaskState.RUNNING
    await scene.run(3)
    assert scene.task().state is TaskState.SUCCEEDED
    assert (scene.vm().phase, scene.vm().power) == (VMPhase.STOPPED, STOPPED)


@scene_test
async def test_while_failover_is_disarmed_no_task_is_taken_over(scene):
    await scene.begin("stop-vm", power=STOPPED, phase=VMPhase.RUNNING)
    mesh = scene.member.store.need(Mesh, MESH_ID)
    await scene.member.store.apply(puts=(replace(mesh, ha_arming=Arming.DISARMED),))
    await scene.run(60)
    assert scene.task().state is TaskState.RUNNING


@scene_test
async def test_without_a_watchdog_time_proves_nothing(scene):
    await scene.begin("stop-vm", armed=False, power=STOPPED, phase=VMPhase.RUNNING)
    await scene.run(600)
    assert scene.task().state is TaskState.RUNNING


@scene_test
async def test_a_fenced_host_loses_its_task_without_a_watchdog(scene):
    await scene.begin("stop-vm", armed=False, power=STOPPED, phase=VMPhase.RUNNING)
    host = scene.member.store.need(Host, OTHER_ID)

    await scene.member.store.apply(puts=(replace(host, state=HostState.FENCED),))
    await scene.run(30)
    assert scene.task().state is TaskState.SUCCEEDED


@scene_test
async def test_a_create_on_shared_storage_moves_with_its_vm(scene):
    await scene.begin("create-vm", phase=VMPhase.CREATING)
    await scene.run(30)
    assert (scene.task().runner_host_id, scene.task().state) == (HOST_ID, TaskState.RUNNING)
    assert scene.vm().host_id == HOST_ID


@scene_test
async def test_a_create_on_local_storage_waits_for_its_host(scene):
    await scene.begin("create-vm", shared=False, phase=VMPhase.CREATING)
    await scene.run(60)
    assert (scene.task().runner_host_id, scene.vm().host_id) == (OTHER_ID, OTHER_ID)


@scene_test
async def test_a_task_whose_vm_was_taken_over_ends_and_names_the_host(scene):
    await scene.begin("reboot-vm", phase=VMPhase.RUNNING)
    await scene.member.change_vm(scene.vm_id, host_id=HOST_ID)
    await scene.run(30)
    assert (scene.task().state, scene.task().error_code) == (TaskState.FAILED, "host-lost")
    assert "h2" in scene.task().error


@scene_test
async def test_only_the_leader_rescues(scene):
    await scene.begin("stop-vm", power=STOPPED, phase=VMPhase.RUNNING)
    scene.member.engine.is_leader = lambda: False
    await scene.run(60)
    assert scene.task().state is TaskState.RUNNING


@scene_test
async def test_a_renewal_at_the_last_moment_makes_the_rescue_void(scene):
    """The judge of this node has not heard of it yet: the lease's revision in the transaction stands guard."""
    await scene.begin("stop-vm", power=STOPPED, phase=VMPhase.RUNNING)
    member, renewed = scene.member, []
    commit = member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if not renewed:
            renewed.append(True)
            await member.renew(OTHER_ID)
        return await commit(payload, timeout_s=timeout_s)

    await asyncio.sleep(20)
    member.engine.propose = propose
    scene.judge.applied(await member.renew(HOST_ID))
    service = rescue_of(member, scene.judge)
    async with running(service.run):
        await until(lambda: renewed)
        await asyncio.sleep(0.1)
        assert scene.task().state is TaskState.RUNNING
        assert scene.vm().phase is VMPhase.RUNNING


@scene_test
async def test_a_wish_about_an_older_lease_is_refused_by_the_owner(scene):
    """The wish was under way while the host renewed: what it proves isn't true any more."""
    await scene.begin("stop-vm", power=STOPPED, phase=VMPhase.RUNNING)
    judged = scene.member.store.need(Lease, OTHER_ID).revision
    await scene.member.renew(OTHER_ID)
    service = rescue_of(scene.member, scene.judge)
    wish = RescueTask(task_id="t", host_id=OTHER_ID, lease_revision=judged)
    with pytest.raises(ConflictError, match="renewed"):
        await service.take_over("task/t", wish)
    assert scene.task().state is TaskState.RUNNING


@scene_test
async def test_a_wish_that_comes_twice_does_nothing_the_second_time(scene):
    await scene.begin("create-vm", phase=VMPhase.CREATING)
    lease = scene.member.store.need(Lease, OTHER_ID)
    wish = RescueTask(task_id="t", host_id=OTHER_ID, lease_revision=lease.revision)
    service = rescue_of(scene.member, scene.judge)
    await service.take_over("task/t", wish)
    moved = scene.task()
    await service.take_over("task/t", wish)
    assert scene.task() == moved
    assert moved.runner_host_id == HOST_ID
