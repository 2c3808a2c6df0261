"""Kept answers: what is shown of a resource is never older than what this agent has applied."""

import pytest
from aiohttp.test_utils import TestClient
from msgspec.structs import replace

from core.model import COLLECTIONS, VM, Cluster, Disk, Host, Nic
from nodeagent.api import shown_cache
from nodeagent.api.shown_cache import ShownCache, kinds_shown
from nodeagent.api.views import show
from tests.one_member import HOST_ID


@pytest.fixture
async def with_vm(api: TestClient) -> TestClient:
    assert (await api.post("/v1/vms", json={"name": "web1", "image": "debian"})).status == 202
    return api


async def shown(api: TestClient, path: str = "/v1/vms/web1") -> dict:
    answer = await api.get(path)
    assert answer.status == 200
    return await answer.json()


async def test_each_change_of_what_is_shown_is_seen_at_once(with_vm, member):
    store = member.store
    before = await shown(with_vm)
    vm = store.find(VM, "web1")
    await store.apply(puts=(replace(vm, description="new"),))
    assert (await shown(with_vm))["description"] == "new"
    await store.apply(puts=(replace(store.need(Host, HOST_ID), name="other"),))
    assert (await shown(with_vm))["host_name"] == "other"
    nic = next(n for n in store.all(Nic) if n.vm_id == vm.id)
    await store.apply(puts=(replace(nic, ip="10.100.9.9"),))
    assert (await shown(with_vm))["ips"] == ["10.100.9.9"] != before["ips"]
    disk = next(d for d in store.all(Disk) if d.vm_id == vm.id)
    await store.apply(puts=(replace(disk, size_bytes=4096),))
    assert (await shown(with_vm))["disks"] == [{"name": disk.name, "size_bytes": 4096}]
    cluster = store.need(Cluster, vm.cluster_id)
    await store.apply(puts=(replace(cluster, name="elsewhere"),))
    assert (await shown(with_vm))["cluster_name"] == "elsewhere"


async def test_a_name_given_to_another_leads_there_and_one_given_up_nowhere(with_vm, member):
    store = member.store
    await shown(with_vm)
    vm = store.find(VM, "web1")
    await store.apply(puts=(replace(vm, name="web2"),))
    assert (await with_vm.get("/v1/vms/web1")).status == 404
    await store.apply(puts=(replace(store.need(VM, vm.id), id="another", name="web1", revision=0),))
    assert (await shown(with_vm))["id"] == "another"
    assert (await shown(with_vm, f"/v1/vms/{vm.id}"))["name"] == "web2"


async def test_the_validator_goes_with_the_body(with_vm, member):
    first = await with_vm.get("/v1/vms/web1")
    await member.store.apply(puts=(replace(member.store.find(VM, "web1"), ha=False),))
    second = await with_vm.get("/v1/vms/web1")
    assert first.headers["ETag"] != second.headers["ETag"]
    assert second.headers["ETag"] == f'"{(await second.json())["revision"]}"'


async def test_what_does_not_change_is_not_worked_out_again(member, monkeypatch):
    cache, times = ShownCache(member.store), []
    monkeypatch.setattr(shown_cache, "show", lambda *a: times.append(1) or show(*a))
    for _ in range(3):
        cache.answer(Host, HOST_ID)
    await member.add_image("another")
    cache.answer(Host, HOST_ID)
    assert len(times) == 1, "no kind that a host's answer is made of has changed"
    await member.store.apply(puts=(replace(member.store.need(Host, HOST_ID), version="9"),))
    cache.answer(Host, HOST_ID)
    assert len(times) == 2


async def test_few_answers_are_kept(member, monkeypatch):
    monkeypatch.setattr(shown_cache, "ANSWERS_MAX", 2)
    cache = ShownCache(member.store)
    for ref in ("h1", HOST_ID):
        cache.answer(Host, ref)
    cache.answer(Cluster, member.store.all(Cluster)[0].id)
    assert len(cache._answers) == 2


@pytest.mark.parametrize("type_", COLLECTIONS.values(), ids=lambda t: t.__name__)
async def test_an_answer_reads_no_kind_that_is_not_watched(type_, member, with_vm):
    """Whatever `show` looks at must be among the kinds that make an answer stale."""
    read: set[str] = set()

    class Noting:
        def __getattr__(self, name):
            return getattr(member.store, name)

        def get(self, type_, id_):
            read.add(type_.__struct_config__.tag.partition(".")[0])
            return member.store.get(type_, id_)

        def need(self, type_, id_):
            read.add(type_.__struct_config__.tag.partition(".")[0])
            return member.store.need(type_, id_)

        def all(self, type_):
            read.add(type_.__struct_config__.tag.partition(".")[0])
            return member.store.all(type_)

    for resource in member.store.all(type_):
        show(Noting(), resource)
    assert read <= kinds_shown(type_)
