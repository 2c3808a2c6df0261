"""The record of a new task on a VM, as every request opens it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from core.logs import REQUEST_ID
from core.model import VM, LogLine, Resource, Task
from nodeagent.node import Node
from nodeagent.services.task_journal import TEXT_LENGTH_MAX

NO_ARGUMENTS: Mapping[str, str] = {}


class IdSource(Protocol):
    """Where the ids of one request come from (`nodeagent.api.requests.Ids`)."""

    @property
    def request_id(self) -> str: ...

    def id_for(self, purpose: str) -> str: ...

    def beside(self, task: Task) -> tuple[tuple[Resource, ...], tuple[Resource, ...]]: ...


def new_task(
    node: Node,
    workflow: str,
    vm: VM,
    ids: IdSource,
    arguments: Mapping[str, str] = NO_ARGUMENTS,
    *,
    warning: str = "",
) -> Task:
    """Return a task of a workflow on a VM, for the VM's host to run; `warning` is the first line of its log."""
    task_id, now_ms = ids.id_for("task"), node.clock.wall_ms()
    said = LogLine(after=0, at_ms=now_ms, what="warning", text=warning[:TEXT_LENGTH_MAX])
    return Task(
        id=task_id,
        name=task_id,
        workflow=workflow,
        subject=f"vm/{vm.id}",
        subject_name=vm.name,
        arguments=dict(arguments),
        runner_host_id=vm.host_id,
        log=(said,) if warning else (),
        tags=vm.tags,
        created_ms=now_ms,
        request_id=REQUEST_ID.get(),
    )
