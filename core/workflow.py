"""The workflow engine: run steps in order, undo the begun ones in reverse when one fails.

The task runner of each agent calls it. It keeps nothing itself: the journal is replicated, so when the runner dies
another run resumes from it, forward or backward. Steps are idempotent, as a step may have run just before a crash.
How patient to be with a step is said by its definition (`core.workflow_definition`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from core.errors import ConflictError, PlatformError
from core.model import StepMark
from core.workflow_definition import StepRule

log = logging.getLogger(__name__)

CANCEL_LOOK_S = 1.0
RETRIES_NOTED = 3
NO_RESULT: Mapping[str, str] = {}
NO_RULES: Mapping[str, StepRule] = {}


class Step(Protocol):
    """One idempotent piece of work and its way back. `name` is unique in its workflow.

    `undo` may be called when `do` never ran or ended half-way. That of the first step also takes back what was
    committed together with the task, such as a VM's records or the wish to stop it.

    `do` may return what came of it, for the task's result: a few short texts, never a secret. A step decides where
    cancelling is safe: it may raise CancelledByUserError itself, and it may have two more attributes:
    `may_cancel = False`: a request to cancel is not looked at before this step begins;
    `no_return = True`: once begun there is only forward; failures repeat it and cancelling comes too late.
    A method `left_behind()` says that its task may be given up when it is stuck, and returns what the step may leave then
    (`core.model.Leftover`). No step whose half may be a running guest has it. `spoils_vm = True`: the VM is of no use then.
    """

    @property
    def name(self) -> str: ...

    async def do(self) -> Mapping[str, str] | None: ...

    async def undo(self) -> None: ...


class Journal(Protocol):
    """The replicated record of one run."""

    def marks(self) -> Mapping[str, StepMark]:
        """Return the latest mark of each step."""
        ...

    def rolling_back(self) -> bool:
        """Tell whether an earlier run had begun to undo."""
        ...

    async def record(
        self, step: str, mark: StepMark, result: Mapping[str, str] = NO_RESULT
    ) -> None:
        """Add a line, and what came of the step; it is durable when this returns."""
        ...

    async def note(self, step: str, what: str, text: str) -> None:
        """Add a line to the log that people read; what was just said is not said again."""
        ...

    async def record_rollback(self, error: PlatformError) -> None:
        """Note that from now on only undoing happens, and why."""
        ...


class RolledBackError(PlatformError):
    """The workflow failed and everything it had begun is undone. The message is the failure's."""

    code = "rolled-back"
    http_status = 409


class RollbackIncompleteError(PlatformError):
    """An undo failed; running the workflow again goes on with undoing."""

    code = "rollback-incomplete"


class RepeatStepError(PlatformError):
    """A step has passed the point of no return and failed: nothing is undone, run the workflow again later."""

    code = "repeat-step"
    http_status = 503


class StepTimeoutError(PlatformError):
    """A step took longer than its definition allows."""

    code = "step-timeout"
    http_status = 503


class CancelledByUserError(ConflictError):
    """The task was cancelled by request, between two steps or where a step found it safe."""

    code = "cancelled"


async def run_workflow(
    steps: Sequence[Step],
    journal: Journal,
    *,
    cancel_requested: Callable[[], bool],
    rules: Mapping[str, StepRule] = NO_RULES,
) -> None:
    """Run or resume a workflow to its end, forward or backward. A step without a rule has the default one.

    A cancellation of the asyncio task undoes nothing: another run resumes from the journal.

    Raises:
        RolledBackError: a step failed, or the user cancelled; all is undone.
        RollbackIncompleteError: an undo failed; call again later.
        RepeatStepError: the point of no return is passed and a step failed; call again later to go on forward.
    """
    run = _Run(journal, cancel_requested, rules)
    if not journal.rolling_back():
        failure = await run.forward(steps)
        if failure is None:
            return
        await journal.record_rollback(failure)
        await run.backward(steps)
        raise RolledBackError(failure.message, code=failure.code) from failure
    await run.backward(steps)
    raise RolledBackError("the work was undone after an interruption")


class _Run:
    """One call of `run_workflow`."""

    def __init__(
        self,
        journal: Journal,
        cancel_requested: Callable[[], bool],
        rules: Mapping[str, StepRule],
    ) -> None:
        self._journal = journal
        self._cancel_requested = cancel_requested
        self._rules = rules
        self._can_turn_back = True

    async def forward(self, steps: Sequence[Step]) -> PlatformError | None:
        """Do what is not done yet; return the error that stopped it."""
        for step in steps:
            mark = self._journal.marks().get(step.name)
            no_return, is_first = getattr(step, "no_return", False), step is steps[0]
            if mark is None:
                stop = self._is_cancelled() and getattr(step, "may_cancel", True)
                if stop and not is_first:
                    return CancelledByUserError("the task was cancelled")
                # Before the effect, so that undo is never lost. What the request committed with the task belongs to
                # the first step: cancelled early, it is undone even though nothing was done.
                await self._journal.record(step.name, StepMark.BEGUN)
                if stop and not no_return:
                    return CancelledByUserError("the task was cancelled")
            if no_return:
                self._can_turn_back = False
            if mark is not StepMark.DONE:
                failure = await self._do_and_record(step)
                if failure is not None:
                    return failure
        return None

    async def backward(self, steps: Sequence[Step]) -> None:
        """Undo in reverse what was begun and is not undone yet."""
        marks = self._journal.marks()
        for step in reversed(steps):
            if marks.get(step.name) not in (StepMark.BEGUN, StepMark.DONE):
                continue
            try:
                async with asyncio.timeout(self._rule(step).timeout_s):
                    await step.undo()
            except (Exception, SystemExit) as error:
                log.warning("an undo failed", extra={"step": step.name, "error": str(error)})
                why = f"undoing step {step.name} failed: {str(error) or type(error).__name__}"
                await self._journal.note(step.name, "undo-failed", why)
                raise RollbackIncompleteError(why) from error
            await self._journal.record(step.name, StepMark.UNDONE)

    async def _do_and_record(self, step: Step) -> PlatformError | None:
        try:
            result = await self._do(step) or {}
            if not isinstance(result, Mapping):
                raise TypeError("what `do` returns must be names and texts, or nothing")
        except RepeatStepError as error:
            await self._journal.note(step.name, "repeat", error.message)
            raise
        except PlatformError as error:
            failure = error
        except (Exception, SystemExit) as error:  # a plug-in's step may do anything
            log.exception("a workflow step failed unexpectedly", extra={"step": step.name})
            failure = PlatformError(
                f"internal error in step {step.name}: {type(error).__name__}: {error}"
            )
        else:
            await self._journal.record(step.name, StepMark.DONE, result)
            return None
        if self._can_turn_back:
            return failure
        await self._journal.note(step.name, "repeat", failure.message)
        raise RepeatStepError(
            f"step {step.name} can't be undone and is tried again: {failure.message}"
        ) from failure

    async def _do(self, step: Step) -> Mapping[str, str] | None:
        """Do a step within its time."""
        rule = self._rule(step)
        limit = asyncio.timeout(rule.timeout_s)
        try:
            async with limit:
                return await self._try(step, rule)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StepTimeoutError(
                f"step {step.name} did not end within its {rule.timeout_s:g} s"
            ) from error

    async def _try(self, step: Step, rule: StepRule) -> Mapping[str, str] | None:
        """Do a step; what may pass by itself (libvirtd restarting, a storage that hangs) is tried again."""
        loop = asyncio.get_running_loop()
        begin_s, tries = loop.time(), 0
        while True:
            tries += 1
            try:
                return await step.do()
            except (RepeatStepError, CancelledByUserError):
                raise
            except PlatformError as error:
                spent_s = loop.time() - begin_s
                pause_s = rule.pause_after(error, tries=tries, spent_s=spent_s)
                if pause_s is None:
                    raise
                log.info("a workflow step waits", extra={"step": step.name, "error": error.message})
                if tries <= RETRIES_NOTED:
                    await self._journal.note(step.name, "retry", error.message)
                await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        """Wait; a request to cancel ends it."""
        while True:
            if self._is_cancelled():
                raise CancelledByUserError("the task was cancelled")
            if pause_s <= 0:
                return
            await asyncio.sleep(min(pause_s, CANCEL_LOOK_S))
            pause_s -= CANCEL_LOOK_S

    def _is_cancelled(self) -> bool:
        return self._can_turn_back and self._cancel_requested()

    def _rule(self, step: Step) -> StepRule:
        return self._rules.get(step.name) or StepRule(ref=step.name)
