"""Runs the tasks whose runner is this host: each task's workflow, resumed from its journal when it was begun before.

One asyncio task a workflow; tasks on different resources run side by side, up to a limit a kind. The journal is part of the task's
record, so whoever looks sees the progress, and a restarted agent goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum

from core.errors import PlatformError, UnavailableError
from core.logs import REQUEST_ID
from core.model import PlannedStep, Severity, Task, TaskState
from core.work_queue import QueueFullError
from core.workflow import (
    RepeatStepError,
    RollbackIncompleteError,
    RolledBackError,
    Step,
    run_workflow,
)
from core.workflow_definition import Definition
from nodeagent.node import Node
from nodeagent.services.catching_up import caught_up
from nodeagent.services.event_log import EventLog
from nodeagent.services.giving_up import STUCK, give_up, is_wanted
from nodeagent.services.task_journal import ENDED, StoreJournal
from nodeagent.services.work_kinds import kind_of_task

log = logging.getLogger(__name__)

RETRY_S, RETRY_S_MAX = 3.0, 30.0
# A step or an undo that failed so many times in a row doesn't mend itself: people are told, and it is tried less often.
STUCK_TRIES, STUCK_RETRY_S_MAX = 8, 300.0


# Makes the steps of these names; KeyError for one that this agent does not know.
MakeSteps = Callable[[Task, Sequence[str]], Sequence[Step]]


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
        self._reasons: dict[str, str] = {}
        self._pauses: dict[str, _Pause] = {}
        self._events = EventLog(node)

    async def run(self) -> None:
        """Run tasks until cancelled."""
        await caught_up(self._node.store)
        await self._prepare()
        watch = self._node.store.watch(Task)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for task in self._node.store.all(Task):
                        mine = task.runner_host_id == self._node.host_id
                        if pause := self._pauses.get(task.id):
                            pause.look_at(task)
                        if mine and task.state not in ENDED and task.id not in self._running:
                            self._running.add(task.id)
                            group.create_task(self._run_task(task), name=f"task-{task.id}")
                    await watch.next()
        finally:
            self._node.store.unwatch(watch)

    async def _run_task(self, task: Task) -> None:
        REQUEST_ID.set(task.request_id)  # for this asyncio task, and for what it calls
        journal = StoreJournal(self._node, task.id)
        tries, told, told_ever = 0, False, False
        try:
            while True:
                begun = self._node.store.get(Task, task.id) or task
                if is_wanted(begun) and await self._given_up(begun, journal):
                    return
                outcome = await self._in_turn(task, journal)
                if outcome is _Outcome.OVER:
                    if told_ever:
                        await self._tell_goes_on(task.id)
                    return
                now = self._node.store.get(Task, task.id) or begun
                if len(now.journal) > len(begun.journal):
                    tries, told = 0, False  # it went on, and it is another step that fails now
                tries = tries + 1 if outcome is _Outcome.STEP_WAITS else 0
                if tries >= STUCK_TRIES and not told:
                    told = await self._tell_stuck(task.id, journal)
                    told_ever = told_ever or told
                await self._pause(begun, pause_after(tries))
        finally:
            self._running.discard(task.id)
            self._reasons.pop(task.id, None)

    async def _pause(self, begun: Task, seconds: float) -> None:
        """Wait before the next try, but no longer once people ask for it, or to cancel; maybe they did during the last."""
        pause = self._pauses[begun.id] = _Pause(begun)
        try:
            pause.look_at(self._node.store.get(Task, begun.id) or begun)
            async with asyncio.timeout(seconds):
                await pause.over.wait()
        except TimeoutError:
            pass
        finally:
            del self._pauses[begun.id]

    async def _given_up(self, task: Task, journal: StoreJournal) -> bool:
        """Give a task up as people asked for, in its resource's turn; False: it can't be, or not now, and goes on."""
        try:
            async with self._node.queues.turn(kind_of_task(task.workflow), task.subject):
                plan = _plan_of(task, self._definitions.get(task.workflow))
                ended = await give_up(self._node, task.id, self._steps_of(task, plan))
        except PlatformError as error:
            log.warning("a task is not given up", extra={"task": task.id, "error": error.message})
            self._reasons[task.id] = error.message
            return False
        about = f"{ended.workflow} of {ended.subject_name or ended.subject} was {ended.error}"
        if ended.left_behind:
            about += "; it may have left: " + "; ".join(left.what for left in ended.left_behind)
        await self._events.record("task-given-up", ended, about, severity=Severity.ALARM)
        return True

    async def _tell_stuck(self, task_id: str, journal: StoreJournal) -> bool:
        """Say, in the task's log and in an event, that this needs people, and what they can do; False: not said yet."""
        task = self._node.store.get(Task, task_id)
        if task is None:
            return False
        text = (
            f"failed {STUCK_TRIES} times and is not given up, as it can neither be left half done nor taken back. "
            f"Mend the cause; it is tried again every {STUCK_RETRY_S_MAX / 60:g} minutes, and at once on "
            f"'kvorum task retry {task_id}'. The cause: {self._reasons.get(task_id, 'see the log')}"
        )
        try:
            await journal.note(task.step, STUCK, text)
        except PlatformError as error:
            log.warning("a task waits", extra={"task": task_id, "error": error.message})
            return False
        about = f"{task.workflow} of {task.subject_name or task.subject}: step {task.step} {text}"
        await self._events.record("task-stuck", task, about, severity=Severity.WARNING)
        return True

    async def _tell_goes_on(self, task_id: str) -> None:
        task = self._node.store.get(Task, task_id)
        if task is not None:
            about = f"{task.workflow} of {task.subject_name or task.subject} went on and is over"
            await self._events.record("task-goes-on", task, about)

    async def _in_turn(self, task: Task, journal: StoreJournal) -> _Outcome:
        """Attempt it when its turn comes. A turn isn't kept while waiting to try again, so stuck tasks hold up no others."""
        try:
            async with self._node.queues.turn(kind_of_task(task.workflow), task.subject):
                return await self._attempt(task.id, journal)
        except QueueFullError as error:
            log.warning("a task waits", extra={"task": task.id, "error": error.message})
            return _Outcome.STORE_WAITS

    async def _attempt(self, task_id: str, journal: StoreJournal) -> _Outcome:
        """Run the workflow once."""
        task = self._node.store.get(Task, task_id)
        if task is None or task.state in ENDED or task.runner_host_id != self._node.host_id:
            return _Outcome.OVER
        try:
            await self._run_workflow(task, journal)
        except (RollbackIncompleteError, RepeatStepError) as error:
            log.warning(
                "a task's step is tried again", extra={"task": task_id, "error": error.message}
            )
            self._reasons[task_id] = error.message
            return _Outcome.STEP_WAITS
        except PlatformError as error:
            log.warning("a task waits", extra={"task": task_id, "error": error.message})
            return _Outcome.STORE_WAITS
        return _Outcome.OVER

    async def _run_workflow(self, task: Task, journal: StoreJournal) -> None:
        """Run or resume a task to its end and record it. Interrupted anywhere, the next run does what is left."""
        definition = self._definitions.get(task.workflow)
        plan = _plan_of(task, definition)
        try:
            steps = self._steps_of(task, plan)
        except UnavailableError as error:
            if task.journal:
                raise  # something was begun that only those steps can undo
            await journal.end(TaskState.FAILED, error.message, "unknown-workflow")
            return
        await journal.begin(plan)
        rules = definition.rules if definition is not None else {}
        try:
            await run_workflow(
                steps, journal, cancel_requested=journal.cancel_requested, rules=rules
            )
        except RolledBackError:
            await journal.end_rolled_back()
        else:
            await journal.end(TaskState.SUCCEEDED)

    def _steps_of(self, task: Task, plan: Sequence[PlannedStep]) -> Sequence[Step]:
        if not plan:
            raise UnavailableError(f"workflow {task.workflow!r} is unknown on this host")
        try:
            return self._make_steps(task, [planned.step for planned in plan])
        except KeyError as error:
            raise UnavailableError(
                f"step {error} of workflow {task.workflow!r} is unknown on this host: install its plug-in"
            ) from None
        except Exception as error:
            log.exception("the steps of a task could not be made", extra={"task": task.id})
            raise UnavailableError(
                f"the steps of workflow {task.workflow!r} can't be made: {type(error).__name__}: {error}"
            ) from error


def pause_after(tries: int) -> float:
    """Return how long to wait after so many failures of a step in a row; 0: it waits for something else."""
    limit_s = RETRY_S_MAX if tries < STUCK_TRIES else STUCK_RETRY_S_MAX
    pause_s: float = RETRY_S * 2 ** max(0, min(tries, STUCK_TRIES) - 1)
    return min(pause_s, limit_s)


class _Pause:
    """A wait for the next try. It is over when more is asked of the task than when the last one `begun`."""

    def __init__(self, begun: Task) -> None:
        self._asked = _wishes(begun)
        self.over = asyncio.Event()

    def look_at(self, task: Task) -> None:
        if _wishes(task) != self._asked:
            self.over.set()


def _wishes(task: Task) -> tuple[object, ...]:
    """Return what people have asked of a task."""
    return (task.retries_asked, task.cancel_requested, task.give_up_reason, task.give_up_after)


class _Outcome(Enum):
    """How a try of a task ended: for good, at a step or an undo that can't go on, or without quorum."""

    OVER = "over"
    STEP_WAITS = "step-waits"
    STORE_WAITS = "store-waits"


def _plan_of(task: Task, definition: Definition | None) -> tuple[PlannedStep, ...]:
    """Return the steps that the task began with, so that a new version of its workflow takes no undo from it.

    A task that an older version began has no plan: what its journal names beside the definition stays in front.
    """
    if task.plan or definition is None:
        return task.plan
    plan = tuple(
        PlannedStep(step=rule.ref, inside=inside, weight=rule.weight)
        for inside, rule in definition.walk()
    )
    known = {planned.step for planned in plan}
    others = dict.fromkeys(entry.step for entry in task.journal if entry.step not in known)
    return (*(PlannedStep(step=step) for step in others), *plan)
