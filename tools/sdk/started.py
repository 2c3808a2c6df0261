"""Work that an agent has accepted, and how it went wrong when it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from core.errors import PlatformError
from tools.sdk.tasks import TaskView

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Started(Generic[T_co]):
    """Work accepted: the thing it is about, and its task; no task when there was nothing to do."""

    item: T_co
    task: TaskView | None


class TaskFailedError(PlatformError):
    """A task ended, but not well; `task` says how, and `code` is its error code."""

    code = "task-failed"

    def __init__(self, task: TaskView) -> None:
        what = f"{task.workflow} {task.subject_name}".strip() or task.id
        reason = " ".join(task.error.split()) or f"see kvorum task show {task.id}"
        super().__init__(f"{what} {task.state}: {reason}", code=task.error_code or None)
        self.task = task
