"""Redfish boards that are slow, silent, mistaken or hostile: nothing but a clear "Off" is off, and no stranger gets the log-in."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import replace

import pytest
from aiohttp import encode_basic_auth, web

from core.errors import UnavailableError
from core.model import BmcProtocol
from nodeagent.power import redfish_service
from nodeagent.power.driver import Board
from nodeagent.power.ipmi import Ipmi
from nodeagent.power.redfish import Redfish
from tests.redfish import RESET, SYSTEM, SYSTEMS, USER, RedfishBoard

PASSWORD = "a-secret-4711"
LOG_IN = encode_basic_auth(USER, PASSWORD).removeprefix("Basic ").rstrip("=")


@pytest.fixture
async def stub():
    async with RedfishBoard(PASSWORD).running() as running:
        yield running


@pytest.fixture
async def board(stub):
    known = await Redfish().recognized(named(stub))
    stub.asked.clear()
    return known


def named(stub, **more):
    return Board("127.0.0.1", stub.port, USER, PASSWORD, 17, protocol=BmcProtocol.REDFISH, **more)


async def fails(call, words=None):
    with pytest.raises(UnavailableError, match=words) as caught:
        await call
    assert PASSWORD not in caught.value.message and LOG_IN not in caught.value.message
    return caught.value.message


async def test_a_board_is_known_by_the_certificate_that_it_showed_and_by_its_machine(stub):
    known = await Redfish().recognized(named(stub))
    assert known == named(stub, fingerprint=stub.fingerprint, system="1")


async def test_a_board_that_shows_another_certificate_is_told_nothing(stub, board):
    old = stub.fingerprint
    stub.renew_certificate()
    stub.log_ins.clear()
    driver = Redfish()
    for act in (driver.is_on, driver.turn_off, driver.turn_on, driver.recognized):
        said = await fails(act(board), "another certificate")
        assert old in said and stub.fingerprint in said and "--fingerprint" in said
    assert (stub.asked, stub.log_ins, stub.on) == ([], [], True)


async def test_a_certificate_that_is_demanded_is_not_replaced_by_the_one_that_is_shown(stub):
    await fails(Redfish().recognized(named(stub, fingerprint="ab" * 32)), "another certificate")
    assert stub.asked == []


async def test_without_a_known_certificate_nothing_is_asked(stub):
    for fingerprint in ("", "ab", "xy" * 32):
        unknown = named(stub, fingerprint=fingerprint, system="1")
        await fails(Redfish().is_on(unknown), "not known")
    assert stub.asked == []


@pytest.mark.parametrize(
    ("says", "on"), [("On", True), ("PoweringOn", True), ("PoweringOff", True), ("Paused", True)]
)
async def test_a_machine_has_power_until_it_is_off(stub, board, says, on):
    stub.says = says
    assert await Redfish().is_on(board) is on


@pytest.mark.parametrize(
    "says", ["off", "OFF", "Off ", "", None, 0, False, ["Off"], {"Off": 1}, "Unknown", PASSWORD]
)
async def test_what_is_not_clear_is_neither_on_nor_off(stub, board, says):
    stub.says = says if says != "" else " "
    await fails(Redfish().is_on(board), "neither on nor off|can't be understood")


BROKEN = {
    "nothing": b"",
    "no JSON": b"<html>Off</html>",
    "half": b'{"Members": [{"@odata.id": "/redfish',
    "no object": b'["Off"]',
    "no members": b"{}",
    "members that are none": b'{"Members": [1, 2]}',
    "deep": b'{"x":' + b"[" * 200_000,
    "no text": b'{"Members": "\xff\xfe"}',
    "huge": b'{"Members": [], "x": "' + b"x" * (2 << 20) + b'"}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("at", [SYSTEMS, SYSTEM])
async def test_a_broken_answer_is_no_answer(stub, board, body, at):
    stub.fault = lambda asked: web.Response(body=body) if asked.path == at else None
    await fails(Redfish().is_on(board))
    await fails(Redfish().turn_off(board))
    assert stub.on


async def test_an_answer_without_end_is_not_read_to_its_end(board):
    async def endless(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await answer.write(b"x" * 65_536)
            await asyncio.sleep(0)
        return answer

    without_end = RedfishBoard(PASSWORD)
    without_end._answer = endless
    async with without_end.running() as running:
        known = replace(board, port=running.port, fingerprint=running.fingerprint)
        await fails(Redfish().is_on(known), "larger than")


async def test_a_redirect_is_not_followed(stub, board):
    async with RedfishBoard(PASSWORD).running() as elsewhere:
        where = f"https://127.0.0.1:{elsewhere.port}{SYSTEMS}"
        for status in (301, 302, 307, 308):
            answer = {"status": status, "headers": {"Location": where}}
            stub.fault = lambda _, answer=answer: web.Response(**answer)
            await fails(Redfish().is_on(board), f"HTTP {status}")
        assert elsewhere.asked == []


async def test_a_service_may_want_a_slash_at_the_end(stub, board):
    def wants_a_slash(asked):
        if asked.path == SYSTEMS:
            return web.Response(status=308, headers={"Location": f"{SYSTEMS}/"})
        if asked.path == f"{SYSTEMS}/":
            return web.json_response({"Members": [{"@odata.id": SYSTEM}]})
        return None

    stub.fault = wants_a_slash
    assert await Redfish().is_on(board)


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
        "//127.0.0.1/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
        "/redfish/v1/Systems/2/Actions/ComputerSystem.Reset",
        "/redfish/v1/Systems/1/../2/Actions/ComputerSystem.Reset",
        "/redfish/v1/Systems/1/Actions?x=1",
        "/redfish/v1/Systems/1/Actions\r\nX: y",
        "/redfish/v1/Systems/1",
        "",
    ],
)
async def test_a_machine_is_switched_at_its_own_place_only(stub, board, target):
    stub.target = target
    await fails(Redfish().turn_off(board))
    assert stub.on and not [one for one in stub.asked if one.startswith("POST")]


@pytest.mark.parametrize(
    "members",
    [
        ["https://127.0.0.1/redfish/v1/Systems/1"],
        ["@127.0.0.1/1"],
        ["/elsewhere/1"],
        [f"/redfish/v1/Systems/{PASSWORD}", SYSTEM + "0"],
        [f"/redfish/v1/Systems/{LOG_IN}"] * 2,
        [],
        ["/redfish/v1/Systems/"],
    ],
)
async def test_a_machine_is_found_in_its_service_only(stub, board, members):
    stub.members = members
    await fails(Redfish().is_on(board))
    await fails(Redfish().is_on(replace(board, system="")))
    assert {asked.split(" ")[1] for asked in stub.asked} <= {SYSTEMS}


async def test_of_several_machines_one_must_be_named(stub):
    stub.members = [SYSTEM, "/redfish/v1/Systems/2"]
    said = await fails(Redfish().recognized(named(stub)), "--system")
    assert said.endswith("It has: 1, 2")
    assert (await Redfish().recognized(named(stub, system="2"))).system == "2"
    await fails(Redfish().recognized(named(stub, system="3")), "no machine '3'")


async def test_a_machine_is_not_taken_for_the_only_one_when_there_may_be_others(stub):
    stub.members = [SYSTEM, "/elsewhere/2"]
    await fails(Redfish().recognized(named(stub)), "--system")
    page = {"Members": [{"@odata.id": SYSTEM}], "Members@odata.nextLink": f"{SYSTEMS}?$skip=1"}
    stub.fault = lambda asked: web.json_response(page) if asked.path == SYSTEMS else None
    await fails(Redfish().recognized(named(stub)), "--system")
    assert (await Redfish().recognized(named(stub, system="1"))).system == "1"


async def test_only_a_reset_that_is_allowed_is_asked_for(stub, board):
    stub.allowed = ["GracefulShutdown"]
    await fails(Redfish().turn_off(board), "doesn't allow")
    assert stub.on and f"POST {RESET}" not in stub.asked
    stub.allowed = None  # it doesn't say
    await Redfish().turn_off(board)
    assert not stub.on


@pytest.mark.parametrize("status", [400, 404, 409, 500, 503])
async def test_a_refused_reset_is_an_error(stub, board, status):
    stub.fault = lambda asked: web.Response(status=status) if asked.method == "POST" else None
    await fails(Redfish().turn_off(board), f"HTTP {status}")


async def test_a_board_that_says_yes_and_does_nothing_still_says_on(stub, board):
    stub.fault = lambda asked: web.Response(status=202) if asked.method == "POST" else None
    await Redfish().turn_off(board)
    assert await Redfish().is_on(board)


async def test_a_slow_board_is_given_up(stub, board, monkeypatch):
    monkeypatch.setattr(redfish_service, "CALL_S", 0.3)
    stub.slow_s = 0.2  # each answer within the time, both of them not
    await fails(Redfish().is_on(board), "within 0.3 s")


async def test_what_accepts_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(redfish_service, "CONNECT_S", 0.2)

    with socket.create_server(("127.0.0.1", 0)) as silence:
        port = silence.getsockname()[1]
        mute = Board("127.0.0.1", port, USER, PASSWORD, 17, protocol=BmcProtocol.REDFISH)
        await fails(Redfish().recognized(mute), "does not answer as a Redfish service")
        await fails(
            Redfish().is_on(replace(mute, fingerprint="ab" * 32)), "does not answer as a Redfish"
        )


async def test_an_agent_that_takes_it_for_ipmi_hears_no_off(stub, board):
    stub.on = False
    await fails(Ipmi().is_on(replace(board, protocol=BmcProtocol.IPMI)))


async def test_the_log_in_is_in_no_log(stub, board, caplog):
    caplog.set_level(logging.DEBUG)
    await Redfish().turn_off(board)
    stub.renew_certificate()
    await fails(Redfish().is_on(board))
    assert PASSWORD not in caplog.text and LOG_IN not in caplog.text
    assert PASSWORD not in " ".join(stub.asked) and PASSWORD not in repr(board)
