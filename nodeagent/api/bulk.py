"""One verb on many VMs: `POST /v1/vms/actions/{start,stop,reboot,migrate,delete}`.

The answer is 200 with what came of each VM, in the order they were named: each is judged, recorded and repeated by itself,
as if it had been asked for alone, and a refusal of one is nothing to the others. Only when nothing at all could be done for
want of a quorum is the whole answer a 503, so that clients repeat it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from core.errors import PlatformError, UnavailableError
from core.logs import REQUEST_ID
from core.model import VM, Host
from nodeagent.api.auditing import recorded_item
from nodeagent.api.problems import problem_of, unexpected
from nodeagent.api.requests import (
    Ids,
    body_of,
    ids_of,
    json_answer,
    node_of,
    services_of,
    shown_to,
)
from nodeagent.api.rights import check_named, judged, sight_of
from nodeagent.api.selecting import checked, selected
from nodeagent.api.tasks import waited
from nodeagent.api.vms import Verb, act
from nodeagent.services.vm_requests import (
    DeleteVMs,
    MigrateVM,
    MigrateVMs,
    SomeVMs,
    StopVM,
    StopVMs,
)
from nodeagent.services.vm_service import Opened
from raftstate.store import not_found

log = logging.getLogger(__name__)

AT_ONCE = 16


def add_routes(app: web.Application) -> None:
    """Add the routes of verbs on many VMs."""
    app.router.add_post("/v1/vms/actions/start", start_vms)
    app.router.add_post("/v1/vms/actions/stop", stop_vms)
    app.router.add_post("/v1/vms/actions/reboot", reboot_vms)
    app.router.add_post("/v1/vms/actions/migrate", migrate_vms)
    app.router.add_post("/v1/vms/actions/delete", delete_vms)


async def start_vms(request: web.Request) -> web.Response:
    """POST .../actions/start. 200: what came of each."""
    refs = await _selected(request, await body_of(request, SomeVMs))
    return await _each(request, refs, services_of(request).vms.start)


async def stop_vms(request: web.Request) -> web.Response:
    """POST .../actions/stop. 200: what came of each."""
    body = await body_of(request, StopVMs)
    vms, how = services_of(request).vms, StopVM(force=body.force, timeout_s=body.timeout_s)
    refs = await _selected(request, body)
    return await _each(request, refs, lambda vm, ids: vms.stop(vm, how, ids))


async def reboot_vms(request: web.Request) -> web.Response:
    """POST .../actions/reboot. 200: what came of each."""
    refs = await _selected(request, await body_of(request, SomeVMs))
    return await _each(request, refs, services_of(request).vms.reboot)


async def migrate_vms(request: web.Request) -> web.Response:
    """POST .../actions/migrate. 200: what came of each."""
    body = await body_of(request, MigrateVMs)
    check_named(request, node_of(request).store, (Host, body.host))
    vms, how = services_of(request).vms, MigrateVM(host=body.host)
    refs = await _selected(request, body)
    return await _each(request, refs, lambda vm, ids: vms.migrate(vm, how, ids))


async def delete_vms(request: web.Request) -> web.Response:
    """POST .../actions/delete. 200: what came of each."""
    body = await body_of(request, DeleteVMs)
    refs = checked(request, body.vms, word="VMs")
    return await _each(request, refs, services_of(request).vms.delete)


async def _selected(request: web.Request, body: SomeVMs) -> Sequence[str]:
    return await selected(request, VM, body.vms, body.q, field="vms", word="VMs")


@dataclass(slots=True)
class _Item:
    """One of the things asked for, by `ref`, and what came of it."""

    ref: str
    vm: VM | None = None
    opened: Opened | None = None
    error: PlatformError | None = None

    @property
    def key(self) -> str:
        """What is the same for all names of one VM."""
        return self.vm.id if self.vm is not None else f"?{self.ref}"


async def _each(request: web.Request, refs: Sequence[str], verb: Verb) -> web.Response:
    """Do it to each, some at a time, and answer with all outcomes. A VM that is named twice is acted on once."""
    ids, at_once = ids_of(request), asyncio.Semaphore(AT_ONCE)
    named = [_found(request, ref) for ref in refs]
    items = {item.key: item for item in named}
    async with asyncio.TaskGroup() as group:
        for item in items.values():
            work = _one(request, item, verb, ids, at_once)
            group.create_task(work, name=f"one-of-many-{item.ref[:60]}")
    errors = [item.error for item in items.values()]
    if errors and all(isinstance(error, UnavailableError) for error in errors):
        raise next(error for error in errors if error is not None)
    shown = [_shown(request, item.ref, items[item.key]) for item in named]
    return json_answer({"items": shown, "index": node_of(request).store.index})


def _found(request: web.Request, ref: str) -> _Item:
    """Return what a name means, if the caller may see it."""
    try:
        vm = node_of(request).store.find(VM, ref)
        if not sight_of(request).sees(vm):
            raise not_found(VM, ref)
        return _Item(ref, vm=vm)
    except PlatformError as error:
        return _Item(ref, error=error)


async def _one(
    request: web.Request,
    item: _Item,
    verb: Verb,
    ids: Ids,
    at_once: asyncio.Semaphore,
) -> None:
    """Judge one, record it, do it, and keep what came of it; never raises."""
    vm = item.vm

    async def work() -> int:
        if vm is None:
            assert item.error is not None, "what was not found says so"
            raise item.error
        found = partial(_judged, request, vm.id)
        item.opened = await act(request, found, verb, ids.item(vm.id))
        return 200 if item.opened.task is None else 202

    try:
        async with at_once:
            await recorded_item(request, item.ref, vm, work)
        if item.opened is not None and item.opened.task is not None:
            task = await waited(request, item.opened.task)
            item.opened = Opened(item.opened.vm, task)
    except PlatformError as error:
        item.error = error
    except Exception:
        log.exception("one of many failed unexpectedly", extra={"request_id": REQUEST_ID.get()})
        item.error = unexpected(REQUEST_ID.get())


def _judged(request: web.Request, vm_id: str) -> VM:
    """Return the VM as it is now, if the caller's right reaches it now."""
    return judged(request, node_of(request).store.need(VM, vm_id))


def _shown(request: web.Request, ref: str, item: _Item) -> dict[str, Any]:
    about = {
        "ref": ref,
        "id": item.vm.id if item.vm is not None else "",
        "name": item.vm.name if item.vm is not None else "",
    }
    if item.error is not None:
        problem = problem_of(item.error, REQUEST_ID.get())
        return {**about, "status": problem.status, "task": None, "problem": problem}
    assert item.opened is not None, "it was done or it failed"
    task = item.opened.task
    shown = shown_to(request, task) if task is not None else None
    return {**about, "status": 202 if task is not None else 200, "task": shown, "problem": None}
