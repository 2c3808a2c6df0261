"""The over-commit of processors is a cluster's setting: what reads it, what it stops, and what it leaves alone."""

import asyncio

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.model import VM, Cluster, DataStorage, DataStorageKind, Disk, Host, Lease, VMPhase
from ha.admission import RoomView, losses
from ha.manager import Block, HAView, Recover, decide
from ha.placement import PlacementError
from ha.profile import PROFILES
from nodeagent.api.requests import Ids
from nodeagent.compute.hypervisor import DomainState, DomainStatus
from nodeagent.services.admission import room_view
from nodeagent.services.placing import Placing
from nodeagent.services.vm_plan import Action, next_action
from nodeagent.services.vm_requests import CreateVM
from nodeagent.services.vm_service import VmService
from tests.api import ADMIN, app_of
from tests.golden.cli.cases import kvorum
from tests.one_member import HOST_ID, OTHER_ID, OneMember, founded
from tests.served_member import served

DEFAULT = PROFILES["default"]


class Ages:
    """Every host renewed its lease a moment ago."""

    def age_s(self, host_id: str) -> float:
        del host_id
        return 0.5


@pytest.fixture
async def member() -> OneMember:
    """Two hosts of 8 threads; 40 of the 64 virtual CPUs that h1 takes by default run there."""
    made = await founded()
    await made.add_host(OTHER_ID, "h2", "192.0.2.2")
    await made.add_image()
    for number in range(5):
        await made.add_vm(f"web{number}", cpus=8, generation=1, phase=VMPhase.RUNNING)
    return made


async def allow(member: OneMember, overcommit: int) -> None:
    (cluster,) = member.store.all(Cluster)
    await member.store.apply(puts=(replace(cluster, cpu_overcommit=overcommit),))


async def create(member: OneMember, name: str = "more", **fields) -> VM:
    service = VmService(member.node, Placing(member.node, Ages()))
    body = CreateVM(**({"name": name, "image": "debian", "memory_mib": 256, "cpus": 1} | fields))
    return (await service.create(body, Ids(f"create-{name}"))).vm


async def test_a_lower_ratio_stops_placements_and_leaves_alone_what_runs(member):
    before = {vm.id: vm for vm in member.store.all(VM)}
    await allow(member, 2)
    with pytest.raises(PlacementError) as refused:
        await create(member, host="h1")
    assert "h1: 40 of 16 virtual CPUs taken, 1 needed" in refused.value.message
    assert {vm.id: vm for vm in member.store.all(VM)} == before
    for vm in before.values():
        domain = DomainState(vm_id=vm.id, status=DomainStatus.RUNNING, generation=1)
        act = next_action(vm, domain, host_id=HOST_ID, has_task=False)
        assert act is Action.NOTHING


async def test_a_higher_ratio_lets_more_onto_a_host(member):
    with pytest.raises(PlacementError, match="h1: 40 of 64 virtual CPUs taken, 25 needed"):
        await create(member, host="h1", cpus=25)
    await allow(member, 9)
    assert (await create(member, host="h1", cpus=25)).host_id == HOST_ID


async def test_each_host_goes_by_the_ratio_of_its_own_cluster(member):
    (first,) = member.store.all(Cluster)
    await allow(member, 1)
    dense = replace(first, id="dense", name="dense", cpu_overcommit=64, revision=0)
    other = replace(member.store.need(Host, OTHER_ID), cluster_id="dense")
    await member.store.apply(puts=(dense, other))
    with pytest.raises(PlacementError, match="h1: 40 of 8 virtual CPUs taken"):
        await create(member)
    found = {one.name: room_view(member.store, Ages(), one) for one in member.store.all(Cluster)}
    assert {name: view.cpu_overcommit for name, view in found.items()} == {"test": 1, "dense": 64}


async def test_the_api_takes_whole_numbers_within_the_bounds_and_the_command_shows_them(
    member, tmp_path
):
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as client:
        path = "/v1/clusters/test"
        assert (await (await client.get(path)).json())["cpu_overcommit"] == 8
        for wrong in (0, 65, 1.5, "many"):
            refused = await client.patch(path, json={"cpu_overcommit": wrong})
            assert refused.status == 400, wrong
            assert "cpu_overcommit" in (await refused.json())["detail"]
        assert (await client.patch(path, json={"cpu_overcommit": 64})).status == 200
    async with served(member) as agent:

        async def run(command: str):
            environ = {**agent.environ, "HOME": str(tmp_path)}
            return await asyncio.to_thread(kvorum, command, agent.address, environ=environ)

        shown = await run("cluster show test")
        assert "64 at most" in shown.out
        changed = await run("cluster set test --cpu-overcommit 16")
        assert changed.code == 0, changed.err
        assert "16 at most" in (await run("cluster show test")).out
        refused = await run("cluster set test --cpu-overcommit 65")
        assert refused.code == 1
        assert "cpu_overcommit" in refused.err
    assert member.store.all(Cluster)[0].cpu_overcommit == 16


def test_what_an_older_agent_wrote_has_the_default_and_it_reads_what_a_newer_wrote():
    class Older(msgspec.Struct, tag="cluster.v1", tag_field="type"):
        name: str

    cluster = Cluster(id="c", name="c", data_center_id="d", cpu_overcommit=16)
    body = msgspec.msgpack.decode(msgspec.msgpack.encode(cluster))
    assert msgspec.convert(body, Older).name == "c"
    del body["cpu_overcommit"]
    assert msgspec.convert(body, Cluster).cpu_overcommit == 8


# -- failover and its preview


def host(name: str) -> Host:
    return Host(id=name, name=name, cluster_id="c", address=name, cpus=2, memory_mib=65536)


def vm(number: int, on: str) -> VM:
    return VM(
        id=f"v{number:03}",
        name=f"v{number:03}",
        cluster_id="c",
        host_id=on,
        boot_id="b",
        cpus=1,
        memory_mib=64,
        phase=VMPhase.RUNNING,
        generation=1,
    )


def failover(overcommit: int, vms: list[VM]) -> tuple[list[Recover], list[Block]]:
    """Decide once about the VMs of h1, which is dead for certain."""
    hosts = [host("h1"), host("h2")]
    stamps = {"h1": 1000.0 - DEFAULT.safe_s - 1, "h2": 999.5}
    seen = HAView(
        profile=DEFAULT,
        leader_since_s=0.0,
        hosts={one.id: one for one in hosts},
        vms={one.id: one for one in vms},
        disks={
            one.id: Disk(id=one.id, name=one.id, vm_id=one.id, data_storage_id="s", size_bytes=1)
            for one in vms
        },
        storages={
            "s": DataStorage(
                id="s", name="s", data_center_id="d", kind=DataStorageKind.SHARED, path="/s"
            )
        },
        leases={
            one.id: Lease(id=one.id, name=one.id, boot_id="b", seq=1, watchdog_armed=True)
            for one in hosts
        },
        stamps_s=stamps,
        cpu_overcommits={"c": overcommit},
        recoveries_max=1000,
    )
    decisions = decide(seen, 1000.0)
    return (
        [one for one in decisions if isinstance(one, Recover)],
        [one for one in decisions if isinstance(one, Block)],
    )


@pytest.mark.parametrize(("overcommit", "moved"), [(3, 6), (8, 16), (50, 100)])
def test_failover_and_its_preview_go_by_the_ratio_and_the_reason_names_it(overcommit, moved):
    vms = [vm(number, "h1") for number in range(100)]
    recovered, blocked = failover(overcommit, vms)
    assert (len(recovered), len(blocked)) == (moved, 100 - moved)
    reason = f"h2: {moved} of {2 * overcommit} virtual CPUs taken, 1 needed"
    assert all(reason in one.reason for one in blocked)
    hosts = (host("h1"), host("h2"))
    ages = {"h1": 0.5, "h2": 0.5}
    (loss,) = losses(RoomView(hosts, vms, frozenset(), ages, cpu_overcommit=overcommit))
    assert (dict(loss.placed), len(loss.left_out)) == ({"h2": moved}, 100 - moved)


def test_failover_puts_nothing_more_on_a_host_that_is_beyond_a_lowered_ratio():
    recovered, (blocked,) = failover(1, [vm(0, "h1"), *(vm(n, "h2") for n in range(1, 10))])
    assert recovered == []
    assert "h2: 9 of 2 virtual CPUs taken, 1 needed" in blocked.reason
