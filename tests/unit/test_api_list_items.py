"""Items of lists that are kept: whatever an item is made of may change, and the next list shows it."""

import msgspec
import pytest
from msgspec.structs import replace

from core.model import COLLECTIONS, VM, Cluster, DataCenter, Disk, Host, Nic, SecurityGroup
from nodeagent.api.list_items import ItemCache, whole_items
from nodeagent.api.lists import EXTRAS
from nodeagent.api.views import show
from raftstate.searching import Match
from tests.one_member import HOST_ID


@pytest.fixture
async def with_vm(api, member):
    assert (await api.post("/v1/vms", json={"name": "web1", "image": "debian"})).status == 202
    return api


async def listed(api, plural: str, name: str) -> dict:
    answer = await api.get(f"/v1/{plural}?q=name={name}")
    assert answer.status == 200, await answer.text()
    (item,) = (await answer.json())["items"]
    return item


async def test_each_change_of_what_an_item_is_made_of_is_seen_at_once(with_vm, member):
    store = member.store
    before = await listed(with_vm, "vms", "web1")
    vm = store.find(VM, "web1")
    await store.apply(puts=(replace(vm, description="new"),))
    assert (await listed(with_vm, "vms", "web1"))["description"] == "new"
    await store.apply(puts=(replace(store.need(Host, HOST_ID), name="other"),))
    assert (await listed(with_vm, "vms", "web1"))["host_name"] == "other"
    nic = next(n for n in store.all(Nic) if n.vm_id == vm.id)
    await store.apply(puts=(replace(nic, ip="10.100.9.9"),))
    assert (await listed(with_vm, "vms", "web1"))["ips"] == ["10.100.9.9"] != before["ips"]
    disk = next(d for d in store.all(Disk) if d.vm_id == vm.id)
    await store.apply(puts=(replace(disk, size_bytes=4096),))
    assert (await listed(with_vm, "vms", "web1"))["disks"][0]["size_bytes"] == 4096
    cluster = store.need(Cluster, vm.cluster_id)
    await store.apply(deletes=(cluster,))
    assert (await listed(with_vm, "vms", "web1"))["cluster_name"] == ""


async def test_names_inside_a_list_of_an_item_follow_their_resource(api, member):
    store = member.store
    default = store.find(SecurityGroup, "default")
    other = replace(default, id="g2", name="other", rules=(), revision=0)
    await store.apply(puts=(other,))
    rule = replace(default.rules[0], id="r1", remote_group_id="g2")
    await store.apply(puts=(replace(default, rules=(*default.rules, rule)),))

    async def name_shown() -> str:
        return (await listed(api, "security-groups", "default"))["rules"][-1]["remote_group_name"]

    assert await name_shown() == "other"
    await store.apply(puts=(replace(store.need(SecurityGroup, "g2"), name="renamed"),))
    assert await name_shown() == "renamed"
    await store.apply(deletes=(store.need(SecurityGroup, "g2"),))
    assert await name_shown() == ""
    center = store.all(DataCenter)[0]
    await store.apply(puts=(replace(center, name="moved"),))
    assert (await listed(api, "security-groups", "default"))["data_center_name"] == "moved"


async def test_what_is_made_again_under_an_id_is_not_taken_for_what_it_was(api, member):
    store = member.store
    default = store.find(SecurityGroup, "default")
    await store.apply(puts=(replace(default, id="g2", name="twice", rules=(), revision=0),))
    assert (await listed(api, "security-groups", "twice"))["rules"] == []
    await store.apply(deletes=(store.need(SecurityGroup, "g2"),))
    again = replace(default, id="g2", name="twice", rules=default.rules[:1], revision=0)
    await store.apply(puts=(again,))
    item = await listed(api, "security-groups", "twice")
    assert len(item["rules"]) == 1
    assert item["revision"] == store.need(SecurityGroup, "g2").revision


async def test_one_who_may_no_longer_look_gets_no_kept_items(with_vm, member):
    body = {"name": "r", "permissions": [{"kinds": ["vm"], "actions": ["read"]}]}
    assert (await with_vm.post("/v1/roles", json=body)).status == 201
    made = await with_vm.post("/v1/access-tokens", json={"name": "t", "roles": ["r"]})
    head = {"Authorization": f"Bearer {(await made.json())['token']}"}
    assert (await with_vm.get("/v1/vms", headers=head)).status == 200
    change = {"permissions": [{"kinds": ["image"], "actions": ["read"]}]}
    assert (await with_vm.patch("/v1/roles/r", json=change)).status == 200
    assert (await with_vm.get("/v1/vms", headers=head)).status == 403
    assert (await with_vm.get("/v1/vms/web1", headers=head)).status == 403
    assert (await with_vm.delete("/v1/access-tokens/t")).status == 204
    assert (await with_vm.get("/v1/images", headers=head)).status == 401


@pytest.mark.parametrize("plural", COLLECTIONS)
async def test_an_item_looks_like_the_resource_by_itself(plural, with_vm, member):
    answer = await with_vm.get(f"/v1/{plural}")
    items = {item["id"]: item for item in (await answer.json()).get("items", [])}
    for resource in member.store.all(COLLECTIONS[plural]):
        if resource.id in items and plural not in ("hosts", "members", "roles"):
            assert items[resource.id].keys() == show(member.store, resource).keys()


def test_the_bytes_kept_are_bounded_and_the_oldest_go():
    cache = ItemCache(bytes_max=5000)
    items = whole_items(SecurityGroup, EXTRAS.get(SecurityGroup, {}), cache)

    def match(number: int) -> Match:
        group = SecurityGroup(id=f"g{number}", name=f"g{number}", data_center_id="d")
        return Match(group.id, encoded(group), number, ())

    for number in range(50):
        items([match(number)], lambda pairs: {})
    kept = [item is not None for item in cache.of("security-group", [f"g{n}" for n in range(50)])]
    assert 1 <= sum(kept) < 10 and kept[-1] and not kept[0]


def test_an_item_of_the_same_ingredients_is_not_made_again():
    asked = []
    items = whole_items(SecurityGroup, {}, ItemCache())
    group = SecurityGroup(id="g", name="g", data_center_id="d")

    def names_of(pairs):
        asked.append(set(pairs))
        return {("data-center", "d"): "dc"}

    first = items([Match("g", encoded(group), 1, ())], names_of)
    again = items([Match("g", encoded(group), 1, ())], names_of)
    assert bytes(first[0]) == bytes(again[0]) and asked == [{("data-center", "d")}] * 2
    newer = items([Match("g", encoded(group), 2, ())], names_of)
    assert b'"revision":2' in bytes(newer[0])


def encoded(group: SecurityGroup) -> bytes:
    return msgspec.msgpack.encode(group)
