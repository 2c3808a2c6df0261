"""Amounts in the unit that people would use."""

import pytest

from core.quantities import in_larger_unit


@pytest.mark.parametrize(
    ("amount", "unit", "said"),
    [
        (64 << 40, "bytes", "64 TiB"),
        (1 << 30, "bytes", "1 GiB"),
        ((1 << 30) + 512, "bytes", ""),
        (16 << 20, "MiB", "16 TiB"),
        (100, "MiB", ""),
        (604_800, "seconds", "7 days"),
        (86_400, "seconds", "1 day"),
        (5_400, "seconds", "90 minutes"),
        (59, "seconds", ""),
        (0, "seconds", ""),
        (1000, "milliseconds since 1970", ""),
    ],
)
def test_an_amount_is_said_in_the_largest_unit_that_it_is_a_whole_number_of(amount, unit, said):
    assert in_larger_unit(amount, unit) == said
