"""Tags of resources as callers meet them: added, removed, searched by, gone with the resource."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from core.errors import InvalidError
from core.model import COLLECTIONS, VM, Host, Tagged, Task, changed_tags, check_tag
from core.model.tags import TAGS_MAX
from nodeagent.workflows.registry import load_registry
from tests.api import problem_of
from tests.one_member import LoopClock, founded, in_virtual_time, until
from tests.workflow_world import ENDED, World


async def make_vm(api, name="web1"):
    response = await api.post("/v1/vms", json={"name": name, "image": "debian"})
    assert response.status == 202, await response.text()
    return (await response.json())["vm"]["id"]


async def tag(api, path, *add, remove=(), **options):
    body = {"add": list(add), "remove": list(remove)}
    return await api.patch(f"/v1/{path}/tags", json=body, **options)


async def names(api, query):
    response = await api.get(f"/v1/{query}")
    assert response.status == 200, await response.text()
    return [item["name"] for item in (await response.json())["items"]]


# -- what a tag may be

GOOD = ["prod", "A.b_c/d-1", "9", "env=test", "url=https://x.example/?a=b&c", "a=x:y", "k=@home",
        "smbios::serial::A 1::2", "a" * 63]  # fmt: skip
BAD = ["", " ", "-a", "a b", "a,b", "=x", "a=", "a=b c", "a=b,c", "a=ü", "ü", "a" * 64, "a=" + "b" * 129,
       "a::b", "::a::b", "a::b::", "A::b::c", "a::b:: c", "a::b::c,d", "a::b::\n", "a\n", "a\0", "a=\x7f",
       "x@y", "'; DROP TABLE vm --"]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_names_pairs_and_system_tags_are_tags(text):
    assert check_tag(text) == text


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused_with_what_to_write(text):
    with pytest.raises(InvalidError, match=r"use a name|the value has|namespace"):
        check_tag(text)


def test_a_key_has_one_value_and_the_new_one_wins():
    assert changed_tags(["env=test", "prod"], add=["env=prod"], remove=[]) == ("env=prod", "prod")
    assert changed_tags(["env"], add=["env=prod"], remove=[]) == ("env", "env=prod")
    assert changed_tags(["a::b::1"], add=["a::b::2"], remove=[]) == ("a::b::2",)
    several = frozenset({"a::b"})
    assert changed_tags(["a::b::1"], add=["a::b::2"], remove=[], many=several) == (
        "a::b::1",
        "a::b::2",
    )
    for add, remove in ((["a=1", "a=2"], []), (["a"], ["a"])):
        with pytest.raises(InvalidError):
            changed_tags([], add=add, remove=remove)


# -- on any resource


async def test_every_kind_that_users_see_carries_tags_but_the_records_of_what_was(member, api):
    await make_vm(api)
    await api.post("/v1/roles", json={"name": "r", "permissions": [{"kinds": ["vm"], "actions": ["read"]}]})  # fmt: skip
    tagged = set()
    for plural, type_ in COLLECTIONS.items():
        stored = member.store.all(type_)
        if not stored:
            continue
        response = await tag(api, f"{plural}/{stored[0].id}", "prod")
        if not issubclass(type_, Tagged):
            assert response.status == 400 and "records" in (await response.json())["detail"], plural
            continue
        assert (response.status, await response.json()) == (200, {"tags": ["prod"]}), plural
        assert member.store.get(type_, stored[0].id).tags == ("prod",)
        shown = await (await api.get(f"/v1/{plural}/{stored[0].id}")).json()
        assert shown["tags"] == ["prod"]
        assert await names(api, f"{plural}?q=tag=prod") == [stored[0].name]
        tagged.add(plural)
    assert {p for p, t in COLLECTIONS.items() if not issubclass(t, Tagged)} == {"audits", "events"}
    assert tagged >= {"vms", "hosts", "disks", "nics", "images", "tasks", "roles", "port-groups"}


async def test_tags_are_added_and_removed_as_often_as_one_likes(api):
    await make_vm(api)
    for _ in range(2):
        assert (await (await tag(api, "vms/web1", "prod", "env=test")).json())["tags"] == ["env=test", "prod"]  # fmt: skip
    for _ in range(2):
        answer = await tag(api, "vms/web1", "env=prod", remove=["prod", "never-there"])
        assert (await answer.json())["tags"] == ["env=prod"]
    answer = await api.get("/v1/vms/web1/tags")
    assert await answer.json() == {"tags": ["env=prod"]}
    assert answer.headers["ETag"] == (await api.get("/v1/vms/web1")).headers["ETag"]


async def test_nothing_is_written_when_nothing_changes(member, api):
    await make_vm(api)
    await tag(api, "vms/web1", "prod")
    revision = member.store.find(VM, "web1").revision
    await tag(api, "vms/web1", "prod", remove=["other"])
    assert member.store.find(VM, "web1").revision == revision


async def test_what_is_no_tag_or_too_much_changes_nothing(member, api):
    await make_vm(api)
    await tag(api, "vms/web1", "prod")
    many = [f"t{n}" for n in range(TAGS_MAX)]
    for add in (["ok", "not ok"], ["ok", "a::b::c"], many, many * 3):
        await problem_of(await tag(api, "vms/web1", *add), 400, "invalid")
    await problem_of(await api.patch("/v1/vms/web1/tags", json={"tags": ["x"]}), 400, "invalid")
    await problem_of(await tag(api, "vms/web9", "x"), 404, "not-found")
    await problem_of(await tag(api, "nothings/web1", "x"), 404, "not-found")
    assert member.store.find(VM, "web1").tags == ("prod",)


async def test_a_tag_change_is_audited_with_what_differs(api):
    id_ = await make_vm(api)
    await tag(api, "vms/web1", "prod")
    action = "PATCH /v1/{plural}/{ref}/tags"
    answer = await (await api.get("/v1/audits", params={"q": f"action={action}"})).json()
    (found,) = answer["items"]
    assert (found["subject"], found["subject_name"]) == (f"vm/{id_}", "web1")
    assert (found["result"], bool(found["operator"])) == (200, True)
    assert '"tags":["prod"]' in found["after"] and '"tags":[]' in found["before"]


async def test_a_repeated_request_does_not_bring_back_what_was_removed_meanwhile(api):
    await make_vm(api)
    key = {"Idempotency-Key": "k1"}
    await tag(api, "vms/web1", "prod", headers=key)
    await tag(api, "vms/web1", remove=["prod"])
    assert (await tag(api, "vms/web1", "prod", headers=key)).status == 200
    assert await (await api.get("/v1/vms/web1/tags")).json() == {"tags": []}


async def test_who_tags_at_the_moment_that_somebody_else_writes_loses_nothing(member, api, monkeypatch):  # fmt: skip
    await make_vm(api)
    apply, others = member.store.apply, ["t0", "t1", "t2"]

    async def outrun(*, puts=(), **options):
        if others and any(isinstance(put, VM) for put in puts):
            vm = member.store.find(VM, "web1")
            await apply(puts=(replace(vm, tags=(*vm.tags, others.pop(0))),))
        return await apply(puts=puts, **options)

    monkeypatch.setattr(member.store, "apply", outrun)
    assert (await tag(api, "vms/web1", "mine")).status == 200
    assert member.store.find(VM, "web1").tags == ("mine", "t0", "t1", "t2")
    others[:] = [f"u{n}" for n in range(9)]
    await problem_of(await tag(api, "vms/web1", "again"), 409, "conflict-guard")
    answers = await asyncio.gather(*(tag(api, "vms/web1", f"v{n}") for n in range(4)))
    assert {answer.status for answer in answers} <= {200, 409}


# -- queries


async def test_resources_are_found_by_tags_also_through_relations(api):
    for name, tags in (("web1", ["prod", "env=test"]), ("web2", ["prod"]), ("db1", [])):
        await make_vm(api, name)
        await tag(api, f"vms/{name}", *tags)
    await tag(api, "hosts/h1", "rack=r1")
    assert await names(api, "vms?q=tag=prod") == ["web1", "web2"]
    assert await names(api, "vms?q=tags=env=test") == ["web1"]
    assert await names(api, "vms?q=tag~=env=*") == ["web1"]
    assert await names(api, "vms?q=tag is:null") == ["db1"]
    assert await names(api, "vms?q=tag!is:null") == ["web1", "web2"]
    assert await names(api, "vms?q=tag=prod&q=tag=env=test") == ["web1"]
    assert await names(api, "disks?q=vm.tag=env=test") == ["web1.0"]
    assert await names(api, "vms?q=host.tag=rack=r1&q=tag?=prod,x") == ["web1", "web2"]
    assert await names(api, "hosts?q=vms.tag=prod") == ["h1"]
    counted = await (await api.get("/v1/vms?q=tag=prod&count=1")).json()
    assert counted["count"] == 2
    shown = await (await api.get("/v1/vms?q=name=web1&fields=name,tags,host.tags")).json()
    assert shown["items"] == [{"name": "web1", "tags": ["env=test", "prod"], "host.tags": ["rack=r1"]}]  # fmt: skip
    shown = await (await api.get("/v1/vms?q=name=web1&fields=tag")).json()
    assert shown["items"] == [{"tag": ["env=test", "prod"]}]
    await problem_of(await api.get("/v1/vms?sort=tags"), 400, "invalid")
    await problem_of(await api.get("/v1/events?q=tag=x"), 400, "invalid")


async def test_a_value_of_a_query_is_never_sql(api):
    await make_vm(api)
    assert await names(api, "vms?q=tag=x') OR 1=1 --") == []


# -- with what is done to the resource


def test_a_tag_goes_with_its_vm_and_keeps_nothing_from_being_deleted():
    registry = load_registry([])
    seen = {}

    async def main() -> None:
        world = World(await founded(clock=LoopClock()))
        await world.begin()
        async with world.outside():
            vm = await world.made(registry, start=True, shared=True)
            await world.store.apply(puts=(replace(vm, tags=("prod", "smbios::serial::X")),))
            task = (await world.service().delete(world.vm(), world.ids())).task
            seen["task"] = task.tags
            async with world.agent(world.h1, registry):
                await until(lambda: world.task(task.id).state in ENDED, 600)
            world.new_agent()
            await world.settle()
            seen["left"] = (world.store.all(VM), await world.garbage())
            seen["bodies"] = [
                r for t in (VM, Host) for r in world.store.all(t) if b"smbios" in msgspec.json.encode(r)
            ]  # fmt: skip

    in_virtual_time(main)
    assert seen["task"] == ("prod", "smbios::serial::X"), "a task has the tags of its subject"
    assert seen["left"] == ([], [])
    assert seen["bodies"] == []


async def test_a_change_of_something_else_keeps_the_tags(member, api):
    await make_vm(api)
    await tag(api, "vms/web1", "prod")
    assert (await api.patch("/v1/vms/web1", json={"description": "x"})).status == 200
    assert member.store.find(VM, "web1").tags == ("prod",)
    assert not [t for t in member.store.all(Task) if t.tags]
