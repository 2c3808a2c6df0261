"""Rights that are limited to tags, attacked: every route, lists, queries, previews, and ways to gain more by tagging."""

import asyncio
import itertools
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.identity.permissions import (
    ACTIONS,
    BUILT_IN,
    CREATE,
    GUARDED_KINDS,
    allows,
    covers,
    is_limitable,
    limits,
)
from core.model import (
    COLLECTIONS,
    KINDS,
    VM,
    Bmc,
    Disk,
    Event,
    Host,
    Image,
    Permission,
    PlacementRule,
    PortGroup,
    PowerState,
    Role,
    Severity,
    Tagged,
    Task,
    TaskState,
    VMPhase,
    kind_of,
)
from ha.placement import PlacementError
from nodeagent.api.permissions import NEEDS, Gate
from nodeagent.services.event_log import EventLog
from nodeagent.services.vm_service import VmService
from raftstate.state.query_sight import Sight
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import HOST_ID, OTHER_ID

MINE, OTHERS = "env=test", "env=prod"
LIMITABLE_KINDS = frozenset(filter(is_limitable, KINDS))
SECRET = "canary-of-the-others"


def allow(*texts) -> list[dict]:
    pairs = (text.partition(":") for text in texts)
    return [{"kinds": kinds.split(","), "actions": actions.split(",")} for kinds, _, actions in pairs]  # fmt: skip


@pytest.fixture
async def api(member):
    async with TestClient(TestServer(app_of(member, FakeAgent(member)))) as client:
        yield client


class People:
    """Makes roles and the credentials of who has them."""

    def __init__(self, api) -> None:
        self._api = api
        self._made = 0

    async def may(self, *texts, by=ADMIN) -> dict[str, str]:
        self._made += 1
        name = f"p{self._made}"
        body = {"name": name, "permissions": allow(*texts)}
        made = await self._api.post("/v1/roles", json=body, headers=by)
        assert made.status == 201, await made.text()
        body = {"name": name, "roles": [name]}
        made = await self._api.post("/v1/access-tokens", json=body, headers=ADMIN)
        assert made.status == 201, await made.text()
        return {"Authorization": f"Bearer {(await made.json())['token']}"}


@pytest.fixture
def people(api):
    return People(api)


@pytest.fixture
async def vms(member, api):
    """Make three VMs: mine, the others', and one without tags."""
    made = {}
    for name, tags in (("mine", (MINE,)), ("theirs", (OTHERS,)), ("bare", ())):
        body = {
            "name": name,
            "image": "debian",
            "description": "mine" if name == "mine" else SECRET,
        }
        response = await api.post("/v1/vms", json=body, headers=ADMIN)
        made[name] = (await response.json())["vm"]["id"]
        await retag(member, VM, made[name], tags)
    return made


async def retag(member, type_, id_, tags):
    await member.store.apply(puts=(replace(member.store.need(type_, id_), tags=tuple(tags)),))


async def seen(api, head, query, key="name"):
    response = await api.get(f"/v1/{query}", headers=head)
    assert response.status == 200, await response.text()
    return [item.get(key) for item in (await response.json())["items"]]


# -- what permissions mean


def test_a_limit_counts_for_its_kinds_actions_and_tag_only():
    held = (
        Permission(kinds=("vm",), actions=("read@a", "operate@b")),
        Permission(kinds=("host",), actions=("read",)),
    )
    assert limits(held, "vm", "read") == {"a"}
    assert limits(held, "vm", "delete") == frozenset()
    assert limits(held, "host", "read") is None
    assert allows(held, "vm", "read", ("a", "x")) and not allows(held, "vm", "read", ("b",))
    assert not allows(held, "vm", "read") and not allows(held, "vm", "operate", ("a",))
    every = (Permission(kinds=("*",), actions=("*@a",)),)
    for kind, action in itertools.product([*KINDS, *GUARDED_KINDS, "state"], [*ACTIONS, "*"]):
        reached = kind in LIMITABLE_KINDS and action not in (CREATE, "*")
        assert allows(every, kind, action, ("a",)) is reached, (kind, action)
        assert not allows(every, kind, action, ("b",))
    assert not LIMITABLE_KINDS & {*GUARDED_KINDS}


def test_an_agent_that_knows_no_limits_allows_nothing_by_them():
    """What version 0.1.0 does with a permission: look whether kind and action are in it, as they are."""
    for permission in (Permission(kinds=("vm",), actions=("read@a", "*@a")),):
        assert not {"read", "operate", "*"} & {*permission.actions}


def test_nobody_hands_out_more_than_their_own_tag():
    def held(*texts):
        return tuple(Permission(kinds=(t.partition(":")[0],), actions=tuple(t.partition(":")[2].split(","))) for t in texts)  # fmt: skip

    assert covers(held("vm:read"), held("vm:read@a"))
    assert covers(held("vm:read@a"), held("vm:read@a"))
    assert covers(held("*:*@a"), held("vm:operate@a"))
    assert covers(held("*:*"), held("*:*@a"))
    for given in ("vm:read", "vm:read@b", "vm:operate@a", "*:read@a", "vm:*@a"):
        assert not covers(held("vm:read@a"), held(given)), given
    assert not covers(held("vm:*@a"), held("*:*@a"))


BAD_ROLES = {
    "vm:create@a": "can't be limited",
    "account:read@a": "can't be limited",
    "event:read@a": "can't be limited",
    "vm,role:read@a": "can't be limited",
    "vm:read@": "not allowed",
    "vm:read@a b": "not allowed",
    "vm:read@@a": "not allowed",
    "vm:dance@a": "there is no action",
    "vm:@a": "there is no action",
}


async def test_a_limit_that_makes_no_sense_is_refused(api):
    for text, words in BAD_ROLES.items():
        body = {"name": "r", "permissions": allow(text)}
        answer = await api.post("/v1/roles", json=body, headers=ADMIN)
        problem = await problem_of(answer, 400, "invalid")
        assert words in problem["detail"], text


# -- every route, by everybody


def _routes():
    """Return every route that asks for a right to a kind that can be limited: method, path, kind, action."""
    for route, need in NEEDS.items():
        method, path = route.split()
        if need.gate not in (Gate.ROLE, Gate.OWN) or need.each:
            continue  # those about many things judge each of them, and have a test of their own
        for plural in COLLECTIONS if "{plural}" in path else ("",):
            kind = need.kind or kind_of(COLLECTIONS[plural])
            yield method, path.replace("{plural}", plural), kind, need.action


async def test_every_route_keeps_to_the_tag_whatever_it_does(member, api, people, vms):
    """With a right limited to a tag: what carries it is reached; what doesn't is, to the letter, as if it weren't there
    when it may not be seen, and forbidden when it may; what is about all of a kind is forbidden, but for lists."""
    board = Bmc(id=HOST_ID, name="h1", host_id=HOST_ID, address="a", user="u", sealed_password=b"x")
    await member.store.apply(puts=(board,))
    heads = {}
    for action in ("read", "change", "delete", "operate"):
        heads[action] = await people.may(f"*:{action}@{MINE}")
        heads[action, "sees"] = await people.may(f"*:{action}@{MINE}", "*:read")
    heads["create"] = await people.may(f"*:*@{MINE}")
    heads["create", "sees"] = await people.may(f"*:*@{MINE}", "*:read")
    checked = set()
    for method, path, kind, action in _routes():
        whole = method == "GET" and path.count("/") == 2 and "{" not in path
        listed = whole and path.removeprefix("/v1/") in COLLECTIONS and kind in LIMITABLE_KINDS
        variable = "{" in path and path.partition("{")[0].count("/") == 3
        stored = member.store.all(KINDS[kind]) if kind in LIMITABLE_KINDS else []
        for limited in (action, (action, "sees")):
            head, sees = heads[limited], isinstance(limited, tuple)
            if not variable or not stored:
                if sees and action == "read":
                    continue  # that one may read all of it
                url = path.replace("{rule}", "x")
                while "{" in url:
                    url = url[: url.index("{")] + "none-such" + url[url.index("}") + 1 :]
                response = await api.request(method, url, headers=head)
                known = listed and action == "read"
                gone = variable and kind in LIMITABLE_KINDS
                assert response.status == (200 if known else 404 if gone else 403), (method, url, limited)  # fmt: skip
                continue
            if sees and action == "read":
                continue
            target = stored[0]
            url = path[: path.index("{")] + "{}" + path[path.index("}") + 1 :].replace("{rule}", "x")  # fmt: skip
            await retag(member, type(target), target.id, (OTHERS,))
            for ref in (target.id, quote(target.name)):
                refused = await api.request(method, url.format(ref), headers=head, json={})
                absent = await api.request(method, url.format("none-such"), headers=head, json={})
                status = 403 if sees else 404
                assert refused.status == status, (method, url, limited, await refused.text())
                assert absent.status == 404, (method, url, limited)
                if not sees:
                    one, other = (await refused.json())["detail"], (await absent.json())["detail"]
                    assert one.replace(ref, "none-such").replace(target.name, "none-such") == other
            if method == "GET":
                await retag(member, type(target), target.id, (MINE, "other"))
                reached = await api.request(method, url.format(target.id), headers=head)
                assert reached.status not in (401, 403, 404), (method, url, await reached.text())
            await retag(member, type(target), target.id, ())
            checked.add((method, path))
    assert len(checked) > 50
    assert ("POST", "/v1/vms/{vm}/actions/migrate") in checked
    assert ("PATCH", "/v1/vms/{ref}/tags") in checked
    assert ("POST", "/v1/members/{host}/actions/demote") in checked


async def test_what_carries_the_tag_can_be_worked_with(member, api, people, vms):
    head = await people.may(f"vm:read,operate@{MINE},change@{MINE}")
    path = f"/v1/vms/{vms['mine']}"
    assert (await api.get("/v1/vms/mine", headers=head)).status == 200
    assert (await api.patch(path, json={"description": "x"}, headers=head)).status == 200
    assert member.store.need(VM, vms["mine"]).description == "x"
    running = replace(member.store.need(VM, vms["mine"]), phase=VMPhase.RUNNING)
    tasks = [t for t in member.store.all(Task) if t.subject_name == "mine"]
    await member.store.apply(puts=(running,), deletes=tasks)
    done = await api.post(f"{path}/actions/reboot", headers=head)
    assert done.status == 202, await done.text()
    await problem_of(await api.delete(path, headers=head), 403, "forbidden")
    for name in ("theirs", "bare"):
        await problem_of(await api.patch(f"/v1/vms/{name}", json={"description": "x"}, headers=head), 403, "forbidden")  # fmt: skip
        assert member.store.find(VM, name).description == SECRET
    await problem_of(await api.post("/v1/vms", json={"name": "n", "image": "debian"}, headers=head), 403, "forbidden")  # fmt: skip


async def test_of_many_each_is_judged_by_its_own_tags(member, api, people, vms):
    for id_ in vms.values():
        running = replace(member.store.need(VM, id_), phase=VMPhase.RUNNING)
        await member.store.apply(puts=(running,))
    for task in member.store.all(Task):
        await member.store.apply(puts=(replace(task, state=TaskState.SUCCEEDED),))
    blind = await people.may(f"vm:read@{MINE},operate@{MINE},delete@{MINE}")
    seeing = await people.may(f"vm:operate@{MINE}", "vm:read")

    async def outcomes(verb, head, **body):
        response = await api.post(f"/v1/vms/actions/{verb}", json=body, headers=head)
        text = await response.text()
        assert response.status == 200, text
        assert SECRET not in text
        return [(i["status"], i["name"]) for i in (await response.json())["items"]], text

    told, text = await outcomes(
        "reboot", blind, vms=["mine", "theirs", "bare", vms["theirs"], "no"]
    )
    assert told == [(202, "mine"), (404, ""), (404, ""), (404, ""), (404, "")]
    assert "its roles" not in text, "what may not be seen is as if it weren't there"
    assert (await outcomes("stop", blind, q=["name~=*"]))[0] == [(409, "mine")], (
        "others don't match"
    )
    told, _ = await outcomes("stop", seeing, vms=["theirs", vms["bare"]])
    assert told == [(403, "theirs"), (403, "bare")]
    assert [i[0] for i in (await outcomes("delete", blind, vms=["theirs", vms["bare"]]))[0]] == [
        404,
        404,
    ]
    await problem_of(
        await api.post("/v1/vms/actions/delete", json={"vms": ["mine"]}, headers=seeing),
        403,
        "forbidden",
    )
    subjects = {task.subject for task in member.store.all(Task) if task.workflow != "create-vm"}
    assert subjects == {f"vm/{vms['mine']}"}


async def test_a_tag_that_goes_between_judging_and_writing_counts(member, api, people, vms, monkeypatch):  # fmt: skip
    """The tag is taken away after the request was let in, while its body is on the way."""
    head = await people.may(f"vm:read@{MINE},change@{MINE},operate@{MINE}")
    calls = [
        ("PATCH", "", b'{"description": "stolen"}'),
        ("PATCH", "/tags", b'{"add": ["x"]}'),
        ("POST", "/actions/stop", b"{}"),
    ]
    for method, rest, body in calls:
        await retag(member, VM, vms["mine"], (MINE,))
        agent, let_in = FakeAgent(member), asyncio.Event()
        audits = agent.services.identity.audits

        def noted(*args, make=audits.make, let_in=let_in, **options):
            let_in.set()
            return make(*args, **options)

        monkeypatch.setattr(audits, "make", noted)

        async def slow(body=body, let_in=let_in):
            yield body[:1]
            await asyncio.wait_for(let_in.wait(), 5)
            await retag(member, VM, vms["mine"], (OTHERS,))
            yield body[1:]

        async with TestClient(TestServer(app_of(member, agent))) as client:
            answer = await client.request(method, f"/v1/vms/mine{rest}", data=slow(), headers=head)
            assert answer.status == 404, (method, rest, await answer.text())
        vm = member.store.need(VM, vms["mine"])
        assert (vm.description, vm.tags, vm.phase) == ("mine", (OTHERS,), VMPhase.CREATING)
        assert vm.power is PowerState.RUNNING


async def test_rights_change_with_the_tag_from_the_next_request_on(member, api, people, vms):
    head = await people.may(f"vm:read@{MINE}")
    assert (await api.get("/v1/vms/theirs", headers=head)).status == 404
    await retag(member, VM, vms["theirs"], (MINE,))
    assert (await api.get("/v1/vms/theirs", headers=head)).status == 200
    await retag(member, VM, vms["theirs"], ())
    await problem_of(await api.get("/v1/vms/theirs", headers=head), 404, "not-found")
    # What an administrator looked at is not kept for others.
    assert (await api.get("/v1/vms/theirs", headers=ADMIN)).status == 200
    assert (await api.get("/v1/vms/theirs", headers=head)).status == 404


async def test_a_task_is_seen_by_the_tags_that_its_vm_had(member, api, people, vms):
    await member.store.apply(deletes=member.store.all(Task))
    for name in ("mine", "theirs"):
        await api.delete(f"/v1/vms/{name}", headers=ADMIN)
    head = await people.may(f"task:read@{MINE}")
    assert await seen(api, head, "tasks", "subject_name") == ["mine"]
    for task in member.store.all(Task):
        status = 200 if task.subject_name == "mine" else 404
        assert (await api.get(f"/v1/tasks/{task.id}", headers=head)).status == status


# -- lists and queries


async def test_lists_counts_and_pages_have_only_what_one_may_see(member, api, people, vms):
    await retag(member, VM, vms["bare"], (MINE, "x"))
    head = await people.may(f"vm:read@{MINE}")
    assert await seen(api, head, "vms") == ["bare", "mine"]
    assert (await (await api.get("/v1/vms?count=1", headers=head)).json())["count"] == 2
    page = await (await api.get("/v1/vms?limit=1&sort=-name", headers=head)).json()
    assert [vm["name"] for vm in page["items"]] == ["mine"]
    page = await (await api.get(f"/v1/vms?limit=1&sort=-name&cursor={page['next']}", headers=head)).json()  # fmt: skip
    assert [vm["name"] for vm in page["items"]] == ["bare"] and "next" not in page
    stolen = await (await api.get("/v1/vms?limit=1&sort=-name", headers=ADMIN)).json()
    assert await seen(api, head, f"vms?limit=1&sort=-name&cursor={stolen['next']}") == ["mine"]
    for query in ("name=theirs", f"description={SECRET}", f"tag={OTHERS}", f"id={vms['theirs']}"):
        assert await seen(api, head, f"vms?q={query}&q=name!=bare") == []
    await problem_of(await api.get("/v1/vms?explain=1", headers=head), 403, "forbidden")
    none = await people.may("vm:operate@x")
    await problem_of(await api.get("/v1/vms", headers=none), 403, "forbidden")
    odd = 'k="a\\b"[]'
    await retag(member, VM, vms["theirs"], (odd, "x"))
    assert await seen(api, await people.may(f"vm:read@{odd}"), "vms") == ["theirs"]
    await retag(member, VM, vms["theirs"], (OTHERS,))
    both = await people.may(f"vm:read@{MINE},read@{OTHERS}")
    assert await seen(api, both, "vms") == ["bare", "mine", "theirs"]


LEAKS = [
    "hosts?fields=vms.name,vms.description,vms.tags,vms.id",
    "hosts?fields=vms.cloud_init.hostname",
    "hosts?fields=disks.vm.description",
    "disks?fields=vm.description,vm.name,vm,vm_name",
    "disks?fields=vm.host.vms.description",
    "nics?fields=vm.name,port_group.nics.vm.name",
    "disks",
    "nics",
]
ORACLES = [
    f"hosts?q=vms.description={SECRET}",
    "hosts?q=vms.name=theirs",
    "hosts?q=vms.name~=the*",
    "hosts?q=vms.id={theirs}",
    f"hosts?q=vms.tag={OTHERS}",
    "hosts?q=disks.vm.name=theirs",
    "disks?q=vm.name=theirs",
    "disks?q=vm_name=theirs",
    "disks?q=vm=theirs",
    "disks?q=vm!=mine&q=vm!is:null",
    "nics?q=vm.cloud_init.hostname=theirs",
    "images?q=disks.vm.name?=theirs,bare",
    "hosts?q=vms.disks.vm.name=theirs",
]


async def test_relations_show_nothing_of_what_one_may_not_see(api, people, vms):
    """One who sees all hosts, disks and NICs, but only VMs with a tag."""
    head = await people.may("host,disk,nic,image,port-group:read", f"vm:read@{MINE}")
    for query in LEAKS:
        text = await (await api.get(f"/v1/{query}", headers=head)).text()
        assert SECRET not in text and "mine" in text, query
        if "vm." in query or "vms." in query:
            assert "theirs" not in text and "bare" not in text, (query, text)
    for item in (await (await api.get("/v1/disks", headers=head)).json())["items"]:
        assert item["vm_name"] == ("mine" if item["vm_id"] == vms["mine"] else "")
        one = await (await api.get(f"/v1/disks/{item['id']}", headers=head)).json()
        assert one["vm_name"] == item["vm_name"]
    for query in ORACLES:
        query = query.format(**vms)
        assert await seen(api, head, query) == [], query
        assert await seen(api, ADMIN, query) != [], f"{query} asks nothing"
        count = await api.get(f"/v1/{query}&count=1", headers=head)
        assert (await count.json())["count"] == 0
        await problem_of(await api.get(f"/v1/{query}&explain=1", headers=head), 403, "forbidden")
    assert len(await seen(api, head, "disks?q=vm is:null")) == 2, "as if there were none"
    for sort in ("vm.name", "-vm.description", "vm"):
        await problem_of(await api.get(f"/v1/disks?sort={sort}", headers=head), 400, "invalid")
    assert await seen(api, head, "disks?sort=host.name&limit=1") != []


async def test_a_kind_that_one_may_not_read_is_not_read_through_relations_either(api, people, vms):
    head = await people.may("vm:read")
    assert await seen(api, head, "vms?q=host.name=h1") == []
    assert await seen(api, head, "vms?fields=name,host.address", "host.address") == [None] * 3
    assert await seen(api, head, "vms", "host_name") == [""] * 3
    viewer = await people.may("host:read")
    assert await seen(api, viewer, "hosts?fields=join_tokens.name", "join_tokens.name") == [[]]


async def test_words_of_a_query_stay_values_for_limited_callers_too(api, people, vms):
    head = await people.may(f"vm:read@{MINE}")
    for value in ("x') OR 1=1 --", 'x" OR "1"="1', "%", "*"):
        assert await seen(api, head, f"vms?q=name={quote(value)}") == []


def test_a_sight_without_tags_sees_nothing_and_binds_what_it_compares():
    sight = Sight({"vm": frozenset({"a'--", "b"}), "host": frozenset()}.get)
    assert sight.sql("vm", "t").parameters == ('"a\'--"', '"b"', "a'--", "b")
    assert "a'--" not in sight.sql("vm", "t").text
    assert sight.sql("host", "t").text == "0"
    assert sight.sql("image", "t").text == ""


# -- what else could tell or reach it


async def test_events_audits_and_status_are_not_for_limited_readers(member, api, people, vms):
    vm = member.store.find(VM, "theirs")
    await EventLog(member.node).record("x", vm, SECRET, severity=Severity.ALARM)
    head = await people.may(f"*:*@{MINE}")
    for path in ("events", "audits", "status", "members", "roles", "accounts", "sessions",
                 "state/backup", "certificates", "secrets", "plugins", "members/policy"):  # fmt: skip
        answer = await api.get(f"/v1/{path}", headers=head)
        assert answer.status == 403, path
        assert SECRET not in await answer.text()
    stream = await api.get("/v1/events", headers={**head, "Accept": "text/event-stream"})
    assert stream.status == 403
    event = member.store.all(Event)[0]
    assert (await api.get(f"/v1/events/{event.id}", headers=head)).status == 403


async def test_refusals_and_previews_name_nothing_that_one_may_not_see(member, api, people, vms):
    group, host = member.store.all(PortGroup)[0], member.store.all(Host)[0]
    await retag(member, PortGroup, group.id, (MINE,))
    await retag(member, Host, host.id, (MINE,))
    head = await people.may(f"*:read@{MINE},delete@{MINE}")
    path = f"/v1/port-groups/{group.id}"
    preview = await (await api.get(path, headers=head)).text()
    assert "theirs" not in preview
    preview = await (await api.delete(f"{path}?dry_run=1", headers=head)).json()
    assert not preview["allowed"] and len(preview["refused"]) == 3
    assert "theirs" not in str(preview) and group.name in str(preview)
    refused = await api.delete(path, headers=head)
    problem = await problem_of(refused, 409, "conflict")
    assert "theirs" not in str(problem) and "such as" not in str(problem)
    other = replace(host, id=OTHER_ID, name="h2", address="192.0.2.2", revision=0, tags=(MINE,))
    vm = replace(member.store.need(VM, vms["theirs"]), host_id=OTHER_ID)
    await member.store.apply(puts=(other, vm))
    refused = await api.delete(f"/v1/hosts/{OTHER_ID}", headers=head)
    assert refused.status == 409 and "theirs" not in await refused.text()
    assert "theirs" in await (await api.delete(f"/v1/hosts/{OTHER_ID}", headers=ADMIN)).text()
    whole = await (await api.delete(path, headers=ADMIN)).text()
    assert "such as" in whole, "who sees all is told"


async def test_nothing_is_made_use_of_that_one_may_not_see(member, api, people, vms):
    await member.add_image("secret")
    head = await people.may(
        "vm:create,read", f"image:read@{MINE}", "port-group,security-group:read"
    )
    body = {"name": "thief", "image": "secret"}
    answer = await api.post("/v1/vms", json=body, headers=head)
    problem = await problem_of(answer, 404, "not-found")
    absent = await (await api.post("/v1/vms", json={**body, "image": "nope"}, headers=head)).json()
    assert problem["detail"].replace("secret", "nope") == absent["detail"]
    image = member.store.find(Image, "secret")
    await retag(member, Image, image.id, (MINE,))
    named = await api.post("/v1/vms", json={**body, "host": "h1"}, headers=head)
    await problem_of(named, 403, "forbidden")
    assert (await api.post("/v1/vms", json=body, headers=head)).status == 202


async def test_a_vm_is_put_only_into_rules_that_one_may_change(member, api, people):
    body = {"name": "apart", "cluster": "test", "policy": "vm-anti-affinity"}
    made = await api.post("/v1/placement-rules", json=body, headers=ADMIN)
    rule_id = (await made.json())["id"]
    uses = ("vm:create,read", "image,port-group,security-group:read")
    reader = await people.may(*uses, "placement-rule:read")
    changer = await people.may(*uses, f"placement-rule:read,change@{MINE}")
    blind = await people.may(*uses, f"placement-rule:read@{MINE}", "placement-rule:change")
    new = {"name": "new", "image": "debian", "placement_rules": ["apart"]}
    for head, status, code in ((reader, 403, "forbidden"), (changer, 403, "forbidden"), (blind, 404, "not-found")):  # fmt: skip
        await problem_of(await api.post("/v1/vms", json=new, headers=head), status, code)
    await retag(member, PlacementRule, rule_id, (MINE,))
    for head, status in ((reader, 403), (changer, 202)):
        assert (await api.post("/v1/vms", json=new, headers=head)).status == status
    rule = member.store.need(PlacementRule, rule_id)
    assert rule.vm_ids == (member.store.find(VM, "new").id,)


async def test_a_refusal_to_place_a_vm_names_no_hosts_to_who_may_not_see_them(member, people, vms):
    agent = FakeAgent(member)

    class Full:
        def choose(self, vm, disks, *, only="", never="", joined=()):
            raise PlacementError("no host can take the VM: h1: secret-reason")

    object.__setattr__(agent.services, "vms", VmService(member.node, Full()))
    stopped = replace(member.store.need(VM, vms["mine"]), phase=VMPhase.STOPPED)
    await member.store.apply(puts=(stopped,), deletes=(*member.store.all(Task), *member.store.all(Disk)))  # fmt: skip
    head = await people.may("vm:create", f"vm:read,operate@{MINE}", "image,port-group,security-group:read")  # fmt: skip
    seeing = await people.may("vm,host,image,port-group,security-group:*")
    new = {"name": "new", "image": "debian"}
    async with TestClient(TestServer(app_of(member, agent))) as client:
        for path, body in (("/v1/vms", new), ("/v1/vms/mine/actions/start", {})):
            problem = await problem_of(await client.post(path, json=body, headers=head), 409, "no-host")  # fmt: skip
            assert "secret-reason" not in problem["detail"]
            problem = await problem_of(await client.post(path, json=body, headers=seeing), 409, "no-host")  # fmt: skip
            assert "secret-reason" in problem["detail"]


# -- gaining rights by tagging


async def test_nobody_gains_a_right_by_tagging(member, api, people, vms):
    both = await people.may("vm:read,change", f"vm:delete@{MINE}")
    path = f"/v1/vms/{vms['theirs']}"
    answer = await api.patch(f"{path}/tags", json={"add": [MINE]}, headers=both)
    problem = await problem_of(answer, 403, "forbidden")
    assert "delete" in problem["detail"] and MINE in problem["detail"]
    assert member.store.find(VM, "theirs").tags == (OTHERS,)
    assert (await api.delete(path, headers=both)).status == 403
    harmless = await api.patch(f"{path}/tags", json={"add": ["team=a"]}, headers=both)
    assert harmless.status == 200


async def test_nobody_gives_others_a_right_by_tagging(member, api, people, vms):
    await people.may(f"vm:delete@{MINE}")
    changer = await people.may("vm:read,change,operate")
    path = f"/v1/vms/{vms['bare']}/tags"
    answer = await api.patch(path, json={"add": [MINE]}, headers=changer)
    await problem_of(answer, 403, "forbidden")
    await people.may("*:delete@all")
    answer = await api.patch(path, json={"add": ["all"]}, headers=changer)
    await problem_of(answer, 403, "forbidden")
    entitled = await people.may("vm:read,change,delete")
    assert (await api.patch(path, json={"add": [MINE]}, headers=entitled)).status == 200
    assert (await api.patch(path, json={"remove": [MINE]}, headers=changer)).status == 200


async def test_a_limited_changer_cannot_pull_others_in_nor_push_theirs_to_other_roles(member, api, people, vms):  # fmt: skip
    await people.may(f"vm:delete@{OTHERS}")
    head = await people.may(f"vm:read,change@{MINE}")
    for name, add in (("theirs", MINE), ("bare", MINE), ("bare", "harmless")):
        answer = await api.patch(f"/v1/vms/{name}/tags", json={"add": [add]}, headers=head)
        await problem_of(answer, 403, "forbidden")
    answer = await api.patch("/v1/vms/mine/tags", json={"add": [OTHERS]}, headers=head)
    await problem_of(answer, 403, "forbidden")
    for body in ({"add": ["team=a"]}, {"remove": ["team=a"]}):
        assert (await api.patch("/v1/vms/mine/tags", json=body, headers=head)).status == 200
    assert (await api.patch("/v1/vms/mine/tags", json={"remove": [MINE]}, headers=head)).status == 200  # fmt: skip
    answer = await api.patch("/v1/vms/mine/tags", json={"add": [MINE]}, headers=head)
    await problem_of(answer, 403, "forbidden")


async def test_a_vms_tag_does_not_open_its_tasks_to_others(member, api, people, vms):
    await people.may(f"task:read@{OTHERS}")
    head = await people.may("vm:read,change")
    answer = await api.patch("/v1/vms/mine/tags", json={"add": [OTHERS]}, headers=head)
    await problem_of(answer, 403, "forbidden")
    head = await people.may("vm:read,change", "task:read")
    assert (await api.patch("/v1/vms/mine/tags", json={"add": [OTHERS]}, headers=head)).status == 200  # fmt: skip


async def test_a_limited_administrator_of_roles_hands_out_no_more_than_the_tag(api, people):
    head = await people.may("role:read,create,change", f"vm:operate@{MINE}")
    for text, status in ((f"vm:operate@{MINE}", 201), ("vm:operate", 403), (f"vm:operate@{OTHERS}", 403), (f"*:operate@{MINE}", 403)):  # fmt: skip
        body = {"name": f"r{status}", "permissions": allow(text)}
        answer = await api.post("/v1/roles", json=body, headers=head)
        assert answer.status == status, (text, await answer.text())
    wider = {"permissions": allow("vm:operate")}
    await problem_of(await api.patch("/v1/roles/r201", json=wider, headers=head), 403, "forbidden")


def test_built_in_roles_have_no_limits_and_every_limitable_kind_is_tagged():
    for role in BUILT_IN.values():
        assert not any("@" in action for p in role.permissions for action in p.actions)
    assert all(issubclass(KINDS[kind], Tagged) for kind in LIMITABLE_KINDS)
    assert kind_of(Role) not in LIMITABLE_KINDS
