"""Taking the power from lost hosts by their management boards: when it is believed, and when it is left alone."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, NotFoundError, UnavailableError
from core.model import Bmc, BmcProtocol, BmcState, Event, Host, HostState, Lease, VMPhase
from ha.lease import LeaseJudge, Renewal
from nodeagent.power.driver import Board
from nodeagent.power.memory import MemoryPower
from nodeagent.services.bmc_checks import BmcChecks
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.event_log import EventLog
from nodeagent.services.fencing import Fencing
from nodeagent.services.ha_controller import HaController
from nodeagent.services.host_service import confirm_off
from nodeagent.services.lease_relay import LeaseRelay
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    THIRD_ID,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)

RUNNING = {"phase": VMPhase.RUNNING, "boot_id": "boot", "generation": 4}
ADDRESSES = {HOST_ID: "10.9.0.1", OTHER_ID: "10.9.0.2", THIRD_ID: "10.9.0.3"}


class Site:
    """Three hosts with boards. Hosts that are `alive` renew through the product's relay, with the guests they have."""

    def __init__(self, member: OneMember) -> None:
        self.member, self.store = member, member.store
        self.judge = LeaseJudge(member.clock)
        self.leases = LeaseRelay(member.node, self.judge)
        self.power = MemoryPower(on=dict.fromkeys(ADDRESSES.values(), True))
        self.events = EventLog(member.node)
        self.bmcs = Bmcs(member.node, self.leases, self.power, lambda: member.secrets_key)
        self.alive = {HOST_ID, OTHER_ID, THIRD_ID}
        self.boots = dict.fromkeys(ADDRESSES, "boot")
        self.guests = 1
        self.seq = itertools.count(1)
        member.machine.on_applied(self.note)

    def note(self, index, keys) -> None:
        del index
        for key in keys:
            kind, _, host_id = key.partition("/")
            if kind == "lease":
                self.judge.applied(self.store.need(Lease, host_id))

    def host(self, host_id: str) -> Host:
        return self.store.need(Host, host_id)

    def board(self, host_id: str) -> Board:
        return Board(ADDRESSES[host_id], 623, "kvorum", "secret", 17)

    async def renew(self, host_id: str) -> None:
        renewal = Renewal(
            host_id=host_id,
            boot_id=self.boots[host_id],
            seq=next(self.seq),
            watchdog_armed=True,
            guests=self.guests,
        )
        try:
            await self.leases.renew(renewal)
        except ConflictError:
            return  # refused

    async def keep_renewing(self) -> None:
        while True:
            for host_id in sorted(self.alive):
                await self.renew(host_id)
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def running(self):
        loops = (
            HaController(self.member.node, self.judge, self.events).run,
            Fencing(self.member.node, self.bmcs, self.events).run,
            BmcChecks(self.member.node, self.bmcs, self.events).run,
            self.leases.run,
            self.keep_renewing,
        )
        async with running(*loops):
            await asyncio.sleep(6)  # a leader younger than that takes no power away
            yield

    async def falls_silent(self, host_id: str) -> None:
        """A host is cut off; returns when its board isn't asked any more whether it is well, and before it is fenced."""
        self.alive.discard(host_id)
        await until(lambda: self.leases.age_s(host_id) >= 4.6)

    def codes(self) -> list[str]:
        return [event.code for event in self.store.since(Event, 0)]


def site_test(test):
    def wrapper() -> None:
        async def main() -> None:
            site = Site(await founded(clock=LoopClock()))
            await site.member.add_host(OTHER_ID, "h2", "192.0.2.2")
            await site.member.add_host(THIRD_ID, "h3", "192.0.2.3")
            await test(site)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


@site_test
async def test_a_lost_host_is_switched_off_and_its_vm_moves_long_before_the_safe_time(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        site.alive.discard(OTHER_ID)
        began_s = site.member.clock.monotonic_s()
        await until(lambda: site.member.vm(vm.id).host_id != OTHER_ID, 60)
        assert 4.5 <= site.member.clock.monotonic_s() - began_s <= 8
    assert not site.power.on["10.9.0.2"]
    host = site.host(OTHER_ID)
    assert (host.state, host.off_lease_revision) == (
        HostState.FENCED,
        site.store.need(Lease, OTHER_ID).revision,
    )
    assert [c for c in site.codes() if c in ("host-fencing", "host-fenced", "vm-recovered")] == [
        "host-fencing",
        "host-fenced",
        "vm-recovered",
    ]


@site_test
async def test_a_host_that_is_being_fenced_does_not_renew_until_it_comes_with_a_new_boot(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        await site.falls_silent(OTHER_ID)
        site.power.dead.add("10.9.0.2")
        await until(lambda: site.host(OTHER_ID).state is HostState.FENCING, 60)
        revision = site.store.need(Lease, OTHER_ID).revision
        site.alive.add(OTHER_ID)
        await asyncio.sleep(3)
        assert site.store.need(Lease, OTHER_ID).revision == revision, "its renewals are refused"
        site.boots[OTHER_ID] = "boot-2"
        await until(lambda: site.host(OTHER_ID).state is HostState.MEMBER, 10)
        site.power.dead.clear()
        await asyncio.sleep(20)
    assert site.power.on["10.9.0.2"], "what came back is not switched off any more"
    assert site.member.vm(vm.id).host_id == OTHER_ID


@site_test
async def test_a_board_that_died_with_its_host_leaves_it_to_time_and_is_told_once(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        began_s = site.member.clock.monotonic_s()
        await site.falls_silent(OTHER_ID)
        site.power.dead.add("10.9.0.2")
        await until(lambda: site.member.vm(vm.id).host_id != OTHER_ID, 60)
        assert 19 <= site.member.clock.monotonic_s() - began_s <= 22
        await asyncio.sleep(30)
    assert site.host(OTHER_ID).off_lease_revision == 0
    assert site.codes().count("host-power-off-failed") == 1


@site_test
async def test_a_board_that_switches_nothing_off_proves_nothing(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))

        async def obeys_not(board) -> None:
            return

        site.power.turn_off = obeys_not
        site.alive.discard(OTHER_ID)
        await asyncio.sleep(18)
        assert site.member.vm(vm.id).host_id == OTHER_ID
        assert site.host(OTHER_ID).state is HostState.FENCING


@site_test
async def test_off_must_be_said_twice(site):
    await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    answers = itertools.chain([False, True, False, True], itertools.repeat(True))
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        honest = site.power.is_on

        async def wavering(board) -> bool:
            return next(answers) if board.address == "10.9.0.2" else await honest(board)

        await site.falls_silent(OTHER_ID)
        site.power.is_on = wavering
        await asyncio.sleep(15)
        assert site.host(OTHER_ID).state is HostState.FENCING


@site_test
async def test_an_agent_that_lost_its_quorum_switches_nothing_off(site):
    await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        barrier = site.store.barrier

        async def no_quorum() -> int:
            raise UnavailableError("no quorum")

        site.store.barrier = no_quorum
        site.alive.discard(OTHER_ID)
        await until(lambda: site.host(OTHER_ID).state is HostState.FENCING, 60)
        await asyncio.sleep(10)
        assert "off 10.9.0.2" not in site.power.asked
        site.store.barrier = barrier
        await until(lambda: "off 10.9.0.2" in site.power.asked, 10)


@site_test
async def test_a_host_whose_vote_is_needed_is_not_switched_off(site):
    await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        engine, up = site.member.engine, {OTHER_ID}
        peers = [SimpleNamespace(id=id_) for id_ in ADDRESSES]
        engine.voters, engine.connected = (lambda: peers), (lambda: frozenset(up))
        await site.falls_silent(OTHER_ID)
        await asyncio.sleep(5)
        assert site.host(OTHER_ID).state is HostState.MEMBER, "its renewals are taken, too"
        fencing = replace(site.host(OTHER_ID), state=HostState.FENCING)
        await site.store.apply(puts=(fencing,))  # it was begun when another voter was up
        await asyncio.sleep(10)
        assert "off 10.9.0.2" not in site.power.asked
        assert site.codes().count("host-power-off-failed") == 1
        up.add(THIRD_ID)
        await until(lambda: "off 10.9.0.2" in site.power.asked, 10)


@site_test
async def test_a_board_that_is_named_while_its_host_is_being_fenced_proves_nothing(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        await site.falls_silent(OTHER_ID)
        site.power.dead.add("10.9.0.2")
        await until(lambda: site.host(OTHER_ID).state is HostState.FENCING, 60)
        site.power.on["10.9.0.99"] = False  # a typing error: another machine's, which is off
        wrong = Board("10.9.0.99", 623, "kvorum", "secret", 17)
        assert (await site.bmcs.put(site.host(OTHER_ID), wrong)).state is BmcState.UNCHECKED
        await asyncio.sleep(9)
        assert site.host(OTHER_ID).state is HostState.FENCING
        assert site.member.vm(vm.id).host_id == OTHER_ID


@site_test
async def test_a_board_that_is_changed_while_it_is_asked_proves_nothing(site):
    await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        await site.falls_silent(OTHER_ID)
        turn_off = site.power.turn_off

        async def meanwhile(board) -> None:
            await turn_off(board)
            bmc = site.store.need(Bmc, OTHER_ID)
            await site.store.apply(puts=(replace(bmc, state=BmcState.FAULT, why="moved"),))

        site.power.turn_off = meanwhile
        await asyncio.sleep(9)
        assert site.host(OTHER_ID).state is HostState.FENCING


@site_test
async def test_two_hosts_do_not_have_one_board(site):
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        with pytest.raises(ConflictError, match="h2"):
            await site.bmcs.put(site.host(THIRD_ID), site.board(OTHER_ID))
        assert [bmc.host_id for bmc in site.store.all(Bmc)] == [OTHER_ID]


@site_test
async def test_one_redfish_service_may_have_the_machines_of_several_hosts_but_each_once(site):
    def served(system: str) -> Board:
        return Board(
            "10.9.0.2", 443, "u", "secret", 17, protocol=BmcProtocol.REDFISH, system=system
        )

    async with site.running():
        made = await site.bmcs.put(site.host(OTHER_ID), served(""))
        assert site.bmcs.board(made).system == "1"
        ipmi = Board("10.9.0.2", 623, "u", "secret", 17)
        for same in (served("1"), served(""), ipmi):
            with pytest.raises(ConflictError, match="h2"):
                await site.bmcs.put(site.host(THIRD_ID), same)
        second = await site.bmcs.put(site.host(THIRD_ID), served("2"))
        assert not set(second.claims()) & set(made.claims())


@site_test
async def test_a_board_that_shows_another_certificate_is_a_fault_and_fences_nothing(site):
    shown = Board("10.9.0.2", 443, "u", "secret", 17, protocol=BmcProtocol.REDFISH)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), shown)
        site.power.certificates["10.9.0.2"] = "ab" * 32
        await until(lambda: site.store.get(Bmc, OTHER_ID).state is BmcState.FAULT, 90)
        assert "another certificate" in site.store.get(Bmc, OTHER_ID).why
        assert site.power.on["10.9.0.2"]


@site_test
async def test_a_board_is_asked_before_it_is_recorded(site):
    async with site.running():
        site.power.on["10.9.0.2"] = False
        with pytest.raises(ConflictError, match="another machine"):
            await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        site.power.dead.add("10.9.0.3")
        with pytest.raises(UnavailableError, match=r"10\.9\.0\.3"):
            await site.bmcs.put(site.host(THIRD_ID), site.board(THIRD_ID))
        assert site.store.all(Bmc) == []
        with pytest.raises(NotFoundError, match="kvorum bmc set h2"):
            await site.bmcs.switch_on(site.host(OTHER_ID))


@site_test
async def test_a_board_of_a_host_that_is_off_is_relied_on_only_after_it_said_on_of_it(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    site.alive.discard(OTHER_ID)
    site.power.on["10.9.0.2"] = False
    async with site.running():
        await asyncio.sleep(8)
        made = await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        assert made.state is BmcState.UNCHECKED
        await asyncio.sleep(3)
        assert site.member.vm(vm.id).host_id == OTHER_ID, "it may be another machine's"
        site.power.on["10.9.0.2"] = True
        site.boots[OTHER_ID] = "boot-2"
        site.alive.add(OTHER_ID)
        await until(lambda: site.store.need(Bmc, OTHER_ID).state is BmcState.OK, 90)


@site_test
async def test_a_fault_of_a_board_is_told_when_it_begins_and_when_it_ends(site):
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        site.power.lying.add("10.9.0.2")  # or it was moved to another machine
        await until(lambda: site.store.need(Bmc, OTHER_ID).state is BmcState.FAULT, 90)
        await asyncio.sleep(200)
        site.power.lying.clear()
        await until(lambda: site.store.need(Bmc, OTHER_ID).state is BmcState.OK, 90)
    told = [code for code in site.codes() if code.startswith("bmc-")]
    assert told == ["bmc-fault", "bmc-ok"]


@site_test
async def test_the_password_is_sealed_and_the_board_goes_with_its_host(site):
    async with site.running():
        made = await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        assert b"secret" not in made.sealed_password and "secret" not in repr(made)
        assert site.bmcs.board(made) == site.board(OTHER_ID)
        again = await site.bmcs.put(site.host(OTHER_ID), Board("10.9.0.2", 624, "root", "other", 3))
        assert (again.port, again.user, again.created_ms) == (624, "root", made.created_ms)
        await site.bmcs.remove(site.host(OTHER_ID))
        assert site.store.all(Bmc) == []


@site_test
async def test_an_operators_word_on_a_host_that_is_being_fenced_counts_after_its_lease(site):
    vm = await site.member.add_vm(host_id=OTHER_ID, **RUNNING)
    async with site.running():
        await site.bmcs.put(site.host(OTHER_ID), site.board(OTHER_ID))
        await site.falls_silent(OTHER_ID)
        site.power.dead.add("10.9.0.2")
        await until(lambda: site.host(OTHER_ID).state is HostState.FENCING, 60)
        await asyncio.sleep(9)
        await confirm_off(site.member.node, site.host(OTHER_ID), site.leases.age_s(OTHER_ID))
        await until(lambda: site.member.vm(vm.id).host_id != OTHER_ID, 3)


def test_a_host_is_not_asked_to_switch_itself_off():
    async def main() -> None:
        site = Site(await founded(clock=LoopClock()))
        site.alive = {HOST_ID}
        async with site.running():
            await site.bmcs.put(site.host(HOST_ID), site.board(HOST_ID))
            with pytest.raises(ConflictError, match="ask another"):
                await site.bmcs.switch_off(site.host(HOST_ID))

    in_virtual_time(main)
