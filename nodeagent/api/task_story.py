"""What a task shows of its work: every step of its plan as it stands, and one log from the journal and what is beside it.

Used by `nodeagent.api.views`. Pure: all of it is in the task's record, so any agent can tell it.
"""

from __future__ import annotations

from typing import Any

from core.model import LogLine, Task


def task_story(task: Task) -> dict[str, Any]:
    """Return `steps` in their order and `log` in time's order, in place of `plan` and the stored log."""
    marks = {entry.step: str(entry.mark) for entry in task.journal}
    inside = {planned.step: list(planned.inside) for planned in task.plan}
    steps = [
        {
            "step": planned.step,
            "inside": list(planned.inside),
            "weight": planned.weight,
            "state": marks.get(planned.step, "waiting"),
        }
        for planned in task.plan
    ]
    log: list[dict[str, Any]] = []
    beside = list(task.log)
    for place in range(len(task.journal) + 1):
        while beside and beside[0].after <= place:
            log.append(_line(beside.pop(0), inside))
        if place < len(task.journal):
            entry = task.journal[place]
            at = LogLine(after=place, at_ms=entry.at_ms, what=str(entry.mark), step=entry.step)
            log.append(_line(at, inside))
    log.extend(_line(line, inside) for line in beside)
    return {"steps": steps, "log": log}


def _line(line: LogLine, inside: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "at_ms": line.at_ms,
        "what": line.what,
        "step": line.step,
        "inside": inside.get(line.step, []),
        "text": line.text,
    }
