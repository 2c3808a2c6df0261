"""Plays rows: makes the ground, lets the observer watch, judges, heals, and makes the ground anew where it stays broken."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from core.errors import PlatformError
from tools.ha_matrix.ground import Ground
from tools.ha_matrix.shapes import ORDER
from tools.ha_matrix.verdict import Missed, Result, Row, Seen, Verdict, Watch, judge, not_run
from tools.lab import cleanup
from tools.lab.observer import EVERY_S, Observer

WATCH_S = 0.1
LOG_LINES = 12
HOLLOW_LOOK_S = 0.25
"""How often a hundred QEMUs are looked at: ten times a second would take a sixth of a core from those that start them."""


class DoubleWriterSeen(Exception):
    """The observer saw two writers: the row has failed, and ends at once."""


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows by the ground they need, those that spoil it last, then by number."""
    return sorted(
        rows, key=lambda row: (ORDER.index(row.shape), row.spoils, row.number, row.variant)
    )


@dataclass(slots=True)
class Runner:
    """Plays rows one by one in a lab of this name. `told` is called with each result as soon as it is there."""

    lab: str
    say: Callable[[str], object]
    told: Callable[[Result], object] = lambda result: None
    _ground: Ground | None = field(default=None)

    async def run(self, rows: Sequence[Row]) -> None:
        """Play all of them; the lab is gone on return."""
        try:
            for row in in_order(rows):
                result = await self._one(row)
                measured = "" if result.measured_s is None else f" {result.measured_s:.2f} s"
                bound = "" if row.bound_s is None else f" (bound {row.bound_s:g} s)"
                self.say(
                    f"row {row.title:<22} {result.verdict.upper():<8}{measured}{bound}  {row.fault}: {result.reason}"
                )
                self.told(result)
        finally:
            await self._clear()

    async def _one(self, row: Row) -> Result:
        if row.play is None:
            return not_run(row, row.why_not)
        try:
            ground = await self._on(row)
        except PlatformError as error:
            await self._clear()
            return not_run(row, f"its cluster didn't come up: {error.message}")
        began_s = time.monotonic()
        outcome, watch = await play(row, ground)
        result = judge(
            row, outcome, watch, took_s=time.monotonic() - began_s, load=os.getloadavg()[0]
        )
        if result.verdict is Verdict.FAIL:
            self._show_logs(ground, row)
        await self._afterwards(row, ground)
        return result

    async def _on(self, row: Row) -> Ground:
        if self._ground is not None and self._ground.shape != row.shape:
            await self._clear()
        if self._ground is None:
            self.say(f"making a cluster: {row.shape.name}")
            self._ground = await Ground.make(self.lab, row.shape)
        return self._ground

    async def _afterwards(self, row: Row, ground: Ground) -> None:
        if row.spoils:
            await self._clear()
            return
        try:
            await ground.heal()
        except (PlatformError, Missed) as error:
            self.say(f"the cluster is made anew after row {row.title}: {error}")
            await self._clear()

    async def _clear(self) -> None:
        self._ground = None
        await cleanup.remove(self.lab)

    def _show_logs(self, ground: Ground, row: Row) -> None:
        """Keep what agents and guards wrote, for a look at a row that failed."""
        for host in ground.hosts:
            for service in ("agent", "guard"):
                lines = ground.lab.log_text(host, service).splitlines()[-LOG_LINES:]
                self.say(f"--- row {row.title}: {service} of {host}\n" + "\n".join(lines))


async def play(row: Row, ground: Ground) -> tuple[Seen | str, Watch]:
    """Play one row under the eyes of the observer; return what was seen, or a text that says what was missed."""
    assert row.play is not None
    outcome: Seen | str = "it never ended"
    every_s = HOLLOW_LOOK_S if ground.shape.hollow else EVERY_S
    with Observer(ground.lab, every_s=every_s) as observer:
        ground.observer = observer
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(row, observer), name="double writers")
                async with asyncio.timeout(row.deadline_s):
                    outcome = await row.play(ground)
                watching.cancel()
        except* TimeoutError:
            outcome = f"not over within {row.deadline_s:g} s"
        except* DoubleWriterSeen:
            outcome = "ended at once"
        except* (Missed, PlatformError) as errors:
            outcome = _said(errors)
        except* (OSError, LookupError, ValueError, TypeError) as errors:
            # An answer was missing or not as ever: that is a failure of the row, and no reason to play no others.
            outcome = _said(errors)
    return outcome, _watched(observer)


def _said(error: BaseException) -> str:
    """Return what an error says, or the first of a group: a row's own work is a group too."""
    match error:
        case BaseExceptionGroup():
            return _said(error.exceptions[0])
        case PlatformError():
            return error.message
        case Missed():
            return str(error)
        case _:
            return f"{type(error).__name__}: {error}"


async def _watch(row: Row, observer: Observer) -> None:
    while row.trusted or not observer.double_writers:
        await asyncio.sleep(WATCH_S)
    raise DoubleWriterSeen


def _watched(observer: Observer) -> Watch:
    first = next(iter(observer.double_writers), None)
    text = ""
    if first is not None:
        holders = ", ".join(f"pid {it.pid} of {it.host}" for it in first.holders)
        text = f"{first.path} open for writing in {holders}"
    return Watch(text, observer.samples, observer.longest_gap_s)
