"""The laws of failover in whole worlds: by seed, and under faults that hypothesis looks for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ha.profile import PROFILES
from tests.sim.report import Report
from tests.sim_ha.faults import NEVER_S, Fault, Kind, Setting, names
from tests.sim_ha.report import too_rare
from tests.sim_ha.schedule import random_faults, random_setting
from tests.sim_ha.world import World, play_seed

PROFILE = PROFILES["default"]
CALM = Setting(losses=0.0, slow=False, migrations=0.0)
ONE = st.sampled_from([(name,) for name in names(3)])
FAULTS = st.one_of(
    st.builds(
        Fault,
        st.sampled_from([kind for kind in Kind if kind not in (Kind.MESH, Kind.BLACKOUT)]),
        ONE,
        st.floats(5, 60),
        st.floats(1, 60),
    ),
    st.builds(
        Fault,
        st.just(Kind.MESH),
        st.sampled_from([("h1", "h2"), ("h2", "h3"), ("h1", "h3")]),
        st.floats(5, 60),
        st.floats(1, 60),
    ),
    st.builds(Fault, st.just(Kind.BLACKOUT), st.just(names(3)), st.floats(5, 60), st.floats(1, 30)),
)


def test_the_laws_of_failover_hold_in_a_random_world(seed: int, sim_ha_report: Report) -> None:
    sim_ha_report.add(play_seed(seed).reached)


def test_the_worlds_reach_every_kind_of_trouble(sim_ha_report: Report) -> None:
    assert not too_rare(sim_ha_report)


@pytest.mark.timeout(90)
@settings(max_examples=60)
@given(number=st.integers(0, 2**32), faults=st.lists(FAULTS, max_size=6))
def test_the_laws_of_failover_hold_whatever_fails(number: int, faults: list[Fault]) -> None:
    World(random.Random(number), Setting(everybody_leads=number % 2 == 0), faults).play()


@pytest.mark.parametrize("number", [3, 4, 7, 8])
def test_a_seed_repeats_itself(number: int) -> None:
    first: list[str] = []
    second: list[str] = []
    play_seed(number, write=first.append)
    play_seed(number, write=second.append)
    assert first == second


@pytest.mark.parametrize("number", range(5))
def test_wall_clocks_set_wrong_change_nothing(number: int) -> None:
    rng = random.Random(number)
    setting = random_setting(rng)
    faults = [
        fault
        for fault in random_faults(rng, names(setting.hosts), PROFILE.safe_s)
        if fault.kind is not Kind.WALL
    ]
    steps = [Fault(Kind.WALL, (name,), 10.0 + number) for name in names(setting.hosts)]
    stories = []
    for wrong in ([], steps):
        story: list[str] = []
        World(random.Random(number), setting, [*faults, *wrong], write=story.append).play()
        stories.append([line for line in story if Kind.WALL not in line])
    assert stories[0] == stories[1]


def story_of(faults: list[Fault], setting: Setting = CALM) -> World:
    return World(random.Random(1), setting, faults).play()


def test_a_host_cut_off_for_long_loses_its_vm_to_another_in_time() -> None:
    story: list[str] = []
    World(random.Random(1), CALM, [Fault(Kind.CUT, ("h1",), 20.0, 50.0)], write=story.append).play()
    moved_s = next(
        float(line.split()[0]) for line in story if "vm1 runs on" in line and "on h1" not in line
    )
    assert PROFILE.safe_s - 1.5 < moved_s - 20.0 < PROFILE.safe_s + 5


def test_a_host_that_two_others_see_differently_keeps_its_guests() -> None:
    world = story_of([Fault(Kind.MESH, ("h1", "h2"), 20.0, 50.0)])
    assert world.reached["guests killed"] == world.reached["hosts reset"] == 0


def test_an_even_split_starts_nothing_and_all_run_again_after_it() -> None:
    four = Setting(hosts=4, vms=4, losses=0.0, slow=False, migrations=0.0)
    world = story_of([Fault(Kind.SPLIT, ("h1", "h2"), 20.0, 40.0)], four)
    assert world.reached["guests killed"] == 4
    assert world.reached["recoveries by time"] == 0


def test_agents_that_are_down_for_long_harm_no_guest() -> None:
    world = story_of([Fault(Kind.AGENT, ("h1",), 20.0, 50.0)])
    assert world.reached["guests killed"] == world.reached["guests destroyed by agents"] == 0
    assert world.reached["renewals through another agent"] > 10


def test_all_run_again_after_the_power_is_back() -> None:
    world = story_of([Fault(Kind.BLACKOUT, names(3), 20.0, 20.0)])
    assert {vm.generation for vm in world.log.state.vms.values()} == {2}


def test_a_vm_of_a_host_without_watchdog_waits_for_a_person_and_says_so() -> None:
    unarmed = Setting(losses=0.0, slow=False, migrations=0.0, no_watchdog=frozenset({"h1"}))
    gone = Fault(Kind.POWER, ("h1",), 20.0, NEVER_S)
    world = story_of([gone], unarmed)
    assert world.log.state.vms["vm1"].host_id == "h1"
    assert "confirm-off" in world.log.state.vms["vm1"].blocked_reason
    confirmed = story_of([gone, Fault(Kind.CONFIRM, ("h1",), 45.0)], unarmed)
    assert confirmed.reached["recoveries by fenced"] == 1
