"""One verb on many VMs: each is judged, recorded and repeated by itself, and a refusal of one is nothing to the others."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import UnavailableError
from core.model import VM, AccessToken, Audit, Cluster, PowerState, Task, TaskState, VMPhase
from nodeagent.identity.tokens import secret_hash
from nodeagent.services.vm_requests import MANY_MAX
from nodeagent.services.vm_service import VmService
from tests.api import ADMIN, FakeAgent, FirstHost, app_of, problem_of
from tests.one_member import HOST_ID, OneMember, founded

VERBS = ("start", "stop", "reboot", "migrate", "delete")


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    for name in ("a", "b", "c"):
        await made.add_vm(name, phase=VMPhase.RUNNING)
    await made.add_vm("off", power=PowerState.STOPPED)
    return made


async def bulk(api: TestClient, verb: str, *, headers=None, **body) -> list[dict]:
    response = await api.post(f"/v1/vms/actions/{verb}", json=body, headers=headers)
    answer = await response.json()
    assert response.status == 200, answer
    return answer["items"]


async def test_each_is_answered_in_its_place_as_if_it_had_been_asked_for_alone(member, api):
    by_id = member.store.find(VM, "b").id
    items = await bulk(api, "reboot", vms=["off", "a", "nope", by_id])
    assert [item["ref"] for item in items] == ["off", "a", "nope", by_id]
    assert [item["status"] for item in items] == [409, 202, 404, 202]
    assert [item["name"] for item in items] == ["off", "a", "", "b"]
    assert [item["problem"] and item["problem"]["code"] for item in items] == [
        "conflict",
        None,
        "not-found",
        None,
    ]
    assert "not running" in items[0]["problem"]["detail"]
    subjects = {task.id: task.subject for task in member.store.all(Task)}
    assert len(subjects) == 2
    for item in (items[1], items[3]):
        assert subjects[item["task"]["id"]] == f"vm/{item['id']}"


@pytest.mark.parametrize(
    ("verb", "names", "workflow", "options"),
    [
        ("start", ["off"], "start-vm", {}),
        ("stop", ["a", "b"], "stop-vm", {"force": True}),
        ("reboot", ["a", "b"], "reboot-vm", {}),
        ("migrate", ["a", "b"], "migrate-vm", {"host": "h1"}),
        ("delete", ["a", "off"], "delete-vm", {}),
    ],
)
async def test_every_verb_does_to_many_what_it_does_to_one(
    member, api, verb, names, workflow, options
):
    items = await bulk(api, verb, vms=names, **options)
    assert [item["status"] for item in items] == [202] * len(names)
    tasks = member.store.all(Task)
    assert [task.workflow for task in tasks] == [workflow] * len(names)
    if verb == "stop":
        assert {task.arguments["force"] for task in tasks} == {"yes"}


async def test_what_needs_nothing_done_is_told_as_such(api):
    (item,) = await bulk(api, "start", vms=["a"])
    assert (item["status"], item["task"], item["problem"]) == (200, None, None)


async def test_a_vm_named_twice_is_acted_on_once(member, api):
    id_ = member.store.find(VM, "a").id
    items = await bulk(api, "reboot", vms=["a", id_, "a"])
    assert [item["ref"] for item in items] == ["a", id_, "a"]
    assert len({item["task"]["id"] for item in items}) == 1
    assert len(member.store.all(Task)) == 1


async def test_conditions_choose_by_what_is_now(api):
    items = await bulk(api, "stop", q=["phase=running", "name!=b"])
    assert [item["name"] for item in items] == ["a", "c"]
    assert await bulk(api, "stop", q=["name=nope"]) == []


@pytest.mark.parametrize("verb", VERBS)
async def test_a_repetition_with_the_same_key_gets_the_first_results(member, api, verb):
    key = {"Idempotency-Key": "once"}
    names = ["off"] if verb == "start" else ["a", "b"]
    first = await bulk(api, verb, vms=names, headers=key)
    assert {item["status"] for item in first} == {202}
    again = await bulk(api, verb, vms=names, headers=key)
    tasks = [item["task"]["id"] for item in first]
    assert [item["task"]["id"] for item in again] == tasks
    assert len(member.store.all(Task)) == len(tasks)


async def test_a_repetition_finishes_what_the_first_could_not(member, api):
    """The first request lost its quorum in the middle; the second does the rest, and nothing twice."""
    key, apply, opened = {"Idempotency-Key": "once"}, member.store.apply, []

    async def tired(**what) -> int:
        opened.extend(put for put in what.get("puts", ()) if isinstance(put, Task))
        if len(opened) > 1:
            raise UnavailableError("no quorum")
        return await apply(**what)

    member.store.apply = tired
    first = await bulk(api, "reboot", vms=["a", "b", "c"], headers=key)
    done = {item["name"] for item in first if item["status"] == 202}
    assert 0 < len(done) < 3
    assert {item["status"] for item in first} == {202, 503}
    member.store.apply = apply
    again = await bulk(api, "reboot", vms=["a", "b", "c"], headers=key)
    assert [item["status"] for item in again] == [202, 202, 202]
    tasks = {item["name"]: item["task"]["id"] for item in again}
    assert all(tasks[i["name"]] == i["task"]["id"] for i in first if i["name"] in done)
    assert len(member.store.all(Task)) == 3


async def test_without_any_quorum_the_whole_answer_says_so(member, api):
    async def refuse(**what) -> int:
        raise UnavailableError("no quorum")

    member.store.apply = refuse
    response = await api.post("/v1/vms/actions/reboot", json={"vms": ["a", "b"]})
    await problem_of(response, 503, "unavailable")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("start", {}),
        ("start", {"vms": []}),
        ("start", {"vms": ["a"], "q": ["name=a"]}),
        ("start", {"vms": [f"vm{n}" for n in range(MANY_MAX + 1)]}),
        ("start", {"q": ["nonsense"]}),
        ("start", {"vms": ["a"], "force": True}),
        ("delete", {"q": ["phase=running"]}),
        ("delete", {"vms": []}),
    ],
)
async def test_what_cannot_be_meant_is_refused_whole(member, api, verb, body):
    response = await api.post(f"/v1/vms/actions/{verb}", json=body)
    await problem_of(response, 400, "invalid")
    assert not member.store.all(Task)


async def test_more_matches_than_the_limit_are_refused_rather_than_cut(member, api):
    cluster = member.store.all(Cluster)[0].id
    puts = [
        VM(id=f"v{n}", name=f"v{n}", cluster_id=cluster, host_id=HOST_ID, cpus=1, memory_mib=64)
        for n in range(MANY_MAX)
    ]
    await member.store.apply(puts=puts)
    response = await api.post("/v1/vms/actions/stop", json={"q": ["cpus>=1"]})
    await problem_of(response, 400, "invalid")
    assert not member.store.all(Task)


@pytest.mark.parametrize("how", ["If-Match", "dry_run"])
async def test_what_is_asked_of_one_only_is_refused_instead_of_ignored(member, api, how):
    headers = {"If-Match": '"1"'} if how == "If-Match" else {}
    query = {"dry_run": "1"} if how == "dry_run" else {}
    response = await api.post(
        "/v1/vms/actions/delete", json={"vms": ["a"]}, headers=headers, params=query
    )
    await problem_of(response, 400, "invalid")
    assert not member.store.all(Task)


async def as_role(member: OneMember, role: str) -> TestClient:
    token = AccessToken(
        id=role, name=role, secret_sha256=secret_hash(f"kvt_{role}"), role_ids=(role,)
    )
    await member.store.apply(puts=(token,))
    headers = {"Authorization": f"Bearer kvt_{role}"}
    return TestClient(TestServer(app_of(member)), headers=headers)


@pytest.mark.parametrize("verb", VERBS)
async def test_only_who_may_do_it_to_one_may_do_it_to_many(member, verb):
    async with await as_role(member, "viewer") as viewer:
        response = await viewer.post(f"/v1/vms/actions/{verb}", json={"vms": ["a"]})
        await problem_of(response, 403, "forbidden")
    assert not member.store.all(Task)
    assert not member.store.all(Audit)
    async with await as_role(member, "operator") as operator:
        await bulk(operator, verb, vms=["a"])


async def test_each_is_recorded_by_itself_with_what_came_of_it(member):
    fake = FakeAgent(member)
    async with TestClient(TestServer(app_of(member, fake)), headers=ADMIN) as api:
        await bulk(api, "stop", vms=["a", "nope", "b"])
    await fake.services.identity.audits.flush()
    audits = {audit.subject: audit for audit in member.store.all(Audit)}
    ids = {name: member.store.find(VM, name).id for name in ("a", "b")}
    assert set(audits) == {f"vm/{ids['a']}", f"vm/{ids['b']}", "vm/nope"}
    assert {audit.action for audit in audits.values()} == {"POST /v1/vms/actions/stop"}
    assert audits[f"vm/{ids['a']}"].result == 202
    assert '"power":"stopped"' in audits[f"vm/{ids['a']}"].after
    assert (audits["vm/nope"].result, audits["vm/nope"].code) == (404, "not-found")


class FailsOne(VmService):
    """A service with a mistake that shows with one VM only."""

    async def reboot(self, vm, ids):
        if vm.name == "b":
            raise RuntimeError("a mistake of ours")
        return await super().reboot(vm, ids)


async def test_a_fault_with_one_is_in_the_log_and_stops_no_other(member, caplog):
    fake = FakeAgent(member)
    object.__setattr__(fake.services, "vms", FailsOne(member.node, FirstHost()))
    async with TestClient(TestServer(app_of(member, fake)), headers=ADMIN) as api:
        items = await bulk(api, "reboot", vms=["a", "b", "c"])
    assert [item["status"] for item in items] == [202, 500, 202]
    assert "a mistake of ours" not in items[1]["problem"]["detail"]
    assert "a mistake of ours" in caplog.text


async def test_it_can_be_waited_for(member, api):
    async def end_all() -> None:
        while len(tasks := member.store.all(Task)) < 2:
            await asyncio.sleep(0.01)
        await member.store.apply(puts=[replace(t, state=TaskState.SUCCEEDED) for t in tasks])

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(end_all(), name="end")
        items = await bulk(api, "reboot", vms=["a", "b"], headers={"Prefer": "wait=30"})
    assert {item["task"]["state"] for item in items} == {"succeeded"}


async def test_two_hundred_take_seconds_at_most(member, api):
    for n in range(MANY_MAX - 4):
        await member.add_vm(f"many{n}", phase=VMPhase.RUNNING)
    async with asyncio.timeout(15):
        items = await bulk(api, "reboot", q=["phase=running"])
    assert len(items) == MANY_MAX - 1
    assert {item["status"] for item in items} == {202}
