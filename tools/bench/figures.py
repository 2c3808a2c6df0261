"""What benches next to a peer result in: figures with their targets, a table for people and JSON for programs.

Used by `tools.bench.raft` (the peer is etcd) and `tools.bench.api` (LXD).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. With the peer's beside it the limits are for the ratio `ours / peer`, else for `ours`."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours as a share of the peer's."""
        return None if not self.peer else self.ours / self.peer

    @property
    def met(self) -> bool:
        """Tell whether the figure is within its limits; one without limits is."""
        value = self.ours if self.peer is None else self.ratio
        if value is None:
            return False
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )

    def target(self, peer: str) -> str:
        """Return the limit in words, with the peer's name; empty if there is none."""
        times = f" x {peer}" if self.peer is not None else ""
        if self.at_least is not None:
            return f">= {self.at_least:g}{times}"
        return f"<= {self.at_most:g}{times}" if self.at_most is not None else ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a bench writes. `rounds` holds what each round measured; `left_out` says why something wasn't."""

    ok: bool
    peer: str
    seconds: float
    load_average: float
    figures: tuple[Figure, ...]
    ratios: dict[str, float]
    rounds: dict[str, list[float]]
    left_out: dict[str, str]


def make_report(
    figures: Sequence[Figure],
    *,
    peer: str,
    seconds: float,
    load_average: float,
    rounds: dict[str, list[float]],
    left_out: dict[str, str] | None = None,
) -> Report:
    """Return the report; it is ok if every figure is within its limits."""
    return Report(
        ok=all(figure.met for figure in figures),
        peer=peer,
        seconds=seconds,
        load_average=round(load_average, 1),
        figures=tuple(figures),
        ratios={f.name: round(f.ratio, 3) for f in figures if f.ratio is not None},
        rounds={name: [round(value, 3) for value in values] for name, values in rounds.items()},
        left_out=left_out or {},
    )


def table(report: Report) -> str:
    """Return the report for people."""
    titles = ("FIGURE", "OURS", report.peer.upper(), "RATIO", "UNIT", "TARGET", "")
    rows = [titles] + [
        (
            figure.name,
            _number(figure.ours),
            _number(figure.peer),
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.unit,
            figure.target(report.peer),
            "" if not figure.target(report.peer) else "ok" if figure.met else "missed",
        )
        for figure in report.figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [f"not measured: {name}: {reason}" for name, reason in report.left_out.items()]
    lines.append(f"load of the machine: {report.load_average:.1f}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
