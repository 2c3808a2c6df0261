"""Rows of the failure matrix that every change has to pass; `make ha-matrix` plays all (docs/ha-matrix.md).

They play one after the other on one cluster, which has to be healthy again after each.
"""

from __future__ import annotations

import pytest

from tests.integration.conftest import in_own_loop
from tools.ha_matrix.ground import Ground
from tools.ha_matrix.rows import ROWS
from tools.ha_matrix.run import play
from tools.ha_matrix.verdict import THREE, Row, Verdict, judge
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

QUICK = ("1", "2", "17", "26")


@pytest.fixture(scope="module")
def ground(lab: Lab) -> Ground:
    formed: Ground = in_own_loop(Ground.form(lab, THREE))
    return formed


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.title in QUICK], ids=lambda it: it.title
)
async def test_row_of_the_matrix_ends_as_expected(ground: Ground, row: Row) -> None:
    outcome, watch = await play(row, ground)
    result = judge(row, outcome, watch)
    await ground.heal()
    assert result.verdict is Verdict.PASS, result
