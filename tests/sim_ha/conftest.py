"""Sums up what the seeds of this session reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim.report import Report, summarize
from tests.sim_ha.world import quiet

REPORT = pytest.StashKey[Report]()


@pytest.fixture(autouse=True, scope="session")
def quiet_guards() -> None:
    quiet()


@pytest.fixture(scope="session")
def sim_ha_report(pytestconfig: pytest.Config) -> Iterator[Report]:
    """What the worlds add to; at the end it is printed and written."""
    report = pytestconfig.stash[REPORT] = Report()
    yield report
    report.write("sim-ha-report.json")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    summarize(config.stash.get(REPORT, None), terminalreporter)
