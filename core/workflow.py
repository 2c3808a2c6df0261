"""The workflow engine: run steps in order, undo the begun ones in reverse when one fails.

The task runner of each agent calls it. It keeps nothing itself: the journal is replicated, so when the runner dies
another run resumes from it, forward or backward. Steps are idempotent, as a step may have run just before a crash.
Definitions are XML files that name steps, so that a plug-in can add one without touching code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from xml.etree import ElementTree

from core.errors import ConflictError, FatalError, PlatformError, TemporaryError
from core.model import StepMark

log = logging.getLogger(__name__)

TEMPORARY_S = 20.0


class Step(Protocol):
    """One idempotent piece of work and its way back. `name` is unique in its workflow."""

    @property
    def name(self) -> str: ...

    async def do(self) -> None: ...

    async def undo(self) -> None: ...


class Journal(Protocol):
    """The replicated record of one run."""

    def marks(self) -> Mapping[str, StepMark]:
        """Return the latest mark of each step."""
        ...

    def rolling_back(self) -> bool:
        """Tell whether an earlier run had begun to undo."""
        ...

    async def record(self, step: str, mark: StepMark) -> None:
        """Add a line; it is durable when this returns."""
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


class CancelledByUserError(ConflictError):
    """The task was cancelled by request, between two steps."""

    code = "cancelled"


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow as its XML file tells it: step references in order, nested workflows already put in place."""

    name: str
    steps: tuple[str, ...]


def parse_definitions(texts: Sequence[str], known_steps: frozenset[str]) -> dict[str, Definition]:
    """Return workflows by name from XML texts.

    Raises:
        FatalError: not the schema, an unknown step or workflow, or workflows that contain each other.
    """
    trees: dict[str, ElementTree.Element] = {}
    for text in texts:
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise FatalError(f"a workflow definition is not XML: {error}") from None
        name = root.get("name", "")
        if root.tag != "workflow" or not name or name in trees:
            raise FatalError(
                f"a workflow definition needs a root <workflow> with a unique name, not {name!r}"
            )
        trees[name] = root
    return {name: Definition(name, _flatten(name, trees, known_steps, ())) for name in trees}


def _flatten(
    name: str,
    trees: Mapping[str, ElementTree.Element],
    known_steps: frozenset[str],
    inside: tuple[str, ...],
) -> tuple[str, ...]:
    if name in inside:
        raise FatalError(f"workflow {name!r} contains itself")
    if name not in trees:
        raise FatalError(f"workflow {inside[-1]!r} names the unknown workflow {name!r}")
    steps: list[str] = []
    for child in trees[name]:
        ref = child.get("ref", "")
        match child.tag:
            case "step" if ref in known_steps:
                steps.append(ref)
            case "workflow":
                steps.extend(_flatten(ref, trees, known_steps, (*inside, name)))
            case _:
                raise FatalError(f"workflow {name!r}: unknown step <{child.tag} ref={ref!r}>")
    if len(set(steps)) != len(steps):
        raise FatalError(f"workflow {name!r} names a step twice")
    return tuple(steps)


async def run_workflow(
    steps: Sequence[Step], journal: Journal, *, cancel_requested: Callable[[], bool]
) -> None:
    """Run or resume a workflow to its end, forward or backward.

    A cancellation of the asyncio task undoes nothing: another run resumes from the journal.

    Raises:
        RolledBackError: a step failed, or the user cancelled; all is undone.
        RollbackIncompleteError: an undo failed; call again later.
        RepeatStepError: a step that can't be undone failed; call again later to go on forward.
    """
    if not journal.rolling_back():
        failure = await _forward(steps, journal, cancel_requested)
        if failure is None:
            return
        await journal.record_rollback(failure)
        await _backward(steps, journal)
        raise RolledBackError(failure.message, code=failure.code) from failure
    await _backward(steps, journal)
    raise RolledBackError("the work was undone after an interruption")


async def _forward(
    steps: Sequence[Step], journal: Journal, cancel_requested: Callable[[], bool]
) -> PlatformError | None:
    """Do what is not done yet; return the error that stopped it."""
    for step in steps:
        if journal.marks().get(step.name) is StepMark.DONE:
            continue
        if cancel_requested():
            return CancelledByUserError("the task was cancelled")
        await journal.record(step.name, StepMark.BEGUN)  # before the effect, so undo is never lost
        try:
            await _do(step, cancel_requested)
        except RepeatStepError:
            raise
        except PlatformError as error:
            return error
        except Exception as error:
            log.exception("a workflow step failed unexpectedly", extra={"step": step.name})
            return PlatformError(
                f"internal error in step {step.name}: {type(error).__name__}: {error}"
            )
        await journal.record(step.name, StepMark.DONE)
    return None


async def _do(step: Step, cancel_requested: Callable[[], bool]) -> None:
    """Do a step; what may pass by itself (libvirtd restarting, a storage that hangs) is tried for some time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + TEMPORARY_S
    while True:
        try:
            return await step.do()
        except TemporaryError as error:
            if cancel_requested() or loop.time() + error.retry_after_s >= end_s:
                raise
            log.info("a workflow step waits", extra={"step": step.name, "error": error.message})
            await asyncio.sleep(error.retry_after_s)


async def _backward(steps: Sequence[Step], journal: Journal) -> None:
    marks = journal.marks()
    for step in reversed(steps):
        if marks.get(step.name) not in (StepMark.BEGUN, StepMark.DONE):
            continue
        try:
            await step.undo()
        except Exception as error:
            log.warning("an undo failed", extra={"step": step.name, "error": str(error)})
            raise RollbackIncompleteError(f"undoing step {step.name} failed: {error}") from error
        await journal.record(step.name, StepMark.UNDONE)
