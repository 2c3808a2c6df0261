"""The bus between three agents on a real mesh: TLS, the state's own idea of who owns what, an agent that dies."""

import asyncio
import dataclasses
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web
from msgspec.structs import replace

from core.bus import Bus, Contract
from core.errors import NotFoundError
from core.logs import REQUEST_ID
from core.mesh.client import MeshClient
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.model import VM, Host, HostState, Nic
from core.service_faults import ServiceFaults
from core.work_queue import WorkQueues
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.services.member_states import MemberStates
from nodeagent.services.mesh_carrier import MeshCarrier
from nodeagent.services.whereabouts import Whereabouts
from nodeagent.services.work_kinds import Limits
from tests.mesh_identity import Authority
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded

# An address belongs to one host only.
ADDRESSES = {"h1": "127.0.0.1", "h2": "127.0.0.2", "h3": "127.0.0.3"}
IDS = {"h1": HOST_ID, "h2": OTHER_ID, "h3": THIRD_ID}


class Word(msgspec.Struct, frozen=True):
    text: str


SAY = Contract("say", Word, Word, idempotent=True, attempt_s=2.0)


class Ages(dict[str, float]):
    """Lease ages; fresh unless a test says otherwise."""

    def age_s(self, host_id: str) -> float:
        return self.get(host_id, 1.0)


class Agent:
    """One of the three: its node, its bus and its mesh server."""

    def __init__(self, member: OneMember, name: str, authority: Authority, ages: Ages) -> None:
        files = authority.issue(IDS[name])
        made = member.node if name == "h1" else member.node_of(IDS[name], name)
        self.client = MeshClient(MeshDialer(files))
        self.node = dataclasses.replace(
            made,
            mesh=self.client,
            queues=WorkQueues(Limits().by_kind(), member.clock),
            faults=ServiceFaults(),
        )
        self.where = Whereabouts(self.node, ages)
        carrier, queues = MeshCarrier(self.node), self.node.queues
        self.states = MemberStates(self.node)
        # The loop's clock: the member's stands still.
        self.bus = Bus(self.node.host_id, self.where, carrier, queues, self.node.faults, Loop())
        self.bus.offer(SAY, self.say, kind="calls")
        self.rpc = MeshRpc(self.node, SimpleNamespace(bus=self.bus, states=self.states))
        self.server = MeshServer(files, ADDRESSES[name], 0, admit=self.rpc.is_member)

    async def say(self, key: str, word: Word) -> Word:
        if word.text == "fail":
            raise ValueError(key)
        if word.text == "which request?":
            return Word(REQUEST_ID.get())
        return Word(f"{self.node.host_name} on {key}: {word.text}")

    async def run(self) -> None:
        runner = web.AppRunner(self.rpc.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self.server.add_http(runner.server)
        try:
            async with self.client:
                await self.server.run()
        finally:
            await runner.cleanup()


class Loop:
    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    boottime_s = monotonic_s

    def wall_ms(self) -> int:
        return 0


class Three:
    """Agents h1, h2 and h3 of one cluster, on one store."""

    def __init__(self, member: OneMember, ages: Ages) -> None:
        self.member, self.ages = member, ages
        self.agents: dict[str, Agent] = {}
        self.tasks: dict[str, asyncio.Task] = {}

    async def kill(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])

    async def change(self, name: str, **fields) -> None:
        host = self.member.store.need(Host, IDS[name])
        await self.member.store.apply(puts=(replace(host, **fields),))

    def key_of(self, name: str) -> str:
        where = self.agents["h1"].where
        return next(k for i in range(99) if where.owners(k := f"image/{i}")[0] == IDS[name])


@pytest.fixture
async def three(tmp_path):
    member = await founded()
    authority, made = Authority(tmp_path), Three(member, Ages())
    await member.add_host(OTHER_ID, "h2", ADDRESSES["h2"])
    await member.add_host(THIRD_ID, "h3", ADDRESSES["h3"])
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for name in IDS:
            agent = made.agents[name] = Agent(member, name, authority, made.ages)
            made.tasks[name] = group.create_task(agent.run(), name=name)
            await agent.server.started.wait()
            await made.change(name, address=ADDRESSES[name], mesh_port=agent.server.port)
        yield made
        for task in made.tasks.values():
            task.cancel()


async def test_all_agents_find_the_same_owner_over_the_mesh(three):
    for owner in IDS:
        key = three.key_of(owner)
        for agent in three.agents.values():
            answer = await agent.bus.call(SAY, key, Word("hello"))
            assert answer.text == f"{owner} on {key}: hello"


async def test_the_request_that_a_call_is_about_goes_with_it_to_the_other_host(three):
    async def ask(request_id: str) -> str:
        REQUEST_ID.set(request_id)
        key = three.key_of("h2")
        return (await three.agents["h1"].bus.call(SAY, key, Word("which request?"))).text

    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(8)]
    assert await asyncio.gather(*map(ask, ids)) == ids  # each task has a context of its own
    assert await asyncio.gather(ask(""), ask("a\tb"), ask("../x")) == ["", "", ""]


async def test_a_vm_is_worked_on_by_its_host_and_so_is_its_nic(three):
    vm = await three.member.add_vm(host_id=OTHER_ID)
    nic = three.member.store.all(Nic)[0]
    for key in (f"vm/{vm.id}", f"nic/{nic.id}"):
        answer = await three.agents["h1"].bus.call(SAY, key, Word("hello"))
        assert answer.text.startswith("h2 ")
    await three.member.store.apply(
        puts=(replace(three.member.store.need(VM, vm.id), host_id=THIRD_ID),)
    )
    assert (await three.agents["h1"].bus.call(SAY, f"vm/{vm.id}", Word("x"))).text[:2] == "h3"


async def test_when_an_agent_dies_its_calls_are_done_by_the_next(three):
    key = three.key_of("h3")
    await three.kill("h3")
    answer = await three.agents["h1"].bus.call(SAY, key, Word("hello"))
    assert answer.text[:2] in ("h1", "h2")


@pytest.mark.parametrize(
    "fields",
    [{"witness": True}, {"maintenance": True}, {"joining": True}, {"state": HostState.FENCED}],
)
async def test_a_host_that_can_take_no_work_owns_nothing_but_records(three, fields):
    key = three.key_of("h3")
    await three.change("h3", **fields)
    where = three.agents["h1"].where
    assert THIRD_ID not in where.owners(key)
    assert THIRD_ID in where.owners(key, records_only=True)
    assert (await three.agents["h1"].bus.call(SAY, key, Word("hello"))).text[:2] != "h3"


async def test_a_host_whose_lease_is_old_owns_nothing(three):
    three.ages[THIRD_ID] = 6.5
    assert THIRD_ID not in three.agents["h1"].where.owners("image/1", records_only=True)


async def test_a_fault_is_told_to_whoever_asks_for_the_members(three):
    key = three.key_of("h2")
    with pytest.raises(Exception, match="see its agent's log"):
        await three.agents["h1"].bus.call(SAY, key, Word("fail"))
    health = await three.agents["h3"].states.health()
    (fault,) = health[OTHER_ID].faults
    assert (fault.service, fault.count, fault.why) == ("say", 1, "ValueError; see the agent's log")
    assert health[HOST_ID].faults == ()
    assert {state.kind for state in health[OTHER_ID].work} >= {"boots", "calls"}


async def test_a_stranger_cannot_call(three, tmp_path):
    stranger = MeshClient(MeshDialer(Authority(tmp_path / "other").issue("host-x")))
    async with stranger:
        node = dataclasses.replace(three.agents["h1"].node, mesh=stranger)
        where = three.agents["h1"].where
        agent = three.agents["h1"]
        bus = Bus("host-x", where, MeshCarrier(node), agent.node.queues, ServiceFaults(), Loop())
        with pytest.raises(Exception, match="no host within"):
            await bus.call(SAY, three.key_of("h2"), Word("let me in"), timeout_s=1)


async def test_an_agent_that_is_gone_from_the_state_is_not_found(three):
    carrier = MeshCarrier(three.agents["h1"].node)
    with pytest.raises(NotFoundError, match="no member"):
        await carrier.deliver("gone", None, timeout_s=1)
