"""Maintenance of a host: begin it, see how far it is, end it. VMs are named to those who may see them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.model import Host, Unmovable
from nodeagent.api.requests import (
    body_of,
    found_of,
    json_answer,
    node_of,
    services_of,
    target_of,
)
from nodeagent.api.rights import sight_of, without_names
from nodeagent.api.views import Shown
from nodeagent.services.maintenance import Staying, UnmovableError, enter, leave, progress

SHOWN_MAX = 200


class EnterMaintenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/hosts/{host}/actions/enter-maintenance`."""

    unmovable: Annotated[
        Unmovable,
        attribute(
            "VMs that can't be moved: `refuse` to begin, `stop` them until it is over, or `keep` them there."
        ),
    ] = Unmovable.REFUSE


class LeaveMaintenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/hosts/{host}/actions/leave-maintenance`."""

    move_back: Annotated[
        bool, attribute("Whether the VMs that left it for the maintenance come back.")
    ] = True


def add_routes(app: web.Application) -> None:
    """Add the routes of maintenance."""
    app.router.add_get("/v1/hosts/{host}/maintenance", show_maintenance)
    app.router.add_post("/v1/hosts/{host}/actions/enter-maintenance", enter_maintenance)
    app.router.add_post("/v1/hosts/{host}/actions/leave-maintenance", leave_maintenance)


async def show_maintenance(request: web.Request) -> web.Response:
    """GET /v1/hosts/{host}/maintenance. 200: also of a host that is in none."""
    return _answer(request, found_of(request, Host, "host"))


async def enter_maintenance(request: web.Request) -> web.Response:
    """POST .../actions/enter-maintenance. 200: it has begun. 409: VMs can't be moved; nothing is changed."""
    body, host = await body_of(request, EnterMaintenance), target_of(request, Host, "host")
    try:
        await enter(node_of(request), services_of(request).leases, host, body.unmovable)
    except UnmovableError as error:
        raise without_names(request, error, "vm") from None
    return _answer(request, host)


async def leave_maintenance(request: web.Request) -> web.Response:
    """POST .../actions/leave-maintenance. 200: it is over."""
    body, host = await body_of(request, LeaveMaintenance), target_of(request, Host, "host")
    await leave(node_of(request), host, move_back=body.move_back)
    return _answer(request, host)


def _answer(request: web.Request, host: Host) -> web.Response:
    node, sight = node_of(request), sight_of(request)
    now = progress(node, node.store.need(Host, host.id))
    seen = [one for one in now.staying if sight.sees(one.vm)]
    return json_answer(
        {
            "host": now.host.name,
            "maintenance": now.host.maintenance,
            "unmovable": str(now.host.maintenance_unmovable),
            "ready": now.host.maintenance_ready,
            "move_back": now.host.maintenance_back,
            "left": now.left,
            "away": now.away,
            "vms": [_shown(one) for one in seen[:SHOWN_MAX]],
        }
    )


def _shown(one: Staying) -> Shown:
    return {
        "id": one.vm.id,
        "name": one.vm.name,
        "phase": str(one.vm.phase),
        "standing": str(one.standing),
        "why": one.why,
        "task_id": one.task.id if one.task is not None else "",
        "work": one.task.workflow if one.task is not None else "",
    }
