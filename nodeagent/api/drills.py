"""Drills: what one would be, begin one, end one early, read its report. Lists are those of every collection."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import InvalidError
from core.model import DataStorage, Drill, DrillKind, DrillVM, Host
from ha.drills.obstacles import Obstacle, Wish
from ha.drills.preflight import Plan
from ha.drills.promises import CUT_S_MAX
from nodeagent.api.requests import (
    body_of,
    found_of,
    ids_of,
    json_answer,
    node_of,
    services_of,
    shown_to,
    target_of,
)
from nodeagent.api.rights import check_named

HOST = "Name or id of the host that fails; empty for a full power loss only."
DURATION = "How long a cut lasts; 0: as long as is usual. Of kinds that end by themselves only."


class CheckDrill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/drills/actions/check`: which drill is thought of."""

    kind: Annotated[DrillKind, attribute("Which failure is rehearsed.")]
    host: Annotated[str, attribute(HOST)] = ""
    duration_s: Annotated[int, attribute(DURATION, least=0, most=CUT_S_MAX)] = 0
    data_storage: Annotated[
        str, attribute("Name or id of the data storage that is lost; empty: none.")
    ] = ""


class RunDrill(CheckDrill, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/drills`: a failure for real. `confirm` repeats whose."""

    confirm: Annotated[
        str,
        attribute(
            "The host's name, once more, or the cluster's for a full power loss: it is done for real."
        ),
    ] = ""


class AbortDrill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/drills/{drill}/actions/abort`."""

    reason: Annotated[str, attribute("Why, for the report.", length_max=200)] = ""


class DrillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill would be. It can begin when there are no `obstacles`; `warnings` don't forbid it."""

    kind: Annotated[DrillKind, attribute("Which failure is rehearsed.")]
    host_name: Annotated[str, attribute("The host that fails; empty: all.")]
    observer_name: Annotated[str, attribute("The host that watches; empty: whoever leads then.")]
    possible: Annotated[bool, attribute("Whether it could begin now.")]
    duration_s: Annotated[int, attribute("How long the fault lasts; 0: it doesn't end by itself.")]
    obstacles: Annotated[tuple[Obstacle, ...], attribute("What stands in the way.")]
    warnings: Annotated[tuple[Obstacle, ...], attribute("What should be known before.")]
    vms: Annotated[tuple[DrillVM, ...], attribute("The VMs it is about, and what is promised.")]


def add_routes(app: web.Application) -> None:
    """Add the routes of drills."""
    app.router.add_post("/v1/drills/actions/check", check_drill)
    app.router.add_post("/v1/drills", run_drill)
    app.router.add_post("/v1/drills/{drill}/actions/abort", abort_drill)
    app.router.add_get("/v1/drills/{drill}/report", report)


async def check_drill(request: web.Request) -> web.Response:
    """POST /v1/drills/actions/check. 200: what it would be, whether it could begin or not. Nothing is done."""
    wish = _wish(request, await body_of(request, CheckDrill))
    plan = await services_of(request).drills.plan(wish)
    return json_answer(_shown(request, plan))


async def run_drill(request: web.Request) -> web.Response:
    """POST /v1/drills. 201: it begins at once. 400: not confirmed. 409: the cluster can't take it now."""
    body = await body_of(request, RunDrill)
    wish, ids = _wish(request, body), ids_of(request)
    drill = await services_of(request).drills.start(
        wish, confirm=body.confirm, id_=ids.id_for("drill"), request_id=ids.request_id
    )
    return json_answer(shown_to(request, drill), status=201)


async def abort_drill(request: web.Request) -> web.Response:
    """POST .../actions/abort. 202: its observer puts right what is broken, then it ends. 409: it has ended."""
    body, drill = await body_of(request, AbortDrill), target_of(request, Drill, "drill")
    aborted = await services_of(request).drills.abort(drill, body.reason or "by an operator")
    return json_answer(shown_to(request, aborted), status=202)


async def report(request: web.Request) -> web.Response:
    """GET /v1/drills/{drill}/report. 200: the report, as far as the drill is."""
    return json_answer(services_of(request).drills.report(found_of(request, Drill, "drill")))


def _wish(request: web.Request, body: CheckDrill) -> Wish:
    store = node_of(request).store
    if body.kind is DrillKind.FULL_POWER_LOSS:
        if body.host:
            raise InvalidError("a full power loss is of all hosts: name none")
        return Wish(body.kind)
    if not body.host:
        raise InvalidError("name the host that is to fail")
    check_named(request, store, (Host, body.host))
    storage_id = ""
    if body.data_storage:
        check_named(request, store, (DataStorage, body.data_storage))
        storage_id = store.find(DataStorage, body.data_storage).id
    return Wish(body.kind, store.find(Host, body.host).id, body.duration_s, storage_id)


def _shown(request: web.Request, plan: Plan) -> DrillPlan:
    names = {host.id: host.name for host in node_of(request).store.all(Host)}
    return DrillPlan(
        kind=plan.wish.kind,
        host_name=names.get(plan.wish.host_id, ""),
        observer_name=names.get(plan.observer_id, ""),
        possible=not plan.obstacles,
        duration_s=plan.wish.duration_s,
        obstacles=plan.obstacles,
        warnings=plan.warnings,
        vms=plan.vms,
    )
