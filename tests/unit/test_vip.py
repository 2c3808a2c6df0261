"""The VIP: the leader takes it after a wait, keeps it while a quorum says so, and gives it back; what can't be one is refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import ConflictError, InvalidError, UnavailableError
from core.model import Event, Mesh, Severity
from ha.vip import CLAIM_WAIT_S, LEASE_S, lifetime_s
from netfabric.memory_vip import MemoryVip, MemoryVipNetwork
from netfabric.vip_frames import announcements, parse, probe, taken_by
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.event_log import EventLog
from nodeagent.services.vip import VipService, checked_vip, own_addresses
from tests.api import ADMIN, FakeAgent, app_of
from tests.one_member import LoopClock, OneMember, founded, in_virtual_time, running, until

VIP, OTHER_VIP = "192.0.2.100", "192.0.2.101"
FOREIGN = "02:00:00:00:00:99"


class World:
    """One host whose quorum, leadership and term a test sets."""

    def __init__(self, member) -> None:
        self.member, self.engine, self.store = member, member.engine, member.store
        self.network = MemoryVipNetwork("192.0.2.0/24")
        self.driver = MemoryVip(self.network, "02:00:00:00:00:01", member.clock, lifetime_s)
        self.service = VipService(member.node, self.driver, EventLog(member.node))
        self.leads, self.number = True, 1
        self.engine.is_leader = lambda: self.leads
        self.engine.term = lambda: self.number

    async def set(self, vip: str) -> None:
        await self.store.apply(puts=(replace(self.store.need(Mesh, MESH_ID), vip=vip),))

    def has(self, vip: str = VIP) -> bool:
        return self.driver.has(vip)

    def events(self) -> list[str]:
        return [event.code for event in self.store.all(Event)]


def vip_test(test):
    def wrapper() -> None:
        async def main() -> None:
            world = World(await founded(clock=LoopClock()))
            await world.set(VIP)
            await test(world)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


def now_s() -> float:
    return asyncio.get_running_loop().time()


@vip_test
async def test_the_leader_takes_it_after_the_wait_and_says_so(world):
    begin_s = now_s()
    async with running(world.service.run):
        assert world.service.seen().phase == "waiting"
        await until(world.has)
        assert CLAIM_WAIT_S <= now_s() - begin_s <= CLAIM_WAIT_S + 1.0
        await asyncio.sleep(30)
        assert world.has()
        assert world.service.seen().phase == "held"
    assert world.events() == ["vip-held"]
    first = world.network.announced[:5]
    assert len(first) == 5, "it is told to all five times at first"
    assert 6 <= len(world.network.announced) <= 9, "and every ten seconds later"


@vip_test
async def test_it_is_held_without_a_gap(world):
    async with running(world.service.run):
        await until(world.has)
        end_s = now_s() + 20
        while now_s() < end_s:
            assert world.has()
            await asyncio.sleep(0.01)


@vip_test
async def test_a_clean_stop_gives_it_back_at_once(world):
    async with running(world.service.run):
        await until(world.has)
    assert not world.has()


@vip_test
async def test_without_a_quorum_the_kernel_takes_it_although_the_host_still_believes_it_leads(
    world,
):
    async with running(world.service.run):
        await until(world.has)
        world.engine.available = False
        lost_s = now_s()
        await until(lambda: not world.has())
        assert now_s() - lost_s <= LEASE_S
        assert "quorum" in world.service.seen().why
        world.engine.available = True
        await until(world.has, 2.0)


@vip_test
async def test_a_barrier_that_never_ends_costs_the_address(world):
    async with running(world.service.run):
        await until(world.has)

        async def hangs(*, timeout_s: float) -> int:
            await asyncio.sleep(timeout_s)
            raise UnavailableError("no quorum")

        world.engine.read_barrier = hangs
        lost_s = now_s()
        await until(lambda: not world.has())
        assert now_s() - lost_s <= LEASE_S


@vip_test
async def test_who_leads_no_more_has_it_no_more_and_waits_anew_in_another_term(world):
    async with running(world.service.run):
        await until(world.has)
        world.leads = False
        await until(lambda: not world.has(), 0.6)
        await asyncio.sleep(5)
        world.leads, world.number = True, 3
        again_s = now_s()
        await until(world.has)
        assert now_s() - again_s >= CLAIM_WAIT_S


@vip_test
async def test_another_term_means_waiting_anew_even_if_nobody_saw_the_change(world):
    async with running(world.service.run):
        await until(world.has)
        world.number = 3
        await until(lambda: not world.has(), 0.6)
        lost_s = now_s()
        await until(world.has)
        assert now_s() - lost_s >= CLAIM_WAIT_S - 0.6


@vip_test
async def test_an_address_that_another_machine_has_is_left_to_it_and_told_once(world):
    world.network.foreign[VIP] = FOREIGN
    async with running(world.service.run):
        await asyncio.sleep(40)
        assert not world.has()
        assert (world.service.seen().phase, world.service.seen().foreign_mac) == (
            "conflict",
            FOREIGN,
        )
        (event,) = world.store.all(Event)
        assert (event.code, event.severity) == ("vip-conflict", Severity.ALARM)
        assert FOREIGN in event.message
        del world.network.foreign[VIP]
        await until(world.has, 10.0)
    assert not world.network.foreign


@vip_test
async def test_another_vip_takes_the_place_of_the_former_and_clearing_leaves_none(world):
    async with running(world.service.run):
        await until(world.has)
        await world.set(OTHER_VIP)
        await until(lambda: not world.has(), 1.0)
        await until(lambda: world.has(OTHER_VIP))
        await world.service.clear()
        await until(lambda: not world.has(OTHER_VIP), 1.0)
        assert world.service.seen() is None


@vip_test
async def test_what_a_killed_agent_left_is_removed_when_it_starts(world):
    await world.driver.hold(VIP, near="192.0.2.1", until_s=now_s() + 2.5)
    assert world.has()
    async with running(world.service.run):
        await until(lambda: not world.has(), 0.2)


@vip_test
async def test_a_kernel_that_refuses_is_told_of_and_asked_again(world):
    world.driver.fault = "the network can't be spoken to"
    async with running(world.service.run):
        await asyncio.sleep(10)
        assert world.service.seen().why == "the network can't be spoken to"
        world.driver.fault = ""
        await until(world.has, CLAIM_WAIT_S + 2)
        assert world.service.seen().why == ""


# -- what can be one


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("h1", InvalidError, "not an IP address"),
        ("fd00::1", InvalidError, "is IPv6"),
        ("127.0.0.1", InvalidError, "free address"),
        ("0.0.0.0", InvalidError, "free address"),
        ("224.0.0.1", InvalidError, "free address"),
        ("169.254.1.1", InvalidError, "free address"),
        ("198.51.100.7", InvalidError, "not in 192.0.2.0/24"),
        ("192.0.2.255", InvalidError, "network's own"),
        ("192.0.2.9/16", InvalidError, "192.0.2.0/24"),
        ("192.0.2.1", ConflictError, "address of host h1"),
    ],
)
async def test_what_cannot_be_a_vip_is_refused_with_the_reason(text, error, words):
    member = await founded()
    host = replace(member.node.host(), name="h1", address="192.0.2.1")
    with pytest.raises(error, match=words):
        checked_vip(text, "192.0.2.0/24", [host])


async def test_a_host_of_another_network_forbids_a_vip():
    member = await founded()
    host = replace(member.node.host(), name="w1", address="198.51.100.1")
    with pytest.raises(InvalidError, match="host w1"):
        checked_vip(VIP, "192.0.2.0/24", [host])


# -- the API


@dataclass
class Asked:
    """The API of one agent, and what is behind it."""

    client: TestClient
    agent: FakeAgent
    member: OneMember


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    member = await founded()
    agent = FakeAgent(member)
    async with TestClient(TestServer(app_of(member, agent)), headers=ADMIN) as client:
        yield Asked(client, agent, member)


async def test_it_is_set_shown_and_cleared(asked):
    response = await asked.client.patch("/v1/members/vip", json={"address": f"{VIP}/24"})
    assert response.status == 200, await response.text()
    assert (await response.json())["address"] == VIP
    assert VIP in own_addresses(asked.member.store)
    shown = await (await asked.client.get("/v1/members/vip")).json()
    assert (shown["address"], shown["holder_name"]) == (VIP, "")
    health = await (await asked.client.get("/v1/health")).json()
    assert (health["vip"], health["vip_holder_name"]) == (VIP, "")
    assert "vip-unheld" in [finding["code"] for finding in health["findings"]]
    response = await asked.client.patch("/v1/members/vip", json={"address": ""})
    assert (await response.json())["address"] == ""


async def test_an_address_that_answers_is_refused(asked):
    asked.agent.vip_network.foreign[VIP] = FOREIGN
    response = await asked.client.patch("/v1/members/vip", json={"address": VIP})
    assert response.status == 409
    assert FOREIGN in (await response.json(content_type=None))["detail"]
    assert asked.member.store.need(Mesh, MESH_ID).vip == ""


# -- frames


def test_a_probe_says_of_nobody_that_it_has_the_address():
    mac = bytes.fromhex("020000000001")
    said = parse(probe(mac, VIP))
    assert (said.sender, said.target, said.sender_mac) == ("0.0.0.0", VIP, mac)


def test_only_frames_of_others_that_have_or_probe_the_address_count():
    own, other = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    assert not taken_by(parse(probe(own, VIP)), VIP, own_mac=own)
    assert taken_by(parse(probe(other, VIP)), VIP, own_mac=own)
    assert not taken_by(parse(probe(other, OTHER_VIP)), VIP, own_mac=own)
    for frame in announcements(other, VIP):
        assert taken_by(parse(frame), VIP, own_mac=own)
        assert not taken_by(parse(frame), OTHER_VIP, own_mac=own)


@pytest.mark.parametrize("frame", [b"", b"\x00" * 20, b"\xff" * 60])
def test_what_is_no_arp_is_not_read(frame):
    assert parse(frame) is None
