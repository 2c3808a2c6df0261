"""`build/ha-matrix.json` and its table for people, `build/ha-matrix.md`. Written anew after every row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from tools.ha_matrix.numbers import Number
from tools.ha_matrix.verdict import Result


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran: measured times depend on it. Loads are averages over one minute."""

    cores: int
    accelerator: str
    load_at_begin: float
    load_at_end: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    began: str
    commit: str
    machine: Machine
    rows: tuple[Result, ...]
    numbers: tuple[Number, ...]


def write(report: Report, path: Path) -> None:
    """Write the JSON, and beside it the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    path.with_suffix(".md").write_text(table(report), encoding="utf-8")


def table(report: Report) -> str:
    """Return the report as Markdown."""
    counts = Counter(str(result.verdict) for result in report.rows)
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    machine = report.machine
    lines = [
        "# Failure matrix",
        "",
        f"{report.began}, commit {report.commit}: {total}. {machine.cores} cores, guests under {machine.accelerator}, "
        f"load average {machine.load_at_begin:.1f} at the begin and {machine.load_at_end:.1f} at the end.",
        "",
        "| # | fault | expected | bound (s) | measured (s) | verdict | what was seen |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(result) for result in report.rows]
    lines += [
        "",
        "| number | target | measured | met | row |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_number(number) for number in report.numbers]
    return "\n".join(lines) + "\n"


def _line(result: Result) -> str:
    number = f"{result.row} ({result.variant})" if result.variant else str(result.row)
    cells = (
        number,
        result.fault,
        result.expected,
        _figure(result.bound_s),
        _figure(result.measured_s),
        str(result.verdict),
        result.reason,
    )
    return _cells(cells)


def _number(number: Number) -> str:
    met = {True: "yes", False: "no", None: f"? ({number.why})"}[number.met]
    target = f"≤ {number.target:g} {number.unit}"
    return _cells((number.name, target, _figure(number.measured), met, number.row))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _cells(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
