"""Management boards through the API and the command line: asked first, used, and their passwords never shown."""

import pytest

from core.model import Audit, Bmc
from nodeagent.api.keys import AGENT
from nodeagent.power.drivers import PowerDrivers
from nodeagent.power.memory import CERTIFICATE
from tests.api import problem_of
from tests.redfish import RedfishBoard

BODY = {"host": "h1", "address": "10.9.0.1", "user": "kvorum", "password": "geheim-4711"}


@pytest.fixture
def power(api):
    found = api.app[AGENT].power
    found.on["10.9.0.1"] = True
    return found


async def test_a_board_is_named_shown_asked_used_and_forgotten(api, member, power):
    made = await api.post("/v1/bmcs", json=BODY)
    assert made.status == 201
    shown = await made.json()
    assert (shown["host_name"], shown["state"], shown["port"]) == ("h1", "ok", 623)
    for path in ("/v1/bmcs", "/v1/bmcs/h1", "/v1/bmcs?q=host.name=h1", "/v1/audits"):
        answer = await api.get(path)
        assert answer.status == 200
        assert "geheim" not in await answer.text()
    assert "geheim" not in str(member.store.all(Audit))
    assert await (await api.get("/v1/bmcs/h1/power")).json() == {"host": "h1", "on": True}
    assert (await api.post("/v1/bmcs/h1/actions/power-on")).status == 204
    assert (await api.delete("/v1/bmcs/h1")).status == 204
    assert member.store.all(Bmc) == []
    await problem_of(await api.get("/v1/bmcs/h1/power"), 404, "not-found")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"host": "nobody"}, 404),
        ({"address": "-o"}, 400),
        ({"address": "10.9.0.1; reboot"}, 400),
        ({"user": "-U"}, 400),
        ({"user": "a b"}, 400),
        ({"password": ""}, 400),
        ({"password": "x" * 21}, 400),
        ({"port": 65536}, 400),
        ({"cipher_suite": 0}, 400),
        ({"cipher_suite": 5}, 400),
        ({"address": "10.9.0.2"}, 503),
        ({"fingerprint": "c0" * 32}, 400),
        ({"system": "1"}, 400),
        ({"protocol": "telnet"}, 400),
        ({"protocol": "redfish", "fingerprint": "c0" * 31}, 400),
        ({"protocol": "redfish", "fingerprint": "c0" * 33}, 400),
        ({"protocol": "redfish", "system": "a/b"}, 400),
        ({"protocol": "redfish", "user": "a:b"}, 400),
        ({"protocol": "redfish", "password": "x" * 129}, 400),
        ({"protocol": "redfish", "fingerprint": "ab" * 32}, 503),
    ],
)
async def test_what_cannot_be_a_board_is_refused(api, member, power, change, status):
    answer = await api.post("/v1/bmcs", json=BODY | change)
    text = await answer.text()
    assert answer.status == status, text
    assert "geheim" not in text
    assert member.store.all(Bmc) == []


async def test_a_redfish_board_is_recorded_with_the_certificate_that_it_showed(api, power):
    made = await api.post("/v1/bmcs", json=BODY | {"protocol": "redfish", "password": "x" * 99})
    assert made.status == 201
    shown = await made.json()
    told = [shown[key] for key in ("protocol", "port", "fingerprint", "system", "state")]
    assert told == ["redfish", 443, CERTIFICATE, "1", "ok"]
    assert await (await api.get("/v1/bmcs/h1/power")).json() == {"host": "h1", "on": True}


async def test_a_host_is_asked_by_a_real_redfish_service_until_its_certificate_changes(api, member):
    api.app[AGENT].services.bmcs.driver = PowerDrivers()
    async with RedfishBoard(BODY["password"]).running() as stub:
        body = BODY | {"protocol": "redfish", "address": "127.0.0.1", "port": stub.port}
        made = await api.post("/v1/bmcs", json=body)
        assert made.status == 201, await made.text()
        assert (await made.json())["fingerprint"] == stub.fingerprint
        stub.on = False
        assert (await api.post("/v1/bmcs/h1/actions/power-on")).status == 204
        assert stub.on and (await (await api.get("/v1/bmcs/h1/power")).json())["on"]
        stub.renew_certificate()
        stub.asked.clear()
        problem = await problem_of(await api.get("/v1/bmcs/h1/power"), 503, "unavailable")
        assert stub.fingerprint in problem["detail"] and stub.asked == []
    assert "geheim" not in str(member.store.all(Audit)) + str(member.store.all(Bmc))


async def test_a_new_certificate_is_taken_when_it_is_named_and_not_before(api, power):
    body = BODY | {"protocol": "redfish"}
    assert (await api.post("/v1/bmcs", json=body)).status == 201
    new = "0A:" * 31 + "0A"
    power.certificates["10.9.0.1"] = "0a" * 32
    problem = await problem_of(await api.post("/v1/bmcs", json=body), 503, "unavailable")
    assert "another certificate" in problem["detail"]
    await problem_of(await api.get("/v1/bmcs/h1/power"), 503, "unavailable")
    made = await api.post("/v1/bmcs", json=body | {"fingerprint": new})
    assert (await made.json())["fingerprint"] == "0a" * 32
    assert (await api.get("/v1/bmcs/h1/power")).status == 200


async def test_a_board_of_another_machine_is_refused(api, power):
    power.on["10.9.0.1"] = False
    problem = await problem_of(await api.post("/v1/bmcs", json=BODY), 409, "conflict")
    assert "belongs to another machine" in problem["detail"]


async def test_power_is_taken_only_from_a_host_that_is_named_twice_and_not_from_oneself(api, power):
    await api.post("/v1/bmcs", json=BODY)
    off = "/v1/bmcs/h1/actions/power-off"
    assert (await api.post(off, json={"confirm": "h2"})).status == 400
    problem = await problem_of(await api.post(off, json={"confirm": "h1"}), 409, "conflict")
    assert "ask another" in problem["detail"]
    assert power.on["10.9.0.1"]
