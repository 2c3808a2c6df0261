"""Runs the tasks whose runner is this host: each task's workflow, resumed from its journal when it was begun before.

One asyncio task a workflow; tasks on different resources run side by side, up to a limit a kind. The journal is part of the task's
record, so whoever looks sees the progress, and a restarted agent goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError
from core.model import JournalEntry, StepMark, Task, TaskState
from core.work_queue import QueueFullError
from core.workflow import (
    CancelledByUserError,
    Definition,
    RollbackIncompleteError,
    RolledBackError,
    Step,
    run_workflow,
)
from nodeagent.node import Node
from nodeagent.services.work_kinds import kind_of_task

log = logging.getLogger(__name__)

ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
RETRY_S = 3.0


class TaskTakenError(ConflictError):
    """The task was ended or given to another host meanwhile, e.g. by failover: this host must leave it alone."""

    code = "task-taken"


MakeSteps = Callable[[Task, Definition], Sequence[Step]]


class TaskRunner:
    """Watches for tasks of this host."""

    def __init__(
        self,
        node: Node,
        definitions: Mapping[str, Definition],
        make_steps: MakeSteps,
        *,
        prepare: Callable[[], Awaitable[None]],
    ) -> None:
        """`prepare` runs before the first task of a run, e.g. to remove what an agent that died left unfinished."""
        self._prepare = prepare
        self._node = node
        self._definitions = definitions
        self._make_steps = make_steps
        self._running: set[str] = set()

    async def run(self) -> None:
        """Run tasks until cancelled."""
        await self._prepare()
        watch = self._node.store.watch(Task)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for task in self._node.store.all(Task):
                        mine = task.runner_host_id == self._node.host_id
                        if mine and task.state not in ENDED and task.id not in self._running:
                            self._running.add(task.id)
                            group.create_task(self._run_task(task), name=f"task-{task.id}")
                    await watch.next()
        finally:
            self._node.store.unwatch(watch)

    async def _run_task(self, task: Task) -> None:
        journal = StoreJournal(self._node, task.id)
        try:
            while True:
                if await self._in_turn(task, journal):
                    return
                await asyncio.sleep(RETRY_S)
        finally:
            self._running.discard(task.id)

    async def _in_turn(self, task: Task, journal: StoreJournal) -> bool:
        """Attempt it when its turn comes. A turn isn't kept while waiting to try again, so stuck tasks hold up no others."""
        try:
            async with self._node.queues.turn(kind_of_task(task.workflow), task.subject):
                return await self._attempt(task.id, journal)
        except QueueFullError as error:
            log.warning("a task waits", extra={"task": task.id, "error": error.message})
            return False

    async def _attempt(self, task_id: str, journal: StoreJournal) -> bool:
        """Run the workflow once; True when the task is over for this host."""
        task = self._node.store.get(Task, task_id)
        if task is None or task.state in ENDED or task.runner_host_id != self._node.host_id:
            return True
        try:
            await self._run_workflow(task, journal)
        except RollbackIncompleteError as error:
            log.warning(
                "a task's undo is tried again", extra={"task": task_id, "error": error.message}
            )
            return False
        except PlatformError as error:
            log.warning("a task waits", extra={"task": task_id, "error": error.message})
            return False
        return True

    async def _run_workflow(self, task: Task, journal: StoreJournal) -> None:
        """Run or resume a task to its end and record it. Interrupted anywhere, the next run does what is left."""
        definition = self._definitions.get(task.workflow)
        if definition is None:
            why = f"workflow {task.workflow!r} is unknown here"
            await journal.end(TaskState.FAILED, why, "unknown-workflow")
            return
        journal.use(definition)
        await journal.begin()
        steps = self._make_steps(task, definition)
        try:
            await run_workflow(steps, journal, cancel_requested=journal.cancel_requested)
        except RolledBackError:
            await journal.end_rolled_back()
        else:
            await journal.end(TaskState.SUCCEEDED)


class StoreJournal:
    """A workflow's journal inside its task's record."""

    def __init__(self, node: Node, task_id: str) -> None:
        self._node = node
        self._task_id = task_id
        self._step_count = 1

    def use(self, definition: Definition) -> None:
        """Know how many steps there are, for the progress shown."""
        self._step_count = max(1, len(definition.steps))

    def marks(self) -> Mapping[str, StepMark]:
        return {entry.step: entry.mark for entry in self._task().journal}

    def rolling_back(self) -> bool:
        return self._task().state is TaskState.ROLLING_BACK

    def cancel_requested(self) -> bool:
        """Tell whether someone asked to cancel."""
        return self._task().cancel_requested

    async def begin(self) -> None:
        """Mark the task as running."""
        if self._task().state is TaskState.PENDING:
            await self._update(lambda task: replace(task, state=TaskState.RUNNING))

    async def record(self, step: str, mark: StepMark) -> None:
        entry = JournalEntry(step=step, mark=mark, at_ms=self._node.clock.wall_ms())

        def add(task: Task) -> Task:
            journal = (*task.journal, entry)
            done = sum(1 for e in journal if e.mark is StepMark.DONE)
            progress = min(99, 100 * done // self._step_count)
            return replace(task, journal=journal, step=step, progress=max(progress, task.progress))

        await self._update(add)

    async def record_rollback(self, error: PlatformError) -> None:
        await self._update(
            lambda task: replace(
                task, state=TaskState.ROLLING_BACK, error=error.message, error_code=error.code
            )
        )

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
