"""Conducting drills: the fault is done once, what follows is measured, and whatever happens, all is put right."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, ForbiddenError, InvalidError
from core.model import (
    Arming,
    Bmc,
    DataStorage,
    Drill,
    DrillKind,
    DrillState,
    DrillVerdict,
    Lease,
    VMPhase,
)
from ha.drills.obstacles import Wish
from nodeagent.drills.target import BeginFault, DrillTarget
from nodeagent.services.housekeeping import Housekeeping
from tests.drill_world import ADDRESSES, HOST_ID, OTHER_ID, RUNS, THIRD_ID, DrillWorld, drill_test
from tests.one_member import running, until

KINDS_BY_AGENT = (
    DrillKind.AGENT_KILL,
    DrillKind.GUARD_KILL,
    DrillKind.NETWORK_CUT,
)


@drill_test
async def test_power_off_is_measured_and_the_host_has_its_power_back(world: DrillWorld) -> None:
    vm = await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        drill = await world.ended(await world.begin(DrillKind.POWER_OFF))
    assert (drill.verdict, drill.left_to_do) == (DrillVerdict.PASSED, "")
    codes = world.codes(drill)
    wanted = [
        "fault",
        "suspected",
        "fencing",
        "fenced",
        "taken",
        "running",
        "power-on",
        "host-back",
    ]
    assert [code for code in codes if code in wanted] == wanted
    (one,) = drill.vms
    assert (one.vm, one.was_on, one.verdict) == (vm.id, "h2", DrillVerdict.PASSED)
    assert 4500 <= one.running_ms <= 9000
    assert one.bound_ms == 21_000
    assert world.nothing_is_broken()
    assert world.power.asked.count("off 10.9.0.2") == 2  # the fault, and the cluster's own fencing


@drill_test
async def test_agent_kill_touches_no_guest(world: DrillWorld) -> None:
    vm = await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        drill = await world.ended(await world.begin(DrillKind.AGENT_KILL))
    assert drill.verdict is DrillVerdict.PASSED, drill.why
    assert world.faults[OTHER_ID].done == ["kill-agent"]
    assert world.member.vm(vm.id).generation == 4
    assert "agent-back" in world.codes(drill)


@drill_test
async def test_guard_kill_resets_the_host_and_moves_its_vm(world: DrillWorld) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        drill = await world.ended(await world.begin(DrillKind.GUARD_KILL))
    assert drill.verdict is DrillVerdict.PASSED, drill.why
    assert world.faults[OTHER_ID].done == ["kill-guard"]
    assert world.nothing_is_broken()


@drill_test
async def test_a_long_cut_moves_vms_and_a_short_one_nothing(world: DrillWorld) -> None:
    vm = await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        short = await world.ended(await world.begin(DrillKind.NETWORK_CUT, duration_s=2))
        assert short.verdict is DrillVerdict.PASSED, short.why
        assert world.member.vm(vm.id).host_id == OTHER_ID
        long = await world.ended(await world.begin(DrillKind.NETWORK_CUT, duration_s=30))
    assert long.verdict is DrillVerdict.PASSED, long.why
    assert world.member.vm(vm.id).host_id != OTHER_ID
    assert world.nothing_is_broken()


@drill_test
async def test_a_vm_that_is_not_started_in_time_fails_the_drill(world: DrillWorld) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    world.starts_s = 40.0
    async with running(world.runner().run):
        drill = await world.ended(await world.begin(DrillKind.POWER_OFF))
    assert drill.verdict is DrillVerdict.FAILED
    assert "21.0 s is promised" in drill.why
    assert world.nothing_is_broken()


@drill_test
async def test_abort_gives_the_power_back_and_says_nothing_of_the_promise(
    world: DrillWorld,
) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        drill = await world.begin(DrillKind.POWER_OFF)
        await until(lambda: not world.power.on[ADDRESSES[OTHER_ID]])
        await world.drills.abort(drill, "not today")  # before anybody has missed a renewal
        ended = await world.ended(drill)
    assert (ended.verdict, ended.why) == (DrillVerdict.ABORTED, "not today")
    assert world.nothing_is_broken()
    with pytest.raises(ConflictError, match="ended already"):
        await world.drills.abort(drill, "again")


@drill_test
async def test_a_second_host_that_fails_ends_the_drill(world: DrillWorld) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    world.starts_s = 60.0  # so that the drill goes on for a while
    async with running(world.runner().run):
        drill = await world.begin(DrillKind.POWER_OFF)
        await until(lambda: not world.power.on[ADDRESSES[OTHER_ID]])
        world.silent.add(THIRD_ID)
        await until(lambda: "unexpected" in world.codes(drill), 100)
        world.silent.discard(THIRD_ID)
        ended = await world.ended(drill)
    assert ended.verdict is DrillVerdict.INCONCLUSIVE
    assert "h3" in ended.why
    assert world.nothing_is_broken()


@drill_test
async def test_a_host_that_does_not_come_back_leaves_the_command_to_type(world: DrillWorld) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        drill = await world.begin(DrillKind.POWER_OFF)
        await until(lambda: "running" in world.codes(drill), 100)
        world.silent.add(OTHER_ID)  # it gets power, and doesn't come up
        ended = await world.ended(drill)
    assert ended.left_to_do == "kvorum bmc power-on h2"
    assert ended.verdict is DrillVerdict.FAILED
    assert "kvorum bmc power-on h2" in world.alarms()[-1]


@pytest.mark.parametrize("state", ["prepared", "starting", "watching", "undoing"])
def test_an_observer_that_dies_leaves_no_host_off(state: str) -> None:
    @drill_test
    async def dies_in(world: DrillWorld) -> None:
        await world.member.add_vm(host_id=OTHER_ID, **RUNS)
        if state in ("prepared", "starting"):
            drill = await world.begin(DrillKind.POWER_OFF)
            left = replace(world.drill(drill), state=DrillState(state))
            await world.store.apply(puts=(left,))
        else:
            async with running(world.runner().run):
                drill = await world.begin(DrillKind.POWER_OFF)
                await until(lambda: world.drill(drill).state == state, 200)
        assert world.drill(drill).state == state
        await asyncio.sleep(1.0)
        async with running(world.runner().run):
            ended = await world.ended(drill)
        assert ended.verdict in (DrillVerdict.INCONCLUSIVE, DrillVerdict.FAILED), ended.why
        assert ended.left_to_do == ""
        assert world.nothing_is_broken()
        begun = state in ("watching", "undoing")
        assert ("off 10.9.0.2" in world.power.asked) == begun

    dies_in()


@drill_test
async def test_the_leader_puts_right_what_a_lost_observer_left(world: DrillWorld) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    drill = await world.begin(DrillKind.POWER_OFF)
    left = replace(world.drill(drill), observer_host_id=THIRD_ID, state=DrillState.WATCHING)
    await world.store.apply(puts=(left,))
    world.power.on[ADDRESSES[OTHER_ID]] = False
    world.silent.add(THIRD_ID)
    async with running(world.runner().run):
        await until(lambda: world.drill(drill).observer_host_id == HOST_ID, 60)
        world.silent.discard(THIRD_ID)
        ended = await world.ended(drill)
    assert ended.verdict in (DrillVerdict.INCONCLUSIVE, DrillVerdict.FAILED)
    assert world.nothing_is_broken()


@pytest.mark.parametrize("kind", KINDS_BY_AGENT)
def test_a_lost_answer_does_not_do_a_fault_twice(kind: DrillKind) -> None:
    @drill_test
    async def loses(world: DrillWorld) -> None:
        world.lose_answers = True
        await world.member.add_vm(host_id=OTHER_ID, **RUNS)
        async with running(world.runner().run):
            drill = await world.ended(await world.begin(kind))
        assert drill.verdict is DrillVerdict.PASSED, drill.why
        assert len(world.faults[OTHER_ID].done) == 1

    loses()


@drill_test
async def test_a_host_breaks_itself_only_for_a_drill_that_is_committed_for_it_now(
    world: DrillWorld,
) -> None:
    target = world.targets[OTHER_ID]
    drill = await world.begin(DrillKind.AGENT_KILL)
    order = BeginFault(drill_id=drill.id)
    with pytest.raises(ConflictError, match="prepared"):
        await target.begin(HOST_ID, order)
    await world.store.apply(puts=(replace(world.drill(drill), state=DrillState.STARTING),))
    with pytest.raises(ForbiddenError):
        await target.begin(THIRD_ID, order)  # not its observer
    with pytest.raises(ForbiddenError):
        await world.targets[THIRD_ID].begin(HOST_ID, order)  # not its host
    await world.store.apply(puts=(replace(world.drill(drill), abort_reason="no"),))
    with pytest.raises(ConflictError):
        await target.begin(HOST_ID, order)
    await world.store.apply(puts=(replace(world.drill(drill), abort_reason=""),))
    await asyncio.sleep(31)
    with pytest.raises(ConflictError, match="too long ago"):
        await target.begin(HOST_ID, order)
    assert world.faults[OTHER_ID].done == []


@drill_test
async def test_an_agent_that_starts_again_does_no_fault_of_before(world: DrillWorld) -> None:
    drill = await world.begin(DrillKind.AGENT_KILL)
    await world.store.apply(puts=(replace(world.drill(drill), state=DrillState.STARTING),))
    restarted = DrillTarget(world.nodes[OTHER_ID], world.faults[OTHER_ID])
    async with running(restarted.run):
        with pytest.raises(ConflictError, match="older than this agent"):
            await restarted.begin(HOST_ID, BeginFault(drill_id=drill.id))
    assert world.faults[OTHER_ID].done == []


@drill_test
async def test_it_is_refused_unless_the_name_is_repeated_and_while_another_is_open(
    world: DrillWorld,
) -> None:
    with pytest.raises(InvalidError, match="'h2'"):
        await world.drills.start(
            Wish(DrillKind.POWER_OFF, OTHER_ID), confirm="h3", id_="x", request_id="x"
        )
    await world.begin(DrillKind.POWER_OFF)
    with pytest.raises(ConflictError, match="one at a time") as refused:
        await world.begin(DrillKind.AGENT_KILL, "h3")
    assert refused.value.code == "drill-not-possible"
    assert len(world.store.all(Drill)) == 1


@drill_test
async def test_what_changed_since_it_was_asked_for_stops_it_before_the_fault(
    world: DrillWorld,
) -> None:
    async with running(world.runner().run):
        world.in_maintenance_after_looks = (
            1  # the API's look is the first, the observer's the second
        )
        ended = await world.ended(await world.begin(DrillKind.POWER_OFF))
    assert ended.verdict is DrillVerdict.INCONCLUSIVE
    assert "maintenance" in ended.why
    assert "off 10.9.0.2" not in world.power.asked


@drill_test
async def test_a_full_power_loss_is_measured_by_the_leader_after_it(world: DrillWorld) -> None:
    vm = await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.power_loss_watch().run):
        drill = await world.begin(DrillKind.FULL_POWER_LOSS, host="")
        await until(lambda: world.drill(drill).state is DrillState.STARTING)
    for address in ADDRESSES.values():
        world.power.on[address] = False
    await asyncio.sleep(10)
    for address in ADDRESSES.values():
        world.power.on[address] = True
    async with running(world.power_loss_watch().run):
        ended = await world.ended(drill)
    assert ended.verdict is DrillVerdict.PASSED, ended.why
    assert "all-booted" in world.codes(drill)
    assert world.member.vm(vm.id).phase is VMPhase.RUNNING


@drill_test
async def test_a_full_power_loss_that_nobody_makes_can_be_aborted(world: DrillWorld) -> None:
    async with running(world.power_loss_watch().run):
        drill = await world.begin(DrillKind.FULL_POWER_LOSS, host="")
        await world.drills.abort(drill, "nobody is at the rack")
        ended = await world.ended(drill)
    assert (ended.verdict, ended.why) == (DrillVerdict.ABORTED, "nobody is at the rack")
    assert world.store.need(Lease, OTHER_ID).boot_id == "boot"


@drill_test
async def test_no_drill_begins_while_an_agent_of_before_drills_is_there(world: DrillWorld) -> None:
    world.without_drills.add(THIRD_ID)
    with pytest.raises(ConflictError, match="agent of h3 is of a version without drills"):
        await world.begin(DrillKind.AGENT_KILL)


@drill_test
async def test_a_storage_that_is_lost_for_a_time_touches_no_guest(world: DrillWorld) -> None:
    vm = await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    shared = next(s for s in world.store.all(DataStorage) if s.path == "/srv/shared")
    with pytest.raises(ConflictError, match="not mounted by NFS"):
        await world.begin(DrillKind.STORAGE_LOSS, data_storage_id=shared.id)
    world.faults[OTHER_ID].servers["/srv/shared"] = "192.0.2.50"
    async with running(world.runner().run):
        drill = await world.ended(
            await world.begin(DrillKind.STORAGE_LOSS, data_storage_id=shared.id)
        )
    assert drill.verdict is DrillVerdict.PASSED, drill.why
    assert world.faults[OTHER_ID].done == ["cut 15"]
    codes = [c for c in world.codes(drill) if c.startswith("storage")]
    assert codes == ["storage-lost", "storage-back"]
    assert world.member.vm(vm.id).generation == 4


@drill_test
async def test_a_server_that_is_a_host_of_the_cluster_is_not_cut_off(world: DrillWorld) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    shared = next(s for s in world.store.all(DataStorage) if s.path == "/srv/shared")
    world.faults[OTHER_ID].servers["/srv/shared"] = "192.0.2.3"
    with pytest.raises(ConflictError, match="served by a host of the cluster"):
        await world.begin(DrillKind.STORAGE_LOSS, data_storage_id=shared.id)


@drill_test
async def test_old_drills_are_forgotten_and_none_that_is_open(world: DrillWorld) -> None:
    old = [
        Drill(
            id=f"d{n}", name=f"d{n}", kind=DrillKind.AGENT_KILL, state=DrillState.ENDED, ended_ms=n
        )
        for n in range(1, 204)
    ]
    await world.store.apply(puts=old)
    drill = await world.begin(DrillKind.AGENT_KILL)
    gone = Housekeeping(world.nodes[HOST_ID]).outdated()
    assert {one.id for one in gone} == {"d1", "d2", "d3"}
    assert world.drill(drill)


@drill_test
async def test_without_a_board_a_cut_is_proven_by_time_and_a_reset_host_is_left_to_people(
    world: DrillWorld,
) -> None:
    for board in world.store.all(Bmc):
        await world.store.apply(deletes=(board,))
    vm = await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        cut = await world.ended(await world.begin(DrillKind.NETWORK_CUT, duration_s=30))
        assert cut.verdict is DrillVerdict.PASSED, cut.why
        (one,) = cut.vms
        assert 19_000 <= one.running_ms <= 21_000
        assert world.nothing_is_broken()
        killed = await world.ended(await world.begin(DrillKind.GUARD_KILL))
    assert world.member.vm(vm.id).host_id != OTHER_ID
    assert killed.left_to_do == "switch h2 on, see kvorum health"
    assert killed.verdict is DrillVerdict.FAILED
    assert killed.left_to_do in killed.why


@drill_test
async def test_failover_that_is_disarmed_meanwhile_ends_the_drill_and_gives_the_power_back(
    world: DrillWorld,
) -> None:
    await world.member.add_vm(host_id=OTHER_ID, **RUNS)
    async with running(world.runner().run):
        drill = await world.begin(DrillKind.POWER_OFF)
        await until(lambda: not world.power.on[ADDRESSES[OTHER_ID]])
        disarmed = replace(world.member.mesh(), ha_arming=Arming.DISARMED)
        await world.store.apply(puts=(disarmed,))
        ended = await world.ended(drill)
    assert ended.verdict is DrillVerdict.INCONCLUSIVE
    assert "disarmed" in ended.why
    assert world.nothing_is_broken()
