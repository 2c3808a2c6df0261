"""Failover's decisions as transactions: each is void when what it was decided on has changed."""

import asyncio

import pytest
from msgspec.structs import replace

from core.errors import ConflictError
from core.model import (
    Arming,
    Event,
    Host,
    HostState,
    Lease,
    Mesh,
    PlacementPolicy,
    PlacementRule,
    PowerState,
    RuleStrength,
    Severity,
    Task,
    TaskState,
    VMPhase,
)
from ha.lease import LeaseJudge
from ha.manager import RECOVERIES_MAX
from ha.placement import HOST_RESERVE_MIB, VM_OVERHEAD_MIB
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.event_log import EventLog
from nodeagent.services.ha_controller import HaController
from nodeagent.services.host_room import room_on
from nodeagent.services.host_service import confirm_off
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    THIRD_ID,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)

SAFE_S = 19.0


class Cluster:
    """Three hosts; `h1` leads and renews. `alive` says who else does."""

    def __init__(self, member: OneMember) -> None:
        self.member = member
        self.store = member.store
        self.judge = LeaseJudge(member.clock)
        self.alive = {HOST_ID, OTHER_ID, THIRD_ID}
        self.armed = True
        self.deaf_to: set[str] = set()
        self.boots: dict[str, str] = {}
        member.machine.on_applied(self.note)

    def note(self, index, keys) -> None:
        del index
        for key in keys:
            kind, _, host_id = key.partition("/")
            if kind == "lease" and host_id not in self.deaf_to:
                self.judge.applied(self.store.need(Lease, host_id))

    async def begin(self) -> None:
        await self.member.add_host(OTHER_ID, "h2", "192.0.2.2")
        await self.member.add_host(THIRD_ID, "h3", "192.0.2.3")
        for host_id in self.alive:
            await self.member.renew(host_id, armed=self.armed)

    async def keep_renewing(self) -> None:
        while True:
            for host_id in sorted(self.alive):
                boot_id = self.boots.get(host_id, "boot-1")
                await self.member.renew(host_id, boot_id=boot_id, armed=self.armed)
            await asyncio.sleep(1)

    async def renew_now(self, host_id: str) -> None:
        self.alive.add(host_id)
        await self.member.renew(host_id, armed=self.armed)

    def running(self):
        events = EventLog(self.member.node)
        controller = HaController(self.member.node, self.judge, events)
        return running(controller.run, self.keep_renewing)

    def codes(self) -> list[str]:
        return [event.code for event in self.store.since(Event, 0)]


def cluster_test(test):
    def wrapper() -> None:
        async def main() -> None:
            await test(Cluster(await founded(clock=LoopClock())))

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


RUNNING = {"phase": VMPhase.RUNNING, "boot_id": "boot-1", "generation": 4}


@cluster_test
async def test_a_lost_hosts_vm_moves_after_the_safe_time_and_not_before(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with cluster.running():
        await asyncio.sleep(6)
        cluster.alive.remove(OTHER_ID)
        lost_s = cluster.member.clock.monotonic_s()
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID)
        took_s = cluster.member.clock.monotonic_s() - lost_s
    moved = cluster.member.vm(vm.id)
    assert SAFE_S - 1 <= took_s <= SAFE_S + 2
    assert moved.host_id in {HOST_ID, THIRD_ID}
    assert (moved.generation, moved.boot_id, moved.phase) == (5, "", VMPhase.STARTING)
    assert cluster.codes() == ["host-suspected", "host-lost", "vm-recovered"]


@cluster_test
async def test_a_renewal_that_this_leader_did_not_see_yet_makes_the_recovery_void(cluster):
    await renewal_makes_void(cluster, 1)


@cluster_test
async def test_a_renewal_that_this_leader_did_not_see_yet_makes_that_of_many_vms_void(cluster):
    await renewal_makes_void(cluster, 3)


async def renewal_makes_void(cluster, count: int) -> None:
    await cluster.begin()
    vms = [await cluster.member.add_vm(f"vm{n}", host_id=OTHER_ID, **RUNNING) for n in range(count)]
    cluster.alive.remove(OTHER_ID)
    engine, tried = cluster.member.engine, []
    commit = engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload:
            tried.append(True)
            if len(tried) == 1:  # the lost host's renewal gets into the log first
                cluster.deaf_to.add(OTHER_ID)
                await cluster.member.renew(OTHER_ID)
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    async with cluster.running():
        await until(lambda: tried)
        await asyncio.sleep(0.1)
        assert [cluster.member.vm(vm.id) for vm in vms] == vms
        assert "vm-recovered" not in cluster.codes()


@cluster_test
async def test_a_host_that_renews_in_time_keeps_its_vms_and_is_told_to_be_back(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with cluster.running():
        await asyncio.sleep(6)
        cluster.alive.remove(OTHER_ID)
        await asyncio.sleep(15)
        await cluster.renew_now(OTHER_ID)
        await asyncio.sleep(60)
    assert cluster.member.vm(vm.id) == vm
    assert cluster.codes() == ["host-suspected", "host-lost", "host-returned"]


@cluster_test
async def test_a_host_that_is_not_back_after_a_loss_of_all_power_gets_a_minute(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=THIRD_ID, **RUNNING)
    cluster.alive.remove(THIRD_ID)
    cluster.boots = {HOST_ID: "boot-2", OTHER_ID: "boot-2"}
    began_s = cluster.member.clock.monotonic_s()
    async with cluster.running():
        await until(lambda: cluster.member.vm(vm.id).host_id != THIRD_ID, deadline_s=90)
        took_s = cluster.member.clock.monotonic_s() - began_s
    assert 60 <= took_s <= 62
    assert cluster.codes() == ["host-suspected", "cold-start", "host-lost", "vm-recovered"]
    (told,) = [event for event in cluster.store.since(Event, 0) if event.code == "cold-start"]
    assert "but not for h3:" in told.message


@cluster_test
async def test_that_many_hosts_are_lost_is_told_once(cluster):
    await cluster.begin()
    async with cluster.running():
        await asyncio.sleep(6)
        cluster.alive -= {OTHER_ID, THIRD_ID}
        await asyncio.sleep(30)
        (told,) = [e for e in cluster.store.since(Event, 0) if e.code == "many-hosts-lost"]
    assert told.severity is Severity.ALARM
    assert "2 of 3 hosts were lost within a minute (h2, h3)" in told.message


@cluster_test
async def test_a_vm_changed_since_the_decision_is_not_moved_by_it(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    engine, tried = cluster.member.engine, []
    commit = engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload and not tried:
            tried.append(True)
            await cluster.member.change_vm(vm.id, power=PowerState.STOPPED)
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    async with cluster.running():
        await until(lambda: tried)
        await asyncio.sleep(30)
    assert cluster.member.vm(vm.id).host_id == OTHER_ID


@cluster_test
async def test_a_vm_stopped_while_another_was_being_recovered_stays_where_it_is(cluster):
    await cluster.begin()
    first = await cluster.member.add_vm("a", host_id=OTHER_ID, **RUNNING)
    second = await cluster.member.add_vm("b", host_id=OTHER_ID, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    engine, commit = cluster.member.engine, cluster.member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload:
            engine.propose = commit
            await cluster.member.change_vm(second.id, power=PowerState.STOPPED)
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    async with cluster.running():
        await until(lambda: cluster.member.vm(first.id).host_id != OTHER_ID)
        await asyncio.sleep(30)
    assert cluster.member.vm(second.id).host_id == OTHER_ID


@cluster_test
async def test_many_vms_of_a_lost_host_are_given_away_in_few_transactions(cluster):
    await cluster.begin()
    count = 2 * RECOVERIES_MAX + 3
    vms = [await cluster.member.add_vm(f"vm{n}", host_id=OTHER_ID, **RUNNING) for n in range(count)]
    cluster.alive.remove(OTHER_ID)
    engine, commits = cluster.member.engine, []
    commit = engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        commits.append(payload.count(b"vm-recovered"))
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    async with cluster.running():
        await until(lambda: all(cluster.member.vm(v.id).host_id != OTHER_ID for v in vms))
    moved = [cluster.member.vm(vm.id) for vm in vms]
    assert {vm.generation for vm in moved} == {5}
    assert {vm.host_id for vm in moved} == {HOST_ID, THIRD_ID}
    assert len([n for n in commits if n]) == 3
    assert cluster.codes().count("vm-recovered") == count


@cluster_test
async def test_one_vm_that_can_not_be_given_away_holds_up_none_of_the_others(cluster):
    await cluster.begin()
    vms = [await cluster.member.add_vm(f"vm{n}", host_id=OTHER_ID, **RUNNING) for n in range(6)]
    cluster.alive.remove(OTHER_ID)
    engine, commit, changes = cluster.member.engine, cluster.member.engine.propose, []

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload and vms[3].id.encode() in payload:
            changes.append(str(len(changes)))
            await cluster.member.change_vm(vms[3].id, description=changes[-1])
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    others = [vm for vm in vms if vm is not vms[3]]
    async with cluster.running():
        await until(lambda: all(cluster.member.vm(v.id).host_id != OTHER_ID for v in others))
    assert {cluster.member.vm(vm.id).generation for vm in others} == {5}
    assert cluster.member.vm(vms[3].id).host_id == OTHER_ID
    assert cluster.codes().count("vm-recovered") == len(others)


@cluster_test
async def test_vms_that_are_given_away_together_take_no_more_room_than_there_is(cluster):
    """Both hosts have room for two; between the decision and the commit somebody else takes that for one of them."""
    await cluster.begin()
    for host_id in (HOST_ID, THIRD_ID):
        host = cluster.store.need(Host, host_id)
        memory_mib = HOST_RESERVE_MIB + 2 * (512 + VM_OVERHEAD_MIB)
        await cluster.store.apply(puts=[replace(host, memory_mib=memory_mib)])
    vms = [await cluster.member.add_vm(f"vm{n}", host_id=OTHER_ID, **RUNNING) for n in range(4)]
    cluster.alive.remove(OTHER_ID)
    engine, commit = cluster.member.engine, cluster.member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload:
            engine.propose = commit
            await cluster.member.add_vm("late", host_id=HOST_ID, **RUNNING)
            await cluster.store.apply(puts=[room_on(cluster.store, HOST_ID)])
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    async with cluster.running():
        await until(lambda: engine.propose is commit)
        await asyncio.sleep(20)
    homes = [cluster.member.vm(vm.id).host_id for vm in vms]
    assert sorted(homes) == sorted([HOST_ID, THIRD_ID, THIRD_ID, OTHER_ID])


@cluster_test
async def test_vms_of_one_transaction_count_with_each_other_when_room_was_taken_meanwhile(cluster):
    """A host has room for three. One with a rule goes there alone, and somebody takes the room of another meanwhile."""
    await cluster.begin()
    for host_id, room_for in ((HOST_ID, 3), (THIRD_ID, 0)):
        host = cluster.store.need(Host, host_id)
        memory_mib = HOST_RESERVE_MIB + room_for * (512 + VM_OVERHEAD_MIB)
        await cluster.store.apply(puts=[replace(host, memory_mib=memory_mib)])
    vms = [await cluster.member.add_vm(f"vm{n}", host_id=OTHER_ID, **RUNNING) for n in range(3)]
    rule = PlacementRule(
        id="r",
        name="r",
        cluster_id=vms[0].cluster_id,
        policy=PlacementPolicy.HOST_AFFINITY,
        strength=RuleStrength.PREFERRED,
        vm_ids=(vms[0].id,),
        host_ids=(HOST_ID,),
    )
    await cluster.store.apply(puts=[rule])
    cluster.alive.remove(OTHER_ID)
    engine, commit = cluster.member.engine, cluster.member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        result = await commit(payload, timeout_s=timeout_s)
        if b"vm-recovered" in payload and engine.propose is not commit:
            engine.propose = commit
            await cluster.member.add_vm("late", host_id=HOST_ID, **RUNNING)
            await cluster.store.apply(puts=[room_on(cluster.store, HOST_ID)])
        return result

    engine.propose = propose
    async with cluster.running():
        await until(lambda: engine.propose is commit)
        await asyncio.sleep(20)
    homes = [cluster.member.vm(vm.id).host_id for vm in vms]
    assert homes == [HOST_ID, HOST_ID, OTHER_ID], "the last waits for room"


@cluster_test
async def test_the_open_task_of_a_recovered_vm_ends_and_frees_it_for_others(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    task = Task(
        id="t", name="t", workflow="reboot-vm", subject=f"vm/{vm.id}", runner_host_id=OTHER_ID
    )
    await cluster.store.apply(puts=(task,))
    cluster.alive.remove(OTHER_ID)
    async with cluster.running():
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID)
    ended = cluster.store.need(Task, "t")
    assert (ended.state, ended.error_code) == (TaskState.FAILED, "host-lost")
    assert cluster.store.claim_holder(f"task.subject/vm/{vm.id}") == ""


@cluster_test
async def test_without_a_watchdog_the_vm_is_blocked_until_an_operator_confirms(cluster):
    cluster.armed = False
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    async with cluster.running():
        await until(lambda: cluster.member.vm(vm.id).blocked_reason)
        await asyncio.sleep(100)
        assert cluster.member.vm(vm.id).host_id == OTHER_ID
        assert cluster.codes().count("vm-blocked") == 1
        assert "confirm-off h2" in cluster.member.vm(vm.id).blocked_reason
        host = cluster.store.need(Host, OTHER_ID)
        assert await confirm_off(cluster.member.node, host, 100.0) == 1
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID)
    assert cluster.member.vm(vm.id).blocked_reason == ""


@cluster_test
async def test_a_block_is_lifted_when_the_host_is_back(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, shared=False, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    async with cluster.running():
        await until(lambda: "disks are on h2" in cluster.member.vm(vm.id).blocked_reason)
        await cluster.renew_now(OTHER_ID)
        await until(lambda: not cluster.member.vm(vm.id).blocked_reason)
    assert cluster.member.vm(vm.id).host_id == OTHER_ID


@cluster_test
async def test_the_target_of_a_migration_that_died_is_forgotten(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(
        host_id=THIRD_ID, **(RUNNING | {"phase": VMPhase.MIGRATING}), migrating_to_host_id=OTHER_ID
    )
    cluster.alive.remove(OTHER_ID)
    async with cluster.running():
        await until(lambda: not cluster.member.vm(vm.id).migrating_to_host_id)
    assert cluster.member.vm(vm.id).host_id == THIRD_ID


@cluster_test
async def test_a_source_that_died_leaves_its_vm_to_the_living_target_in_its_present_boot(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(
        host_id=OTHER_ID, **(RUNNING | {"phase": VMPhase.MIGRATING}), migrating_to_host_id=THIRD_ID
    )
    cluster.alive.remove(OTHER_ID)
    async with cluster.running():
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID)
    moved = cluster.member.vm(vm.id)
    assert (moved.host_id, moved.boot_id, moved.migrating_to_host_id) == (THIRD_ID, "boot-1", "")


@cluster_test
async def test_a_node_that_does_not_lead_decides_nothing(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    cluster.member.engine.is_leader = lambda: False
    async with cluster.running():
        await asyncio.sleep(100)
    assert cluster.member.vm(vm.id) == vm
    assert cluster.codes() == []


@cluster_test
async def test_a_new_leader_looks_for_a_while_before_it_decides(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    await asyncio.sleep(100)
    for host_id in (HOST_ID, THIRD_ID):
        await cluster.member.renew(host_id)
    async with cluster.running():
        await asyncio.sleep(3.5)
        assert cluster.member.vm(vm.id).host_id == OTHER_ID
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID, deadline_s=3)


@cluster_test
async def test_a_lost_quorum_is_waited_out(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    cluster.alive.remove(OTHER_ID)
    engine, commit, refused = cluster.member.engine, cluster.member.engine.propose, []

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload and len(refused) < 3:
            refused.append(True)
            engine.available = False
            try:
                return await commit(payload, timeout_s=timeout_s)
            finally:
                engine.available = True
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    async with cluster.running():
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID)
    assert len(refused) == 3
    assert cluster.member.vm(vm.id).generation == 5


@cluster_test
async def test_confirming_a_host_that_renews_is_refused(cluster):
    await cluster.begin()
    host = cluster.store.need(Host, OTHER_ID)
    with pytest.raises(ConflictError, match="so it is on"):
        await confirm_off(cluster.member.node, host, 3.0)
    assert cluster.store.need(Host, OTHER_ID).state is HostState.MEMBER


def armed_as(cluster, arming: Arming):
    mesh = cluster.store.need(Mesh, MESH_ID)
    return replace(mesh, ha_arming=arming, ha_disarmed_by="ana", ha_disarm_reason="new switches")


@cluster_test
async def test_while_disarmed_no_vm_moves_and_says_who_is_to_be_asked(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    await cluster.store.apply(puts=(armed_as(cluster, Arming.DISARMED),))
    async with cluster.running():
        cluster.alive.remove(OTHER_ID)
        await asyncio.sleep(60)
        waits = cluster.member.vm(vm.id)
        assert waits.host_id == OTHER_ID
        assert "disarmed by ana (new switches)" in waits.blocked_reason
        assert "kvorum ha arm" in waits.blocked_reason
        await cluster.store.apply(puts=(armed_as(cluster, Arming.ARMED),))
        await until(lambda: cluster.member.vm(vm.id).host_id != OTHER_ID)


@cluster_test
async def test_a_host_lost_while_its_guard_was_disarmed_is_not_taken_by_time(cluster):
    await cluster.begin()
    vm = await cluster.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with cluster.running():
        cluster.alive.remove(OTHER_ID)
        lease = cluster.store.need(Lease, OTHER_ID)
        told = replace(lease, lease_s=12.0, watchdog_s=6.0, disarmed=True)
        await cluster.store.apply(puts=(told,))
        await asyncio.sleep(120)
        waits = cluster.member.vm(vm.id)
    assert waits.host_id == OTHER_ID
    assert "its guard was disarmed" in waits.blocked_reason
