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
from typing import Any

from aiohttp import web

from core.errors import InvalidError, PlatformError, UnavailableError
from core.identity.permissions import DELETE, OPERATE
from core.logs import REQUEST_ID
from core.model import VM, kind_of
from nodeagent.api.access import check_may
from nodeagent.api.auditing import recorded_item
from nodeagent.api.problems import problem_of, unexpected
from nodeagent.api.requests import Ids, body_of, ids_of, json_answer, node_of, services_of
from nodeagent.api.tasks import waited
from nodeagent.api.views import show
from nodeagent.api.vms import Verb, act
from nodeagent.services.vm_requests import (
    MANY_MAX,
    DeleteVMs,
    MigrateVM,
    MigrateVMs,
    SomeVMs,
    StopVM,
    StopVMs,
)
from nodeagent.services.vm_service import Opened
from raftstate.searching import Match, search
from raftstate.state.query_paths import resolve
from raftstate.state.query_sql import Order, Search
from raftstate.state.query_text import parse_where

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
    return await _each(request, refs, OPERATE, services_of(request).vms.start)


async def stop_vms(request: web.Request) -> web.Response:
    """POST .../actions/stop. 200: what came of each."""
    body = await body_of(request, StopVMs)
    vms, how = services_of(request).vms, StopVM(force=body.force, timeout_s=body.timeout_s)
    refs = await _selected(request, body)
    return await _each(request, refs, OPERATE, lambda vm, ids: vms.stop(vm, how, ids))


async def reboot_vms(request: web.Request) -> web.Response:
    """POST .../actions/reboot. 200: what came of each."""
    refs = await _selected(request, await body_of(request, SomeVMs))
    return await _each(request, refs, OPERATE, services_of(request).vms.reboot)


async def migrate_vms(request: web.Request) -> web.Response:
    """POST .../actions/migrate. 200: what came of each."""
    body = await body_of(request, MigrateVMs)
    vms, how = services_of(request).vms, MigrateVM(host=body.host)
    refs = await _selected(request, body)
    return await _each(request, refs, OPERATE, lambda vm, ids: vms.migrate(vm, how, ids))


async def delete_vms(request: web.Request) -> web.Response:
    """POST .../actions/delete. 200: what came of each."""
    body = await body_of(request, DeleteVMs)
    refs = _checked(request, body.vms)
    return await _each(request, refs, DELETE, services_of(request).vms.delete)


async def _selected(request: web.Request, body: SomeVMs) -> Sequence[str]:
    """Return the names or ids that are given, or the ids of what the conditions match now, in the order of names.

    Raises:
        InvalidError: both or none are given, too many, or a condition makes no sense.
    """
    if bool(body.vms) == bool(body.q):
        raise InvalidError("name VMs in `vms`, or give conditions in `q`: one of the two")
    if not body.q:
        return _checked(request, body.vms)
    store, kind = node_of(request).store, kind_of(VM)
    tables = store.machine.table
    asked = Search(
        kind=kind,
        where=tuple(parse_where(tables, kind, text) for text in body.q),
        order=Order(resolve(tables, kind, "name")),
        limit=MANY_MAX + 1,
        bodies=False,
    )

    def ids_of_all(matches: Sequence[Match], _: object) -> list[str]:
        return [match.id for match in matches]

    found = (await search(store, asked, ids_of_all)).items
    return _checked(request, found) if found else []


def _checked(request: web.Request, refs: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(refs) <= MANY_MAX:
        raise InvalidError(
            f"1 to {MANY_MAX} VMs at a time: name fewer, or narrow the conditions down"
        )
    if "If-Match" in request.headers:
        raise InvalidError("If-Match is about one resource: act on that one alone")
    if "dry_run" in request.query:
        raise InvalidError("dry_run is not possible here: nothing was done")
    return refs


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


async def _each(request: web.Request, refs: Sequence[str], action: str, verb: Verb) -> web.Response:
    """Do it to each, some at a time, and answer with all outcomes. A VM that is named twice is acted on once."""
    ids, at_once = ids_of(request), asyncio.Semaphore(AT_ONCE)
    named = [_found(request, ref) for ref in refs]
    items = {item.key: item for item in named}
    async with asyncio.TaskGroup() as group:
        for item in items.values():
            work = _one(request, item, action, verb, ids, at_once)
            group.create_task(work, name=f"one-of-many-{item.ref[:60]}")
    errors = [item.error for item in items.values()]
    if errors and all(isinstance(error, UnavailableError) for error in errors):
        raise next(error for error in errors if error is not None)
    shown = [_shown(request, item.ref, items[item.key]) for item in named]
    return json_answer({"items": shown, "index": node_of(request).store.index})


def _found(request: web.Request, ref: str) -> _Item:
    try:
        return _Item(ref, vm=node_of(request).store.find(VM, ref))
    except PlatformError as error:
        return _Item(ref, error=error)


async def _one(
    request: web.Request,
    item: _Item,
    action: str,
    verb: Verb,
    ids: Ids,
    at_once: asyncio.Semaphore,
) -> None:
    """Judge one, record it, do it, and keep what came of it; never raises."""
    store, vm = node_of(request).store, item.vm

    async def work() -> int:
        if vm is None:
            assert item.error is not None, "what was not found says so"
            raise item.error
        item.opened = await act(lambda: store.need(VM, vm.id), verb, ids.item(vm.id))
        return 200 if item.opened.task is None else 202

    try:
        async with at_once:
            if vm is not None:
                check_may(request, action, vm)
            await recorded_item(request, item.ref, vm, work)
        if item.opened is not None and item.opened.task is not None:
            task = await waited(request, item.opened.task)
            item.opened = Opened(item.opened.vm, task)
    except PlatformError as error:
        item.error = error
    except Exception:
        log.exception("one of many failed unexpectedly", extra={"request_id": REQUEST_ID.get()})
        item.error = unexpected(REQUEST_ID.get())


def _shown(request: web.Request, ref: str, item: _Item) -> dict[str, Any]:
    store = node_of(request).store
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
    shown = show(store, task) if task is not None else None
    return {**about, "status": 202 if task is not None else 200, "task": shown, "problem": None}
