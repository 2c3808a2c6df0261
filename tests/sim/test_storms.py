"""Consensus under everything at once, by seed: safety always, and service once it is over."""

import pytest

from tests.sim.simulate import storm


def test_nothing_acknowledged_is_lost_in_a_storm(tmp_path, seed, sim_report):
    sim_report.add(storm(tmp_path, seed))


@pytest.mark.parametrize("seed", [3, 4, 7, 8])
def test_a_seed_repeats_itself(tmp_path, seed):
    first, second = storm(tmp_path / "first", seed), storm(tmp_path / "second", seed)
    assert first == second


def test_the_seeds_reach_every_kind_of_trouble(sim_report):
    assert not sim_report.too_rare()
