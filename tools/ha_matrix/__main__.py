"""`make ha-matrix`: play the failure matrix in the lab; leaves `build/ha-matrix.json` and `.md`. Exit code 1 if a row failed."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from core.command import CommandError, run
from core.errors import InvalidError
from tools.ha_matrix.numbers import numbers
from tools.ha_matrix.report import Machine, Report, write
from tools.ha_matrix.rows import ROWS
from tools.ha_matrix.run import Runner
from tools.ha_matrix.verdict import Result, Row, Verdict
from tools.lab.layout import REPOSITORY

LAB = "matrix"


def say(text: str) -> None:
    """Print at once, so that a pipe shows progress too."""
    print(text, flush=True)


def chosen(text: str) -> tuple[Row, ...]:
    """Return the rows that a list of numbers names, all if it is empty.

    Raises:
        InvalidError: there is no such row.
    """
    if not text.strip():
        return ROWS
    known = {str(row.number) for row in ROWS}
    wanted = set(text.replace(",", " ").split())
    if unknown := wanted - known:
        raise InvalidError(f"no row {min(unknown)}: rows are {', '.join(sorted(known, key=int))}")
    return tuple(row for row in ROWS if str(row.number) in wanted)


async def _commit() -> str:
    try:
        done = await run(
            ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"], timeout_s=10.0
        )
    except CommandError:
        return "unknown"
    return done.stdout.decode().strip()


async def matrix(rows: tuple[Row, ...], out: Path, lab: str = LAB) -> int:
    """Play rows and write the report after each; return the exit code."""
    results: list[Result] = []
    began = datetime.now(UTC).isoformat(timespec="seconds")
    load, commit = os.getloadavg()[0], await _commit()

    def report() -> Report:
        ordered = sorted(results, key=lambda result: (result.row, result.variant))
        machine = Machine(
            cores=os.cpu_count() or 1,
            accelerator="TCG",
            load_at_begin=round(load, 2),
            load_at_end=round(os.getloadavg()[0], 2),
        )
        return Report(
            began=began,
            commit=commit,
            machine=machine,
            rows=tuple(ordered),
            numbers=numbers(ordered),
        )

    def told(result: Result) -> None:
        results.append(result)
        write(report(), out)

    await Runner(lab, say, told).run(rows)
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    for number in report().numbers:
        if number.met is not None:
            met = "met" if number.met else "NOT MET"
            say(f"{number.name}: {number.measured:g} {number.unit} (≤ {number.target:g}): {met}")
    say(f"{len(results)} rows, {len(failed)} failed (written to {out})")
    return 1 if failed else 0


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tools.ha_matrix", description=__doc__)
    parser.add_argument("--rows", default="", help="numbers, with commas (default: all)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "ha-matrix.json")
    parser.add_argument("--lab", default=LAB, help="name of the lab that is made, and removed")
    arguments = parser.parse_args()
    try:
        rows = chosen(arguments.rows)
    except InvalidError as error:
        parser.error(error.message)
    sys.exit(asyncio.run(matrix(rows, arguments.out, arguments.lab)))


if __name__ == "__main__":
    main()
