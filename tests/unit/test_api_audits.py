"""Audits that travel with the change they are about, and ends that are stored together. Attacks on what could get lost."""

import asyncio
import dataclasses
import json

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.errors import UnavailableError
from core.model import Audit, DataCenter, Role, SecurityGroup
from nodeagent.api.permissions import NEEDS, Audited
from nodeagent.identity.audit_ends import TOGETHER_MAX, WAITING_MAX, AuditEnds
from raftstate.rider import RIDER, Rider
from raftstate.txn import Applied, Txn
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import until


@pytest.fixture
def agent(member):
    return FakeAgent(member)


@pytest.fixture
async def api(member, agent):
    async with TestClient(TestServer(app_of(member, agent)), headers=ADMIN) as client:
        yield client


class Proposals:
    """The transactions that were proposed. `lose`: they are applied and the answer gets lost; `refuse`: no quorum."""

    def __init__(self, member) -> None:
        self.txns: list[Txn] = []
        self.lose = self.refuse = False
        self._propose, member.engine.propose = member.engine.propose, self.propose

    async def propose(self, payload: bytes, *, timeout_s: float) -> bytes:
        if self.refuse:
            raise UnavailableError("no quorum")
        self.txns.append(msgspec.msgpack.decode(payload, type=Txn))
        answer = await self._propose(payload, timeout_s=timeout_s)
        if self.lose:
            raise UnavailableError("the answer was lost")
        return answer

    def kinds(self) -> list[set[str]]:
        return [{put.kind for put in txn.puts} for txn in self.txns]


@pytest.fixture
def proposals(member) -> Proposals:
    return Proposals(member)


async def shown(api, query="") -> list[dict]:
    answer = await api.get(f"/v1/audits{query}")
    assert answer.status == 200, await answer.text()
    return (await answer.json())["items"]


# -- the begin travels with the change

LOOK = {"kinds": ["vm"], "actions": ["read"]}
CHANGES = [
    ("POST", "/v1/vms", {"name": "new", "image": "debian"}),
    ("PATCH", "/v1/vms/web1", {"description": "front"}),
    ("POST", "/v1/vms/web1/actions/start", {}),
    ("DELETE", "/v1/vms/web1", None),
    ("POST", "/v1/security-groups", {"name": "new"}),
    ("POST", "/v1/security-groups/default/rules", {"cidr": "192.0.2.0/24"}),
    ("POST", "/v1/port-groups", {"name": "new", "cidr": "10.9.0.0/16"}),
    ("POST", "/v1/accounts", {"name": "alice"}),
    ("POST", "/v1/roles", {"name": "new", "permissions": [LOOK]}),
    ("POST", "/v1/access-tokens", {"name": "new"}),
    ("DELETE", "/v1/access-tokens/spare", None),
    ("POST", "/v1/join-tokens", {}),
]


@pytest.fixture
async def world(member, api):
    await member.add_vm()
    assert (await api.post("/v1/access-tokens", json={"name": "spare"})).status == 201
    return api


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda v: str(v)[:40])
async def test_an_agent_that_dies_right_after_a_change_leaves_its_audit(
    world, member, proposals, method, path, body
):
    answer = await world.request(method, path, json=body)
    assert answer.status < 300, await answer.text()
    changing = proposals.txns[0]
    (begin,) = [put for put in changing.puts if put.kind == "audit"]
    assert len(changing.puts) + len(changing.deletes) > 1, "it goes with the change itself"
    assert all("audit" not in kinds for kinds in proposals.kinds()[1:]), "and only once"
    audit = member.store.need(Audit, begin.id)
    assert (audit.result, audit.ended_ms) == (0, 0), "so that all see that the end isn't known"
    assert audit.action.startswith(f"{method} /v1/") and audit.operator == "admin"


def test_only_routes_that_were_looked_at_store_the_begin_with_the_change():
    """Whatever else a handler touches (files, other hosts, voters) must find its audit stored before."""
    tried = {f"{method} {path}" for method, path, _ in CHANGES}
    within = {route for route, need in NEEDS.items() if need.audited is Audited.WITHIN}
    assert {"POST /v1/vms", "POST /v1/security-groups"} <= tried & within
    for route in ("POST /v1/images", "POST /v1/data-storages", "DELETE /v1/members/{host}"):
        assert NEEDS[route].audited is Audited.AROUND


async def test_what_is_refused_is_recorded_whole_and_changes_nothing(world, member, proposals):
    answer = await world.post("/v1/security-groups", json={"name": "default"})
    await problem_of(answer, 409, "conflict-claim")
    await problem_of(await world.patch("/v1/vms/none", json={}), 404, "not-found")
    await problem_of(await world.post("/v1/vms", json={"name": 5}), 400, "invalid")
    found = await shown(world, "?q=result>=400")
    assert {(a["result"], a["code"], a["ended_ms"] > 0) for a in found} == {
        (409, "conflict-claim", True),
        (404, "not-found", True),
        (400, "invalid", True),
    }
    assert len(member.store.all(SecurityGroup)) == 1


async def test_without_quorum_nothing_is_changed_and_the_audit_waits(world, member, proposals):
    proposals.refuse = True
    role = {"name": "r", "permissions": [LOOK]}
    await problem_of(await world.post("/v1/roles", json=role), 503, "unavailable")
    assert await shown(world, "?q=action=POST /v1/roles") == [], "reading goes on"
    proposals.refuse = False
    (audit,) = await shown(world, "?q=action=POST /v1/roles")
    assert (audit["result"], audit["code"]) == (503, "unavailable")
    assert not any(role.name == "r" for role in member.store.all(Role))


async def test_a_change_that_was_applied_although_its_answer_got_lost_has_an_audit(
    world, member, proposals
):
    proposals.lose = True
    head, body = {"Idempotency-Key": "once"}, {"name": "new"}
    answer = await world.post("/v1/security-groups", json=body, headers=head)
    await problem_of(answer, 503, "unavailable")
    made = member.store.find(SecurityGroup, "new")
    (begun,) = [a for a in member.store.all(Audit) if a.action == "POST /v1/security-groups"]
    assert begun.result == 0
    proposals.lose = False
    again = await world.post("/v1/security-groups", json=body, headers=head)
    assert (again.status, (await again.json())["id"]) == (201, made.id)
    results = [a["result"] for a in await shown(world, "?q=action=POST /v1/security-groups")]
    assert sorted(results) == [201, 503], "the repetition is recorded too"


async def test_who_reads_audits_at_the_agent_of_the_change_finds_its_end(world, member):
    await world.patch("/v1/vms/web1", json={"description": "front"})
    (audit,) = await shown(world, "?q=action=PATCH /v1/vms/{vm}")
    assert (audit["result"], json.loads(audit["after"])["description"]) == (200, "front")
    answer = await world.get(f"/v1/audits/{audit['id']}")
    assert (await answer.json())["result"] == 200


async def test_a_change_outside_the_state_waits_for_its_begin(member, agent, api, proposals):
    proposals.refuse = True
    body = {"name": "s", "kind": "shared", "path": "/srv/shared"}
    prepared = []

    class Storages:
        async def prepare_new(self, storage):
            prepared.append(storage)

    agent.services = dataclasses.replace(agent.services, storages=Storages())
    await problem_of(await api.post("/v1/data-storages", json=body), 503, "unavailable")
    assert prepared == []
    proposals.refuse = False
    assert (await api.post("/v1/data-storages", json=body)).status == 201
    assert proposals.kinds()[0] == {"audit"} and len(prepared) == 1


# -- riders


async def ride(member, *, request_id: str, name: str) -> None:
    center = member.store.all(DataCenter)[0]
    group = SecurityGroup(id=name, name=name, data_center_id=center.id)
    await member.store.apply(puts=(group,), request_id=request_id)


@pytest.fixture
def rider(member):
    audit = Audit(id="a", name="a", action="POST /v1/x", created_ms=1)
    token = RIDER.set(Rider(audit))
    yield RIDER.get()
    RIDER.reset(token)


async def test_a_rider_goes_with_the_first_transaction_that_is_applied_anew(
    member, rider, proposals
):
    await member.store.commit(Txn(request_id="old", stamp_ms=1))  # it takes the rider along
    assert member.store.get(Audit, "a") is not None
    await ride(member, request_id="new", name="g")
    assert proposals.kinds() == [{"audit"}, {"security-group"}]


async def test_a_rider_does_not_stay_with_the_repetition_of_older_work(member, proposals):
    """A handler of two transactions that died between them: the repetition's second one is the first new one."""
    await ride(member, request_id="one", name="g1")
    token = RIDER.set(Rider(Audit(id="a", name="a", action="x", created_ms=1)))
    outcome = await member.store.commit(Txn(request_id="one", stamp_ms=1))
    assert isinstance(outcome, Applied) and member.store.get(Audit, "a") is None
    await ride(member, request_id="two", name="g2")
    assert member.store.get(Audit, "a") is not None
    RIDER.reset(token)


async def test_a_refused_transaction_leaves_the_rider_to_the_next(member, rider, proposals):
    await member.store.commit(Txn(request_id="r", stamp_ms=1, guards={"vm/none": 7}))
    assert member.store.get(Audit, "a") is None
    await ride(member, request_id="s", name="g")
    assert member.store.get(Audit, "a") is not None


async def test_work_that_goes_on_after_its_request_takes_no_audit_along(member, rider, proposals):
    ready = asyncio.Event()

    async def later() -> None:
        await ready.wait()
        await ride(member, request_id="later", name="g")

    async with asyncio.TaskGroup() as group:
        group.create_task(later(), name="goes-on")
        rider.stay_behind()
        ready.set()
    assert proposals.kinds() == [{"security-group"}]


# -- the ends


def ended(number: int, text: str = "") -> Audit:
    return Audit(id=f"a{number}", name=f"a{number}", action="x", result=200, before=text)


async def test_many_ends_are_few_transactions(member, proposals):
    ends = AuditEnds(member.store)
    for number in range(TOGETHER_MAX + 1):
        ends.add(ended(number))
    assert await ends.flush()
    assert len(proposals.txns) == 2
    for number in range(10):
        ends.add(ended(1000 + number, "ä" * 60_000))
    assert await ends.flush(), "no transaction became too large"
    assert len(member.store.all(Audit)) == TOGETHER_MAX + 11


async def test_ends_are_stored_soon_by_themselves(member):
    ends = AuditEnds(member.store)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ends.run(), name="ends")
        ends.add(ended(1))
        await until(lambda: member.store.get(Audit, "a1"), deadline_s=5)
        running.cancel()


async def test_ends_outlast_a_time_without_quorum_and_a_stop_in_the_middle(member, proposals):
    ends = AuditEnds(member.store)
    ends.add(ended(1))
    proposals.refuse = True
    assert not await ends.flush()
    proposals.refuse = False
    reached = asyncio.Event()

    async def hang(payload, *, timeout_s):
        reached.set()
        await asyncio.Event().wait()

    propose, member.engine.propose = member.engine.propose, hang
    async with asyncio.TaskGroup() as group:
        flushing = group.create_task(ends.flush(), name="flush")
        await reached.wait()
        flushing.cancel()
    member.engine.propose = propose
    assert await ends.flush()
    assert member.store.get(Audit, "a1") is not None


async def test_what_waits_is_bounded_and_the_log_says_what_was_lost(member, caplog):
    ends = AuditEnds(member.store)
    for number in range(WAITING_MAX + 3):
        ends.add(ended(number))
    await ends.flush()
    assert len(member.store.all(Audit)) == WAITING_MAX
    (record,) = [r for r in caplog.records if "lost" in r.message]
    assert record.count == 3


async def test_a_planned_stop_stores_the_ends(member, agent, api):
    await api.post("/v1/accounts", json={"name": "alice"})
    await agent.services.identity.audits.flush_ends(timeout_s=1)
    assert {a.result for a in member.store.all(Audit)} == {201}


async def test_a_state_that_gives_no_answer_does_not_hold_the_stop_up(member, agent, api):
    await api.post("/v1/accounts", json={"name": "alice"})

    async def hang(payload, *, timeout_s):
        await asyncio.Event().wait()

    member.engine.propose = hang
    async with asyncio.timeout(5):
        await agent.services.identity.audits.flush_ends(timeout_s=0.05)
    assert {a.result for a in member.store.all(Audit)} == {0}
