"""Changing the profile and disarming, through the API: what is refused and why, what waits, and what is shown."""

import pytest
from msgspec.structs import replace

from core.model import VM, Arming, Event, Host, Lease, Mesh, VMPhase
from ha.arming import holds, old_guards, under_way
from ha.profile import PROFILES
from ha.renewal_gaps import RenewalGaps
from nodeagent.api.keys import AGENT
from nodeagent.joining.founding import MESH_ID
from tests.api import problem_of
from tests.one_member import HOST_ID, OTHER_ID

DEFAULT = PROFILES["default"]
WHY = {"reason": "new switches"}


def said(lease, *, lease_s=12.0, watchdog_s=6.0, disarmed=False):
    return replace(lease, lease_s=lease_s, watchdog_s=watchdog_s, disarmed=disarmed)


@pytest.fixture
async def settings(api, member):
    """This host's guard says what it keeps to."""
    await member.store.apply(puts=(said(member.store.need(Lease, HOST_ID)),))
    return api.app[AGENT].services.ha


def mesh(member):
    return member.store.need(Mesh, MESH_ID)


async def test_a_profile_is_changed_and_hosts_that_are_behind_are_named(api, member, settings):
    answer = await api.patch("/v1/ha/profile", json={"name": "wide"})
    assert answer.status == 200, await answer.text()
    shown = await answer.json()
    assert (shown["name"], shown["safe_s"], shown["hosts_behind"]) == ("wide", 42.0, ["h1"])
    assert mesh(member).ha_profiles_before == ("default",)
    await member.store.apply(
        puts=(said(member.store.need(Lease, HOST_ID), lease_s=30.0, watchdog_s=10.0),)
    )
    assert (await (await api.get("/v1/ha/status")).json())["hosts_behind"] == []
    await problem_of(await api.patch("/v1/ha/profile", json={"name": "reckless"}), 400, "invalid")


async def test_nothing_is_changed_while_a_guard_does_not_say_what_it_keeps_to(api, member):
    for answer in (
        await api.patch("/v1/ha/profile", json={"name": "wide"}),
        await api.post("/v1/ha/actions/disarm", json=WHY),
    ):
        detail = (await problem_of(answer, 409, "conflict"))["detail"]
        assert "h1" in detail
    assert (mesh(member).ha_profile, mesh(member).ha_arming) == ("default", Arming.ARMED)


async def test_a_profile_that_the_network_does_not_hold_is_refused_unless_forced(
    api, member, settings, monkeypatch
):
    monkeypatch.setattr(settings._health.own, "_gap_s", lambda: 3.6)
    refused = await api.patch("/v1/ha/profile", json={"name": "moonshot"})
    detail = (await problem_of(refused, 409, "network-too-slow"))["detail"]
    assert "h1" in detail and "3.6 s" in detail and "3.5 s" in detail and "wide" in detail
    forced = await api.patch("/v1/ha/profile", json={"name": "moonshot", "force": True})
    assert forced.status == 200


async def test_disarming_waits_for_what_is_under_way_and_ends_in_time(api, member, settings):
    vm = VM(
        id="v1",
        name="web",
        cluster_id=member.store.need(Host, HOST_ID).cluster_id,
        host_id=HOST_ID,
        cpus=1,
        memory_mib=128,
        migrating_to_host_id=HOST_ID,
    )
    await member.store.apply(puts=(vm,))
    answer = await api.post("/v1/ha/actions/disarm", json=WHY | {"rearm_after_s": 60})
    shown = await answer.json()
    assert (shown["state"], shown["reason"]) == ("disarming", "new switches")
    assert shown["waits_for"] == ["VM web is being migrated"]
    await settings._step()
    assert mesh(member).ha_arming is Arming.DISARMING
    await member.store.apply(puts=(replace(member.store.need(VM, "v1"), migrating_to_host_id=""),))
    await settings._step()
    assert mesh(member).ha_arming is Arming.DISARMED
    assert mesh(member).ha_disarmed_by
    assert "ha-disarmed" in {event.code for event in member.store.all(Event)}
    await problem_of(await api.post("/v1/ha/actions/disarm", json=WHY), 409, "conflict")
    await settings._step()
    assert mesh(member).ha_arming is Arming.DISARMED
    await member.store.apply(puts=(replace(mesh(member), ha_rearm_ms=1),))
    await settings._step()
    assert (mesh(member).ha_arming, mesh(member).ha_disarmed_by) == (Arming.ARMED, "")


async def test_arming_ends_it_and_asks_for_nothing(api, member, settings):
    assert (await api.post("/v1/ha/actions/disarm", json=WHY)).status == 200
    await settings._step()
    health = await (await api.get("/v1/health")).json()
    assert "ha-disarmed" in {finding["code"] for finding in health["findings"]}
    for _ in range(2):
        armed = await api.post("/v1/ha/actions/arm")
        assert (await armed.json())["state"] == "armed"


@pytest.mark.parametrize(
    "body", [{"reason": ""}, {"reason": "x" * 201}, WHY | {"rearm_after_s": 5}]
)
async def test_a_wish_without_a_reason_or_with_an_odd_time_is_refused(api, settings, body):
    await problem_of(await api.post("/v1/ha/actions/disarm", json=body), 400, "invalid")


def test_a_host_that_is_off_blocks_nothing_unless_it_votes():
    host = Host(id=OTHER_ID, name="h2", cluster_id="c", address="h2")
    leases = {OTHER_ID: Lease(id=OTHER_ID, name="h2", boot_id="b", seq=1)}
    for age_s, voters, old in ((18.9, (), ["h2"]), (19.0, (), []), (19.0, (OTHER_ID,), ["h2"])):
        assert old_guards(DEFAULT, [host], leases, {OTHER_ID: age_s}, voters) == old


def test_a_vm_of_a_silent_host_is_waited_for_until_it_is_blocked():
    host = Host(id=OTHER_ID, name="h2", cluster_id="c", address="h2")
    vm = VM(
        id="v",
        name="web",
        cluster_id="c",
        host_id=OTHER_ID,
        cpus=1,
        memory_mib=1,
        phase=VMPhase.RUNNING,
    )
    assert under_way(DEFAULT, [host], [vm], {}, {OTHER_ID: 1.0}) == []
    assert under_way(DEFAULT, [host], [vm], {}, {OTHER_ID: 9.0}) != []
    blocked = replace(vm, blocked_reason="no proof")
    assert under_way(DEFAULT, [host], [blocked], {}, {OTHER_ID: 9.0}) == []


class Clock:
    now_s = 100.0

    def monotonic_s(self):
        return self.now_s


def test_the_longest_gap_is_kept_for_ten_minutes_and_an_open_one_counts():
    clock = Clock()
    gaps = RenewalGaps(clock)
    assert gaps.worst_s() is None
    for step_s in (0.0, 1.0, 4.0, 1.0):
        clock.now_s += step_s
        gaps.renewed(12.0)
    assert gaps.worst_s() == 4.0
    clock.now_s += 5.0
    assert gaps.worst_s() == 5.0
    for _ in range(598):
        clock.now_s += 1.0
        gaps.renewed(12.0)
    clock.now_s += 1.5
    gaps.renewed(12.0)
    assert gaps.worst_s() == 6.0
    for _ in range(10):
        clock.now_s += 1.0
        gaps.renewed(12.0)
    assert gaps.worst_s() == 1.5
    clock.now_s += 12.0
    gaps.renewed(12.0)
    assert gaps.worst_s() == 1.5, "its lease ended: it was cut off"
    assert holds(12.0, 5.9) and not holds(12.0, 6.0) and holds(1.0, None)
