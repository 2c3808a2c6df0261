"""What the worlds must reach: a misfortune that never happens proves nothing."""

from __future__ import annotations

from tests.sim.report import Report

KNOWN_WEAKNESS = "known weakness: "

# How often 100 seeds reach each at least; about half of what they did when this was written.
EXPECTED_PER_100_SEEDS: dict[str, float] = {}


def too_rare(report: Report) -> dict[str, str]:
    """Return what the seeds reached less often than they should; few seeds owe nothing."""
    return {
        what: f"{report.reached[what]} of {int(per_100 * report.seeds / 100)}"
        for what, per_100 in EXPECTED_PER_100_SEEDS.items()
        if report.seeds >= 50 and report.reached[what] < int(per_100 * report.seeds / 100)
    }
