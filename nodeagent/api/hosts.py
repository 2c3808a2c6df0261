"""Hosts: remove one, change what is said of it, confirm that one is off; a guard's lease renewals come in here too."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import ConflictError, InvalidError
from core.model import Cluster, Host, ShutdownPolicy
from ha.lease import Renewal
from ha.shutdown import Going
from nodeagent.api.deleting import preview_if_asked
from nodeagent.api.requests import body_of, json_answer, node_of, services_of, shown_to, target_of
from nodeagent.api.rights import check_named, without_names
from nodeagent.services.host_service import (
    confirm_off,
    remove_host,
    set_failure_domain,
    set_shutdown_policy,
)
from nodeagent.services.places import move_host


class ChangeHost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/hosts/{host}`: hosts of one failure domain fail together."""

    OF: ClassVar[type[msgspec.Struct]] = Host

    failure_domain: str | None = None
    shutdown_policy: ShutdownPolicy | None = None
    cluster: Annotated[
        str | None, attribute("Name or id of another cluster; only for a host without VMs.")
    ] = None


class ConfirmOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`confirm` repeats the host's name: whoever calls has looked at the machine."""

    confirm: Annotated[
        str, attribute("The host's name, once more: whoever asks has looked at the machine.")
    ]


class ShutDown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/local/shutdown`."""

    going: Annotated[Going, attribute("Whether the host is back soon: `reboot` or `power-off`.")]


def add_routes(app: web.Application) -> None:
    """Add the routes of hosts."""
    app.router.add_patch("/v1/hosts/{host}", change_host)
    app.router.add_delete("/v1/hosts/{host}", delete_host)
    app.router.add_post("/v1/hosts/{host}/actions/confirm-off", confirm_host_off)
    app.router.add_post("/v1/local/shutdown", shut_down)
    app.router.add_post("/v1/local/lease", renew_lease)


async def change_host(request: web.Request) -> web.Response:
    """PATCH /v1/hosts/{host}. 200: the changed host. 409: it shall go to another cluster, and VMs are on it."""
    node, body = node_of(request), await body_of(request, ChangeHost)
    host = target_of(request, Host, "host")
    if body.failure_domain is not None:
        await set_failure_domain(node, host, body.failure_domain)
    if body.shutdown_policy is not None:
        await set_shutdown_policy(node, node.store.need(Host, host.id), body.shutdown_policy)
    if body.cluster is not None:
        check_named(request, node.store, (Cluster, body.cluster))
        cluster = node.store.find(Cluster, body.cluster)
        await move_host(node, node.store.need(Host, host.id), cluster)
    return json_answer(shown_to(request, node.store.need(Host, host.id)))


async def delete_host(request: web.Request) -> web.Response:
    """DELETE /v1/hosts/{host}. 204: it votes no more and its certificate opens no door. 409: VMs are on it."""
    node, host = node_of(request), target_of(request, Host, "host")
    if (preview := preview_if_asked(request, host)) is not None:
        return preview
    try:
        await remove_host(node, host, exactly="If-Match" in request.headers)
    except ConflictError as error:
        raise without_names(request, error) from None
    return web.Response(status=204)


async def confirm_host_off(request: web.Request) -> web.Response:
    """POST .../actions/confirm-off. 200: its VMs may run elsewhere now. 409: it renews its lease, so it is on."""
    node, body = node_of(request), await body_of(request, ConfirmOff)
    host = target_of(request, Host, "host")
    if body.confirm != host.name:
        raise InvalidError(f"confirm must be the host's name, {host.name!r}")
    if host.id == node.host_id:
        raise ConflictError("this agent runs on that host: it is not off")
    moved = await confirm_off(node, host, services_of(request).leases.age_s(host.id))
    return json_answer({"host": host.name, "vms_released": moved})


async def shut_down(request: web.Request) -> web.Response:
    """POST /v1/local/shutdown, from what systemd runs when this host goes down. 200: what became of its guests."""
    body = await body_of(request, ShutDown)
    return json_answer(await services_of(request).shutdown.shut_down(body.going))


async def renew_lease(request: web.Request) -> web.Response:
    """POST /v1/local/lease, from this host's guard. 200: committed at `index`. Anything else: not renewed."""
    renewal = await body_of(request, Renewal)
    node = node_of(request)
    if renewal.host_id != node.host_id:
        raise InvalidError("this is another host's lease")
    return json_answer(msgspec.to_builtins(await services_of(request).leases.renew(renewal)))
