"""Tasks (long work with progress, log and result), who is told of their end, and events (what happened, for people and programs).

Written by the workflow runner and the controllers; any agent can show them after the writer is gone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, OWNER, attribute
from core.model.resource import OnDelete, Relation, Resource, Tagged


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

    step: Annotated[str, attribute("The step that it is about.", by=OWNER)]
    mark: Annotated[StepMark, attribute("What became of the step.", by=OWNER)]
    at_ms: Annotated[int, attribute("When.", by=OWNER)]


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a task's workflow; `inside` are the nested workflows around it, outermost first."""

    step: Annotated[str, attribute("Name of the step.", by=OWNER)]
    inside: Annotated[
        tuple[str, ...], attribute("Nested workflows around it, outermost first.", by=OWNER)
    ] = ()
    weight: Annotated[
        int,
        attribute("How much of the whole work it is, next to the other steps.", by=OWNER, least=0),
    ] = 1


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line for people beside the journal. `after` is how many journal lines were there before it."""

    after: Annotated[
        int, attribute("How many journal lines were there before it.", by=OWNER, least=0)
    ]
    at_ms: Annotated[int, attribute("When.", by=OWNER)]
    what: Annotated[str, attribute("What kind of line it is.", by=OWNER)]
    step: Annotated[str, attribute("The step that it is about; empty: none.", by=OWNER)] = ""
    text: Annotated[str, attribute("What it says.", by=OWNER)] = ""


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a task that was given up may have left behind."""

    step: Annotated[str, attribute("The step that made it, or should have removed it.", by=OWNER)]
    resource: Annotated[
        str, attribute("What it belongs to, as `kind/id`; empty: nothing.", by=OWNER)
    ] = ""
    what: Annotated[str, attribute("What it is and where.", by=OWNER)] = ""


class Task(Tagged, tag="task.v1", frozen=True, kw_only=True):
    """A run of a workflow on a resource; name = id.

    `workflow` names the definition, `subject` the resource as `kind/id`. `arguments` are strings only.
    `runner_host_id` is who works on it. `progress` is 0..100. `error` and `error_code` are set when failed.
    `cancel_requested` asks the runner to stop where that is safe; when `retries_asked` grows, it doesn't wait any longer
    for the next try of what failed. `give_up_reason` asks the runner to end it as it is, unless its journal has grown
    beyond `give_up_after` lines since; then `left_behind` says what stays.
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

    workflow: Annotated[str, attribute("Name of the workflow.", by=CLUSTER)]
    subject: Annotated[str, attribute("What is worked on, as `kind/id`.", by=CLUSTER)]
    subject_name: Annotated[str, attribute("The name that it had.", by=CLUSTER)] = ""
    arguments: Annotated[
        dict[str, str], attribute("What the workflow was asked for.", by=CLUSTER)
    ] = {}
    runner_host_id: Annotated[str, attribute("The host that works on it.", by=CLUSTER)] = ""
    state: Annotated[
        TaskState, attribute("How far it is; once it has ended it never changes.", by=OWNER)
    ] = TaskState.PENDING
    progress: Annotated[
        int, attribute("How much of it is done.", by=OWNER, unit="percent", least=0, most=100)
    ] = 0
    step: Annotated[str, attribute("The step that is being done.", by=OWNER)] = ""
    plan: Annotated[
        tuple[PlannedStep, ...], attribute("The workflow as it was when the work began.", by=OWNER)
    ] = ()
    journal: Annotated[
        tuple[JournalEntry, ...], attribute("What became of its steps.", by=OWNER)
    ] = ()
    log: Annotated[
        tuple[LogLine, ...], attribute("What people may want to know of it.", by=OWNER)
    ] = ()
    result: Annotated[
        dict[str, str], attribute("What came of it; empty when it was undone.", by=OWNER)
    ] = {}
    error: Annotated[str, attribute("Why it failed; empty: it didn't.", by=OWNER)] = ""
    error_code: Annotated[str, attribute("The code of that error.", by=OWNER)] = ""
    cancel_requested: Annotated[
        bool, attribute("Whether somebody has asked it to stop where that is safe.")
    ] = False
    retries_asked: Annotated[
        int,
        attribute("How often somebody has asked for its next try at once.", by=CLUSTER, least=0),
    ] = 0
    give_up_reason: Annotated[
        str, attribute("Why somebody asked to give it up; empty: nobody did.", by=CLUSTER)
    ] = ""
    give_up_after: Annotated[
        int,
        attribute(
            "How many journal lines there were then; with more it isn't given up.",
            by=CLUSTER,
            least=0,
        ),
    ] = 0
    left_behind: Annotated[
        tuple[Leftover, ...], attribute("What may be left of it since it was given up.", by=OWNER)
    ] = ()
    ended_ms: Annotated[int, attribute("When it ended; 0: not yet.", by=OWNER)] = 0
    request_id: Annotated[
        str,
        attribute(
            "The API request that started it, as in that answer's `X-Request-Id`.", by=CLUSTER
        ),
    ] = ""

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

    receiver: Annotated[str, attribute("Scheme, host and port of the URL.", by=CLUSTER)]
    sealed_url: Annotated[bytes, attribute("Where to post the result.", by=CLUSTER)]
    tries: Annotated[int, attribute("How many tries have begun.", by=CLUSTER)] = 0
    next_ms: Annotated[int, attribute("When the next try may begin.", by=CLUSTER)] = 0

    def claims(self) -> tuple[str, ...]:
        return ()


class CallbackKey(Resource, tag="callback-key.v1", frozen=True, kw_only=True):
    """The key that signs what receivers of callbacks get; exactly one, id `callback-key`. `public_key` is in base64."""

    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_key"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_key": "callback-key"}

    public_key: Annotated[str, attribute("The Ed25519 key that checks, in base64.", by=CLUSTER)]
    sealed_key: Annotated[bytes, attribute("The Ed25519 key that signs.", by=CLUSTER)]

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

    code: Annotated[str, attribute("What kind of thing happened.", by=CLUSTER)]
    subject: Annotated[str, attribute("What it happened to, as `kind/id`.", by=CLUSTER)]
    subject_name: Annotated[str, attribute("The name that it had.", by=CLUSTER)]
    message: Annotated[str, attribute("What happened, in words.", by=CLUSTER)]
    severity: Annotated[Severity, attribute("How much it matters.", by=CLUSTER)] = Severity.NOTICE
    host_id: Annotated[str, attribute("The host that it is about; empty: none.", by=CLUSTER)] = ""

    def claims(self) -> tuple[str, ...]:
        return ()


class Deletion(Resource, tag="deletion.v1", frozen=True, kw_only=True):
    """A fence around `target` (`kind/id`) while it is deleted: nothing new may come to depend on it. name = id."""

    target: Annotated[str, attribute("What is being deleted, as `kind/id`.", by=CLUSTER)]

    @staticmethod
    def id_of(key: str) -> str:
        """Return the id of the fence around `kind/id`."""
        return key.replace("/", ".", 1)

    def claims(self) -> tuple[str, ...]:
        return ()
