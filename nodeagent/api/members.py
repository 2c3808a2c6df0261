"""The cluster at a glance, its members' roles and health, and what an operator says about who votes.

A member is a host as consensus and gossip see it. What is shown joins what the store, the engine, gossip and the members
themselves know; nothing is decided from it.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import ConflictError
from core.model import VM, Event, Host, Lease, Mesh, Severity, Vote
from nodeagent.api.collections import strong_if_asked
from nodeagent.api.computed import answer_of
from nodeagent.api.hosts import delete_host
from nodeagent.api.requests import body_of, found_of, json_answer, node_of, services_of, target_of
from nodeagent.api.rights import without_names
from nodeagent.api.views import Shown, show
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.host_service import set_policy, set_vote
from raftstate.voters import losses_survived, may_vote, voters_for

ALARMS_SHOWN = 20


class ChangePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/members/policy`. What is absent stays as it is."""

    voters_max: Annotated[
        int | None, attribute("How many hosts vote at most: 1, 3, 5 or 7; `null`: as it is.")
    ] = None
    voter_replace_after_s: Annotated[
        int | None,
        attribute(
            "Silence after which a voter gives its place to another host, 10 s to 7 days; `null`: as it is."
        ),
    ] = None


def add_routes(app: web.Application) -> None:
    """Add the routes of members."""
    app.router.add_get("/v1/status", status)
    app.router.add_get("/v1/members", members)
    app.router.add_get("/v1/members/policy", show_policy)
    app.router.add_patch("/v1/members/policy", change_policy)
    app.router.add_get("/v1/members/{host}", show_member)
    app.router.add_delete("/v1/members/{host}", delete_host)
    app.router.add_post("/v1/members/{host}/actions/promote", promote)
    app.router.add_post("/v1/members/{host}/actions/demote", demote)
    app.router.add_post("/v1/members/{host}/actions/auto", auto)


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
            "members": await _members(request),
            "vms": dict(phases),
            "alarms": alarms[-ALARMS_SHOWN:],
        }
    )


async def members(request: web.Request) -> web.Response:
    """GET /v1/members. One item a host: role, progress, health, connections, gossip, lease. Takes a second at most."""
    await strong_if_asked(request)
    answer = answer_of(await _members(request), request)
    return json_answer({**answer, "index": node_of(request).store.index})


async def show_member(request: web.Request) -> web.Response:
    """GET /v1/members/{host}. 404: no such host."""
    host = _host(request)
    (found,) = (item for item in await _members(request) if item["id"] == host.id)
    return json_answer(found)


async def promote(request: web.Request) -> web.Response:
    """POST .../actions/promote. 200: it shall always vote. 409: more would be pinned than there are votes."""
    return await _pin(request, Vote.ALWAYS)


async def demote(request: web.Request) -> web.Response:
    """POST .../actions/demote. 200: it shall never vote. 409: it is the last that may."""
    return await _pin(request, Vote.NEVER)


async def auto(request: web.Request) -> web.Response:
    """POST .../actions/auto. 200: the cluster chooses whether it votes."""
    return await _pin(request, Vote.AUTO)


async def show_policy(request: web.Request) -> web.Response:
    """GET /v1/members/policy. 200: what is set, and how many vote and should."""
    return json_answer(_policy(node_of(request)))


async def change_policy(request: web.Request) -> web.Response:
    """PATCH /v1/members/policy. 200: the changed policy; the leader acts on it within seconds."""
    node, body = node_of(request), await body_of(request, ChangePolicy)
    await set_policy(node, voters_max=body.voters_max, replace_after_s=body.voter_replace_after_s)
    return json_answer(_policy(node))


def voters_shown(node: Node) -> Shown:
    """Return how many hosts vote, how many should, and how many of the voters may fail."""
    hosts, mesh = node.store.all(Host), node.store.need(Mesh, MESH_ID)
    votes = len(node.engine.voters())
    return {
        "voters": votes,
        "voters_wanted": voters_for(sum(map(may_vote, hosts)), mesh.voters_max),
        "losses_survived": losses_survived(votes) if votes else 0,
    }


def _policy(node: Node) -> Shown:
    mesh = node.store.need(Mesh, MESH_ID)
    return {
        "voters_max": mesh.voters_max,
        "voter_replace_after_s": mesh.voter_replace_after_s,
        "feature_level": mesh.feature_level,
        **voters_shown(node),
    }


def _host(request: web.Request) -> Host:
    return found_of(request, Host, "host")


async def _pin(request: web.Request, vote: Vote) -> web.Response:
    node, host = node_of(request), target_of(request, Host, "host")
    try:
        await set_vote(node, host, vote)
    except ConflictError as error:
        raise without_names(request, error, "host") from None
    votes = host.id in {peer.id for peer in node.engine.voters()}
    return json_answer(
        {"id": host.id, "name": host.name, "vote": str(vote), "role": _role(host, votes=votes)}
    )


async def _members(request: web.Request) -> list[Shown]:
    node, services = node_of(request), services_of(request)
    health = await services.states.health()
    engine, store = node.engine, node.store
    voters = {peer.id for peer in engine.voters()}
    placed = Counter(vm.host_id for vm in store.all(VM))
    gossip = node.membership.members
    shown: list[Shown] = []
    for host in store.all(Host):
        if host.id not in health:
            continue  # it joined a moment ago
        lease, seen, stands = store.get(Lease, host.id), gossip.get(host.id), health[host.id]
        connected = "connected" if host.id in engine.connected() else "disconnected"
        shown.append(
            {
                "id": host.id,
                "name": host.name,
                "address": host.address,
                "role": _role(host, votes=host.id in voters),
                "votes": host.id in voters,
                "vote": str(host.vote),
                "leader": engine.leader() == host.id,
                "applied_index": stands.applied,
                "lag": stands.lag,
                "health": stands.health,
                "failure_domain": host.failure_domain,
                "feature_level": stands.level if stands.level is not None else host.feature_level,
                "generation": stands.generation,
                "raft": "self" if host.id == node.host_id else connected,
                "gossip": str(seen.status) if seen else "unknown",
                "lease_age_s": round(services.leases.age_s(host.id), 1) if lease else None,
                "watchdog": "armed" if lease and lease.watchdog_armed else "none",
                "state": "joining" if host.joining else str(host.state),
                "version": host.version,
                "vms": placed[host.id],
                "work": msgspec.to_builtins(stands.work),
                "plain_http": stands.plain_http,
                "service_faults": msgspec.to_builtins(stands.faults),
            }
        )
    return shown


def _role(host: Host, *, votes: bool) -> str:
    """A witness is shown as one; whether it votes at present is a field of its own."""
    return "witness" if host.witness else "voter" if votes else "replica"
