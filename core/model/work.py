"""Tasks (long work with progress, log and result), who is told of their end, and events (what happened, for people and programs).

Written by the workflow runner and the controllers; any agent can show them after the writer is gone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from core.model.resource import OnDelete, Relation, Resource


class TaskState(StrEnum):
    """A task ends as succeeded, failed or cancelled and then never changes."""

    PENDING = "pending"
    RUNNING = "running"
    ROLLING_BACK = "rolling-back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepMark(StrEnum):
    """`BEGUN` is recorded before a step's effect, so that undo is never lost."""

    BEGUN = "begun"
    DONE = "done"
    UNDONE = "undone"


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a workflow's journal."""

    step: str
    mark: StepMark
    at_ms: int


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a task's workflow; `inside` are the nested workflows around it, outermost first."""

    step: str
    inside: tuple[str, ...] = ()
    weight: int = 1


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line for people beside the journal. `after` is how many journal lines were there before it."""

    after: int
    at_ms: int
    what: str
    step: str = ""
    text: str = ""


class Task(Resource, tag="task.v1", frozen=True, kw_only=True):
    """A run of a workflow on a resource; name = id.

    `workflow` names the definition, `subject` the resource as `kind/id`. `arguments` are strings only.
    `runner_host_id` is who works on it. `progress` is 0..100. `error` and `error_code` are set when failed.
    `cancel_requested` asks the runner to stop where that is safe.
    `plan` is the workflow as it was when the work began: whoever resumes it goes by that. `journal` is what the
    engine lives by; `log` tells people more, bounded. `result` is what came of it, empty when it was undone.
    `request_id` is the API request that started it, as in that answer, its audit, and the logs of whoever works on it.
    """

    INDEXED: ClassVar[tuple[str, ...]] = ("subject", "state")
    PLURAL: ClassVar[str] = "tasks"
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset({"request_id"})
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "runner_host_id",
            target="host",
            name="runner_host",
            reverse="tasks",
            on_delete=OnDelete.KEEP,
        ),
    )

    workflow: str
    subject: str
    subject_name: str = ""
    arguments: dict[str, str] = {}
    runner_host_id: str = ""
    state: TaskState = TaskState.PENDING
    progress: int = 0
    step: str = ""
    plan: tuple[PlannedStep, ...] = ()
    journal: tuple[JournalEntry, ...] = ()
    log: tuple[LogLine, ...] = ()
    result: dict[str, str] = {}
    error: str = ""
    error_code: str = ""
    cancel_requested: bool = False
    ended_ms: int = 0
    request_id: str = ""

    def claims(self) -> tuple[str, ...]:
        """A resource has one open task at a time: work on it is serial."""
        ended = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
        return () if self.state in ended else (f"task.subject/{self.subject}",)


class Callback(Resource, tag="callback.v1", frozen=True, kw_only=True):
    """The wish to be told of a task's end; id = the task's id, name = id. Stored with the task, gone when it was delivered or given up.

    `sealed_url` is where to; it may hold a password of the receiver's, so nobody sees it. `receiver` is its scheme, host and port.
    `tries` have begun, the next may begin at `next_ms`.
    """

    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_url"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_url": "callback/{id}"}

    receiver: str
    sealed_url: bytes
    tries: int = 0
    next_ms: int = 0

    def claims(self) -> tuple[str, ...]:
        return ()


class CallbackKey(Resource, tag="callback-key.v1", frozen=True, kw_only=True):
    """The key that signs what receivers of callbacks get; exactly one, id `callback-key`. `public_key` is in base64."""

    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_key"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_key": "callback-key"}

    public_key: str
    sealed_key: bytes

    def claims(self) -> tuple[str, ...]:
        return ()


class Severity(StrEnum):
    """How much an event matters."""

    NOTICE = "notice"
    WARNING = "warning"
    ALARM = "alarm"


class Event(Resource, tag="event.v1", frozen=True, kw_only=True):
    """Something that happened to `subject` (`kind/id`); its revision is its place in time. name = id."""

    INDEXED: ClassVar[tuple[str, ...]] = ("subject",)
    PLURAL: ClassVar[str] = "events"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("host_id", target="host", name="host", reverse="events", on_delete=OnDelete.KEEP),
    )

    code: str
    subject: str
    subject_name: str
    message: str
    severity: Severity = Severity.NOTICE
    host_id: str = ""

    def claims(self) -> tuple[str, ...]:
        return ()


class Deletion(Resource, tag="deletion.v1", frozen=True, kw_only=True):
    """A fence around `target` (`kind/id`) while it is deleted: nothing new may come to depend on it. name = id."""

    target: str

    def claims(self) -> tuple[str, ...]:
        return ()
