"""One verb on many of any kind: each is judged, recorded and repeated as if it had been asked for alone."""

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import fields, replace

from core.errors import UnavailableError
from core.model import (
    KINDS,
    AccessToken,
    Audit,
    Cluster,
    DataCenter,
    DistributedSwitch,
    JoinToken,
    Permission,
    PortGroup,
    Role,
    SecurityGroup,
    Task,
)
from nodeagent.api.description.document import all_operations
from nodeagent.api.description.operations import OPERATIONS
from nodeagent.api.permissions import MANY, NEEDS, Gate
from nodeagent.identity.tokens import secret_hash
from nodeagent.services.vm_requests import MANY_MAX
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import HOST_ID, OneMember, founded

GROUPS = "/v1/security-groups/actions/delete"


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    center = made.store.all(DataCenter)[0].id
    groups = [
        SecurityGroup(id=f"g{n}", name=f"g{n}", data_center_id=center, tags=("env=test",) * (n < 2))
        for n in range(3)
    ]
    tasks = [
        Task(id=f"t{n}", name=f"t{n}", workflow="w", subject=f"vm/{n}", runner_host_id=HOST_ID)
        for n in range(3)
    ]
    await made.store.apply(puts=[*groups, *tasks])
    return made


async def bulk(api: TestClient, path: str, *, headers=None, **body) -> list[dict]:
    response = await api.post(path, json=body, headers=headers)
    answer = await response.json()
    assert response.status == 200, answer
    return answer["items"]


def outcome(items: list[dict]) -> list[tuple]:
    return [(i["ref"], i["status"], i["problem"] and i["problem"]["code"]) for i in items]


async def test_each_is_answered_in_its_place_as_if_it_had_been_asked_for_alone(member, api):
    await member.add_vm()  # its NIC is in the group `default`
    items = await bulk(api, GROUPS, security_groups=["g1", "default", "nope", "g0", "g1"])
    assert outcome(items) == [
        ("g1", 204, None),
        ("default", 409, "conflict"),
        ("nope", 404, "not-found"),
        ("g0", 204, None),
        ("g1", 204, None),
    ]
    alone = await (await api.delete("/v1/security-groups/default")).json()
    assert items[1]["problem"]["detail"] == alone["detail"]
    assert {group.name for group in member.store.all(SecurityGroup)} == {"g2", "default"}


async def test_a_verb_takes_what_it_takes_for_one(member, api):
    first = member.store.all(Cluster)[0]
    second = Cluster(id="c2", name="c2", data_center_id=first.data_center_id)
    switches = [
        DistributedSwitch(id=f"s{n}", name=f"s{n}", cluster_ids=(first.id,)) for n in (1, 2)
    ]
    await member.store.apply(puts=[second, *switches])
    path = "/v1/distributed-switches/actions/attach"
    items = await bulk(api, path, q=["name!=nope"], cluster="c2")
    assert [(i["name"], i["status"]) for i in items if i["name"] in ("s1", "s2")] == [
        ("s1", 200),
        ("s2", 200),
    ]
    assert member.store.need(DistributedSwitch, "s2").cluster_ids == (first.id, "c2")
    await problem_of(await api.post(path, json={"q": ["name=s1"]}), 400, "invalid")


async def test_conditions_choose_by_what_is_now_and_never_what_is_deleted(member, api):
    items = await bulk(api, "/v1/tasks/actions/retry", q=["name!=t1", "state=pending"])
    assert [item["ref"] for item in items] == ["t0", "t2"]
    assert [member.store.need(Task, f"t{n}").retries_asked for n in range(3)] == [1, 0, 1]
    for path in (GROUPS, "/v1/tasks/actions/cancel"):
        await problem_of(await api.post(path, json={"q": ["name=t1"]}), 400, "invalid")


async def test_a_repetition_with_the_same_key_does_nothing_twice(member, api):
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        items = await bulk(api, "/v1/tasks/actions/retry", tasks=["t0", "t1"], headers=key)
        assert [item["status"] for item in items] == [202, 202]
    assert [member.store.need(Task, f"t{n}").retries_asked for n in range(3)] == [1, 1, 0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"security_groups": []},
        {"security_groups": [f"g{n}" for n in range(MANY_MAX + 1)]},
        {"security_groups": ["g0"], "force": True},
        {"vms": ["g0"]},
    ],
)
async def test_what_cannot_be_meant_is_refused_whole(member, api, body):
    before = member.store.all(SecurityGroup)
    await problem_of(await api.post(GROUPS, json=body), 400, "invalid")
    assert member.store.all(SecurityGroup) == before


@pytest.mark.parametrize("how", ["If-Match", "dry_run"])
async def test_what_is_asked_of_one_only_is_refused_instead_of_ignored(member, api, how):
    response = await api.post(
        GROUPS,
        json={"security_groups": ["g0"]},
        headers={"If-Match": '"1"'} if how == "If-Match" else {},
        params={"dry_run": "1"} if how == "dry_run" else {},
    )
    await problem_of(response, 400, "invalid")
    assert member.store.get(SecurityGroup, "g0")


async def as_role(member: OneMember, *permissions: Permission) -> TestClient:
    role = Role(id="r", name="r", permissions=permissions)
    token = AccessToken(id="t", name="t", secret_sha256=secret_hash("kvt_t"), role_ids=("r",))
    await member.store.apply(puts=(role, token))
    return TestClient(TestServer(app_of(member)), headers={"Authorization": "Bearer kvt_t"})


async def test_a_right_that_is_limited_by_tags_reaches_only_some(member):
    limited = Permission(kinds=("security-group",), actions=("read", "delete@env=test"))
    async with await as_role(member, limited) as api:
        items = await bulk(api, GROUPS, security_groups=["g0", "g1", "g2"])
    assert outcome(items) == [("g0", 204, None), ("g1", 204, None), ("g2", 403, "forbidden")]
    assert {group.name for group in member.store.all(SecurityGroup)} == {"g2", "default"}


async def test_what_one_may_not_see_is_not_there(member):
    blind = Permission(kinds=("task",), actions=("read@env=test", "operate@env=test"))
    async with await as_role(member, blind) as api:
        items = await bulk(api, "/v1/tasks/actions/retry", tasks=["t0"])
        assert outcome(items) == [("t0", 404, "not-found")]
        assert (items[0]["id"], items[0]["name"]) == ("", "")
        assert await bulk(api, "/v1/tasks/actions/retry", q=["state=pending"]) == []


async def test_only_who_may_do_it_to_one_may_do_it_to_many(member):
    async with await as_role(member, Permission(kinds=("*",), actions=("read",))) as api:
        for many in MANY:
            path = f"/v1/{many.plural}/actions/{many.verb}"
            await problem_of(await api.post(path, json={}), 403, "forbidden")
        await problem_of(await api.post("/v1/clusters/actions/delete", json={}), 403, "forbidden")


async def test_each_is_recorded_by_itself_with_what_came_of_it(member):
    fake = FakeAgent(member)
    async with TestClient(TestServer(app_of(member, fake)), headers=ADMIN) as api:
        await bulk(api, GROUPS, security_groups=["g0", "nope"])
        await bulk(api, "/v1/data-storages/actions/delete", data_storages=["nope"])  # not `within`
    await fake.services.identity.audits.flush()
    found = {(a.action, a.subject, a.result, a.code) for a in member.store.all(Audit)}
    assert found == {
        (f"POST {GROUPS}", "security-group/g0", 204, ""),
        (f"POST {GROUPS}", "security-group/nope", 404, "not-found"),
        ("POST /v1/data-storages/actions/delete", "data-storage/nope", 404, "not-found"),
    }


async def test_without_any_quorum_the_whole_answer_says_so(member, api):
    async def refuse(**what) -> int:
        raise UnavailableError("no quorum")

    member.store.apply = refuse
    response = await api.post("/v1/tasks/actions/retry", json={"tasks": ["t0", "t1"]})
    await problem_of(response, 503, "unavailable")


async def test_what_is_served_by_declaration_joins_in(member, api):
    center = member.store.all(DataCenter)[0].id
    clusters = [Cluster(id=f"c{n}", name=f"c{n}", data_center_id=center) for n in range(2)]
    await member.store.apply(puts=clusters)
    used = next(c.name for c in member.store.all(Cluster) if not c.name.startswith("c"))
    items = await bulk(api, "/v1/clusters/actions/delete", clusters=["c0", "c1", used])
    assert [item["status"] for item in items] == [204, 204, 409]
    response = await api.post("/v1/events/actions/delete", json={"events": ["x"]})
    await problem_of(response, 404, "not-found")


async def test_secrets_and_tokens_can_be_revoked_together(member, api):
    await member.store.apply(
        puts=[
            JoinToken(id=f"j{n}", name=f"j{n}", secret_sha256=f"{n}", expires_ms=9) for n in (1, 2)
        ]
    )
    await bulk(api, "/v1/join-tokens/actions/delete", join_tokens=["j1", "j2"])
    assert not member.store.all(JoinToken)


# -- which there are


def test_every_verb_on_one_is_there_for_many_but_those_that_ask_for_each_alone():
    """A route added later shows up here: either many at once follow by themselves, or it says why not."""
    there = {(many.method, many.path) for many in MANY}
    missing = set()
    for route, need in NEEDS.items():
        method, path = route.split(" ")
        one = "/actions/" in path and path.count("{") == 1 and "{plural}" not in path
        if one and need.gate is Gate.ROLE and (method, path) not in there:
            missing.add(path)
    assert missing == {
        "/v1/vms/{vm}/actions/start", "/v1/vms/{vm}/actions/stop",  # these have their own
        "/v1/vms/{vm}/actions/reboot", "/v1/vms/{vm}/actions/migrate",
        "/v1/hosts/{host}/actions/confirm-off", "/v1/hosts/{host}/actions/enter-maintenance",
        "/v1/bmcs/{bmc}/actions/power-off",
        "/v1/tasks/{task}/actions/give-up", "/v1/access-keys/{key}/actions/rotate",
        "/v1/workflows/{workflow}/actions/run", "/v1/snapshots/{snapshot}/actions/revert",
    }  # fmt: skip
    assert "workflow" not in KINDS


def test_what_is_confirmed_by_name_is_never_done_to_many():
    for route, operation in OPERATIONS.items():
        if operation.body is None or "{" not in route[1] or "rules" in route[1]:
            continue
        if "confirm" in {field.name for field in fields(operation.body)}:
            assert NEEDS[" ".join(route)].alone, route


def test_all_of_them_are_described():
    described = all_operations()
    for many in MANY:
        operation = described["POST", f"/v1/{many.plural}/actions/{many.verb}"]
        names = {field.name for field in fields(operation.body)}
        assert many.plural.replace("-", "_") in names
        assert ("q" in names) == (many.verb not in ("delete", "cancel"))
    assert ("POST", "/v1/clusters/actions/delete") in described


async def test_port_groups_in_use_stay_and_the_rest_goes(member, api):
    default = member.store.find(PortGroup, "default")
    spare = replace(
        default, id="p2", name="spare", vni=default.vni + 1, cidr="10.9.0.0/24",
        service_ip="10.9.0.2", pool_first="10.9.0.10", pool_last="10.9.0.99", revision=0,
    )  # fmt: skip
    await member.store.apply(puts=(spare,))
    await member.add_vm()
    items = await bulk(api, "/v1/port-groups/actions/delete", port_groups=["default", "spare"])
    assert [item["status"] for item in items] == [409, 204]
