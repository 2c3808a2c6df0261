"""Giving up a task that can neither go on nor be undone: when that is allowed, and what is recorded then.

The API asks (`nodeagent.api.tasks`), the task's own runner does it between two tries, in the resource's turn, so nothing of
the task runs any more when its resource is free again. Allowed only where all that may be left behind is known garbage: each
unfinished step says what it is (`left_behind`). Steps that may leave a running guest behind don't, so their tasks stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from core.errors import ConflictError
from core.model import VM, Leftover, LogLine, PowerState, StepMark, Task, TaskState, VMPhase
from core.workflow import Step
from nodeagent.node import Node
from nodeagent.services.task_journal import TEXT_LENGTH_MAX, with_line

log = logging.getLogger(__name__)


STUCK = "stuck"
LEFTOVERS_MAX = 50

LeavesBehind = Callable[[str], bool | None]
"""Tells whether a step can say what it leaves behind; None: the step isn't known here."""


def is_stuck(task: Task) -> bool:
    """Tell whether it failed so often since its last progress that people were told."""
    return any(line.what == STUCK and line.after == len(task.journal) for line in task.log)


def is_wanted(task: Task) -> bool:
    """Tell whether somebody asked for it, and it has made no progress since."""
    return bool(task.give_up_reason) and task.give_up_after == len(task.journal)


def unfinished(task: Task) -> tuple[str, ...]:
    """Return the steps that have left something, maybe: begun and not done, or not undone when it is being undone."""
    marks = {entry.step: entry.mark for entry in task.journal}
    back = task.state is TaskState.ROLLING_BACK
    open_marks = (StepMark.BEGUN, StepMark.DONE) if back else (StepMark.BEGUN,)
    return tuple(step for step, mark in marks.items() if mark in open_marks)


def check(task: Task, leaves_behind: LeavesBehind) -> None:
    """See that a task may be given up as it is now.

    Raises:
        ConflictError: it may not; the message says why.
    """
    if not is_stuck(task):
        raise ConflictError(
            "the task isn't stuck: only one that has failed 8 times in a row, which the event task-stuck tells, can be given up",
            code="not-stuck",
        )
    bad = [step for step in unfinished(task) if leaves_behind(step) is False]
    if bad:
        raise ConflictError(
            f"step {bad[0]} can't be given up: a guest may run, or run on another host, and nobody would know. "
            f"Mend the cause and have it tried again: kvorum task retry {task.id}",
            code="not-to-give-up",
        )


async def give_up(node: Node, task_id: str, steps: Sequence[Step]) -> Task:
    """End a task as failed with a list of what it leaves, and take its resource out of use, in one transaction.

    Raises:
        ConflictError: it may not be given up, or somebody changed it at this moment.
        UnavailableError: no quorum.
    """
    task = node.store.need(Task, task_id)
    by_name = {step.name: step for step in steps}
    check(task, lambda name: hasattr(by_name.get(name), "left_behind"))
    begun = [by_name[name] for name in unfinished(task)]
    now_ms = node.clock.wall_ms()
    line = LogLine(
        after=0, at_ms=now_ms, what="given-up", text=task.give_up_reason[:TEXT_LENGTH_MAX]
    )
    why = f"given up: {task.give_up_reason}" + (
        f" (it failed by: {task.error})" if task.error else ""
    )
    ended = replace(
        with_line(task, line),
        state=TaskState.FAILED,
        error=why[: 2 * TEXT_LENGTH_MAX],
        error_code="given-up",
        result={},
        left_behind=tuple(one for step in begun for one in _left_by(step))[:LEFTOVERS_MAX],
        ended_ms=now_ms,
    )
    await node.store.apply(puts=(ended, *_out_of_use(node, task, begun)))
    log.warning("a task was given up", extra={"task": task_id, "reason": task.give_up_reason})
    return node.store.get(Task, task_id) or ended


def _left_by(step: Step) -> Sequence[Leftover]:
    """Return what a step may leave; one that can't say counts as having left something."""
    try:
        return tuple(step.left_behind())  # type: ignore[attr-defined]  # `check` has looked
    except Exception as error:  # a plug-in's step may do anything
        log.exception("a step can't say what it leaves", extra={"step": step.name})
        what = f"unknown: {type(error).__name__}: {error}"
        return (Leftover(step=step.name, what=what[:TEXT_LENGTH_MAX]),)


def _out_of_use(node: Node, task: Task, begun: Sequence[Step]) -> tuple[VM, ...]:
    """Return the VM as one that only deleting is left for, if its files or records are in doubt: it never starts again."""
    vm = node.store.get(VM, task.subject.removeprefix("vm/"))
    if vm is None or not any(getattr(step, "spoils_vm", False) for step in begun):
        return ()
    why = f"{task.workflow} was given up ({task.give_up_reason}): delete the VM to remove what is left of it"
    return (
        replace(
            vm,
            power=PowerState.STOPPED,
            phase=VMPhase.DELETING,
            blocked_reason=why[:TEXT_LENGTH_MAX],
        ),
    )
