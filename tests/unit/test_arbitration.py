"""Arbitration addresses: who is told what, when the VIP is vetoed, and when nobody is, as the address itself is dead."""

import asyncio
import socket

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import ConflictError, InvalidError
from core.model import Arbitration, Event, Host, HostState, Mesh, Severity
from ha.arbitration import LOST_ROUNDS, TOLD_ROUNDS, VETO_ROUNDS, Reach, is_dead, is_vetoed
from ha.vip import CLAIM_WAIT_S, lifetime_s
from netfabric.icmp import Echo, checksum, reply, request, without_ip_header
from netfabric.memory_ping import MemoryPinger
from netfabric.memory_vip import MemoryVip, MemoryVipNetwork
from netfabric.ping import is_answered
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.arbitration import (
    STEP_ASIDE_EVERY_S,
    ArbitrationService,
    checked_addresses,
)
from nodeagent.services.event_log import EventLog
from nodeagent.services.vip import VipService
from raftstate.consensus.engine import NodeId, Peer
from tests.api import ADMIN, FakeAgent, app_of
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    THIRD_ID,
    LoopClock,
    founded,
    in_virtual_time,
    running,
    until,
)

ROUTER, SECOND, VIP = "192.0.2.254", "2001:db8::1", "192.0.2.100"
LOST, REACHED, UNKNOWN = Arbitration.LOST, Arbitration.REACHED, Arbitration.UNKNOWN


# -- the rules


def after(*rounds: bool) -> Reach:
    reach = Reach()
    for answered in rounds:
        reach.note(answered=answered)
    return reach


def test_one_answer_is_enough_and_three_rounds_of_silence_are_too_many():
    assert after().state is UNKNOWN
    assert after(False, False).state is UNKNOWN
    assert after(True).state is REACHED
    assert after(True, False, False).state is REACHED
    assert after(True, False, False, False).state is LOST
    assert after(False, False, False).state is LOST
    assert after(*[False] * 9, True).state is REACHED
    assert after(True, False, False, True, False, False).state is REACHED


def test_others_are_told_only_what_stays():
    assert after(*[True] * (TOLD_ROUNDS - 1)).to_tell() is None
    assert after(*[True] * TOLD_ROUNDS).to_tell() is REACHED
    lost = LOST_ROUNDS + TOLD_ROUNDS - 1
    assert after(*[False] * (lost - 1)).to_tell() is None
    assert after(*[False] * lost).to_tell() is LOST
    assert after(*[False] * lost, True, True).to_tell() is None


def test_only_who_lost_it_for_good_is_vetoed_and_only_if_another_reaches_it():
    lost = after(*[False] * (LOST_ROUNDS + VETO_ROUNDS - 1))
    assert is_vetoed(lost, [LOST, REACHED])
    assert not is_vetoed(lost, [LOST, UNKNOWN]), "an older agent vouches for nothing"
    assert not is_vetoed(lost, [])
    assert not is_vetoed(after(*[False] * (LOST_ROUNDS + VETO_ROUNDS - 2)), [REACHED])
    assert not is_vetoed(after(True), [REACHED])
    assert is_dead(lost, [LOST, UNKNOWN])
    assert is_dead(lost, [])
    assert not is_dead(lost, [LOST, REACHED])
    assert not is_dead(after(True), [LOST])


def test_when_all_lose_it_at_once_others_have_said_so_before_a_veto():
    phase, round_of_telling, commit = 1, 1, 2
    assert phase + round_of_telling + commit <= VETO_ROUNDS - TOLD_ROUNDS


# -- the service


class Ages:
    """Leases of all hosts are fresh, but those of `old`."""

    def __init__(self) -> None:
        self.old: set[str] = set()

    def age_s(self, host_id: str) -> float:
        return 1000.0 if host_id in self.old else 0.5


class World:
    """One host that leads, with a VIP and an arbitration address, and two others that say what a test says."""

    def __init__(self, member) -> None:
        self.member, self.store, self.engine = member, member.store, member.engine
        self.pinger, self.ages = MemoryPinger({ROUTER}), Ages()
        events = EventLog(member.node)
        self.service = ArbitrationService(member.node, self.pinger, self.ages, events)
        self.driver = MemoryVip(
            MemoryVipNetwork("192.0.2.0/24"), "02:00:00:00:00:01", member.clock, lifetime_s
        )
        self.vip = VipService(member.node, self.driver, events, self.service.vetoed)
        self.asides: list[float] = []
        self.engine.step_aside = self._step_aside

    async def _step_aside(self, *, timeout_s: float) -> None:
        del timeout_s
        self.asides.append(asyncio.get_running_loop().time())

    async def begin(self) -> None:
        mesh = self.store.need(Mesh, MESH_ID)
        mesh = replace(mesh, vip=VIP, arbitration_addresses=(ROUTER,))
        host = self.member.node.host()
        others = [
            replace(host, id=id_, name=name, address=address, revision=0)
            for id_, name, address in (
                (OTHER_ID, "h2", "192.0.2.2"),
                (THIRD_ID, "h3", "192.0.2.3"),
            )
        ]
        await self.store.apply(puts=(mesh, *others))

    async def say(self, host_id: str, **fields) -> None:
        await self.store.apply(puts=(replace(self.store.need(Host, host_id), **fields),))

    def vote(self, *ids: str) -> None:
        self.engine.voters = lambda: tuple(Peer(NodeId(id_), "") for id_ in ids)

    def said(self) -> Arbitration:
        return self.store.need(Host, HOST_ID).arbitration

    def has(self) -> bool:
        return self.driver.has(VIP)

    def events(self, code: str) -> list[Event]:
        return [event for event in self.store.all(Event) if event.code == code]


def arbitration_test(test):
    def wrapper() -> None:
        async def main() -> None:
            world = World(await founded(clock=LoopClock()))
            await world.begin()
            await test(world)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


def now_s() -> float:
    return asyncio.get_running_loop().time()


@arbitration_test
async def test_a_host_says_in_its_record_what_it_sees_and_takes_it_back_when_the_address_goes(
    world,
):
    async with running(world.service.run):
        await until(lambda: world.said() is REACHED, 6.0)
        assert world.service.seen().answering == (ROUTER,)
        lost_s = now_s()
        world.pinger.answering.clear()
        await until(lambda: world.said() is LOST)
        assert 5.0 <= now_s() - lost_s <= 7.5
        await world.service.choose([])
        await until(lambda: world.said() is UNKNOWN, 3.0)
        assert world.service.seen() is None


@arbitration_test
async def test_an_address_that_comes_and_goes_is_not_written_each_time(world):
    async with running(world.service.run):
        await until(lambda: world.said() is REACHED)
        before = world.store.need(Host, HOST_ID).revision
        for _ in range(20):
            world.pinger.answering.clear()
            await asyncio.sleep(4.0)  # long enough to be lost, too short to be told
            world.pinger.answering.add(ROUTER)
            await asyncio.sleep(2.0)
        assert world.store.need(Host, HOST_ID).revision == before


@arbitration_test
async def test_an_older_agent_that_drops_the_word_is_corrected(world):
    async with running(world.service.run):
        await until(lambda: world.said() is REACHED)
        await world.say(HOST_ID, arbitration=UNKNOWN)
        await until(lambda: world.said() is REACHED, 3.0)


@arbitration_test
async def test_a_leader_that_does_not_reach_it_gives_the_vip_up_while_another_does(world):
    await world.say(OTHER_ID, arbitration=REACHED)
    async with running(world.service.run, world.vip.run):
        await until(world.has)
        world.pinger.answering.clear()
        lost_s = now_s()
        await until(lambda: not world.has(), 15.0)
        assert now_s() - lost_s >= 9.0, "others get the time to say that it is lost for them, too"
        seen = world.vip.seen()
        assert seen.phase == "vetoed" and "vetoed" in seen.why
        await asyncio.sleep(120)
        assert not world.has()
        (event,) = world.events("vip-vetoed")
        assert event.severity is Severity.ALARM
        assert not world.events("arbitration-dead")
        world.pinger.answering.add(ROUTER)
        await until(world.has, CLAIM_WAIT_S)
    assert world.said() in (LOST, REACHED)


@arbitration_test
async def test_a_new_leader_that_does_not_reach_it_never_takes_the_vip(world):
    await world.say(OTHER_ID, arbitration=REACHED)
    world.engine.is_leader = lambda: False
    world.pinger.answering.clear()
    async with running(world.service.run, world.vip.run):
        await until(lambda: world.said() is LOST)
        await asyncio.sleep(10)
        world.engine.is_leader = lambda: True
        end_s = now_s() + 30
        while now_s() < end_s:
            assert not world.has()
            await asyncio.sleep(0.05)


@arbitration_test
async def test_when_the_address_is_dead_for_all_the_vip_stays_without_a_gap_and_it_is_told_once(
    world,
):
    for id_ in (OTHER_ID, THIRD_ID):
        await world.say(id_, arbitration=REACHED)
    async with running(world.service.run, world.vip.run):
        await until(world.has)
        world.pinger.answering.clear()
        dead_s = now_s()
        # The others see it at the same time, and their words come a little late.
        while now_s() - dead_s < 9.0:
            assert world.has()
            await asyncio.sleep(0.05)
        for id_ in (OTHER_ID, THIRD_ID):
            await world.say(id_, arbitration=LOST)
        end_s = now_s() + 60
        while now_s() < end_s:
            assert world.has()
            await asyncio.sleep(0.05)
        (event,) = world.events("arbitration-dead")
        assert event.severity is Severity.ALARM and ROUTER in event.message
        world.pinger.answering.add(ROUTER)
        await until(lambda: world.said() is REACHED)
        world.pinger.answering.clear()
        await until(lambda: len(world.events("arbitration-dead")) == 2)


@arbitration_test
async def test_the_word_of_a_host_that_is_not_alive_vetoes_nothing(world):
    for id_ in (OTHER_ID, THIRD_ID):
        await world.say(id_, arbitration=REACHED)
    world.ages.old.add(OTHER_ID)
    await world.say(THIRD_ID, state=HostState.FENCED)
    async with running(world.service.run, world.vip.run):
        await until(world.has)
        world.pinger.answering.clear()
        await until(lambda: world.events("arbitration-dead"), 20.0)
        assert world.has()
        world.ages.old.clear()
        await until(lambda: not world.has(), 2.0)


@arbitration_test
async def test_who_cannot_ping_is_neither_vetoed_nor_vouches(world):
    await world.say(OTHER_ID, arbitration=REACHED)
    async with running(world.service.run, world.vip.run):
        await until(lambda: world.said() is REACHED)
        await until(world.has)
        world.pinger.fault = "not permitted"
        await until(lambda: world.said() is UNKNOWN, 5.0)
        assert world.service.seen().why == "not permitted"
        await asyncio.sleep(30)
        assert world.has()
        world.pinger.fault = ""
        await until(lambda: world.said() is REACHED, 6.0)


@arbitration_test
async def test_a_vetoed_leader_lets_another_lead_if_whoever_comes_reaches_it(world):
    world.vote(HOST_ID, OTHER_ID, THIRD_ID)
    world.pinger.answering.clear()
    await world.say(OTHER_ID, arbitration=REACHED)
    await world.say(THIRD_ID, arbitration=LOST)
    async with running(world.service.run):
        await asyncio.sleep(60)
        assert not world.asides, "the one that lost it, too, could be the next"
        await world.say(THIRD_ID, arbitration=REACHED)
        await until(lambda: world.asides, 3.0)
        await until(lambda: len(world.asides) == 2, 70.0)
        assert world.asides[1] - world.asides[0] >= STEP_ASIDE_EVERY_S


@arbitration_test
async def test_nobody_steps_aside_without_a_vip(world):
    world.vote(HOST_ID, OTHER_ID)
    world.pinger.answering.clear()
    await world.say(OTHER_ID, arbitration=REACHED)
    await world.store.apply(puts=(replace(world.store.need(Mesh, MESH_ID), vip=""),))
    async with running(world.service.run):
        await until(world.service.vetoed)
        await asyncio.sleep(60)
        assert not world.asides


# -- what can be one


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("router", InvalidError, "not an IP address"),
        ("192.0.2.254/24", InvalidError, "not an IP address"),
        ("127.0.0.1", InvalidError, "from every host"),
        ("::1", InvalidError, "from every host"),
        ("0.0.0.0", InvalidError, "from every host"),
        ("255.255.255.255", InvalidError, "from every host"),
        ("224.0.0.1", InvalidError, "from every host"),
        ("fe80::1", InvalidError, "from every host"),
        ("::ffff:192.0.2.9", InvalidError, "from every host"),
        (VIP, ConflictError, "is the VIP"),
        ("192.0.2.1", ConflictError, "address of host h1"),
    ],
)
async def test_what_cannot_be_one_is_refused_with_the_reason(text, error, words):
    member = await founded()
    mesh = replace(member.store.need(Mesh, MESH_ID), vip=VIP)
    host = replace(member.node.host(), name="h1", address="192.0.2.1")
    with pytest.raises(error, match=words):
        checked_addresses([ROUTER, text], mesh, [host])


async def test_it_is_set_shown_and_cleared():
    member = await founded()
    agent = FakeAgent(member)
    agent.pinger.answering.add(SECOND)
    async with TestClient(TestServer(app_of(member, agent)), headers=ADMIN) as client:
        asked = {"addresses": [ROUTER, "2001:DB8:0::1", ROUTER]}
        response = await client.patch("/v1/members/arbitration", json=asked)
        assert response.status == 200, await response.text()
        assert (await response.json())["addresses"] == [ROUTER, SECOND]
        await agent.arbitration.look()
        shown = await (await client.get("/v1/members/arbitration")).json()
        (host,) = shown["hosts"]
        assert (host["state"], host["answering"]) == ("reached", [SECOND])
        assert shown["problems"] == []
        health = await (await client.get("/v1/health")).json()
        assert health["hosts"][0]["arbitration"] == "reached"
        four = {"addresses": [f"192.0.2.{n}" for n in range(200, 204)]}
        assert (await client.patch("/v1/members/arbitration", json=four)).status == 400
        response = await client.patch("/v1/members/vip", json={"address": ROUTER})
        assert response.status == 409
        response = await client.patch("/v1/members/arbitration", json={"addresses": []})
        assert (await response.json())["addresses"] == []


# -- messages


@pytest.mark.parametrize("version", [4, 6])
def test_only_a_whole_answer_is_read(version):
    echo = Echo(0x1234, 0x5678, b"chance, of 16 B.")
    asked = request(version, echo)
    assert reply(version, asked) is None, "a question is no answer"
    bare = bytes([{4: 0, 6: 129}[version]]) + asked[1:2] + b"\0\0" + asked[4:]
    told = bare[:2] + checksum(bare).to_bytes(2) + bare[4:]
    assert reply(version, told) == echo
    for short in range(8):
        assert reply(version, told[:short]) is None
    if version == 4:
        assert reply(version, told[:-1] + b"!") is None, "damaged on the way"


def test_the_checksum_is_that_of_rfc_1071():
    words = bytes.fromhex("0001f203f4f5f6f7")  # the example of section 3
    assert checksum(words) == 0xFFFF ^ 0xDDF2
    assert checksum(words + (0xFFFF ^ 0xDDF2).to_bytes(2)) == 0
    assert checksum(b"\x01") == 0xFEFF


def test_an_ip_header_of_any_length_is_taken_off():
    assert without_ip_header(b"\x45" + bytes(19) + b"rest") == b"rest"
    assert without_ip_header(b"\x46" + bytes(23) + b"rest") == b"rest"
    for bad in (b"", b"\x45", b"\x41" + bytes(30)):
        assert without_ip_header(bad) == b""


async def test_the_answers_of_strangers_do_not_count():
    """Datagrams stand in for ICMP: who sends what can be chosen then."""
    echo = Echo(7, 9, b"x" * 16)

    def told(which: Echo) -> bytes:
        bare = b"\0\0\0\0" + request(4, which)[4:]
        return bare[:2] + checksum(bare).to_bytes(2) + bare[4:]

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        here.bind(("127.0.0.1", 0))
        here.setblocking(False)
        there.bind(("127.0.0.1", 0))
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(told(echo), here.getsockname())
        for wrong in (Echo(8, 9, b"x" * 16), Echo(7, 8, b"x" * 16), Echo(7, 9, b"y" * 16)):
            there.sendto(told(wrong), here.getsockname())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await is_answered(here, "127.0.0.1", echo)
        there.sendto(told(echo), here.getsockname())
        async with asyncio.timeout(5):
            assert await is_answered(here, "127.0.0.1", echo)
