"""The numbers that are promised of failover, each computed from the rows that measure it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tools.ha_matrix.verdict import Result, Verdict


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: at most `target` of `unit`, found as figure `figure` of a row."""

    name: str
    target: float
    unit: str
    row: int
    figure: str
    variant: str = ""


TARGETS = (
    Target(
        "a VM of a host without power runs again, default profile", 21.0, "s", 1, "runs_again_s"
    ),
    Target(
        "a VM of a host without power runs again, moonshot profile",
        13.5,
        "s",
        1,
        "runs_again_s",
        "moonshot profile",
    ),
    Target("guests touched when all agents are killed", 0.0, "guests", 16, "guests_touched"),
    Target(
        "guests touched when all agents are upgraded, one after the other",
        0.0,
        "guests",
        16,
        "guests_touched",
        "upgrade",
    ),
    Target("VMs of a dead host that had 100 run again, p95", 30.0, "s", 30, "p95_s"),
    Target("the API answers writes again after the leader was lost", 6.0, "s", 5, "api_again_s"),
    Target("the virtual IP answers again after the leader was lost", 6.0, "s", 5, "vip_again_s"),
    Target(
        "cold start: the first VM runs, counted from the second agent that is up",
        40.0,
        "s",
        13,
        "first_vm_s",
    ),
    Target(
        "longest time without an acknowledged write at the other hosts while the leader is lost",
        3.0,
        "s",
        5,
        "api_gap_s",
    ),
)


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """A promise beside what was measured; `met` is None when nothing was, and `why` says why."""

    name: str
    target: float
    unit: str
    measured: float | None
    met: bool | None
    row: str
    why: str = ""


def numbers(results: Iterable[Result], targets: Sequence[Target] = TARGETS) -> tuple[Number, ...]:
    """Return every promise with what these results say of it."""
    by_row = {(result.row, result.variant): result for result in results}
    return tuple(_number(target, by_row.get((target.row, target.variant))) for target in targets)


def _number(target: Target, result: Result | None) -> Number:
    measured = result.figures.get(target.figure) if result is not None else None
    if result is None:
        why = "its row was not chosen"
    elif result.verdict is Verdict.NOT_RUN:
        why = f"not run: {result.reason}"
    elif measured is None:
        why = f"its row didn't measure it: {result.reason}"
    else:
        why = ""
    return Number(
        name=target.name,
        target=target.target,
        unit=target.unit,
        measured=measured,
        met=None if measured is None else measured <= target.target,
        row=f"{target.row} ({target.variant})" if target.variant else str(target.row),
        why=why,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values doesn't exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
    return ordered[rank - 1]
