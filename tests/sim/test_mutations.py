"""The simulator finds known defects: each is put back, and must be found soon; the real code passes the same seeds."""

import tempfile
from pathlib import Path

import pytest

from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.raft_chaos import chaos
from tests.sim.simulate import simulate

ENOUGH_SEEDS = 300


def violates(mutation: Mutation, seed: int, *, planted: bool) -> bool:
    """Run one seed, with the defect or without it."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            if planted:
                with mutation.planted():
                    simulate(Path(directory), seed, chaos, flavour=mutation.flavour)
            else:
                simulate(Path(directory), seed, chaos, flavour=mutation.flavour)
        except Exception:  # noqa: BLE001 - a violation shows in many ways, and this test is about any
            return True
    return False


@pytest.mark.timeout(150)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_defect_put_back_is_found_and_the_real_code_stands(mutation):
    found = next(
        (seed for seed in range(ENOUGH_SEEDS) if violates(mutation, seed, planted=True)), None
    )
    assert found is not None, f"{mutation.name}: not found in {ENOUGH_SEEDS} seeds"
    print(f"{mutation.name}: found by seed {found} of flavour {mutation.flavour.name}")
    assert not violates(mutation, found, planted=False)
