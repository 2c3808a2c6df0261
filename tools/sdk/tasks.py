"""Tasks as a client sees them: their state in words it may not know yet, and how to wait for their end.

Used by `Client.wait_task`; shown by the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.sdk.items import Item

ENDED_STATES = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task at one moment. `progress` is 0..100; `raw` is all that the agent said."""

    id: str
    workflow: str
    subject: str
    subject_name: str
    state: str
    step: str
    progress: int
    error: str
    error_code: str
    revision: int
    raw: Item

    @property
    def result(self) -> Mapping[str, str]:
        """What came of it; empty while it runs, and when it was undone."""
        found = self.raw.item("result").raw
        return {name: str(value) for name, value in found.items()}

    @property
    def ended(self) -> bool:
        """Whether the task can never change again."""
        return self.state in ENDED_STATES

    @property
    def succeeded(self) -> bool:
        """Whether the task did what it was asked to."""
        return self.state == "succeeded"


NOTHING_TO_DO = TaskView(
    id="",
    workflow="",
    subject="",
    subject_name="",
    state="succeeded",
    step="",
    progress=100,
    error="",
    error_code="",
    revision=0,
    raw=Item(),
)
"""What is waited for where there was nothing to do."""


def task_of(item: Item) -> TaskView:
    """Return the task that a JSON object describes."""
    return TaskView(
        id=item.text("id"),
        workflow=item.text("workflow"),
        subject=item.text("subject"),
        subject_name=item.text("subject_name"),
        state=item.text("state", "pending"),
        step=item.text("step"),
        progress=max(0, min(100, item.integer("progress"))),
        error=item.text("error"),
        error_code=item.text("error_code"),
        revision=item.integer("revision"),
        raw=item,
    )
