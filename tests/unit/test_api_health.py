"""`GET /v1/health` of three agents on a real mesh: a dead host, one that hangs, hung libvirt and storage, no quorum."""

import asyncio
import dataclasses
import threading
import time
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.errors import PlatformError, TemporaryError, UnavailableError
from core.identity.keyring import KeptKey
from core.mesh.client import MeshClient
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.model import Bmc, BmcState, DataStorage, HostState, VMPhase
from ha.serf.membership import MemberStatus
from nodeagent.api.app import build_app
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor
from nodeagent.identity.identity import Identity
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.services.health import ASK_TIMEOUT_S, ClusterHealth
from nodeagent.services.self_look import SelfLook
from nodeagent.services.storage_checks import StorageChecks
from storage.directory_driver import LocalDriver
from storage.memory_driver import MemoryDriver
from tests.api import ADMIN
from tests.golden.cli.world import small_health
from tests.many_hosts import ManyHosts, id_of
from tests.mesh_identity import Authority
from tests.one_member import HOST_ID

LATE_S = 0.8
"""What two busy cores may add to the deadline."""


class Engine:
    """The one engine as another host sees it: it leads if it is h1, and says its own fault."""

    def __init__(self, engine, *, leads: bool) -> None:
        self._engine, self._leads = engine, leads
        self.fault_text = ""

    def is_leader(self) -> bool:
        return self._leads and self._engine.is_leader()

    def fault(self) -> str:
        return self.fault_text

    def __getattr__(self, name):
        return getattr(self._engine, name)


class Hypervisor(InMemoryHypervisor):
    hangs = False

    async def host_facts(self):
        if self.hangs:
            await asyncio.Event().wait()
        return await super().host_facts()


class Guard:
    """The fake guard of tests, or a silent one."""

    def __init__(self, guard) -> None:
        self._guard, self.why, self.hangs = guard, "", False

    async def status(self):
        if self.hangs:
            await asyncio.Event().wait()
        if self.why:
            raise UnavailableError(self.why)
        return await self._guard.status()


class Clock:
    """The clock of all, but for how far this host's time of day is ahead."""

    def __init__(self, clock) -> None:
        self._clock, self.ahead_ms = clock, 0

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self.ahead_ms

    def __getattr__(self, name):
        return getattr(self._clock, name)


class Ages(dict[str, float]):
    def age_s(self, host_id: str) -> float:
        return self.get(host_id, 1.0)


class StuckDriver(LocalDriver):
    def __init__(self, storage: DataStorage, path, back: threading.Event) -> None:
        super().__init__(storage.id, path, host_id=HOST_ID)
        self._back = back

    def check(self) -> None:
        self._back.wait(20)


class Agent:
    def __init__(self, many: ManyHosts, number: int, authority: Authority, ages: Ages) -> None:
        files = authority.issue(id_of(number))
        self.number, self.client = number, MeshClient(MeshDialer(files))
        self.hypervisor = Hypervisor(host_name=f"h{number}")
        self.guard, self.kept = Guard(many.guard), KeptKey(place="file")
        self.driver_of = lambda storage: MemoryDriver(storage.id)
        self.gossip, self.clock = SimpleNamespace(members={}), Clock(many.clock)
        self.node = dataclasses.replace(
            many.node_of(id_of(number), f"h{number}"),
            clock=self.clock,
            mesh=self.client,
            engine=Engine(many.engine, leads=number == 1),
            hypervisor=self.hypervisor,
            guard=self.guard,
            membership=self.gossip,
        )
        checks = StorageChecks(self.driver)
        own = SelfLook(self.node, checks, lambda: self.kept)
        self.health = ClusterHealth(self.node, own, ages)
        identity = Identity(
            many.store,
            HOST_ID,
            clock=many.clock,
            rng=many.rng,
            secrets_key=lambda: bytes(32),
            failure_takes_s=0.0,
        )
        self.services = SimpleNamespace(health=self.health, identity=identity)
        rpc = MeshRpc(self.node, self.services)
        self.app = rpc.app()
        self.server = MeshServer(files, f"127.0.0.{number}", 0, admit=rpc.is_member)

    def driver(self, storage: DataStorage):
        return self.driver_of(storage)

    async def run(self) -> None:
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self.server.add_http(runner.server)
        try:
            async with self.client, asyncio.TaskGroup() as group:
                group.create_task(self.hypervisor.run(), name="hypervisor")
                await self.server.run()
        finally:
            await runner.cleanup()


class Three:
    """h1 to h3, all voters, on one store; h1 is asked."""

    def __init__(self, many: ManyHosts) -> None:
        self.many, self.ages = many, Ages()
        self.agents: dict[int, Agent] = {}
        self.tasks: dict[int, asyncio.Task] = {}
        self.api: TestClient | None = None

    async def kill(self, number: int) -> None:
        self.tasks[number].cancel()
        await asyncio.wait([self.tasks[number]])

    async def health(self, headers=ADMIN) -> dict:
        """Ask h1, and see that it answers in time."""
        begun_s = time.monotonic()
        response = await self.api.get("/v1/health", headers=headers)
        assert response.status == 200, await response.text()
        assert time.monotonic() - begun_s < ASK_TIMEOUT_S + LATE_S
        return await response.json()

    async def vm(self, number: int, **fields):
        wanted = {"phase": VMPhase.RUNNING} | fields
        return await self.many.add_vm(host_id=id_of(number), **wanted)


def codes(answer: dict) -> set[tuple[str, str, str]]:
    return {(f["severity"], f["host_name"], f["code"]) for f in answer["findings"]}


def of_host(answer: dict, name: str) -> dict:
    return next(host for host in answer["hosts"] if host["name"] == name)


@pytest.fixture
async def three(tmp_path):
    many = ManyHosts()
    await many.found()
    await many.join(2, 3)
    many.vote(2, 3)
    authority, made = Authority(tmp_path), Three(many)
    async with asyncio.timeout(18), asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            agent = made.agents[number] = Agent(many, number, authority, made.ages)
            made.tasks[number] = group.create_task(agent.run(), name=f"h{number}")
            await agent.server.started.wait()
            await many.change(number, address=f"127.0.0.{number}", mesh_port=agent.server.port)
        app = build_app(made.agents[1], clock=many.clock, rng=many.rng)
        async with TestClient(TestServer(app)) as made.api:
            yield made
        for task in made.tasks.values():
            task.cancel()


async def test_a_well_cluster_is_ok_and_shows_each_host(three):
    await three.vm(2)
    three.agents[1].gossip.members = {id_of(2): SimpleNamespace(status=MemberStatus.ALIVE)}
    answer = await three.health()
    assert (answer["verdict"], answer["findings"]) == ("ok", [])
    assert answer["line"] == "ok: 3 hosts, h1 leads, 1 may fail before writes stop"
    about = ("quorum", "leader_name", "voters", "voters_up", "losses_survived", "vms_blocked")
    assert [answer[key] for key in about] == [True, "h1", 3, 3, 1, 0]
    h2 = of_host(answer, "h2")
    told = ("role", "leader", "answers", "gossip", "lease_fresh", "guard_answers", "vms", "lag")
    assert [h2[key] for key in told] == ["voter", False, True, "alive", True, True, 1, 0]
    assert (h2["watchdog"], h2["watchdog_armed"], h2["libvirt_answers"]) == ("socket", True, True)
    assert h2["secrets_open"] is True and abs(h2["clock_offset_ms"]) < 1
    assert [(it["name"], it["usable"]) for it in h2["storages"]] == [
        ("local", True),
        ("shared", True),
    ]
    peers = {peer["host_name"]: peer["round_trip_ms"] for peer in h2["peers"]}
    assert set(peers) == {"h1", "h3"} and all(ms > 0 for ms in peers.values())


async def test_the_golden_stories_of_the_command_have_the_shape_of_the_real_answer(three):
    answer, told = await three.health(), small_health()
    assert answer.keys() == told.keys()
    assert answer["hosts"][0].keys() == told["hosts"][0].keys()
    await three.kill(3)
    three.ages[id_of(3)] = 40.0
    await asyncio.sleep(1.05)
    assert (await three.health())["findings"][0].keys() == told["findings"][0].keys()


async def test_a_dead_host_is_a_finding_and_no_error(three):
    await three.vm(3)
    await three.kill(3)
    answer = await three.health()
    assert answer["verdict"] == "degraded"
    assert codes(answer) == {
        ("degraded", "", "no-spare-voter"),
        ("degraded", "h3", "host-silent"),
    }
    assert (answer["voters_up"], answer["losses_survived"]) == (2, 0)
    h3 = of_host(answer, "h3")
    unknown = ("guard_answers", "libvirt_answers", "secrets_open", "lag", "clock_offset_ms")
    assert h3["answers"] is False and all(h3[key] is None for key in unknown)
    assert of_host(answer, "h2")["peers"][1]["round_trip_ms"] is None
    three.ages[id_of(3)] = 14.0
    await asyncio.sleep(1.05)  # facts are good for a second
    answer = await three.health()
    assert answer["verdict"] == "failing" and answer["line"].startswith("failing: h3: ")
    assert ("failing", "h3", "lease-old") in codes(answer)


async def test_an_agent_that_hangs_does_not_hold_up_the_answer(three):
    async def hang() -> None:
        await asyncio.Event().wait()

    three.agents[3].health.own.report = hang
    answer = await three.health()
    assert codes(answer) == {("degraded", "h3", "host-silent")}
    assert answer["voters_up"] == 3  # its agent answers pings
    assert "no answer in time" in of_host(answer, "h3")["why"]


async def test_an_agent_that_tells_nothing_is_up_all_the_same(three):
    async def refuse() -> None:
        raise PlatformError("the other agent refused")

    three.agents[3].health.own.report = refuse
    answer = await three.health()
    (finding,) = answer["findings"]
    assert (finding["code"], answer["voters_up"]) == ("host-silent", 3)
    assert "its agent is up" in finding["what"] and "agent refused" in finding["what"]


async def test_guard_libvirt_and_a_storage_that_hang_do_not_hold_up_the_answer(three, tmp_path):
    await three.vm(1, shared=False, name="local1")
    back = threading.Event()
    for number in (1, 2):
        agent = three.agents[number]
        agent.hypervisor.hangs = agent.guard.hangs = True
        agent.driver_of = lambda it: StuckDriver(it, tmp_path, back)
    try:
        answer = await three.health()
    finally:
        back.set()
    shared = {name for host in answer["hosts"] for name in (it["name"] for it in host["storages"])}
    assert shared == {"local"}
    assert codes(answer) == {
        ("degraded", "h1", "guard-silent"),
        ("degraded", "h2", "guard-silent"),
        ("degraded", "h1", "libvirt-silent"),
        ("degraded", "h2", "libvirt-silent"),
        ("failing", "h1", "storage-unusable"),
        ("degraded", "h2", "storage-unusable"),
    }
    assert answer["verdict"] == "failing"


async def test_what_a_host_says_of_itself_becomes_findings(three):
    two, three_ = three.agents[2], three.agents[3]
    two.guard.why = "the guard does not answer (timeout)"
    two.kept = KeptKey(place="hsm", fault="the HSM is away")
    two.hypervisor.set_away(True)
    three_.node.engine.fault_text = "its log differs"

    def no_driver(storage):
        raise TemporaryError(f"{storage.name} is not mounted")

    three_.driver_of = no_driver
    assert codes(await three.health()) == {
        ("degraded", "h2", "guard-silent"),
        ("degraded", "h2", "secrets-locked"),
        ("degraded", "h2", "libvirt-silent"),
        ("degraded", "h3", "store-fault"),
        ("degraded", "", "no-spare-voter"),
        ("degraded", "h3", "storage-unusable"),
    }


async def test_a_clock_that_is_off_is_measured_and_noticed(three):
    three.agents[2].clock.ahead_ms, three.agents[3].clock.ahead_ms = 3_000, -400
    answer = await three.health()
    assert codes(answer) == {("notice", "h2", "clock-off")} and answer["verdict"] == "ok"
    assert "3.0 s ahead of that of h1" in answer["findings"][0]["what"]
    offsets = {host["name"]: host["clock_offset_ms"] for host in answer["hosts"]}
    assert offsets == {"h1": 0, "h2": 3_000, "h3": -400}


async def test_it_answers_without_quorum_and_leader(three):
    for number in (2, 3):
        await three.kill(number)
    three.many.engine.available = False
    answer = await three.health()
    assert (answer["verdict"], answer["quorum"], answer["leader_name"]) == ("failing", False, "")
    assert ("failing", "", "no-quorum") in codes(answer)
    assert answer["findings"][0]["advice"].startswith("bring back h2, h3")


async def test_blocked_vms_maintenance_and_fenced_hosts_are_shown(three):
    for number in range(7):
        await three.vm(2, name=f"web{number}", phase=VMPhase.BLOCKED, blocked_reason="no room")
    await three.many.change(2, maintenance=True)
    await three.many.change(3, state=HostState.FENCED)
    for number, state in ((1, BmcState.OK), (2, BmcState.FAULT), (3, BmcState.UNCHECKED)):
        id_, name = id_of(number), f"h{number}"
        board = Bmc(
            id=id_, name=name, host_id=id_, address=name, user="u", sealed_password=b"", state=state
        )
        await three.many.store.apply(puts=(board,))
    answer = await three.health()
    assert (answer["vms_blocked"], len(answer["first_blocked"])) == (7, 5)
    assert answer["first_blocked"][0] == {"name": "web0", "host_name": "h2", "reason": "no room"}
    assert (answer["hosts_in_maintenance"], answer["hosts_fenced"]) == (["h2"], ["h3"])
    assert codes(answer) == {
        ("degraded", "", "vms-blocked"),
        ("notice", "h2", "host-in-maintenance"),
        ("degraded", "h3", "host-fenced"),
        ("notice", "h2", "bmc-fault"),
        ("notice", "h3", "bmc-fault"),
    }


async def test_names_of_vms_and_storages_are_for_those_who_may_read_them(three):
    await three.vm(2, name="secret1", phase=VMPhase.BLOCKED, blocked_reason="no room for secret1")
    gone = MemoryDriver(HOST_ID)
    gone.mounted = False
    three.agents[2].driver_of = lambda _: gone
    role = {"name": "looker", "permissions": [{"kinds": ["host"], "actions": ["read"]}]}
    assert (await three.api.post("/v1/roles", json=role, headers=ADMIN)).status == 201
    token = {"name": "looker", "roles": ["looker"]}
    made = await (await three.api.post("/v1/access-tokens", json=token, headers=ADMIN)).json()
    answer = await three.health({"Authorization": f"Bearer {made['token']}"})
    assert ("degraded", "", "vms-blocked") in codes(answer)
    assert ("degraded", "h2", "storage-unusable") in codes(answer)
    assert answer["vms_blocked"] == 1
    assert "secret1" not in str(answer) and "'local'" not in str(answer)
    assert "secret1" in str(await three.health())


async def test_who_may_not_read_hosts_may_not_ask(three):
    assert (await three.api.get("/v1/health")).status == 401
    token = {"name": "nobody", "roles": ["nothing"]}
    role = {"name": "nothing", "permissions": [{"kinds": ["vm"], "actions": ["read"]}]}
    assert (await three.api.post("/v1/roles", json=role, headers=ADMIN)).status == 201
    made = await (await three.api.post("/v1/access-tokens", json=token, headers=ADMIN)).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert (await three.api.get("/v1/health", headers=headers)).status == 403
