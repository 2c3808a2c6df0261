"""Room for the VMs of lost hosts: the verdict is what failover would do, and what it allows or refuses."""

import dataclasses
import random
import time
from dataclasses import replace as copy_of

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.model import (
    VM,
    Admission,
    Cluster,
    DataStorage,
    DataStorageKind,
    Disk,
    Host,
    HostState,
    Lease,
    PlacementPolicy,
    PlacementRule,
    PowerState,
    TaskState,
    VMPhase,
    VMPriority,
)
from ha.admission import (
    PLACED_MAX,
    SETS_MAX,
    AdmissionError,
    RoomView,
    can_be_lost,
    first_shortfall,
    losses,
    told,
)
from ha.manager import Block, HAView, Recover, decide
from ha.placement import HOST_RESERVE_MIB, VM_OVERHEAD_MIB
from ha.profile import PROFILES
from nodeagent.api.requests import Ids
from nodeagent.services.admission import AdmissionControl, short_rooms, storages_of_vms
from nodeagent.services.vm_requests import ChangeVM, CreateVM
from nodeagent.services.vm_service import VmService
from tests.api import ADMIN, FakeAgent, app_of
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded
from tests.placement_worlds import placement_rules, rule

GIB = 1024


def host(name: str, room_mib: int = 4 * GIB, **changes: object) -> Host:
    """A host with room for so much memory of VMs."""
    made = Host(
        id=name,
        name=name,
        cluster_id="c",
        address=name,
        cpus=8,
        memory_mib=room_mib + HOST_RESERVE_MIB,
    )
    return replace(made, **changes)


def vm(name: str, on: str, takes_mib: int = GIB, **changes: object) -> VM:
    """A running VM that takes so much memory with its overhead."""
    made = VM(
        id=name,
        name=name,
        cluster_id="c",
        host_id=on,
        cpus=1,
        memory_mib=takes_mib - VM_OVERHEAD_MIB,
        phase=VMPhase.RUNNING,
        generation=1,
    )
    return replace(made, **changes)


def view(hosts, vms, **changes: object) -> RoomView:
    ages = {one.id: 0.5 for one in hosts}
    return copy_of(RoomView(tuple(hosts), tuple(vms), frozenset(), ages), **changes)


def test_a_loss_that_fits_is_borne_and_says_where_vms_go():
    hosts = [host("h1"), host("h2"), host("h3")]
    (loss,) = losses(view(hosts, [vm("a", "h1", 3 * GIB), vm("b", "h1", GIB)]))
    assert [one.name for one in loss.hosts] == ["h1"]
    assert (loss.vms, loss.placed, loss.left_out) == (2, {"h2": 1, "h3": 1}, ())


def test_a_loss_that_does_not_fit_names_the_host_and_what_is_missing():
    hosts = [host("h1"), host("h2")]
    vms = [vm("a", "h1", 3 * GIB), vm("b", "h2", 2 * GIB)]
    loss = first_shortfall(view(hosts, vms))
    assert loss is not None
    assert told(loss) == (
        "if h1 was lost, 1 of 1 highly available VM would find no room: 3072 MiB are missing"
    )


@pytest.mark.parametrize(
    "changes",
    [{"ha": False}, {"power": PowerState.STOPPED}, {"phase": VMPhase.DELETING}],
)
def test_what_failover_does_not_start_needs_no_room(changes):
    hosts = [host("h1"), host("h2", GIB)]
    assert first_shortfall(view(hosts, [vm("a", "h1", 3 * GIB)])) is not None
    assert first_shortfall(view(hosts, [vm("a", "h1", 3 * GIB, **changes)])) is None


def test_a_vm_with_disks_on_its_host_needs_no_room_elsewhere():
    hosts = [host("h1"), host("h2", GIB)]
    pinned = view(hosts, [vm("a", "h1", 3 * GIB)], pinned=frozenset({"a"}))
    assert first_shortfall(pinned) is None


@pytest.mark.parametrize(
    "unfit",
    [
        host("h2", maintenance=True),
        host("h2", witness=True),
        host("h2", state=HostState.FENCED),
        host("h2", cluster_id="other"),
    ],
)
def test_hosts_that_placement_refuses_give_no_room(unfit):
    assert first_shortfall(view([host("h1"), unfit], [vm("a", "h1")])) is not None


def test_a_host_without_a_fresh_lease_gives_no_room_and_its_vms_take_theirs_first():
    hosts = [host("h1"), host("h2"), host("h3")]
    vms = [vm("lost", "h3", 3 * GIB), vm("a", "h1", 2 * GIB)]
    all_up = view(hosts, vms)
    assert first_shortfall(all_up) is None
    h3_silent = copy_of(all_up, lease_ages_s={"h1": 0.5, "h2": 0.5, "h3": 60.0})
    loss = first_shortfall(h3_silent)
    assert loss is not None
    assert [one.name for one in loss.left_out] == ["a"]


def test_the_memory_may_be_there_but_in_pieces():
    hosts = [host("h1"), host("h2", 2 * GIB), host("h3", 2 * GIB)]
    loss = first_shortfall(view(hosts, [vm("a", "h1", 3 * GIB)]))
    assert loss is not None
    assert loss.missing_mib == 3 * GIB


def test_processors_may_be_what_is_missing():
    small = host("h2", cpus=1)
    assert first_shortfall(view([host("h1"), small], [vm("a", "h1", cpus=8)])) is None
    assert first_shortfall(view([host("h1"), small], [vm("a", "h1", cpus=9)])) is not None


def test_a_host_with_less_memory_but_processors_is_found():
    hosts = [host("h1"), host("h2", 8 * GIB, cpus=1), host("h3", 2 * GIB)]
    (loss,) = losses(view(hosts, [vm("a", "h1", cpus=9)]))
    assert loss.placed == {"h3": 1}


def test_a_vm_on_its_way_has_its_room_where_it_goes():
    hosts = [host("h1", 3 * GIB), host("h2", 3 * GIB)]
    moving = vm("a", "h1", 3 * GIB, migrating_to_host_id="h2")
    assert first_shortfall(view(hosts, [moving])) is None


def test_a_vm_that_rules_leave_no_host_is_not_short_of_room():
    """Nobody else is refused for it: no room in the world would help."""
    hosts = [host("h1"), host("h2")]
    rules = (rule("web", PlacementPolicy.VM_ANTI_AFFINITY, ["a", "b"]),)
    seen = view(hosts, [vm("a", "h1"), vm("b", "h2")], rules=rules)
    assert first_shortfall(seen) is None
    assert [[one.name for one in loss.ruled_out] for loss in losses(seen)] == [["a"], ["b"]]
    full = view(hosts, [vm("a", "h1", 3 * GIB), vm("b", "h2", 3 * GIB)], rules=rules)
    assert first_shortfall(full) is not None


def test_two_losses_at_a_time_are_harder_to_bear():
    hosts = [host("h1"), host("h2"), host("h3")]
    vms = [vm("a", "h1", 2 * GIB), vm("b", "h2", 2 * GIB), vm("c", "h3", 2 * GIB)]
    assert first_shortfall(view(hosts, vms)) is None
    loss = first_shortfall(view(hosts, vms, failures=2))
    assert loss is not None
    assert len(loss.hosts) == 2
    assert loss.missing_mib == 2 * GIB


def test_a_cluster_with_no_hosts_to_spare_cannot_lose_one():
    assert not can_be_lost(view([host("h1"), host("w", witness=True)], []))
    assert can_be_lost(view([host("h1"), host("h2")], []))


def test_the_worst_hosts_are_tried_when_there_are_many():
    """The one shortfall among 1000 hosts: a VM that is larger than any room, on a host with little else."""
    hosts = [host(f"h{n}") for n in range(1000)]
    vms = [vm(f"v{n}", f"h{n}", GIB) for n in range(1000)]
    vms += [vm(f"w{n}", f"h{n}", GIB) for n in range(300)]  # these have more in sum
    hosts.append(host("big", 8 * GIB))
    vms.append(vm("large", "big", 2000))
    assert first_shortfall(view(hosts, vms)) is None
    vms[-1] = vm("large", "big", 4000)
    loss = first_shortfall(view(hosts, vms))
    assert loss is not None
    assert [one.name for one in loss.hosts] == ["big"]
    for failures in (1, 2, 3):
        tried = list(losses(view(hosts, vms, failures=failures)))
        assert len(tried) <= SETS_MAX + 1
        assert all(len({one.id for one in loss.hosts}) == failures for loss in tried)


def test_ten_thousand_hosts_with_a_hundred_thousand_vms_are_judged_in_bounded_work():
    rng = random.Random(1)
    hosts = [host(f"h{n:05}", 64 * GIB) for n in range(10_000)]
    vms = [vm(f"v{n}", f"h{rng.randrange(10_000):05}", 2 * GIB) for n in range(100_000)]
    began_s = time.process_time()
    tried = list(losses(view(hosts, vms)))
    assert sum(loss.vms for loss in tried) <= PLACED_MAX
    assert len(tried) <= SETS_MAX
    assert time.process_time() - began_s < 10.0, "measured 0.5 s; far more would be another order"


def failover_of(lost: Host, hosts, vms, disks, rules=(), overcommit=8):
    """Let failover itself decide about a host that is dead for certain."""
    profile = PROFILES["default"]
    stamps = {one.id: 1000.0 for one in hosts} | {lost.id: 1000.0 - profile.safe_s - 1}
    seen = HAView(
        profile=profile,
        leader_since_s=0.0,
        hosts={one.id: one for one in hosts},
        vms={one.id: one for one in vms},
        disks={disk.id: disk for disk in disks},
        storages={
            id_: DataStorage(
                id=id_, name=id_, data_center_id="d", kind=DataStorageKind.SHARED, path="/s"
            )
            for id_ in ("s1", "s2")
        },
        leases={
            one.id: Lease(id=one.id, name=one.id, boot_id="b", seq=1, watchdog_armed=True)
            for one in hosts
        },
        stamps_s=stamps,
        rules=rules,
        cpu_overcommits={"c": overcommit},
        recoveries_max=10_000,
    )
    decisions = decide(seen, 1000.0)
    placed = {d.vm_id: d.to_host for d in decisions if isinstance(d, Recover)}
    blocked = {d.vm_id for d in decisions if isinstance(d, Block)}
    return placed, blocked


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_verdict_is_what_failover_does(data):
    """Whatever the cluster: the same VMs find room, and on the same hosts."""
    rooms = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=5))
    hosts = [
        host(
            f"h{n}",
            room * 512,
            cpus=data.draw(st.integers(1, 2)),
            unreachable_storage_ids=data.draw(st.sampled_from([(), (), ("s1",), ("s1", "s2")])),
        )
        for n, room in enumerate(rooms)
    ]
    vms = [
        vm(
            f"v{n}",
            f"h{data.draw(st.integers(0, len(hosts) - 1))}",
            data.draw(st.integers(1, 8)) * 256,
            cpus=data.draw(st.integers(1, 6)),
            ha=data.draw(st.booleans()),
            priority=data.draw(st.sampled_from(VMPriority)),
            boot_id="b",
        )
        for n in range(data.draw(st.integers(1, 10)))
    ]
    disks = [
        Disk(
            id=one.id,
            name=one.id,
            vm_id=one.id,
            data_storage_id=data.draw(st.sampled_from(["s1", "s2"])),
            size_bytes=1,
        )
        for one in vms
    ]
    rules = data.draw(placement_rules(vms, hosts))
    overcommit = data.draw(st.integers(1, 9))
    seen = view(
        hosts,
        vms,
        storages=storages_of_vms(disks),
        rules=rules,
        cpu_overcommit=overcommit,
    )
    for loss in losses(seen):
        (lost,) = loss.hosts
        placed, blocked = failover_of(lost, hosts, vms, disks, rules, overcommit)
        assert {one.id for one in (*loss.left_out, *loss.ruled_out)} == blocked
        counted = {id_: list(placed.values()).count(id_) for id_ in placed.values()}
        assert dict(loss.placed) == counted


# -- as the agent does it


class Ages:
    """Every host renewed its lease a moment ago."""

    def age_s(self, host_id: str) -> float:
        del host_id
        return 0.5


class Here:
    """A placer that chooses h1."""

    def choose(self, vm, disks, *, only="", never="", joined=()) -> str:
        del vm, disks, only, never
        return HOST_ID


async def small_cluster(**settings_of_cluster) -> tuple[OneMember, VmService]:
    """Two hosts of 16 GiB; on h2 is a VM of 12 GiB, on h1 so much less that the loss of h2 can just be borne."""
    member = await founded()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await member.add_image()
    (cluster,) = member.store.all(Cluster)
    await member.store.apply(puts=(replace(cluster, **settings_of_cluster),))
    await member.add_vm("large", host_id=OTHER_ID, memory_mib=12 * GIB, phase=VMPhase.RUNNING)
    await member.add_vm("beside", memory_mib=2 * GIB, ha=False, phase=VMPhase.RUNNING)
    return member, VmService(member.node, Here(), AdmissionControl(member.store, Ages()).admit)


async def create(service: VmService, name: str = "more", **fields):
    body = CreateVM(
        **({"name": name, "image": "debian", "memory_mib": 4 * GIB, "ha": False} | fields)
    )
    return await service.create(body, Ids(f"create-{name}"))


SHORT = "if h2 was lost, 1 of 1 highly available VM would find no room: 12352 MiB are missing"


async def test_enforced_room_refuses_a_new_vm_and_changes_nothing():
    member, service = await small_cluster(admission=Admission.ENFORCE)
    digest = member.store.digest()
    with pytest.raises(AdmissionError, match=SHORT) as refused:
        await create(service)
    assert refused.value.code == "no-failover-room"
    assert refused.value.http_status == 409
    assert member.store.digest() == digest
    await create(service, "less", memory_mib=512)


async def test_room_is_judged_by_the_rules_that_a_new_vm_is_put_into():
    """When h1 is lost, the new VM comes first and takes the room of `low` on h3, unless a rule sends it to h2."""
    member, service = await small_cluster(admission=Admission.ENFORCE)
    large = member.store.find(VM, "large")
    await member.change_vm(large.id, ha=False)
    await member.add_host(THIRD_ID, "h3", "192.0.2.3")
    on_third = {"host_id": THIRD_ID, "memory_mib": 11 * GIB, "ha": False}
    await member.add_vm("wide", **on_third, phase=VMPhase.RUNNING)
    low = {"memory_mib": 4 * GIB, "priority": VMPriority.LOW}
    await member.add_vm("low", **low, phase=VMPhase.RUNNING)
    rule = PlacementRule(
        id="not-h3",
        name="not-h3",
        cluster_id=large.cluster_id,
        policy=PlacementPolicy.HOST_ANTI_AFFINITY,
        host_ids=(THIRD_ID,),
    )
    await member.store.apply(puts=(rule,))
    high = {"ha": True, "memory_mib": 3 * GIB, "priority": VMPriority.HIGH}
    with pytest.raises(AdmissionError, match="if h1 was lost, 1 of 2"):
        await create(service, "anywhere", **high)
    await create(service, "elsewhere", **high, placement_rules=("not-h3",))


async def test_a_warning_stands_in_the_task_and_in_the_health():
    member, service = await small_cluster()
    assert short_rooms(member.store, Ages()) == ()
    opened = await create(service)
    assert [(line.what, line.text) for line in opened.task.log] == [("warning", SHORT)]
    (short,) = short_rooms(member.store, Ages())
    assert short.what == SHORT
    cluster = member.store.need(Cluster, opened.vm.cluster_id)
    await member.store.apply(puts=(replace(cluster, admission=Admission.OFF),))
    assert short_rooms(member.store, Ages()) == ()


async def test_switched_off_nothing_is_said():
    member, service = await small_cluster(admission=Admission.OFF)
    opened = await create(service)
    assert opened.task.log == ()
    assert short_rooms(member.store, Ages()) == ()


async def test_a_vm_that_is_not_started_takes_no_room_until_it_is():
    member, service = await small_cluster(admission=Admission.ENFORCE)
    opened = await create(service, start=False)
    await member.store.apply(
        puts=(
            replace(opened.task, state=TaskState.SUCCEEDED),
            replace(opened.vm, phase=VMPhase.STOPPED),
        )
    )
    stopped = member.store.need(VM, opened.vm.id)
    with pytest.raises(AdmissionError, match=SHORT):
        await service.start(stopped, Ids("start"))
    await service.change(stopped, ChangeVM(ha=True), Ids("ha"))


async def test_a_running_vm_is_made_highly_available_only_if_there_is_room():
    member, service = await small_cluster(admission=Admission.ENFORCE)
    other = await member.add_vm(
        "other", host_id=OTHER_ID, memory_mib=2 * GIB, ha=False, phase=VMPhase.RUNNING
    )
    await service.change(other, ChangeVM(description="as before"), Ids("describe"))
    with pytest.raises(AdmissionError):
        await service.change(member.store.need(VM, other.id), ChangeVM(ha=True), Ids("ha"))


async def test_a_vm_that_is_wanted_running_already_is_never_refused():
    member, service = await small_cluster(admission=Admission.ENFORCE)
    blocked = await member.add_vm("blocked", memory_mib=8 * GIB, phase=VMPhase.BLOCKED)
    assert short_rooms(member.store, Ages())
    opened = await service.start(blocked, Ids("start"))
    assert opened.task is not None


async def test_vms_with_local_disks_need_no_room_elsewhere():
    member, service = await small_cluster(admission=Admission.ENFORCE)
    local = await member.add_vm(
        "local", shared=False, host_id=OTHER_ID, memory_mib=2 * GIB, power=PowerState.STOPPED
    )
    await service.start(local, Ids("start"))


async def test_a_single_host_is_not_nagged_but_can_be_held_to_it():
    member = await founded()
    await member.add_image()
    service = VmService(member.node, Here(), AdmissionControl(member.store, Ages()).admit)
    opened = await create(service, ha=True)
    assert opened.task.log == ()
    (cluster,) = member.store.all(Cluster)
    await member.store.apply(puts=(replace(cluster, admission=Admission.ENFORCE),))
    await member.add_shared_storage()
    with pytest.raises(AdmissionError, match="if h1 was lost"):
        await create(service, "next", ha=True, data_storage="shared")


async def test_the_api_says_where_vms_would_go_and_refuses_with_a_problem():
    member, service = await small_cluster(admission=Admission.ENFORCE)
    agent = FakeAgent(member)
    agent.services = dataclasses.replace(agent.services, vms=service)
    async with TestClient(TestServer(app_of(member, agent)), headers=ADMIN) as client:
        room = await (await client.get("/v1/clusters/test/room")).json()
        assert (room["admission"], room["host_failures"], room["bearable"]) == (
            "enforce",
            1,
            True,
        )
        assert room["losses"][0] == {
            "hosts": ["h2"],
            "vms": 1,
            "memory_mib": 12 * GIB + VM_OVERHEAD_MIB,
            "placed": {"h1": 1},
            "left_out": 0,
            "ruled_out": 0,
            "missing_mib": 0,
            "why": "",
        }
        body = {"name": "more", "image": "debian", "memory_mib": 4 * GIB, "ha": False}
        refused = await client.post("/v1/vms", json=body)
        problem = await refused.json()
        assert (refused.status, problem["code"]) == (409, "no-failover-room")
        assert SHORT in problem["detail"]
        assert "kvorum cluster set test --admission warn" in problem["detail"]
        changed = await client.patch("/v1/clusters/test", json={"admission": "warn"})
        assert changed.status == 200
        assert (await client.post("/v1/vms", json=body)).status == 202
        room = await (await client.get("/v1/clusters/test/room")).json()
        assert not room["bearable"]
        assert room["losses"][0]["why"] == SHORT
