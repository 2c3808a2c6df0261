"""A resource type that a plug-in brings: through API, queries and the command; hosts without it; broken ones."""

import asyncio
import random
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import ConflictError
from core.model import (
    COLLECTIONS,
    KINDS,
    LINKS,
    RESOURCE_TYPES,
    VM,
    Audit,
    Event,
    Host,
    Image,
    VMPhase,
    key_of,
    links_of,
)
from core.model.additions import added_types, remove_type
from nodeagent.api.app import serve_unix
from nodeagent.services.cascade import delete_cascading, plan_of
from nodeagent.services.event_log import EventLog
from nodeagent.services.host_reporter import collections_of_plugins
from nodeagent.services.host_service import remove_host
from nodeagent.workflows.registry import report_refused
from nodeagent.workflows.resource_types import load_resource_types
from raftstate.state.machine import Machine
from raftstate.txn import Put, Txn, encode_txn
from tests.api import ADMIN, app_of, problem_of
from tests.golden.cli.cases import kvorum
from tests.one_member import OTHER_ID, OneMember, founded

EXAMPLE = Path(__file__).parents[1] / "example_resources"
GOLD = {"name": "gold", "product": "editor", "seats": 5, "vm": "web1", "images": ["debian"]}


def forget_all() -> None:
    for type_ in added_types():
        remove_type(type_)


@pytest.fixture
def plugin(monkeypatch):
    """Return the example's type, installed for the length of a test."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    assert load_resource_types() == ()
    yield KINDS["licence"]
    forget_all()


async def cluster(path: Path | str = ":memory:") -> OneMember:
    """Return a founded cluster whose state knows the kinds that there are now."""
    member = await founded(machine=Machine(path, types=KINDS.values()))
    await member.add_image()
    await member.add_vm("web1")
    return member


@pytest.fixture
async def member(plugin):
    return await cluster()


async def made(api, **fields) -> dict:
    response = await api.post("/v1/licences", json=GOLD | fields)
    assert response.status == 201, await response.text()
    return await response.json()


# -- where the plug-in is


def test_the_example_is_one_file_and_nothing_of_it_is_known_without_it():
    assert [p.name for p in (EXAMPLE / "kvorum_example_licences").glob("*.py")] == ["__init__.py"]
    assert "licence" not in KINDS and "licences" not in COLLECTIONS and "licence" not in LINKS
    assert links_of(RESOURCE_TYPES) == LINKS


async def test_it_is_created_shown_changed_and_deleted_like_any_other(api, member):
    licence = await made(api)
    vm = member.store.find(VM, "web1")
    assert (licence["vm_id"], licence["vm_name"]) == (vm.id, "web1")
    assert (licence["image_names"], licence["tier"]) == (["debian"], "basic")
    response = await api.get("/v1/licences/gold")
    assert await response.json() == licence
    changed = await api.patch(
        "/v1/licences/gold",
        json={"seats": 6, "name": "silver", "vm": "", "tier": "full"},
        headers={"If-Match": response.headers["ETag"]},
    )
    assert changed.status == 200
    now = await (await api.get("/v1/licences/silver")).json()
    assert (now["id"], now["seats"], now["vm_name"], now["product"]) == (
        licence["id"], 6, "", "editor",
    )  # fmt: skip
    stale = await api.patch(
        "/v1/licences/silver", json={"seats": 7}, headers={"If-Match": response.headers["ETag"]}
    )
    await problem_of(stale, 412, "changed-meanwhile")
    assert (await api.delete("/v1/licences/silver")).status == 204
    await problem_of(await api.get("/v1/licences/silver"), 404, "not-found")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seats": 0}, "seats must be 1 to 1000"),
        ({"product": "x" * 101}, "product may have 100 characters at most"),
        ({"codes": ["c"] * 9}, "codes may have 8 items at most"),
        ({"images": ["a", "b", "c"]}, "images may have 2 items at most"),
        ({"seats": "5"}, "Expected `int`"),
        ({"vm_id": "x"}, "unknown field `vm_id`"),
        ({"name": "Gold!"}, "is not allowed"),
        ({"trial": True, "seats": 11}, "a trial has 10 seats at most"),
    ],
    ids=str,
)
async def test_what_its_declaration_forbids_is_refused(api, member, fields, said):
    response = await api.post("/v1/licences", json=GOLD | fields)
    assert said in (await problem_of(response, 400, "invalid"))["detail"]
    assert member.store.all(KINDS["licence"]) == []


async def test_what_it_shall_belong_to_must_be_there_and_be_of_the_right_kind(api, member):
    response = await api.post("/v1/licences", json=GOLD | {"vm": "debian"})
    await problem_of(response, 404, "not-found")
    vm = member.store.find(VM, "web1")
    await member.change_vm(vm.id, phase=VMPhase.DELETING)
    response = await api.post("/v1/licences", json=GOLD)
    problem = await problem_of(response, 409, "conflict-relation")
    assert "coming or going" in problem["detail"]


async def test_names_and_one_to_one_relations_are_unique(api, member):
    await made(api)
    same_name = await api.post("/v1/licences", json=GOLD | {"vm": ""})
    assert (
        "'gold' is already taken" in (await problem_of(same_name, 409, "conflict-claim"))["detail"]
    )
    same_vm = await api.post("/v1/licences", json=GOLD | {"name": "other"})
    problem = await problem_of(same_vm, 409, "conflict-claim")
    assert problem["detail"] == "another licence has that vm already, and there can be one only"
    await member.add_vm("web2")
    await made(api, name="other", vm="web2")


async def test_a_repeated_request_makes_one(api, member):
    key = {"Idempotency-Key": "k1"}
    answers = [await api.post("/v1/licences", json=GOLD, headers=key) for _ in range(2)]
    assert [a.status for a in answers] == [201, 201]
    assert len(member.store.all(KINDS["licence"])) == 1


async def test_a_change_of_it_is_audited_under_its_kind(api, member):
    licence = await made(api)
    await api.patch("/v1/licences/gold", json={"seats": 6})
    (audit,) = (a for a in member.store.all(Audit) if a.action.startswith("PATCH"))
    assert (audit.action, audit.subject, audit.subject_name) == (
        "PATCH /v1/{plural}/{ref}", f"licence/{licence['id']}", "gold",
    )  # fmt: skip


async def test_rights_are_given_by_its_kind(api, member):
    role = {"name": "reader", "permissions": [{"kinds": ["licence"], "actions": ["read"]}]}
    assert (await api.post("/v1/roles", json=role)).status == 201
    token = await (
        await api.post("/v1/access-tokens", json={"name": "t", "roles": ["reader"]})
    ).json()
    await made(api)
    headers = {"Authorization": f"Bearer {token['token']}"}
    async with TestClient(TestServer(app_of(member)), headers=headers) as reader:
        assert (await reader.get("/v1/licences/gold")).status == 200
        await problem_of(await reader.post("/v1/licences", json=GOLD), 403, "forbidden")
        await problem_of(await reader.delete("/v1/licences/gold"), 403, "forbidden")
        await problem_of(await reader.get("/v1/vms"), 403, "forbidden")


async def test_it_is_in_the_description_and_what_is_shown_fits_it(api, member):
    await made(api)
    document = await (await api.get("/v1/openapi.json")).json()
    described = document["components"]["schemas"]["Licence"]
    (item,) = (await (await api.get("/v1/licences")).json())["items"]
    assert item.keys() == described["properties"].keys()
    assert (
        document["components"]["schemas"]["VM"]["x-kvorum-relations"]["licences"]["to"]
        == "licences"
    )
    assert {"get", "post"} <= document["paths"]["/v1/licences"].keys()
    assert {"get", "patch", "delete"} <= document["paths"]["/v1/licences/{ref}"].keys()


async def test_collections_with_handlers_of_their_own_are_not_written_by_declaration(api, member):
    for method, path in (
        ("POST", "/v1/disks"),
        ("DELETE", "/v1/nics/web1.0"),
        ("PATCH", "/v1/images/debian"),
    ):
        response = await api.request(method, path, json={"name": "x"})
        assert response.status == 405, path
    assert (await api.get("/v1/nics/web1.0")).status == 200


async def test_queries_lead_to_it_and_from_it(api, member):
    await made(api)
    await member.add_vm("web2")
    await made(api, name="silver", vm="web2", seats=9, images=[])

    async def names(path: str) -> list[str]:
        answer = await (await api.get(path)).json()
        return [item["name"] for item in answer["items"]]

    assert await names("/v1/licences?q=vm.name=web1") == ["gold"]
    assert await names("/v1/licences?q=seats>5&q=vm.host.name=h1") == ["silver"]
    assert await names("/v1/vms?q=licences.product=editor&sort=-name") == ["web2", "web1"]
    assert await names("/v1/images?q=licences.vm.name=web1") == ["debian"]
    assert await names("/v1/licences?q=images is:null") == ["silver"]
    assert await names("/v1/licences?sort=-seats&fields=name,vm.name") == ["silver", "gold"]


@pytest.fixture
async def types(member, tmp_path):
    """Return what types a command as root on the host."""
    runner = web.AppRunner(app_of(member))
    await runner.setup()
    await serve_unix(runner, tmp_path / "api.sock")
    address = f"unix:{tmp_path}/api.sock"
    yield lambda command: asyncio.to_thread(kvorum, command, address)
    await runner.cleanup()


async def test_the_command_makes_finds_changes_explains_and_deletes_it(types):
    done = await types("resource create licences gold product=editor seats=5 vm=web1 images=debian")
    assert (done.code, done.out) == (0, "gold: created\n"), done.err
    assert "gold" in (await types("query 'licences where vm.name = web1'")).out
    assert (await types("query 'licences where vm.name = web9'")).out == ""
    listed = (await types("resource list licences")).out.splitlines()
    assert listed[0].split()[:4] == ["NAME", "PRODUCT", "SEATS", "TIER"]
    assert listed[1].split()[:4] == ["gold", "editor", "5", "basic"]
    assert (await types("resource set licences gold seats=6 trial=yes")).out == "gold: changed\n"
    assert "trial" in (await types("resource show licences gold")).out
    assert "1 to 1000" in (await types("explain licence.seats")).out
    assert "licence (licences)" in (await types("explain vm.licences")).out
    assert (await types("resource delete licences gold --yes")).out == "gold: deleted\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("create licences gold seats=many", "seats is a number, not 'many'"),
        ("create licences gold trial=perhaps", "trial is yes or no, not 'perhaps'"),
        ("create licences gold seats", "'seats' is no ATTRIBUTE=VALUE"),
        ("create licences gold vm_id=x", "licences have no 'vm_id' to be given: there are name"),
        ("create nothings gold", "nothings can't be changed this way"),
        ("create vms web2 cpus=1", "vms have no"),
    ],
)
async def test_the_command_says_what_is_wrong_before_it_asks_for_anything(types, words, said):
    done = await types(f"resource {words}")
    if words.startswith("create vms"):
        assert done.code != 0
        return
    assert (done.code, done.out) == (2, "")
    assert said in done.err


# -- deletions of what it belongs to


async def test_it_goes_along_with_its_vm_and_holds_its_image(api, member):
    licence = await made(api)
    plan = await (await api.delete("/v1/vms/web1?dry_run=1")).json()
    assert {(one["kind"], one["name"], one["relation"]) for one in plan["deleted"]} >= {
        ("licence", "gold", "vm")
    }
    refused = await api.delete("/v1/images/debian")
    assert "is used by 1 licence (such as gold)" in (await refused.json())["detail"]
    vm = member.store.find(VM, "web1")
    await delete_cascading(member.node, vm)
    assert member.store.get(KINDS["licence"], licence["id"]) is None
    assert (await api.delete("/v1/images/debian")).status == 204


async def test_of_a_creation_and_a_deletion_at_once_only_one_succeeds(api, member):
    image = member.store.find(Image, "debian")
    propose, came = member.engine.propose, []

    async def between(payload, *, timeout_s):
        answer = await propose(payload, timeout_s=timeout_s)
        if not came:  # the fence stands now
            came.append(0)
            came[0] = (await api.post("/v1/licences", json=GOLD)).status
        return answer

    member.engine.propose = between
    await delete_cascading(member.node, image)
    assert came == [409]
    assert member.store.all(KINDS["licence"]) == []


# -- where it is not


async def test_a_host_without_it_keeps_it_whole_and_says_which_has_it(plugin, tmp_path):
    member = await cluster(tmp_path / "db")
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as api:
        licence = await made(api)
    host = member.node.host()
    await member.store.apply(puts=(replace(host, resource_types=collections_of_plugins()),))
    digest = member.machine.digest()
    member.machine.close()
    forget_all()

    without = OneMember(machine=Machine(tmp_path / "db", types=KINDS.values()))
    without.secrets_key = member.secrets_key
    assert without.machine.digest() == digest == without.machine.recompute_digest()
    async with TestClient(TestServer(app_of(without)), headers=ADMIN) as api:
        for answer in (
            await api.get("/v1/licences"),
            await api.get("/v1/licences/gold"),
            await api.post("/v1/licences", json=GOLD),
            await api.delete("/v1/licences/gold"),
        ):
            detail = (await problem_of(answer, 404, "not-found"))["detail"]
            assert "a plug-in that this host lacks; ask a host that has it: h1" in detail
        refused = await api.delete("/v1/images/debian")
        assert "is used by 1 licence (such as gold)" in (await refused.json())["detail"]
        plan = await (await api.delete("/v1/vms/web1?dry_run=1")).json()
        assert ("licence", "gold") in {(one["kind"], one["name"]) for one in plan["deleted"]}
    without.machine.close()

    assert load_resource_types() == ()
    again = OneMember(machine=Machine(tmp_path / "db", types=KINDS.values()))
    kept = again.store.need(KINDS["licence"], licence["id"])
    assert (kept.name, kept.seats, kept.vm_id) == ("gold", 5, licence["vm_id"])
    assert [found.id for found in again.store.with_value(KINDS["licence"], "product", "editor")]
    again.machine.close()


async def test_a_host_without_it_deletes_it_along(plugin, tmp_path):
    member = await cluster(tmp_path / "db")
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as api:
        licence = await made(api)
    member.machine.close()
    forget_all()
    without = OneMember(machine=Machine(tmp_path / "db", types=KINDS.values()))
    vm = without.store.find(VM, "web1")
    done = await delete_cascading(without.node, vm)
    assert f"licence/{licence['id']}" in {key_of(gone) for gone in done.gone}
    assert without.machine.get("licence", licence["id"]) is None
    assert without.machine.claims_beginning("points-to/") == []
    without.machine.close()


async def test_a_removed_host_takes_along_what_belongs_to_it(plugin):
    member = await cluster()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    put = Put(
        kind="badge", id="b", name="b", body=b"unreadable",
        claims=(f"points-to/host/{OTHER_ID}/along/badge/b/host",),
    )  # fmt: skip
    await member.store.commit(Txn(request_id="r", stamp_ms=1, puts=(put,)))
    await remove_host(member.node, member.store.need(Host, OTHER_ID))
    assert member.machine.get("badge", "b") is None


def test_replicas_with_and_without_it_hold_the_same_state(plugin):
    """Whatever is in a body, and whatever was installed when it came."""
    rng = random.Random(4711)
    machines = [Machine(":memory:", types=types) for types in (RESOURCE_TYPES, KINDS.values(), ())]
    good = [
        plugin(id="l", name="l", product="p", seats=seats, vm_id="v", codes=("c",))
        for seats in (1, 0, -(1 << 63), (1 << 64) - 1)
    ]
    bodies = [msgspec.msgpack.encode(one) for one in good]
    bodies += [b"", b"\xc1", msgspec.msgpack.encode({"type": "licence.v2", "seats": "x"})]
    for index in range(1, 120):
        id_ = f"l{rng.randrange(5)}"
        claims = tuple(f"c/{rng.randrange(4)}" for _ in range(rng.randrange(2)))
        put = Put(kind="licence", id=id_, name=id_, body=rng.choice(bodies), claims=claims)
        deletes = (f"licence/l{rng.randrange(5)}",) if rng.random() < 0.3 else ()
        txn = Txn(
            request_id=str(index), stamp_ms=index, puts=() if deletes else (put,), deletes=deletes
        )
        outcomes = [machine.apply(index, [encode_txn(txn)]) for machine in machines]
        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert len({machine.digest() for machine in machines}) == 1
    assert len({machine.recompute_digest() for machine in machines}) == 1


# -- broken ones

HEAD = """
from typing import Annotated
from core.attributes import attribute, CLUSTER
from core.model import Relation, Resource, OnDelete
"""
GOOD = (
    HEAD
    + """
class Badge(Resource, tag="badge.v1", frozen=True, kw_only=True):
    PLURAL = "badges"
    RELATIONS = (Relation("host_id", target="host", name="host", reverse="badges"),)
    colour: Annotated[str, attribute("Its colour.")] = "red"
    host_id: Annotated[str, attribute("Whose it is.")] = ""
"""
)
BROKEN = {
    "does not import": ("import nowhere_to_be_found", "ModuleNotFoundError"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
    "lacks the class": ("", "AttributeError"),
    "is no class": ("Badge = 7", "no class derived from core.model.Resource"),
    "is no resource": ("class Badge: pass", "no class derived from core.model.Resource"),
    "has no tag": (GOOD.replace('tag="badge.v1", ', ""), "have a tag such as"),
    "is a kind of the product": (GOOD.replace("badge.v1", "vm.v1"), "the kind 'vm' or"),
    "takes a collection": (GOOD.replace('"badges"\n', '"vms"\n', 1), "the collection 'vms' is taken"),
    "takes a path": (GOOD.replace('"badges"\n', '"members"\n', 1), "the collection 'members' is taken"),
    "has no collection": (GOOD.replace('PLURAL = "badges"', ""), "PLURAL must name"),
    "is called like another": (GOOD.replace("class Badge", "class VM") + "\nBadge = VM\n", "the class name 'VM' is taken"),
    "doesn't explain": (GOOD.replace('Annotated[str, attribute("Its colour.")]', "str"), "'colour': say what it is"),
    "has an unknown target": (GOOD.replace('target="host"', 'target="moon"'), "can't lead to 'moon'"),
    "points to an account": (GOOD.replace('target="host"', 'target="account"'), "can't lead to 'account'"),
    "detaches": (GOOD.replace('reverse="badges"', 'reverse="badges", on_delete=OnDelete.DETACH'), "can't detach"),
    "hides a relation": (GOOD.replace("RELATIONS", "OTHERS"), "'host_id': say by RELATIONS"),
    "takes a relation's name": (GOOD.replace('reverse="badges"', 'reverse="vms"'), "a name that is taken"),
    "has claims of its own": (GOOD + "    def claims(self): return ('vm.name/web1',)\n", "claims() of its own"),
    "keeps secrets": (GOOD + "    SECRET = frozenset({'colour'})\n", "SECRET and SEALED"),
    "has a type nobody can show": (
        GOOD.replace("Annotated[str, attribute(\"Its colour.\")] = \"red\"", "Annotated[object, attribute(\"Its colour.\")] = None").replace("object", "type(print)"),
        "failed with",
    ),
}  # fmt: skip


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a distribution with one resource type on the path, as pip would."""

    def put(name: str, code: str) -> None:
        place = tmp_path / name
        info = place / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (place / f"{name}_types.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[kvorum.resources]\nbadge = {name}_types:Badge\n")
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.delitem(sys.modules, f"{name}_types", raising=False)

    yield put
    forget_all()


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_type_is_left_out_with_a_reason_and_the_rest_works(case, install, monkeypatch):
    code, complaint = BROKEN[case]
    monkeypatch.syspath_prepend(str(EXAMPLE))
    install("broken", code)
    (refused,) = load_resource_types()
    assert refused.startswith("plug-in broken, kvorum.resources 'badge': ")
    assert complaint in refused
    assert [type_.PLURAL for type_ in added_types()] == ["licences"]
    assert KINDS["vm"] is VM and COLLECTIONS["vms"] is VM
    assert "badge" not in LINKS and "badges" not in LINKS["host"]


def test_the_good_one_that_the_broken_ones_are_made_of_is_taken(install):
    install("good", GOOD)
    assert load_resource_types() == ()
    assert LINKS["host"]["badges"].target == "badge"


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_of_two_plugins_with_one_kind_the_same_wins_on_every_host(order, install):
    for name in order:
        install(name, GOOD)
    (refused,) = load_resource_types()
    assert refused.startswith("plug-in second, ")


async def test_a_type_left_out_is_an_event_of_its_host(install):
    install("broken", "1 / 0")
    refused = load_resource_types()
    member = await founded()
    await report_refused(refused, member.node, EventLog(member.node))
    (event,) = (e for e in member.store.all(Event) if e.code == "plugin-refused")
    assert (event.message, event.subject_name) == (refused[0], "h1")


async def test_a_vm_with_what_refuses_is_not_deleted(plugin):
    member = await cluster()
    vm = member.store.find(VM, "web1")
    put = Put(
        kind="badge",
        id="b",
        name="b",
        body=b"",
        claims=(f"points-to/vm/{vm.id}/refuse/badge/b/vm",),
    )
    await member.store.commit(Txn(request_id="r", stamp_ms=1, puts=(put,)))
    assert [t.resource.name for t in plan_of(member.store, vm).refused] == ["b"]
    with pytest.raises(ConflictError, match="is used by 1 badge"):
        await delete_cascading(member.node, vm)
