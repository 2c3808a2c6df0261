"""The simulator finds broken rules: each is planted, and must be found soon; the product's rules pass the same seed."""

import pytest

from tests.sim_ha.laws import Violation
from tests.sim_ha.mutations import MUTATIONS, Mutation

ENOUGH_SEEDS = 300


def violates(mutation: Mutation, seed: int, *, planted: bool) -> bool:
    try:
        mutation.play(seed, planted=planted)
    except Violation:
        return True
    return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_found_and_the_product_stands(mutation: Mutation) -> None:
    found = next(
        (seed for seed in range(ENOUGH_SEEDS) if violates(mutation, seed, planted=True)), None
    )
    assert found is not None, f"{mutation.name}: not found in {ENOUGH_SEEDS} seeds"
    print(f"{mutation.name}: found by seed {found}")
    assert not violates(mutation, found, planted=False)
