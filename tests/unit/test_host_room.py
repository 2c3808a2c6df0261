"""Two who place VMs at the same moment, each by its own copy of the state: the last room of a host is given away once."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.errors import ConflictError, PlatformError
from core.model import VM, Cluster, Event, Host, HostRoom, PowerState, Task, VMPhase
from ha.placement import CPU_OVERCOMMIT, HOST_RESERVE_MIB, PlacementError, loads_of
from nodeagent.api.requests import Ids
from nodeagent.services.host_room import TRIES, Turns, still_room
from nodeagent.services.host_service import remove_host
from nodeagent.services.placing import Placing
from nodeagent.services.vm_requests import CreateVM, MigrateVM
from nodeagent.services.vm_service import VmService
from nodeagent.workflows.migrate_steps import ReserveTarget
from nodeagent.workflows.vm_steps import StopGuest
from raftstate.store import ROOM_TAKEN
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded
from tests.unit.test_ha_controller import RUNNING, cluster_test, until
from tests.unit.test_migrate_steps import Move
from tests.unit.test_placement_rule_service import AT_REST, Ages, slow_log

HALF_MIB = 8500
"""Of a host with 16384 MiB: two don't fit."""


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    await made.add_host(OTHER_ID, "h2", "192.0.2.2")
    await made.add_image()
    return made


def agent_of(member: OneMember, host_id: str = HOST_ID, name: str = "h1") -> VmService:
    """Return the VM service of one agent: each has its own, on its own copy of the same state."""
    node = member.node_of(host_id, name)
    return VmService(node, Placing(node, Ages()))


def wanted(name: str, memory_mib: int = HALF_MIB, **fields) -> CreateVM:
    return CreateVM(name=name, image="debian", memory_mib=memory_mib, **fields)


def overfull(member: OneMember) -> list[str]:
    """Return the hosts on which more is placed than they have."""
    loads = loads_of(member.store.all(VM))
    return [
        host.name
        for host in member.store.all(Host)
        if (load := loads.get(host.id)) is not None
        and (
            load.memory_mib > host.memory_mib - HOST_RESERVE_MIB
            or load.cpus > host.cpus * CPU_OVERCOMMIT
        )
    ]


async def test_of_two_creates_at_two_agents_one_goes_elsewhere(member):
    slow_log(member)
    one, two = agent_of(member), agent_of(member, OTHER_ID, "h2")
    opened = await asyncio.gather(
        one.create(wanted("a"), Ids("a")), two.create(wanted("b"), Ids("b"))
    )
    assert {it.vm.host_id for it in opened} == {HOST_ID, OTHER_ID}
    assert overfull(member) == []


async def test_of_two_creates_for_the_last_room_one_is_refused_with_the_reason(member):
    await member.add_vm("there", host_id=OTHER_ID, memory_mib=HALF_MIB)
    slow_log(member)
    one, two = agent_of(member), agent_of(member, OTHER_ID, "h2")
    done = await asyncio.gather(
        one.create(wanted("a"), Ids("a")),
        two.create(wanted("b"), Ids("b")),
        return_exceptions=True,
    )
    (refused,) = [it for it in done if isinstance(it, Exception)]
    assert isinstance(refused, PlacementError)
    assert "h1: 7308 MiB free, 8564 needed; h2: 7308 MiB free, 8564 needed" in refused.message
    assert overfull(member) == []
    assert len([vm for vm in member.store.all(VM) if vm.name in "ab"]) == 1


async def test_of_two_starts_of_stopped_vms_one_goes_elsewhere(member):
    vms = [await member.add_vm(name, memory_mib=HALF_MIB, **AT_REST) for name in ("a", "b")]
    slow_log(member)
    agents = (agent_of(member), agent_of(member, OTHER_ID, "h2"))
    await asyncio.gather(
        *(agent.start(vm, Ids(vm.name)) for agent, vm in zip(agents, vms, strict=True))
    )
    assert {member.vm(vm.id).host_id for vm in vms} == {HOST_ID, OTHER_ID}


async def test_a_start_and_a_migration_do_not_take_the_same_room(member):
    moving = await member.add_vm("a", phase=VMPhase.RUNNING, memory_mib=HALF_MIB)
    starting = await member.add_vm("b", host_id=OTHER_ID, memory_mib=HALF_MIB, **AT_REST)
    await agent_of(member).migrate(moving, MigrateVM(), Ids("a"))
    slow_log(member)
    done = await asyncio.gather(
        agent_of(member, OTHER_ID, "h2").start(starting, Ids("b")),
        ReserveTarget(Move(member, moving.id).work).do(),
        return_exceptions=True,
    )
    assert [it for it in done if isinstance(it, PlacementError)], done
    assert overfull(member) == []


async def test_a_migration_whose_target_filled_up_meanwhile_is_refused_with_the_reason(member):
    moving = await member.add_vm("a", phase=VMPhase.RUNNING, memory_mib=HALF_MIB)
    await agent_of(member).migrate(moving, MigrateVM(), Ids("a"))
    await member.add_vm("b", host_id=OTHER_ID, memory_mib=HALF_MIB)
    with pytest.raises(PlacementError, match="VM 'a' can't be taken any more: h2: 7308 MiB free"):
        await ReserveTarget(Move(member, moving.id).work).do()
    assert member.vm(moving.id).migrating_to_host_id == ""


async def test_a_target_is_judged_anew_by_its_own_clusters_over_commit(member):
    (cluster,) = member.store.all(Cluster)
    host = member.store.need(Host, OTHER_ID)
    vm = await member.add_vm("wide", host_id=HOST_ID, cpus=host.cpus * CPU_OVERCOMMIT)
    assert still_room(member.store, vm, host)
    await member.store.apply(puts=(replace(cluster, cpu_overcommit=1),))
    with pytest.raises(PlacementError, match=rf"h2: 0 of {host.cpus} virtual CPUs taken"):
        still_room(member.store, vm, host)


async def test_the_wish_to_stop_that_is_taken_back_is_seen_by_who_places(member):
    """The guest stopped already: it takes room again, where somebody else may be about to."""
    vm = await member.add_vm("a", memory_mib=HALF_MIB, **AT_REST)
    before = member.store.get(HostRoom, HOST_ID)
    await StopGuest(Move(member, vm.id).work).undo()
    assert member.vm(vm.id).power is PowerState.RUNNING
    assert member.store.get(HostRoom, HOST_ID) != before


async def test_many_creates_at_once_at_three_agents_all_get_their_room(member):
    await member.add_host(THIRD_ID, "h3", "192.0.2.3")
    slow_log(member)
    agents = [
        agent_of(member, id_, name)
        for id_, name in ((HOST_ID, "h1"), (OTHER_ID, "h2"), (THIRD_ID, "h3"))
    ]
    opened = await asyncio.gather(
        *(agents[n % 3].create(wanted(f"vm{n}", memory_mib=512), Ids(f"vm{n}")) for n in range(24))
    )
    assert len({it.vm.id for it in opened}) == 24
    assert overfull(member) == []


async def test_a_repeated_create_meets_the_outcome_of_its_later_attempt(member):
    slow_log(member)
    one, two = agent_of(member), agent_of(member, OTHER_ID, "h2")
    await asyncio.gather(one.create(wanted("a"), Ids("a")), two.create(wanted("b"), Ids("b")))
    digest = member.store.digest()
    for agent in (one, two):
        await agent.create(wanted("a"), Ids("a"))
        await agent.create(wanted("b"), Ids("b"))
    assert member.store.digest() == digest


async def test_who_always_comes_too_late_is_told_so_after_a_number_of_tries():
    tried: list[int] = []

    async def place(attempt: int) -> None:
        tried.append(attempt)
        raise ConflictError("room was taken", code=ROOM_TAKEN)

    with pytest.raises(ConflictError) as refused:
        await Turns(random.Random(1)).placed(place)
    assert refused.value.code == ROOM_TAKEN
    assert tried == list(range(TRIES))


async def test_the_room_of_a_removed_host_goes_with_it(member):
    vm = await member.add_vm("a", host_id=OTHER_ID, **AT_REST)
    await agent_of(member).start(vm, Ids("a"))
    assert member.store.get(HostRoom, OTHER_ID) is not None
    await member.change_vm(vm.id, host_id=HOST_ID)
    await remove_host(member.node, member.store.need(Host, OTHER_ID))
    assert member.store.get(HostRoom, OTHER_ID) is None


@pytest.mark.timeout(60)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.sampled_from([512, 3000, 5000, HALF_MIB, 15000]), min_size=2, max_size=7),
    seed=st.integers(0, 1 << 16),
)
def test_no_host_is_ever_given_more_than_it_has(sizes, seed):
    """Whatever is created and started at three agents at the same moment, and however late each commit is."""

    async def main() -> None:
        member = await founded(seed=seed)
        await member.add_host(OTHER_ID, "h2", "192.0.2.2")
        await member.add_image()
        rng, commit = random.Random(seed), member.engine.propose

        async def propose(payload: bytes, *, timeout_s: float) -> bytes:
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            return await commit(payload, timeout_s=timeout_s)

        member.engine.propose = propose
        agents = [agent_of(member, HOST_ID, "h1"), agent_of(member, OTHER_ID, "h2")]
        stopped = [
            await member.add_vm(f"s{n}", memory_mib=size, **AT_REST)
            for n, size in enumerate(sizes[::2])
        ]
        work = [rng.choice(agents).start(vm, Ids(vm.name)) for vm in stopped]
        work += [
            rng.choice(agents).create(wanted(f"c{n}", size), Ids(f"c{n}"))
            for n, size in enumerate(sizes[1::2])
        ]
        done = await asyncio.gather(*work, return_exceptions=True)
        for it in done:
            if isinstance(it, BaseException):
                assert isinstance(it, PlatformError), it
                assert "no host can take the VM" in it.message
        assert overfull(member) == []

    asyncio.run(main())


# -- failover


async def _full_but_for_one(cluster) -> VM:
    await cluster.begin()
    vm = await cluster.member.add_vm("lost", host_id=OTHER_ID, memory_mib=HALF_MIB, **RUNNING)
    await cluster.member.add_image()
    cluster.alive.remove(OTHER_ID)
    return vm


def _before_the_recovery(cluster, do) -> list[str]:
    """Have something happen between the leader's choice and its place in the log; return the recoveries that were tried."""
    engine, commit, tried = cluster.member.engine, cluster.member.engine.propose, []

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        if b"vm-recovered" in payload:
            tried.append("recovery")
            if len(tried) == 1:
                engine.propose = commit
                await do()
                engine.propose = propose
        return await commit(payload, timeout_s=timeout_s)

    engine.propose = propose
    return tried


@cluster_test
async def test_a_create_that_was_quicker_sends_a_recovery_to_another_host_at_once(cluster):
    vm, member = await _full_but_for_one(cluster), cluster.member
    agent = agent_of(member, THIRD_ID, "h3")
    taken: list[str] = []

    async def create() -> None:
        opened = await agent.create(wanted("quick", host="h1"), Ids("quick"))
        taken.append(opened.vm.host_id)

    tried = _before_the_recovery(cluster, create)
    async with cluster.running():
        await until(lambda: taken)
        since_s = member.clock.monotonic_s()
        await until(lambda: member.vm(vm.id).host_id != OTHER_ID, deadline_s=2)
        took_s = member.clock.monotonic_s() - since_s
    assert (taken, member.vm(vm.id).host_id) == ([HOST_ID], THIRD_ID)
    assert took_s <= 1.0, "two rounds of the leader at most"
    assert len(tried) == 2
    assert overfull(member) == []


@cluster_test
async def test_a_create_that_leaves_enough_room_does_not_delay_a_recovery(cluster):
    vm, member = await _full_but_for_one(cluster), cluster.member
    agent = agent_of(member, THIRD_ID, "h3")
    taken: list[float] = []

    async def create() -> None:
        await agent.create(wanted("quick", 512, host="h1"), Ids("quick"))
        taken.append(member.clock.monotonic_s())

    tried = _before_the_recovery(cluster, create)
    async with cluster.running():
        await until(lambda: member.vm(vm.id).host_id != OTHER_ID)
        took_s = member.clock.monotonic_s() - taken[0]
    assert (member.vm(vm.id).host_id, len(tried)) == (HOST_ID, 2)
    assert took_s < 0.1, "tried again in the same round"


@cluster_test
async def test_a_recovery_that_finds_all_room_taken_is_blocked_with_the_reason_and_goes_on(cluster):
    vm, member = await _full_but_for_one(cluster), cluster.member
    await member.add_vm("there", host_id=THIRD_ID, memory_mib=HALF_MIB)
    agent, made = agent_of(member, THIRD_ID, "h3"), []

    async def create() -> None:
        made.append((await agent.create(wanted("quick", host="h1"), Ids("quick"))).vm)

    _before_the_recovery(cluster, create)
    async with cluster.running():
        await until(lambda: member.vm(vm.id).blocked_reason)
        assert "h1: 7308 MiB free, 8564 needed" in member.vm(vm.id).blocked_reason
        (task,) = [one for one in member.store.all(Task) if one.subject == f"vm/{made[0].id}"]
        await member.store.apply(deletes=(task, member.vm(made[0].id)))
        await until(lambda: member.vm(vm.id).host_id == HOST_ID, deadline_s=2)
    assert member.vm(vm.id).blocked_reason == ""
    assert [one.code for one in member.store.since(Event, 0)].count("vm-recovered") == 1
