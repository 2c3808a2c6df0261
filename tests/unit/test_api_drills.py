"""Drills through the API: checked, refused unless confirmed and possible, shown, ended early, and reported."""

import pytest

from core.model import Audit, Drill, DrillKind, DrillState, DrillVerdict
from tests.api import problem_of
from tests.one_member import HOST_ID

CHECK = "/v1/drills/actions/check"
POWER_OFF = {"kind": "power-off", "host": "h1"}


async def recorded(member, **fields) -> Drill:
    drill = Drill(
        id="d",
        name="power-off-h1-d",
        kind=DrillKind.POWER_OFF,
        host_id=HOST_ID,
        host_label="h1",
        **fields,
    )
    await member.store.apply(puts=(drill,))
    return member.store.need(Drill, "d")


async def test_a_check_names_what_stands_in_the_way_and_does_nothing(api, member):
    answer = await api.post(CHECK, json=POWER_OFF)
    assert answer.status == 200
    plan = await answer.json()
    codes = {obstacle["code"] for obstacle in plan["obstacles"]}
    assert {"no-bmc", "vote-needed", "no-observer"} <= codes
    assert not plan["possible"]
    assert member.store.all(Drill) == []


async def test_nothing_is_broken_unless_the_name_is_repeated(api, member):
    for confirm in ({}, {"confirm": ""}, {"confirm": "h2"}, {"confirm": HOST_ID}):
        answer = await api.post("/v1/drills", json=POWER_OFF | confirm)
        problem = await problem_of(answer, 400, "drill-not-confirmed")
        assert "'h1'" in problem["detail"]
    full = await api.post("/v1/drills", json={"kind": "full-power-loss", "confirm": "h1"})
    await problem_of(full, 400, "drill-not-confirmed")
    refused = await api.post("/v1/drills", json=POWER_OFF | {"confirm": "h1"})
    problem = await problem_of(refused, 409, "drill-not-possible")
    assert "no BMC" in problem["detail"]
    assert member.store.all(Drill) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "earthquake", "host": "h1"}, 400),
        ({"kind": "power-off"}, 400),
        ({"kind": "full-power-loss", "host": "h1"}, 400),
        ({"kind": "power-off", "host": "h1; reboot"}, 404),
        ({"kind": "network-cut", "host": "h1", "duration_s": 121}, 400),
        ({"kind": "network-cut", "host": "h1", "duration_s": -1}, 400),
        ({"kind": "storage-loss", "host": "h1", "data_storage": "nowhere"}, 404),
        ({"kind": "power-off", "host": "h1", "force": True}, 400),
    ],
)
async def test_what_is_no_drill_is_refused(api, body, status):
    assert (await api.post(CHECK, json=body)).status == status


async def test_a_drill_is_shown_ended_early_once_and_reported(api, member):
    await recorded(member, state=DrillState.WATCHING)
    shown = await (await api.get("/v1/drills/power-off-h1-d")).json()
    assert (shown["host_name"], shown["state"]) == ("h1", "watching")
    path = "/v1/drills/power-off-h1-d/actions/abort"
    answer = await api.post(path, json={"reason": "not today"})
    assert (answer.status, (await answer.json())["abort_reason"]) == (202, "not today")
    assert (await api.post(path, json={"reason": "at all"})).status == 202
    assert member.store.need(Drill, "d").abort_reason == "not today"
    report = await (await api.get("/v1/drills/power-off-h1-d/report")).json()
    assert report["text"].startswith("UNDER WAY (watching): power-off h1")
    assert any("abort" in audit.action for audit in member.store.all(Audit))


async def test_a_drill_that_has_ended_is_not_ended_again(api, member):
    await recorded(member, state=DrillState.ENDED, verdict=DrillVerdict.PASSED, why="all is well")
    answer = await api.post("/v1/drills/d/actions/abort", json={})
    await problem_of(answer, 409, "conflict")
    report = await (await api.get("/v1/drills/d/report")).json()
    assert report["line"] == "PASSED: power-off h1: all is well"


async def test_deleting_or_writing_a_drill_is_no_way_around(api, member):
    await recorded(member, state=DrillState.WATCHING)
    assert (await api.delete("/v1/drills/d")).status in (404, 405)
    assert (await api.patch("/v1/drills/d", json={"state": "ended"})).status in (400, 404, 405)
    assert member.store.need(Drill, "d").state is DrillState.WATCHING
