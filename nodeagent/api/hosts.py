"""Hosts, members and the cluster at a glance; a guard's lease renewals come in here too.

`members` joins what the store, the consensus engine and gossip each know; nothing is decided from it.
"""

from __future__ import annotations

from collections import Counter

import msgspec
from aiohttp import web

from core.errors import ConflictError, InvalidError
from core.model import VM, Event, Host, Lease, Mesh, Severity
from ha.lease import Renewal
from nodeagent.api.requests import body_of, json_answer, node_of, services_of
from nodeagent.api.views import Shown, show
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.host_service import confirm_off, remove_host

ALARMS_SHOWN = 20


class ConfirmOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`confirm` repeats the host's name: whoever calls has looked at the machine."""

    confirm: str


def add_routes(app: web.Application) -> None:
    """Add the routes of hosts and members."""
    app.router.add_get("/v1/status", status)
    app.router.add_get("/v1/members", members)
    app.router.add_delete("/v1/hosts/{host}", delete_host)
    app.router.add_post("/v1/hosts/{host}/actions/confirm-off", confirm_host_off)
    app.router.add_post("/v1/local/lease", renew_lease)


async def status(request: web.Request) -> web.Response:
    """GET /v1/status. The cluster at a glance."""
    node = node_of(request)
    engine, store = node.engine, node.store
    leader = store.get(Host, engine.leader() or "")
    phases = Counter(str(vm.phase) for vm in store.all(VM))
    alarms = [
        show(store, e) for e in store.since(Event, 0, 100_000) if e.severity is Severity.ALARM
    ]
    return json_answer(
        {
            "cluster_name": store.need(Mesh, MESH_ID).name,
            "index": store.index,
            "leader_name": leader.name if leader else "",
            "quorum": leader is not None,
            "members": _members(request),
            "vms": dict(phases),
            "alarms": alarms[-ALARMS_SHOWN:],
        }
    )


async def members(request: web.Request) -> web.Response:
    """GET /v1/members. One item a host: role, connections, gossip, lease."""
    return json_answer({"items": _members(request), "index": node_of(request).store.index})


def _members(request: web.Request) -> list[Shown]:
    node, services = node_of(request), services_of(request)
    engine, store = node.engine, node.store
    voters = {peer.id for peer in engine.voters()}
    placed = Counter(vm.host_id for vm in store.all(VM))
    gossip = node.membership.members
    shown: list[Shown] = []
    for host in store.all(Host):
        lease = store.get(Lease, host.id)
        seen = gossip.get(host.id)
        connected = "connected" if host.id in engine.connected() else "disconnected"
        shown.append(
            {
                "id": host.id,
                "name": host.name,
                "address": host.address,
                "role": "voter" if host.id in voters else "replica",
                "leader": engine.leader() == host.id,
                "raft": "self" if host.id == node.host_id else connected,
                "gossip": str(seen.status) if seen else "unknown",
                "lease_age_s": round(services.leases.age_s(host.id), 1) if lease else None,
                "watchdog": "armed" if lease and lease.watchdog_armed else "none",
                "state": str(host.state),
                "version": host.version,
                "vms": placed[host.id],
            }
        )
    return shown


async def delete_host(request: web.Request) -> web.Response:
    """DELETE /v1/hosts/{host}. 204: it votes no more and its certificate opens no door. 409: VMs are on it."""
    node = node_of(request)
    await remove_host(node, node.store.find(Host, request.match_info["host"]))
    return web.Response(status=204)


async def confirm_host_off(request: web.Request) -> web.Response:
    """POST .../actions/confirm-off. 200: its VMs may run elsewhere now. 409: it renews its lease, so it is on."""
    node, body = node_of(request), await body_of(request, ConfirmOff)
    host = node.store.find(Host, request.match_info["host"])
    if body.confirm != host.name:
        raise InvalidError(f"confirm must be the host's name, {host.name!r}")
    if host.id == node.host_id:
        raise ConflictError("this agent runs on that host: it is not off")
    moved = await confirm_off(node, host, services_of(request).leases.age_s(host.id))
    return json_answer({"host": host.name, "vms_released": moved})


async def renew_lease(request: web.Request) -> web.Response:
    """POST /v1/local/lease, from this host's guard. 200: committed at `index`. Anything else: not renewed."""
    renewal = await body_of(request, Renewal)
    node = node_of(request)
    if renewal.host_id != node.host_id:
        raise InvalidError("this is another host's lease")
    return json_answer({"index": await services_of(request).leases.renew(renewal)})
