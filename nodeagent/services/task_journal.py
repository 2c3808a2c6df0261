"""A workflow's journal, log, progress and result inside its task's record: one commit for each change of a step.

Used by the task runner. Whoever looks at any agent sees them, also after the runner is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError
from core.model import JournalEntry, LogLine, PlannedStep, StepMark, Task, TaskState
from core.workflow import NO_RESULT, CancelledByUserError
from nodeagent.node import Node

ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
LOG_LINES_MAX = 50
TEXT_LENGTH_MAX = 500
RESULTS_MAX = 20


class TaskTakenError(ConflictError):
    """The task was ended or given to another host meanwhile, e.g. by failover: this host must leave it alone."""

    code = "task-taken"


class StoreJournal:
    """See `core.workflow.Journal`."""

    def __init__(self, node: Node, task_id: str) -> None:
        self._node = node
        self._task_id = task_id
        self._resumed = False

    def marks(self) -> Mapping[str, StepMark]:
        return {entry.step: entry.mark for entry in self._task().journal}

    def rolling_back(self) -> bool:
        return self._task().state is TaskState.ROLLING_BACK

    def cancel_requested(self) -> bool:
        """Tell whether someone asked to cancel."""
        return self._task().cancel_requested

    async def begin(self, plan: tuple[PlannedStep, ...]) -> None:
        """Mark the task as running by this plan. That it is resumed is written with the next line."""
        state = self._task().state
        self._resumed = state is not TaskState.PENDING
        if not self._resumed:
            state = TaskState.RUNNING
        if not self._resumed or self._task().plan != plan:
            await self._update(lambda task: replace(task, state=state, plan=plan))

    async def record(
        self, step: str, mark: StepMark, result: Mapping[str, str] = NO_RESULT
    ) -> None:
        entry = JournalEntry(step=step, mark=mark, at_ms=self._node.clock.wall_ms())

        def add(task: Task) -> Task:
            task = self._with_resumed(task)
            task = replace(task, journal=(*task.journal, entry), step=step)
            return replace(
                task,
                progress=max(_progress(task), task.progress),
                result=_merged(task.result, result),
            )

        await self._update(add)
        self._resumed = False

    async def note(self, step: str, what: str, text: str) -> None:
        line = self._line(what, step, text)
        said = (old for old in reversed(self._task().log) if (old.step, old.what) == (step, what))
        last = next(said, None)
        if last is None or last.text != line.text:
            await self._update(lambda task: with_line(task, line))

    async def record_rollback(self, error: PlatformError) -> None:
        """Note that only undoing happens from now on. What had come of the work is being taken back."""
        cancelled = isinstance(error, CancelledByUserError)
        what = "cancelled" if cancelled else "failed"

        def turn(task: Task) -> Task:
            line = self._line(what, "" if cancelled else task.step, error.message)
            return replace(
                with_line(self._with_resumed(task), line),
                state=TaskState.ROLLING_BACK,
                error=error.message,
                error_code=error.code,
                result={},
            )

        await self._update(turn)
        self._resumed = False

    async def end_rolled_back(self) -> None:
        """Record that all is undone. What began the rollback was recorded then, maybe by an earlier run."""
        cancelled = self._task().error_code == CancelledByUserError.code
        await self.end(TaskState.CANCELLED if cancelled else TaskState.FAILED)

    async def end(self, state: TaskState, error: str = "", code: str = "") -> None:
        """Record the outcome; an ended task never changes again."""
        now_ms = self._node.clock.wall_ms()

        def finish(task: Task) -> Task:
            return replace(
                task,
                state=state,
                error=error or task.error,
                error_code=code or task.error_code,
                progress=100 if state is TaskState.SUCCEEDED else task.progress,
                step="" if state is TaskState.SUCCEEDED else task.step,
                ended_ms=now_ms,
            )

        await self._update(finish)

    def _task(self) -> Task:
        return self._node.store.need(Task, self._task_id)

    def _with_resumed(self, task: Task) -> Task:
        if not self._resumed:
            return task
        return with_line(task, self._line("resumed", "", f"by host {self._node.host_name}"))

    def _line(self, what: str, step: str, text: str) -> LogLine:
        now_ms = self._node.clock.wall_ms()
        return LogLine(after=0, at_ms=now_ms, what=what, step=step, text=text[:TEXT_LENGTH_MAX])

    async def _update(self, change: Callable[[Task], Task]) -> None:
        """Commit a change of the task; someone may ask to cancel at the same time, so once more on a conflict.

        Raises:
            TaskTakenError: it is not this host's any more.
            UnavailableError: no quorum; the workflow stops here and is resumed later.
        """
        for attempt in range(3):
            task = self._task()
            if task.state in ENDED or task.runner_host_id != self._node.host_id:
                raise TaskTakenError("the task was ended or given to another host meanwhile")
            try:
                await self._node.store.apply(puts=(change(task),))
            except PlatformError as error:
                if error.code != "conflict-guard" or attempt == 2:
                    raise
            else:
                return


def with_line(task: Task, line: LogLine) -> Task:
    """Return the task with one more line of its log, at the present place among those of the journal; old ones go."""
    placed = replace(line, after=len(task.journal))
    return replace(task, log=(*task.log, placed)[-LOG_LINES_MAX:])


def _progress(task: Task) -> int:
    """Return the share of the steps done by their weights, 99 at most before the end."""
    done = {entry.step for entry in task.journal if entry.mark is StepMark.DONE}
    weights = {planned.step: planned.weight for planned in task.plan}
    total = sum(weights.values())
    if not total:
        return 0
    return min(99, 100 * sum(weights.get(step, 0) for step in done) // total)


def _merged(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return both, with the bounds of a result: 20 entries of short texts."""
    merged = {**old, **{str(key)[:64]: str(value)[:TEXT_LENGTH_MAX] for key, value in new.items()}}
    return dict(list(merged.items())[:RESULTS_MAX])
