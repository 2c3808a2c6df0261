"""Switches attached to clusters, image storages to data centers: VMs are made of what reaches them, and nothing in use is taken away."""

import asyncio

import pytest
from aiohttp import web

from core.model import VM, DistributedSwitch, ImageStorage
from nodeagent.api.app import serve_unix
from tests.api import app_of, problem_of
from tests.golden.cli.cases import kvorum

SWITCH, STORAGE = "/v1/distributed-switches/default", "/v1/image-storages/default"
CREATE = {"name": "web9", "image": "debian", "cpus": 1, "memory_mib": 512}


async def make(api, plural: str, **body) -> dict:
    response = await api.post(f"/v1/{plural}", json=body)
    assert response.status == 201, await response.text()
    return await response.json()


async def done(api, path: str, **body) -> dict:
    response = await api.post(path, json=body)
    assert response.status == 200, await response.text()
    return await response.json()


async def refused(api, path: str, **body) -> str:
    return (await problem_of(await api.post(path, json=body), 409, "conflict-relation"))["detail"]


async def test_a_vm_is_made_only_in_clusters_that_the_switch_of_its_port_group_spans(api, member):
    gpu = await make(api, "clusters", name="gpu", data_center="default")
    await api.patch("/v1/hosts/h1", json={"cluster": "gpu"})
    detail = await refused(api, "/v1/vms", **CREATE, cluster="gpu")
    assert detail == (
        "port group 'default' doesn't reach the VM's cluster: attach its switch there"
        " (kvorum switch attach), or choose another port group"
    )
    assert member.store.all(VM) == []
    now = await done(api, f"{SWITCH}/actions/attach", cluster="gpu")
    assert now["cluster_names"] == ["test", "gpu"]
    again = await done(api, f"{SWITCH}/actions/attach", cluster=gpu["id"])
    assert again["revision"] == now["revision"], "nothing to do"
    assert (await api.post("/v1/vms", json=CREATE | {"cluster": "gpu"})).status == 202


async def test_a_switch_leaves_a_cluster_only_when_no_vm_there_is_on_it(api, member):
    gpu = await make(api, "clusters", name="gpu", data_center="default")
    await done(api, f"{SWITCH}/actions/attach", cluster="gpu")
    await member.add_vm("web1")
    why = "there is 1 VM with NICs on it, in the clusters to be detached: move or delete it first"
    assert await refused(api, f"{SWITCH}/actions/detach", cluster="test") == why
    patched = await api.patch(SWITCH, json={"clusters": ["gpu"]})
    assert (await problem_of(patched, 409, "conflict-relation"))["detail"] == why
    now = await done(api, f"{SWITCH}/actions/detach", cluster="gpu")
    assert now["cluster_names"] == ["test"]
    again = await done(api, f"{SWITCH}/actions/detach", cluster="gpu")
    assert again["revision"] == now["revision"]
    assert (await api.delete(f"/v1/clusters/{gpu['id']}")).status == 204


async def test_a_deleted_cluster_is_attached_to_nothing_any_more(api, member):
    await make(api, "clusters", name="gpu", data_center="default")
    await make(api, "distributed-switches", name="cards", clusters=["gpu", "test"])
    assert (await api.delete("/v1/clusters/gpu")).status == 204
    assert len(member.store.find(DistributedSwitch, "cards").cluster_ids) == 1
    assert (await api.delete("/v1/distributed-switches/cards")).status == 204


async def test_images_and_disks_of_a_vm_are_of_its_own_data_center(api, member):
    await make(api, "data-centers", name="hamburg")
    await make(api, "clusters", name="edge", data_center="hamburg")
    await api.patch("/v1/hosts/h1", json={"cluster": "edge"})
    await done(api, f"{SWITCH}/actions/attach", cluster="edge")
    created = CREATE | {"cluster": "edge"}
    detail = await refused(api, "/v1/vms", **created, data_storage="local")
    assert detail.startswith("data storage 'local' is in another data center")
    storage = {"name": "edge-disks", "kind": "local", "path": "/var/lib/kvorum/local"}
    await make(api, "data-storages", **storage, data_center="hamburg")
    detail = await refused(api, "/v1/vms", **created)
    assert detail.startswith("image 'debian' isn't to be had in the data center")
    now = await done(api, f"{STORAGE}/actions/attach", data_center="hamburg")
    assert now["data_center_names"] == ["default", "hamburg"]
    answer = await api.post("/v1/vms", json=created)
    assert answer.status == 202, await answer.text()
    disk = (await (await api.get("/v1/disks?q=vm=web9")).json())["items"][0]
    assert disk["data_storage_name"] == "edge-disks", "that of its data center, not the first"
    detail = await refused(api, f"{STORAGE}/actions/detach", data_center="hamburg")
    assert detail.startswith("there is 1 VM made of its images")
    moved = await api.patch("/v1/clusters/edge", json={"data_center": "default"})
    assert "1 VM in it" in (await problem_of(moved, 409, "conflict-relation"))["detail"]
    assert len(member.store.all(ImageStorage)[0].data_center_ids) == 2


async def test_two_that_attach_at_once_both_count(api, member):
    for name in ("a", "b", "c"):
        await make(api, "clusters", name=name, data_center="default")
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(done(api, f"{SWITCH}/actions/attach", cluster=name), name=name)
    assert len(member.store.find(DistributedSwitch, "default").cluster_ids) == 4


async def test_what_is_attached_must_exist(api):
    for path, body in (
        (f"{SWITCH}/actions/attach", {"cluster": "nowhere"}),
        (f"{STORAGE}/actions/attach", {"data_center": "nowhere"}),
        ("/v1/distributed-switches/nowhere/actions/attach", {"cluster": "test"}),
    ):
        assert (await api.post(path, json=body)).status == 404
    assert (await api.post(f"{SWITCH}/actions/attach", json={})).status == 400


@pytest.fixture
async def types(member, tmp_path):
    """Return what types a command as root on the host."""
    runner = web.AppRunner(app_of(member))
    await runner.setup()
    await serve_unix(runner, tmp_path / "api.sock")
    address = f"unix:{tmp_path}/api.sock"
    yield lambda command: asyncio.to_thread(kvorum, command, address)
    await runner.cleanup()


async def test_switches_and_image_storages_by_command(types):
    async def says(command: str) -> str:
        done = await types(command)
        assert done.code == 0, done.err
        return done.out

    made = await says("cluster create edge")
    assert made == "edge: created\n"
    await says("data-center create hamburg")
    assert await says("switch create cards --cluster edge --cluster test") == "cards: created\n"
    assert await says("switch set cards --name gpus") == "gpus: changed\n"
    assert await says("switch detach gpus --cluster test") == "gpus: detached\n"
    assert await says("switch attach default --cluster edge") == "default: attached\n"
    assert [line.split() for line in (await says("switch list")).splitlines()] == [
        ["NAME", "CLUSTERS"],
        ["default", "test,", "edge"],
        ["gpus", "edge"],
    ]
    assert await says("switch delete gpus --yes") == "gpus: deleted\n"
    assert await says("image-storage attach default --data-center hamburg") == "default: attached\n"
    assert "default, hamburg" in await says("image-storage show default")
    assert await says("image-storage detach default --data-center hamburg") == "default: detached\n"
    assert "hamburg" not in await says("image-storage list")
