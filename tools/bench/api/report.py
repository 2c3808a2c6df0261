"""The result: figures with their targets, a table for people and JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. With a peer's beside it the limits are for the ratio `ours / peer`, else for `ours`."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """The limit in words and whether it is kept; empty if there is none."""
        value = self.ours if self.peer is None else self.ours / self.peer
        times = "" if self.peer is None else " x LXD"
        if self.at_least is not None:
            return f">= {self.at_least:g}{times}  {'ok' if value >= self.at_least else 'missed'}"
        if self.at_most is not None:
            return f"<= {self.at_most:g}{times}  {'ok' if value <= self.at_most else 'missed'}"
        return ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`build/bench-api.json`. `rounds` holds what each round measured."""

    seconds: float
    load_average: float
    figures: tuple[Figure, ...]
    rounds: dict[str, list[float]]


def table(report: Report) -> str:
    """Return the report for people."""
    lines = [f"{'FIGURE':72} {'OURS':>9} {'LXD':>9} {'RATIO':>6}  UNIT  TARGET"]
    for figure in report.figures:
        peer = "" if figure.peer is None else f"{figure.peer:.4g}"
        ratio = "" if not figure.peer else f"{figure.ours / figure.peer:.2f}"
        line = f"{figure.name:72} {figure.ours:>9.4g} {peer:>9} {ratio:>6}  {figure.unit}  {figure.verdict}"
        lines.append(line.rstrip())
    return "\n".join((*lines, f"load of the machine: {report.load_average:.1f}"))
