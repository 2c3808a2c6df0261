"""Members over the API: roles and health as shown, votes pinned, the policy, hosts that are removed or leave."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.errors import ConflictError, InvalidError, UnavailableError
from core.member_file import MemberRecord
from core.model import Audit, Host, Mesh, Vote
from core.service_faults import ServiceFault
from nodeagent.api.app import build_app
from nodeagent.identity.identity import Identity
from nodeagent.leaving import ask_out, check_forced
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.services.exclusion import Exclusion, Verdict
from nodeagent.services.host_service import remove_host
from nodeagent.services.member_states import MemberStates
from nodeagent.services.services import Services
from tests.many_hosts import ManyHosts, id_of
from tests.one_member import ADMIN_TOKEN, HOST_ID, LoopClock, in_virtual_time

RECORD = MemberRecord(
    host_id=HOST_ID,
    host_name="h1",
    address="192.0.2.1",
    cluster_name="test",
    api_port=7443,
    mesh_port=7444,
    founder=True,
    members=(),
)


class Ages:
    def age_s(self, host_id: str) -> float:
        del host_id
        return 1.0


class Agent:
    def __init__(self, many: ManyHosts) -> None:
        self.node = many.node
        self.asked: list[dict[str, object]] = []
        self.services = Services(
            arbitration=None,
            bmcs=None,
            bus=None,
            callbacks=None,
            certificates=None,
            doorkeeper=None,
            drill_target=None,
            drills=None,
            exclusion=Exclusion(many.node),
            ha=None,
            health=None,
            identity=Identity(
                many.node.store,
                HOST_ID,
                clock=many.node.clock,
                rng=many.node.rng,
                secrets_key=lambda: bytes(32),
                failure_takes_s=0.0,
            ),
            images=None,
            incoming=None,
            leases=Ages(),
            network=None,
            plugins=None,
            renewal=None,
            secrets=None,
            shutdown=None,
            snapshots=None,
            states=MemberStates(many.node),
            storages=None,
            thin=None,
            vip=None,
            vms=None,
        )

    async def join(self, **asked) -> MemberRecord:
        self.asked.append(asked)
        return RECORD

    async def leave(self, **asked) -> MemberRecord:
        self.asked.append(asked)
        return RECORD


@pytest.fixture
async def many() -> ManyHosts:
    made = ManyHosts()
    await made.found()
    await made.join(2, 3)
    made.vote(2, 3)
    return made


@pytest.fixture
def agent(many) -> Agent:
    return Agent(many)


@pytest.fixture
async def api(many, agent) -> AsyncIterator[TestClient]:
    app = build_app(agent, clock=many.clock, rng=many.rng)
    async with TestClient(TestServer(app)) as client:
        client.session.headers["Authorization"] = f"Bearer {ADMIN_TOKEN}"
        yield client


async def refusal(response, status: int) -> str:
    text = await response.text()
    assert response.status == status, text
    return (await response.json())["detail"]


async def shown(api, query: str = "") -> dict[str, dict]:
    response = await api.get(f"/v1/members{query}")
    assert response.status == 200, await response.text()
    return {item["name"]: item for item in (await response.json())["items"]}


async def test_members_are_shown_with_role_progress_and_health(many, api):
    await many.join(4, witness=True, failure_domain="rack1")
    many.mesh_client.states[id_of(2)] = many.state(generation=3, level=1)
    many.die(3)
    items = await shown(api)
    roles = {n: (i["role"], i["votes"], i["health"], i["raft"]) for n, i in items.items()}
    assert roles == {
        "h1": ("voter", True, "ok", "self"),
        "h2": ("voter", True, "ok", "connected"),
        "h3": ("voter", True, "disconnected", "disconnected"),
        "h4": ("witness", False, "ok", "disconnected"),
    }
    assert items["h1"]["leader"] and not items["h2"]["leader"]
    assert items["h2"]["generation"] == 3
    assert (items["h3"]["applied_index"], items["h3"]["lag"]) == (None, None)
    assert items["h4"]["failure_domain"] == "rack1"
    assert set(await shown(api, "?q=role=witness")) == {"h4"}
    assert set(await shown(api, "?q=role!=witness&q=name~=h[1-3]")) == set()
    assert set(await shown(api, "?q=role?=witness,voter&q=name>=h2&q=votes=true")) == {"h2", "h3"}
    assert set(await shown(api, "?q=lag is:null")) == {"h3"}
    assert set(await shown(api, "?q=lag<=0&q=votes=yes")) == {"h1", "h2"}
    assert await shown(api, "?q=name=h2&fields=name,role") == {
        "h2": {"name": "h2", "role": "voter"}
    }
    counted = await (await api.get("/v1/members?q=votes=true&count=1&limit=1")).json()
    assert (counted["count"], counted["items"]) == (3, [])
    wrong = (
        "q=role",
        "q=colour=red",
        "q=lag>many",
        "fields=colour",
        "cursor=x",
        "explain=1",
        "count=x",
    )
    for query in (f"?{one}" for one in wrong):
        assert await refusal(await api.get(f"/v1/members{query}"), 400)
    one = await (await api.get("/v1/members/h4")).json()
    assert one["name"] == "h4"
    assert await refusal(await api.get("/v1/members/h9"), 404)


async def test_a_member_shows_what_waits_and_what_failed(many, api):
    many.node.faults.note("images", OSError("token kvt_1 in a path"), 1000)
    fault = ServiceFault(service="vms", count=3, at_ms=7, why="the storage is away")
    many.mesh_client.states[id_of(2)] = many.state(faults=(fault,))
    items = await shown(api)
    assert items["h2"]["service_faults"] == [
        {"service": "vms", "count": 3, "at_ms": 7, "why": "the storage is away"}
    ]
    (own,) = items["h1"]["service_faults"]
    assert (own["service"], own["why"]) == ("images", "OSError; see the agent's log")
    assert items["h3"]["service_faults"] == []
    boots = next(work for work in items["h1"]["work"] if work["kind"] == "boots")
    assert (boots["at_once"], boots["running"], boots["waiting"]) == (8, 0, 0)


@pytest.mark.parametrize(
    ("verb", "vote"), [("promote", Vote.ALWAYS), ("demote", Vote.NEVER), ("auto", Vote.AUTO)]
)
async def test_an_operator_pins_a_vote_and_lets_it_go(many, api, verb, vote):
    await many.change(2, vote=Vote.ALWAYS)
    for _ in range(2):  # asking again is no mistake
        response = await api.post(f"/v1/members/h2/actions/{verb}")
        assert (response.status, (await response.json())["vote"]) == (200, str(vote))
    assert many.store.need(Host, id_of(2)).vote is vote


async def test_more_hosts_than_votes_cannot_be_pinned(many, api):
    for name in ("h1", "h2", "h3"):
        assert (await api.post(f"/v1/members/{name}/actions/promote")).status == 200
    await many.join(4)
    detail = await refusal(await api.post("/v1/members/h4/actions/promote"), 409)
    assert "4 hosts that may vote have 3 votes, and h1, h2, h3 are pinned" in detail
    assert "kvorum member promote NAME --auto" in detail
    assert many.store.need(Host, id_of(4)).vote is Vote.AUTO


async def test_the_last_host_that_may_vote_is_not_demoted(many, api):
    for name in ("h1", "h2"):
        assert (await api.post(f"/v1/members/{name}/actions/demote")).status == 200
    detail = await refusal(await api.post("/v1/members/h3/actions/demote"), 409)
    assert "the last that may vote" in detail


async def test_the_policy_is_shown_and_changed(many, api):
    assert await (await api.get("/v1/members/policy")).json() == {
        "voters_max": 5,
        "voter_replace_after_s": 600,
        "feature_level": 1,
        "voters": 3,
        "voters_wanted": 3,
        "losses_survived": 1,
    }
    response = await api.patch("/v1/members/policy", json={"voters_max": 1})
    changed = await response.json()
    assert (changed["voters_max"], changed["voters_wanted"]) == (1, 1)
    response = await api.patch("/v1/members/policy", json={"voter_replace_after_s": 30})
    assert (await response.json())["voters_max"] == 1
    mesh = many.mesh()
    assert (mesh.voters_max, mesh.voter_replace_after_s) == (1, 30)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"voters_max": 4}, "1, 3, 5 or 7"),
        ({"voters_max": 9}, "1, 3, 5 or 7"),
        ({"voter_replace_after_s": 9}, "10 s to 7 days"),
        ({"voter_replace_after_s": 7 * 86_400 + 1}, "10 s to 7 days"),
        ({"voters": 3}, "unknown field"),
    ],
)
async def test_a_policy_that_cannot_be_is_refused(many, api, body, words):
    mesh = many.store.all(Mesh)
    assert words in await refusal(await api.patch("/v1/members/policy", json=body), 400)
    assert many.store.all(Mesh) == mesh


async def test_a_hosts_failure_domain_is_set_and_taken_back(many, api):
    for domain in ("rack1", ""):
        response = await api.patch("/v1/hosts/h2", json={"failure_domain": domain})
        assert (response.status, (await response.json())["failure_domain"]) == (200, domain)
    assert many.store.need(Host, id_of(2)).failure_domain == ""
    detail = await refusal(await api.patch("/v1/hosts/h2", json={"failure_domain": "a b"}), 400)
    assert "failure domain name" in detail


# -- removing and leaving


async def test_a_removed_host_first_gives_up_its_vote_for_good(many, api):
    votes_at_removal = []
    before = many.engine.remove_voter

    async def remove_voter(node, *, timeout_s):
        votes_at_removal.append(many.store.need(Host, node).vote)
        await before(node, timeout_s=timeout_s)

    many.engine.remove_voter = remove_voter
    many.engine.peers.pop(id_of(3))  # the leader has found a successor
    assert (await api.delete("/v1/members/h3")).status == 204
    assert votes_at_removal == []
    assert many.store.get(Host, id_of(3)) is None
    assert "run 'kvorum leave' there" in await refusal(await api.delete("/v1/members/h1"), 409)


def test_when_the_leader_finds_no_successor_the_vote_ends_all_the_same():
    async def main() -> None:
        many = ManyHosts(clock=LoopClock())
        await many.found()
        await many.join(2, 3)
        many.vote(2, 3)
        await remove_host(many.node, many.store.need(Host, id_of(3)))
        assert many.engine.orders == ["-3"]
        assert many.store.get(Host, id_of(3)) is None

    in_virtual_time(main)


async def test_a_host_with_vms_neither_leaves_nor_is_removed(many, agent):
    await many.add_vm(host_id=HOST_ID)
    with pytest.raises(ConflictError, match="move or delete it first"):
        await ask_out(many.node, agent.services.exclusion)
    assert many.mesh_client.asked == []


async def test_a_host_leaves_through_another_member_and_the_last_one_does_not(many, agent):
    asked = []

    class Mesh:
        async def call(self, host, path, body, answer, *, timeout_s):
            asked.append((host.name, path))
            if host.name == "h2":
                raise UnavailableError("host h2 does not answer")
            return answer()

    many.mesh_client = Mesh()
    node = many.node_of(HOST_ID, "h1")
    await ask_out(node, Exclusion(node))
    assert asked == [("h2", "/mesh/leave"), ("h3", "/mesh/leave")]
    for number in (2, 3):
        await many.store.apply(deletes=(many.store.need(Host, id_of(number)),))
    with pytest.raises(ConflictError, match="last host"):
        await ask_out(node, Exclusion(node))


async def test_force_needs_the_hosts_name_and_a_cluster_that_does_not_count_on_it(many, agent):
    exclusion = Says(many.node, Verdict.MEMBER)
    with pytest.raises(InvalidError, match="'h1'"):
        await check_forced(RECORD, many.node, exclusion, "h2")
    with pytest.raises(ConflictError, match="counts this host as a member"):
        await check_forced(RECORD, many.node, exclusion, "h1")
    for verdict in (Verdict.REMOVED, Verdict.UNKNOWN):
        await check_forced(RECORD, many.node, Says(many.node, verdict), "h1")
    await check_forced(RECORD, None, None, "h1")


async def test_a_removed_host_is_told_to_use_force(many):
    exclusion = Exclusion(many.node)
    exclusion.verdict = Verdict.REMOVED
    with pytest.raises(ConflictError, match="kvorum leave --force"):
        await ask_out(many.node, exclusion)


async def test_on_the_host_itself_it_leaves_and_a_removed_one_says_so(many, agent, tmp_path):
    runner = web.AppRunner(build_app(agent, clock=many.clock, rng=many.rng))
    await runner.setup()
    path = str(tmp_path / "api.sock")
    await web.UnixSite(runner, path).start()
    agent.services.exclusion.verdict = Verdict.REMOVED
    async with aiohttp.ClientSession("http://host", connector=aiohttp.UnixConnector(path)) as local:
        status = await (await local.get("/v1/local/status")).json()
        assert status["state"] == "removed"
        assert "kvorum leave --force" in status["detail"]
        response = await local.post("/v1/local/leave", json={"force": True, "confirm": "h1"})
        assert await response.json() == {"host_name": "h1", "cluster_name": "test"}
        response = await local.post(
            "/v1/local/join", json={"token": "kvj_1", "host_name": "h1", "witness": True}
        )
        joined = await response.json()
    await runner.cleanup()
    await agent.services.identity.audits.flush()
    audits = {audit.action: audit for audit in many.store.all(Audit)}
    assert audits.keys() == {"POST /v1/local/leave", "POST /v1/local/join"}
    assert {audit.subject for audit in audits.values()} == {f"host/{HOST_ID}"}
    left = audits["POST /v1/local/leave"].id
    assert agent.asked[0] == {"force": True, "confirm": "h1", "audit_id": left}
    assert agent.asked[1]["witness"] is True
    told = {k: joined[k] for k in ("members", "voters", "voters_wanted", "losses_survived")}
    assert told == {"members": 3, "voters": 3, "voters_wanted": 3, "losses_survived": 1}


class Says(Exclusion):
    """What other members would say."""

    def __init__(self, node, said: Verdict) -> None:
        super().__init__(node)
        self._said = said

    async def look(self) -> Verdict:
        return self._said


async def test_anybody_may_ask_whether_a_host_is_a_member(many, api):
    del api.session.headers["Authorization"]
    for host_id, member in ((id_of(2), True), (id_of(9), False)):
        response = await api.post("/v1/join/standing", json={"host_id": host_id})
        assert await response.json() == {"member": member, "index": many.store.index}


async def test_the_mesh_tells_a_hosts_state(many, agent):
    many.engine.fault_text = "it differs"
    rpc = MeshRpc(many.node, agent.services, admits=lambda peer_id: True)
    async with TestClient(TestServer(rpc.app())) as client:
        state = await (await client.post("/mesh/state", json={})).json()
    assert (state["fault"], state["votes"]) == ("it differs", True)
    assert state["applied"] == state["committed"] == many.machine.applied()
    assert set(state["linked"]) == {id_of(2), id_of(3)}
