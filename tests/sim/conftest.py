"""Sums up what the seeds of this session reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim.report import Report, summarize

REPORT = pytest.StashKey[Report]()


@pytest.fixture(scope="session")
def sim_report(pytestconfig: pytest.Config) -> Iterator[Report]:
    """What the storms add to; at the end it is printed and written."""
    report = pytestconfig.stash[REPORT] = Report()
    yield report
    report.write("sim-report.json")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    summarize(config.stash.get(REPORT, None), terminalreporter)
