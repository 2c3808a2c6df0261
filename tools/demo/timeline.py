"""The demo's record: what happened, how long it took, printed as it goes and written as JSON at the end.

`tools.demo.story` adds to it. The file is written on failure too, with what was seen until then.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it went."""

    name: str
    seconds: float
    detail: str


class Report(msgspec.Struct, kw_only=True):
    """The file `build/demo.json`. Figures are None until they were measured."""

    ok: bool = False
    steps: list[StepRecord] = []
    failover_seconds: float | None = None
    migration_pings_lost: int | None = None
    double_writer: bool | None = None
    error: str = ""


@dataclass(slots=True)
class Step:
    """A step under way; set `detail` to what was seen."""

    detail: str = ""


class Timeline:
    """Prints and remembers steps."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.report = Report()
        self._say = say
        self._began_s = time.monotonic()

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Step]:
        """Time what happens inside; an error is recorded as this step's outcome and goes on."""
        step = Step()
        began_s = time.monotonic()
        try:
            yield step
        except BaseException as error:
            step.detail = f"failed: {error}"
            raise
        finally:
            now_s = time.monotonic()
            seconds = round(now_s - began_s, 2)
            self.report.steps.append(StepRecord(name=name, seconds=seconds, detail=step.detail))
            detail = f"  {step.detail}" if step.detail else ""
            self._say(f"{now_s - self._began_s:7.1f} s  {seconds:6.2f} s  {name}{detail}")

    def write(self, path: Path) -> None:
        """Write the report."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self.report)) + b"\n")
