"""More than one data center and cluster: made, renamed, deleted when empty; hosts and VMs stay where they belong."""

import asyncio

import pytest
from aiohttp import web

from core.errors import ConflictError
from core.model import VM, Cluster, DataCenter, Deletion, Host, JoinToken
from nodeagent.api.app import serve_unix
from nodeagent.identity.tokens import parse_join_token
from nodeagent.services.places import cluster_of, move_host
from tests.api import app_of, problem_of
from tests.golden.cli.cases import kvorum
from tests.one_member import HOST_ID, OTHER_ID
from tests.unit.test_ha_controller import SAFE_S, THIRD_ID, cluster_test, until

CREATE = {"name": "web9", "image": "debian", "cpus": 1, "memory_mib": 512}


async def make(api, plural: str, **body) -> dict:
    response = await api.post(f"/v1/{plural}", json=body)
    assert response.status == 201, await response.text()
    return await response.json()


@pytest.fixture
async def types(member, tmp_path):
    """Return what types a command as root on the host."""
    runner = web.AppRunner(app_of(member))
    await runner.setup()
    await serve_unix(runner, tmp_path / "api.sock")
    address = f"unix:{tmp_path}/api.sock"
    yield lambda command: asyncio.to_thread(kvorum, command, address)
    await runner.cleanup()


async def test_places_are_made_renamed_described_and_deleted(types):
    async def says(command: str) -> str:
        done = await types(command)
        assert done.code == 0, done.err
        return done.out

    assert (
        await says("data-center create hamburg --description 'two rooms'") == "hamburg: created\n"
    )
    assert "two rooms" in await says("data-center show hamburg")
    assert await says("cluster create edge --data-center hamburg") == "edge: created\n"
    assert await says("cluster set edge --name gpu --description cards") == "gpu: changed\n"
    assert [line.split() for line in (await says("cluster list")).splitlines()][1:] == [
        ["gpu", "hamburg", "cards"],
        ["test", "default", "-"],
    ]
    refused = await types("data-center delete hamburg --yes")
    assert (refused.code, refused.out) == (1, "")
    assert "is used by 1 cluster (such as gpu)" in refused.err
    assert await says("cluster delete gpu --yes") == "gpu: deleted\n"
    assert await says("data-center delete hamburg --yes") == "hamburg: deleted\n"
    refused = await types("cluster delete test --yes")
    assert refused.code == 1 and "is used by" in refused.err


async def test_the_only_data_center_needs_no_name_and_one_of_several_does(types):
    assert (await types("cluster create a")).code == 0
    await types("data-center create hamburg")
    refused = await types("cluster create b")
    assert refused.code == 2 and "say which with --data-center" in refused.err


async def test_what_came_first_stays_the_default_whatever_it_and_others_are_called(api, member):
    member.clock.pass_s(1)
    first = member.store.all(Cluster)[0]
    await make(api, "clusters", name="aaa", data_center="default")
    await api.patch(f"/v1/clusters/{first.id}", json={"name": "zzz"})
    assert member.store.all(Cluster)[0].name == "aaa", "first by name"
    assert cluster_of(member.store, "").id == first.id
    await make(api, "data-centers", name="aaa")
    group = await make(api, "security-groups", name="web")
    assert group["data_center_name"] == "default"
    group = await make(api, "security-groups", name="web2", data_center="aaa")
    assert group["data_center_name"] == "aaa"
    storage = {"name": "s2", "kind": "shared", "path": "/srv/x", "data_center": "aaa"}
    assert (await make(api, "data-storages", **storage))["data_center_name"] == "aaa"


async def test_a_token_names_the_cluster_that_its_host_joins_into(types, member):
    await types("cluster create gpu")
    made = await types("token create --cluster gpu")
    ticket = parse_join_token(made.out.strip())
    token = member.store.need(JoinToken, ticket.token_id)
    assert token.cluster_id == member.store.find(Cluster, "gpu").id
    assert "gpu" in (await types("token list")).out
    refused = await types("token create --cluster nowhere")
    assert refused.code == 1 and "does not exist" in refused.err
    assert (await types("cluster delete gpu --yes")).code == 0
    assert member.store.get(JoinToken, token.id) is None, "a token leads to no other cluster"


async def test_a_host_without_vms_moves_and_one_with_vms_does_not(api, member):
    gpu = await make(api, "clusters", name="gpu", data_center="default")
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    vm = await member.add_vm("web1", host_id=OTHER_ID)
    refused = await api.patch("/v1/hosts/h2", json={"cluster": "gpu"})
    detail = (await problem_of(refused, 409, "conflict"))["detail"]
    assert detail.startswith("VM 'web1' is on host h2, and VMs stay within their cluster")
    await member.change_vm(vm.id, host_id=HOST_ID, migrating_to_host_id=OTHER_ID)
    assert (await api.patch("/v1/hosts/h2", json={"cluster": "gpu"})).status == 409
    await member.change_vm(vm.id, migrating_to_host_id="")
    moved = await api.patch("/v1/hosts/h2", json={"cluster": "gpu"})
    assert ((await moved.json())["cluster_id"], member.store.all(Deletion)) == (gpu["id"], [])
    assert (await api.patch("/v1/hosts/h2", json={"cluster": "nowhere"})).status == 404


async def test_no_vm_comes_to_a_host_that_is_just_moving_to_another_cluster(api, member):
    await make(api, "clusters", name="gpu", data_center="default")
    host = member.store.need(Host, HOST_ID)
    propose, came = member.engine.propose, []

    async def propose_and_create(payload, *, timeout_s):
        answer = await propose(payload, timeout_s=timeout_s)
        if not came:  # the fence stands now
            came.append(0)
            came[0] = (await api.post("/v1/vms", json=CREATE)).status
        return answer

    member.engine.propose = propose_and_create
    await move_host(member.node, host, member.store.find(Cluster, "gpu"))
    assert (came, member.store.all(VM)) == ([409], [])


async def test_a_vm_that_came_just_before_keeps_the_host_in_its_cluster(api, member):
    await make(api, "clusters", name="gpu", data_center="default")
    host, propose, came = member.store.need(Host, HOST_ID), member.engine.propose, []

    async def create_first(payload, *, timeout_s):
        if not came:
            came.append(0)
            came[0] = (await api.post("/v1/vms", json=CREATE)).status
        return await propose(payload, timeout_s=timeout_s)

    member.engine.propose = create_first
    with pytest.raises(ConflictError, match="VMs stay within their cluster"):
        await move_host(member.node, host, member.store.find(Cluster, "gpu"))
    assert came == [202]
    assert member.store.need(Host, HOST_ID).cluster_id == host.cluster_id
    assert member.store.all(Deletion) == []


async def test_a_vm_is_made_in_the_cluster_named_or_in_that_of_its_host_or_in_the_first(
    api, member
):
    first = cluster_of(member.store, "")
    member.clock.pass_s(1)
    gpu = await make(api, "clusters", name="gpu", data_center="default")
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await api.patch("/v1/hosts/h2", json={"cluster": "gpu"})
    switch = "/v1/distributed-switches/default/actions/attach"
    assert (await api.post(switch, json={"cluster": "gpu"})).status == 200

    async def cluster_asked(**fields) -> str:
        body = {**CREATE, "name": f"vm{len(member.store.all(VM))}", **fields}
        answer = await api.post("/v1/vms", json=body)
        assert answer.status == 202, await answer.text()
        return (await answer.json())["vm"]["cluster_id"]

    assert await cluster_asked() == first.id
    assert await cluster_asked(cluster="gpu") == gpu["id"]
    assert await cluster_asked(host="h2") == gpu["id"]
    assert (await api.post("/v1/vms", json=CREATE | {"cluster": "nowhere"})).status == 404


@cluster_test
async def test_failover_starts_a_vm_only_on_hosts_of_its_own_cluster(cluster):
    member = cluster.member
    center = member.store.all(DataCenter)[0].id
    await member.store.apply(puts=(Cluster(id="gpu", name="gpu", data_center_id=center),))
    await cluster.begin()
    vm = await member.add_vm(host_id=OTHER_ID)
    gpu = member.store.need(Cluster, "gpu")
    # The other living host has most room, and is in another cluster.
    await move_host(member.node, member.store.need(Host, HOST_ID), gpu)
    await move_host(member.node, member.store.need(Host, THIRD_ID), gpu)
    async with cluster.running():
        cluster.alive.discard(OTHER_ID)
        await until(lambda: member.vm(vm.id).blocked_reason, SAFE_S + 30)
        assert member.vm(vm.id).host_id == OTHER_ID
        assert "in another cluster" in member.vm(vm.id).blocked_reason
        home = member.store.need(Host, OTHER_ID).cluster_id
        await move_host(
            member.node, member.store.need(Host, THIRD_ID), member.store.need(Cluster, home)
        )
        await until(lambda: member.vm(vm.id).host_id == THIRD_ID, 60)
