"""Placement rules as agents keep to them: what the API refuses and tells, and that no two choices break a rule together."""

import asyncio

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, NotFoundError
from core.model import (
    KINDS,
    LINKS,
    VM,
    Cluster,
    Event,
    Host,
    PlacementPolicy,
    PlacementRule,
    PowerState,
    RuleStrength,
    Severity,
    VMPhase,
    plan_delete,
)
from core.model.placement_rule import RULE_VMS_MAX
from ha.placement import PlacementError
from ha.placement_rules import RuleError
from nodeagent.api.requests import Ids
from nodeagent.services.evacuation import Ids as MotionIds
from nodeagent.services.placement_rules import broken_rules
from nodeagent.services.placing import Placing
from nodeagent.services.vm_requests import CreateVM, MigrateVM
from nodeagent.services.vm_service import VmService
from nodeagent.workflows.migrate_steps import ReserveTarget
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded
from tests.unit.test_ha_controller import RUNNING, cluster_test, until
from tests.unit.test_migrate_steps import Move

APART, TOGETHER = PlacementPolicy.VM_ANTI_AFFINITY, PlacementPolicy.VM_AFFINITY
ON = PlacementPolicy.HOST_AFFINITY
AT_REST = {"power": PowerState.STOPPED, "phase": VMPhase.STOPPED}


class Ages:
    """Every host renewed its lease a moment ago."""

    def age_s(self, host_id: str) -> float:
        del host_id
        return 0.5


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    await made.add_host(OTHER_ID, "h2", "192.0.2.2")
    return made


def service(member: OneMember) -> VmService:
    return VmService(member.node, Placing(member.node, Ages()))


def slow_log(member: OneMember) -> None:
    """Have the log take its time, so that two who are asked at once both decide before either is recorded."""
    commit = member.engine.propose

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        await asyncio.sleep(0.01)
        return await commit(payload, timeout_s=timeout_s)

    member.engine.propose = propose


async def add_rule(member: OneMember, policy, *vms: VM, hosts=(), **fields) -> PlacementRule:
    made = PlacementRule(
        id=f"rule-{policy}",
        name=str(policy),
        cluster_id=member.store.need(Host, HOST_ID).cluster_id,
        policy=policy,
        vm_ids=tuple(vm.id for vm in vms),
        host_ids=hosts,
        **fields,
    )
    await member.store.apply(puts=(made,))
    return member.store.need(PlacementRule, made.id)


async def test_a_start_keeps_to_the_rules_and_is_refused_where_none_can_hold(member):
    first = await member.add_vm("a", phase=VMPhase.RUNNING)
    second, third = [await member.add_vm(name, **AT_REST) for name in ("b", "c")]
    await add_rule(member, APART, first, second, third)
    opened = await service(member).start(second, Ids("b"))
    assert opened.vm.host_id == OTHER_ID, "its own host has the other one"
    digest = member.store.digest()
    with pytest.raises(PlacementError, match="h1: rule 'vm-anti-affinity' keeps it apart from a"):
        await service(member).start(third, Ids("c"))
    assert member.store.digest() == digest


async def test_a_preferred_rule_moves_a_start_away_and_never_stops_it(member):
    first = await member.add_vm("a", phase=VMPhase.RUNNING)
    second, third = [await member.add_vm(name, **AT_REST) for name in ("b", "c")]
    await add_rule(member, APART, first, second, third, strength=RuleStrength.PREFERRED)
    assert (await service(member).start(second, Ids("b"))).vm.host_id == OTHER_ID
    assert (await service(member).start(third, Ids("c"))).task is not None


async def test_a_vm_with_local_disks_is_not_started_where_a_rule_forbids_it(member):
    vm = await member.add_vm("a", shared=False, **AT_REST)
    await add_rule(member, ON, vm, hosts=(OTHER_ID,))
    with pytest.raises(PlacementError, match="rule 'host-affinity' keeps it on other hosts"):
        await service(member).start(vm, Ids("a"))


async def test_two_starts_at_the_same_moment_do_not_meet(member):
    """Both choose before either is recorded, as two agents may: the second is refused, and chooses anew."""
    one, two = [await member.add_vm(name, host_id=OTHER_ID, **AT_REST) for name in ("a", "b")]
    await add_rule(member, APART, one, two)
    slow_log(member)
    both = await asyncio.gather(
        service(member).start(one, Ids("a")),
        service(member).start(two, Ids("b")),
        return_exceptions=True,
    )
    (refused,) = [it for it in both if isinstance(it, ConflictError)]
    assert refused.code == "conflict-guard"
    late = two if refused is both[1] else one
    await service(member).start(member.vm(late.id), Ids("again"))
    assert {member.vm(one.id).host_id, member.vm(two.id).host_id} == {HOST_ID, OTHER_ID}


async def test_a_migration_is_judged_again_when_its_target_is_recorded(member):
    moving = await member.add_vm("a", phase=VMPhase.RUNNING, generation=1)
    other = await member.add_vm("b", phase=VMPhase.RUNNING, generation=1)
    await add_rule(member, APART, moving, other)
    await service(member).migrate(moving, MigrateVM(), Ids("a"))
    await member.change_vm(other.id, migrating_to_host_id=OTHER_ID)  # it was quicker
    with pytest.raises(PlacementError, match="can't take VM 'a' any more: rule"):
        await ReserveTarget(Move(member, moving.id).work).do()
    assert not member.vm(moving.id).migrating_to_host_id


async def test_of_two_migrations_that_are_recorded_together_one_fails(member):
    one = await member.add_vm("a", phase=VMPhase.RUNNING, generation=1)
    two = await member.add_vm("b", phase=VMPhase.RUNNING, generation=1)
    await add_rule(member, APART, one, two)
    slow_log(member)
    steps = [ReserveTarget(Move(member, vm.id).work).do() for vm in (one, two)]
    done = await asyncio.gather(*steps, return_exceptions=True)
    assert [getattr(it, "code", "") for it in done if it is not None] == ["conflict-guard"]
    going = [vm for vm in member.store.all(VM) if vm.migrating_to_host_id]
    assert len(going) == 1


async def test_a_group_leaves_a_host_in_maintenance_and_comes_home_one_by_one(member):
    await member.add_host(THIRD_ID, "h3", "192.0.2.3")
    group = [await member.add_vm(n, phase=VMPhase.RUNNING, cpus=5) for n in ("a", "b")]
    other = member.store.need(Host, OTHER_ID)
    await member.store.apply(puts=(replace(other, memory_mib=32768, cpus=1),))
    await add_rule(member, TOGETHER, *group)
    with pytest.raises(PlacementError, match="keeps it on one host with b"):
        await service(member).migrate(group[0], MigrateVM(), Ids("alone"))
    await member.store.apply(puts=(replace(member.store.need(Host, HOST_ID), maintenance=True),))
    opened = await service(member).evacuate(member.vm(group[0].id), MotionIds(member.node))
    assert opened.task.arguments["target_host_id"] == THIRD_ID, (
        "h2 has more memory, and processors for one of them"
    )
    moved = {"host_id": THIRD_ID, "home_host_id": HOST_ID, "phase": VMPhase.RUNNING}
    await member.change_vm(group[0].id, **moved)
    opened = await service(member).evacuate(member.vm(group[1].id), MotionIds(member.node))
    assert opened.task.arguments["target_host_id"] == THIRD_ID
    await member.change_vm(group[1].id, **moved)
    await member.store.apply(puts=(replace(member.store.need(Host, HOST_ID), maintenance=False),))
    for vm in group:
        chosen = Placing(member.node, Ages()).choose(
            member.vm(vm.id), service(member).disks_of(vm), only=HOST_ID, never=THIRD_ID
        )
        assert chosen == HOST_ID
        await member.change_vm(vm.id, host_id=HOST_ID)


# -- creating into rules


async def create(member: OneMember, name: str, *rules: str, **fields) -> VM:
    body = CreateVM(name=name, image="debian", placement_rules=rules, **fields)
    return (await service(member).create(body, Ids(f"create-{name}"))).vm


async def refused(member: OneMember, error: type[Exception], words: str, *rules: str) -> None:
    digest = member.store.digest()
    with pytest.raises(error, match=words):
        await create(member, "new", *rules)
    assert member.store.digest() == digest, "a refusal changes nothing"


async def test_a_vm_is_created_into_rules_and_placed_by_them_the_first_time(member):
    await member.add_image()
    await member.add_shared_storage()
    first = await member.add_vm("a", host_id=OTHER_ID, phase=VMPhase.RUNNING, memory_mib=64)
    await member.add_vm("large", phase=VMPhase.RUNNING, memory_mib=4096)
    near = await add_rule(member, TOGETHER, first)
    far = await add_rule(member, ON, hosts=(HOST_ID, OTHER_ID), strength=RuleStrength.PREFERRED)
    await add_rule(member, APART, first, strength=RuleStrength.PREFERRED)
    made = await create(member, "b", near.name, far.id, near.id)
    assert made.host_id == OTHER_ID
    for rule, vm_ids in ((near, (first.id, made.id)), (far, (made.id,))):
        after = member.store.need(PlacementRule, rule.id)
        assert after.vm_ids == vm_ids
        assert after.revision == made.revision, "with the VM, in one transaction"
    alone = await create(member, "c")
    apart = await create(member, "d", str(APART))
    assert (alone.host_id, apart.host_id) == (OTHER_ID, HOST_ID)


async def test_a_vm_is_not_created_into_rules_that_leave_it_no_host(member):
    await member.add_image()
    vms = [await member.add_vm(host, host_id=host, **RUNNING) for host in (HOST_ID, OTHER_ID)]
    rule = await add_rule(member, APART, *vms)
    await refused(member, PlacementError, f"h1: rule {rule.name!r} keeps it apart", rule.name)


async def test_a_vm_is_not_created_into_rules_that_contradict_each_other_or_are_full(member):
    await member.add_image()
    other = await member.add_vm("a", **RUNNING)
    await add_rule(member, APART, other)
    await add_rule(member, TOGETHER, other)
    both = (str(APART), str(TOGETHER))
    await refused(member, RuleError, "a and new would have to be together and apart", *both)
    await refused(member, NotFoundError, "nowhere", "nowhere")
    full = await add_rule(member, ON, hosts=(HOST_ID,))
    await member.store.apply(puts=(replace(full, vm_ids=(other.id,) * RULE_VMS_MAX),))
    await refused(member, InvalidError, "takes no more", full.name)


async def test_a_vm_is_not_created_into_a_rule_of_another_cluster(member):
    await member.add_image()
    here = member.store.need(Cluster, member.store.need(Host, HOST_ID).cluster_id)
    there = replace(here, id="there", name="there", revision=0)
    await member.store.apply(puts=(there,))
    rule = await add_rule(member, APART)
    await member.store.apply(puts=(replace(rule, cluster_id="there"),))
    await refused(member, InvalidError, "about another cluster", rule.name)


async def test_vms_that_are_created_into_a_rule_at_the_same_moment_do_not_meet(member):
    await member.add_image()
    await member.add_shared_storage()
    await add_rule(member, APART)
    slow_log(member)
    made = await asyncio.gather(*(create(member, name, str(APART)) for name in "ab"))
    assert {vm.host_id for vm in made} == {HOST_ID, OTHER_ID}
    (rule,) = member.store.all(PlacementRule)
    assert set(rule.vm_ids) == {vm.id for vm in made}


# -- failover


@cluster_test
async def test_a_vm_without_a_legal_host_is_blocked_with_an_alarm_until_there_is_one(cluster):
    await cluster.begin()
    member = cluster.member
    vms = [
        await member.add_vm(name, host_id=host_id, **RUNNING)
        for name, host_id in (("a", HOST_ID), ("b", OTHER_ID), ("c", THIRD_ID))
    ]
    await add_rule(member, APART, *vms)
    async with cluster.running():
        await asyncio.sleep(6)
        cluster.alive.remove(OTHER_ID)
        await until(lambda: member.vm(vms[1].id).blocked_reason)
        assert (
            "h1: rule 'vm-anti-affinity' keeps it apart from a"
            in member.vm(vms[1].id).blocked_reason
        )
        await asyncio.sleep(60)
        assert member.vm(vms[1].id).host_id == OTHER_ID
        await member.change_vm(vms[2].id, **AT_REST)
        await until(lambda: member.vm(vms[1].id).host_id == THIRD_ID)
    alarms = [e for e in member.store.all(Event) if e.code == "vm-blocked"]
    assert [alarm.severity for alarm in alarms] == [Severity.ALARM]


@cluster_test
async def test_the_group_of_a_lost_host_goes_to_the_host_that_fits_it_whole(cluster):
    await cluster.begin()
    member = cluster.member
    group = [
        await member.add_vm(name, host_id=OTHER_ID, cpus=4, **RUNNING) for name in ("a", "b", "c")
    ]
    # h3 has most memory, and processors for two of them.
    third = member.store.need(Host, THIRD_ID)
    await member.store.apply(puts=(replace(third, memory_mib=32768, cpus=1),))
    await add_rule(member, TOGETHER, *group)
    async with cluster.running():
        await asyncio.sleep(6)
        cluster.alive.remove(OTHER_ID)
        await until(lambda: all(member.vm(vm.id).host_id != OTHER_ID for vm in group))
    assert {member.vm(vm.id).host_id for vm in group} == {HOST_ID}
    assert cluster.codes().count("vm-blocked") == 0


@cluster_test
async def test_a_member_that_cannot_leave_keeps_the_others_waiting(cluster):
    await cluster.begin()
    member = cluster.member
    stays = await member.add_vm("a", host_id=OTHER_ID, ha=False, **RUNNING)
    waits = await member.add_vm("b", host_id=OTHER_ID, **RUNNING)
    await add_rule(member, TOGETHER, stays, waits)
    async with cluster.running():
        await asyncio.sleep(6)
        cluster.alive.remove(OTHER_ID)
        await until(lambda: member.vm(waits.id).blocked_reason)
        assert "keeps it on one host with a" in member.vm(waits.id).blocked_reason
        await cluster.renew_now(OTHER_ID)
        await until(lambda: not member.vm(waits.id).blocked_reason)
    assert member.vm(waits.id).host_id == OTHER_ID


# -- the API


async def make(api, name: str, policy, status: int = 201, **fields) -> dict:
    body = {"name": name, "cluster": "test", "policy": str(policy)} | fields
    answer = await api.post("/v1/placement-rules", json=body)
    shown = await answer.json()
    assert answer.status == status, shown
    return shown


async def test_rules_are_made_changed_and_refused_by_the_api(member, api):
    for name in ("a", "b", "c"):
        await member.add_vm(name, phase=VMPhase.RUNNING)
    made = await make(api, "web", APART, vms=["a", "b"])
    assert (made["strength"], made["vm_names"]) == ("mandatory", ["a", "b"])
    refused = await make(api, "near", TOGETHER, 409, vms=["b", "a"])
    assert refused["code"] == "rule-contradiction"
    assert "'near' and 'web'" in refused["detail"]
    await make(api, "near", TOGETHER, vms=["a", "b"], strength="preferred")
    changed = await api.patch("/v1/placement-rules/near", json={"strength": "mandatory"})
    assert (await changed.json())["code"] == "rule-contradiction"
    assert (await make(api, "on", ON, 400, vms=["a"]))["code"] == "invalid"
    await make(api, "many", ON, 400, vms=["a"] * 101, hosts=["h1"])
    assert (await api.delete("/v1/placement-rules/near")).status == 204


async def test_a_rule_is_about_one_cluster(member, api):
    vm = await member.add_vm("a")
    other = await api.post("/v1/clusters", json={"name": "gpu", "data_center": "default"})
    assert other.status == 201
    refused = await make(api, "web", APART, 400, cluster="gpu", vms=[vm.name])
    assert "VM 'a' is not in cluster 'gpu'" in refused["detail"]


async def test_what_does_not_hold_is_checked_and_told_in_the_health(member, api):
    for name in ("a", "b", "c"):
        await member.add_vm(name, phase=VMPhase.RUNNING)
    await make(api, "web", APART, vms=["a", "b", "c"])
    found = await (await api.get("/v1/placement-rules/web/check")).json()
    assert not found["holds"]
    assert found["broken"] == ["a and b and c are together on h1"]
    assert found["warnings"] == ["it keeps 3 VMs apart, and the cluster has 2 hosts"]
    (rule,) = broken_rules(member.store)
    assert (rule.name, rule.mandatory, rule.what) == ("web", True, found["broken"][0])
    await make(api, "on", ON, vms=["a"], hosts=["h1"])
    assert (await (await api.get("/v1/placement-rules/on/check")).json())["holds"]


async def test_a_deleted_vm_leaves_its_rules(member):
    one, two = [await member.add_vm(name) for name in ("a", "b")]
    rule = await add_rule(member, APART, one, two)
    plan = plan_delete(one, lambda kind: member.store.all(KINDS[kind]), LINKS)
    (detached,) = [it for it in plan.changed if isinstance(it, PlacementRule)]
    assert (detached.id, detached.vm_ids) == (rule.id, (two.id,))
