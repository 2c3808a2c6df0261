"""What simulated runs reached, summed over seeds: printed at the end, written to `build/`, and demanded by a test.

So that the simulator can't go blind: a misfortune that never happens proves nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build"

# How often 100 ordinary seeds reach each at least; about half of what they did when this was written.
EXPECTED_PER_100_SEEDS = {
    "acks": 2500,
    "barriers": 900,
    "elections": 250,
    "leaders elected": 250,
    "leader changes": 200,
    "uncommitted entries truncated": 30,
    "snapshots written": 800,
    "snapshots installed": 150,
    "snapshots loaded at a start": 8,
    "transfers cut": 1,
    "voters added": 25,
    "voters removed": 25,
    "leaders removed": 7,
    "crashes": 60,
    "kills": 25,
    "all off": 8,
    "restarts": 150,
    "power cuts inside I/O": 35,
    "kills inside I/O": 15,
    "torn tails cut": 45,
    "unsynced tails torn": 30,
    "partitions: one link": 45,
    "partitions: one node": 40,
    "partitions: one way": 70,
    "partitions: some links": 25,
    "partitions: two halves": 15,
    "partitions: leader and a mute follower": 55,
    "partitions: leader deposed": 50,
    "link resets": 50,
    "slow links": 100,
    "freezes": 25,
    "clock jumps": 25,
    "slow disks": 25,
    "stalls of a slow disk": 15,
    "full disks": 25,
    "refusals for a full disk": 10,
    "stops for a full disk": 0.5,
    "transfers begun": 200,
    "transfers resumed": 0.5,
    "hand-overs asked": 20,
}


class Report:
    """The sum over the runs of a session."""

    def __init__(self) -> None:
        self.seeds = 0
        self.reached: Counter[str] = Counter()

    def add(self, reached: Counter[str]) -> None:
        self.seeds += 1
        self.reached += reached

    def too_rare(self) -> dict[str, str]:
        """Return what the seeds reached less often than they should; few seeds owe nothing."""
        return {
            what: f"{self.reached[what]} of {int(per_100 * self.seeds / 100)}"
            for what, per_100 in EXPECTED_PER_100_SEEDS.items()
            if self.reached[what] < int(per_100 * self.seeds / 100) and self.seeds >= 50
        }

    def write(self, name: str, **more: object) -> None:
        """Write `build/NAME`."""
        BUILD.mkdir(exist_ok=True)
        content = {"seeds": self.seeds, **more, "reached": dict(sorted(self.reached.items()))}
        (BUILD / name).write_text(json.dumps(content, indent=1) + "\n")

    def lines(self) -> list[str]:
        """Return it for people."""
        return [f"{count:9} {what}" for what, count in sorted(self.reached.items())]


def summarize(report: Report | None, terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the seeds of a session reached; a single one is told in other ways."""
    if report is not None and report.seeds > 1:
        terminalreporter.section(f"what {report.seeds} seeds reached")
        for line in report.lines():
            terminalreporter.line(line)
