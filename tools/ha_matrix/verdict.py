"""What a row of the matrix is, what was seen when it was played, and how that is judged. Pure.

`rows` declares rows, `run` plays them, `report` writes the results.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tools.ha_matrix.ground import Ground


class Verdict(StrEnum):
    """How a row ended. What wasn't played has never passed."""

    PASS = "pass"
    FAIL = "fail"
    NOT_RUN = "not run"


class Missed(Exception):
    """What was expected didn't happen; the message says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The cluster that a row is played on. `witness` names hosts that vote only, `boards` gives each host a BMC,
    `clock` lets the wall clocks of agents and guards be set, `hollow` makes guests of 64 MiB of which only the outside is there."""

    name: str = "three hosts"
    hosts: int = 3
    witness: tuple[str, ...] = ()
    profile: str = "default"
    boards: bool = False
    clock: bool = False
    hollow: bool = False


THREE = Shape()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured: `measured_s` is held against the row's bound; `figures` are for the numbers, by name."""

    detail: str
    measured_s: float | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One fault and what must come of it. Rows that can't be played have no `play`, and say `why_not`.

    `spoils` marks rows after which the cluster is made anew, `deadline_s` is for all of a row, also what comes before the fault, `trusted` marks the one whose
    fault breaks what is trusted, so that two writers don't fail it: they are told in what was seen.
    """

    number: int
    fault: str
    expected: str
    bound_s: float | None = None
    shape: Shape = THREE
    play: Callable[[Ground], Awaitable[Seen]] | None = None
    why_not: str = ""
    variant: str = ""
    spoils: bool = False
    deadline_s: float = 420.0
    trusted: bool = False

    @property
    def title(self) -> str:
        """Return number and variant."""
        return f"{self.number} ({self.variant})" if self.variant else str(self.number)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A row as it went. `load` is the machine's load average when it ended: 2 cores run all hosts and guests."""

    row: int
    variant: str
    fault: str
    expected: str
    bound_s: float | None
    measured_s: float | None
    verdict: Verdict
    reason: str
    figures: dict[str, float] = {}
    took_s: float = 0.0
    load: float = 0.0
    observer_samples: int = 0
    observer_gap_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What the outside observer has to say of a row: the first double writer, if any, and how closely it looked."""

    double_writer: str = ""
    samples: int = 0
    gap_s: float = 0.0


def judge(
    row: Row, outcome: Seen | str, watch: Watch, *, took_s: float = 0.0, load: float = 0.0
) -> Result:
    """Return the result of a row that was played; `outcome` is a text when it missed what was expected."""
    measured_s = outcome.measured_s if isinstance(outcome, Seen) else None
    verdict, reason = _verdict(row, outcome, watch)
    return Result(
        row=row.number,
        variant=row.variant,
        fault=row.fault,
        expected=row.expected,
        bound_s=row.bound_s,
        measured_s=None if measured_s is None else round(measured_s, 2),
        verdict=verdict,
        reason=reason,
        figures={name: round(value, 3) for name, value in outcome.figures.items()}
        if isinstance(outcome, Seen)
        else {},
        took_s=round(took_s, 1),
        load=round(load, 2),
        observer_samples=watch.samples,
        observer_gap_s=round(watch.gap_s, 2),
    )


def _verdict(row: Row, outcome: Seen | str, watch: Watch) -> tuple[Verdict, str]:
    if watch.double_writer and not row.trusted:
        return Verdict.FAIL, f"two writers at a time: {watch.double_writer}"
    if isinstance(outcome, str):
        return Verdict.FAIL, outcome
    if watch.samples == 0:
        return Verdict.FAIL, f"the observer never looked; {outcome.detail}"
    if row.bound_s is None:
        return Verdict.PASS, outcome.detail
    if outcome.measured_s is None:
        return Verdict.FAIL, f"nothing was measured; {outcome.detail}"
    if outcome.measured_s > row.bound_s:
        late = f"{outcome.measured_s:.2f} s is more than {row.bound_s:g} s"
        return Verdict.FAIL, f"{late}; {outcome.detail}"
    return Verdict.PASS, outcome.detail


def not_run(row: Row, why: str) -> Result:
    """Return the result of a row that was not played."""
    return Result(
        row=row.number,
        variant=row.variant,
        fault=row.fault,
        expected=row.expected,
        bound_s=row.bound_s,
        measured_s=None,
        verdict=Verdict.NOT_RUN,
        reason=why,
    )
