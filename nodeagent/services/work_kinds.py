"""The kinds of work whose number at a time is limited on each host, and the limits' defaults.

Read from `[limits]` of the settings (`nodeagent.config`); the queues are made of it once (`core.work_queue`). Reasons for
the defaults: boots and copies load disks and the network, a migration fills a link, and a stop mostly waits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from core.work_queue import WAITING_MAX, Limit

AtOnce = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Waiting = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class WorkKind(StrEnum):
    """What is limited on its own."""

    BOOTS = "boots"
    MIGRATIONS = "migrations"
    STOPS = "stops"
    DELETES = "deletes"
    IMAGE_IMPORTS = "image-imports"
    IMAGE_COPIES = "image-copies"
    CALLS = "calls"
    OTHER_TASKS = "other-tasks"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many of each kind run at once on this host, and how many of a kind may wait.

    `boots` are creates, starts and reboots of VMs. `calls` are what other agents, or this one, ask of this host because
    it owns the resource.
    """

    boots: AtOnce = 8
    migrations: AtOnce = 2
    stops: AtOnce = 16
    deletes: AtOnce = 8
    image_imports: AtOnce = 2
    image_copies: AtOnce = 1
    calls: AtOnce = 32
    other_tasks: AtOnce = 8
    waiting_max: Waiting = WAITING_MAX

    def by_kind(self) -> dict[str, Limit]:
        """Return the limits as the queues want them."""
        at_once = {
            WorkKind.BOOTS: self.boots,
            WorkKind.MIGRATIONS: self.migrations,
            WorkKind.STOPS: self.stops,
            WorkKind.DELETES: self.deletes,
            WorkKind.IMAGE_IMPORTS: self.image_imports,
            WorkKind.IMAGE_COPIES: self.image_copies,
            WorkKind.CALLS: self.calls,
            WorkKind.OTHER_TASKS: self.other_tasks,
        }
        return {str(kind): Limit(at_once[kind], self.waiting_max) for kind in WorkKind}


KIND_OF_WORKFLOW = {
    "create-vm": WorkKind.BOOTS,
    "start-vm": WorkKind.BOOTS,
    "reboot-vm": WorkKind.BOOTS,
    "migrate-vm": WorkKind.MIGRATIONS,
    "stop-vm": WorkKind.STOPS,
    "delete-vm": WorkKind.DELETES,
}


def kind_of_task(workflow: str) -> WorkKind:
    """Return the kind that a task counts as; a workflow nobody listed is one of the others."""
    return KIND_OF_WORKFLOW.get(workflow, WorkKind.OTHER_TASKS)
