"""What the worlds must reach: a misfortune that never happens proves nothing."""

from __future__ import annotations

from tests.sim.report import Report

RARE = 12.0

# How often 100 seeds reach each at least; about half of what they did when this was written.
EXPECTED_PER_100_SEEDS = {
    "VMs given away at a shutdown": 0.9,
    "VMs that wait for a shutdown": 1.5,
    "blocked": 53,
    "boards that did not answer": 0.8,
    "check refused: lease-old": 4,
    "check refused: not-granted": 1.0,
    "commits whose answer was lost": 84,
    "decisions overtaken": 1433,
    "faults: agent down": 21,
    "faults: another leads": 11,
    "faults: cut off": 59,
    "faults: guard frozen": 10,
    "faults: guard killed": 7,
    "faults: guard's loop frozen": 8,
    "faults: guests die by themselves": 18,
    "faults: guests survive the kill": 14,
    "faults: log applied late": 21,
    "faults: management board dead": 9,
    "faults: nothing comes in": 6,
    "faults: nothing goes out": 6,
    "faults: operator confirms off": 26,
    "faults: orderly shutdown of a host": 9,
    "faults: power loss of a host": 28,
    "faults: power loss of all hosts": 7,
    "faults: two halves": 7,
    "faults: two hosts do not see each other": 12,
    "faults: wall clock set wrong": 18,
    "fenced while off": 4,
    "fenced while on": 3,
    "grant refused: lease-old": 9,
    "grant refused: no-lease": 1.6,
    "guests destroyed by agents": 17,
    "guests killed": 67,
    "guests started": 457,
    "guests that died by themselves": 12,
    "hosts fenced by their boards": 12,
    "hosts lost": 160,
    "hosts readmitted by storages": 4,
    "hosts refused by storages": 8,
    "hosts reset": 19,
    "hosts suspected": 255,
    "hosts switched off": 10,
    "leaders elected": 106,
    "leases ended": 68,
    "migrations": 198,
    "migrations ended": 17,
    "operator came": 26,
    "recoveries by boot": 0.2,
    "recoveries by fenced": 3,
    "recoveries by power": 12,
    "recoveries by storage": 5,
    "recoveries by time": 20,
    "renewals refused: fenced": 1.5,
    "renewals refused: two-boots": 25,
    "renewals through another agent": 121,
    "storages that failed to refuse": 2,
    "storages that refuse a boot": 11,
    "unblocked": 49,
}


def too_rare(report: Report) -> dict[str, str]:
    """Return what the seeds reached less often than they should; few seeds owe nothing."""
    found = {}
    for what, per_100 in EXPECTED_PER_100_SEEDS.items():
        owed = _owed(per_100 * report.seeds / 100)
        if report.seeds >= 50 and report.reached[what] < owed:
            found[what] = f"{report.reached[what]} of {owed}"
    return found


def _owed(expected: float) -> int:
    """Return what is demanded: of what is rare only that it happened at all, for chance would break more than that.

    Each process of a run judges its own share of the seeds, which is another one each time.
    """
    if expected < RARE:
        return 1 if expected >= RARE / 3 else 0
    return int(expected)
