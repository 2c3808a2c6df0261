"""Snapshots of stopped VMs: take, go back to, delete. Listing and showing go by their declaration.

Each answers 202 with the snapshot and its task. Beside the right to snapshots, whoever asks must be allowed to operate the VM.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, ClassVar

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.model import VM, Snapshot
from core.model.resource import DESCRIPTION_LENGTH_MAX
from nodeagent.api.deleting import preview_if_asked
from nodeagent.api.requests import (
    Ids,
    body_of,
    ids_of,
    json_answer,
    judged_anew,
    node_of,
    services_of,
    shown_to,
    target_of,
)
from nodeagent.api.rights import check_named, check_operable
from nodeagent.api.tasks import waited
from nodeagent.services.snapshots import OpenedSnapshot

Work = Callable[[Ids], Awaitable[OpenedSnapshot]]


class TakeSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/snapshots`: of which VM, and how it is called."""

    OF: ClassVar[type[msgspec.Struct]] = Snapshot

    vm: Annotated[str, attribute("Name or id of the VM, which is stopped.")]
    name: Annotated[
        str,
        attribute(
            "Its name: 1 to 63 of a-z, 0-9, `-` and `.`; empty: that of the VM and the moment in UTC."
        ),
    ] = ""
    description: Annotated[
        str, attribute("A note for people.", length_max=DESCRIPTION_LENGTH_MAX)
    ] = ""


def add_routes(app: web.Application) -> None:
    """Add the routes of snapshots."""
    app.router.add_post("/v1/snapshots", take)
    app.router.add_delete("/v1/snapshots/{snapshot}", delete)
    app.router.add_post("/v1/snapshots/{snapshot}/actions/revert", revert)


async def take(request: web.Request) -> web.Response:
    """POST /v1/snapshots. 202: recorded, being taken. 409: the VM isn't stopped or is busy, the name is taken, too many."""
    body, store = await body_of(request, TakeSnapshot), node_of(request).store
    check_named(request, store, (VM, body.vm))

    async def work(ids: Ids) -> OpenedSnapshot:
        vm = store.find(VM, body.vm)
        check_operable(request, vm)
        snapshots = services_of(request).snapshots
        return await snapshots.take(vm, ids, name=body.name, description=body.description)

    return await _answer(request, work)


async def revert(request: web.Request) -> web.Response:
    """POST .../actions/revert. 202: being gone back to. 409: the VM isn't stopped or is busy, or the snapshot isn't ready."""

    async def work(ids: Ids) -> OpenedSnapshot:
        return await services_of(request).snapshots.revert(_operable(request), ids)

    return await _answer(request, work)


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/snapshots/{snapshot}. 202: being deleted. 409: the VM isn't stopped or is busy."""
    if (preview := preview_if_asked(request, _operable(request))) is not None:
        return preview

    async def work(ids: Ids) -> OpenedSnapshot:
        return await services_of(request).snapshots.delete(_operable(request), ids)

    return await _answer(request, work)


def _operable(request: web.Request) -> Snapshot:
    """Return the snapshot of the path, whose VM the caller may operate."""
    snapshot = target_of(request, Snapshot, "snapshot")
    vm = services_of(request).snapshots.vm_of(snapshot)
    if vm is not None:
        check_operable(request, vm)
    return snapshot


async def _answer(request: web.Request, work: Work) -> web.Response:
    """Open the task, anew when the VM was changed meanwhile, and answer with it."""
    opened = await judged_anew(work, ids_of(request))
    task = await waited(request, opened.task)
    snapshot = node_of(request).store.get(Snapshot, opened.snapshot.id) or opened.snapshot
    return json_answer(
        {"snapshot": shown_to(request, snapshot), "task": shown_to(request, task)},
        status=202,
        headers={"Location": f"/v1/tasks/{task.id}"},
    )
