"""`GET /v1/health`: whether the cluster can take a failure right now, what is wrong, and what to do.

Works without quorum and without a leader. Names of VMs and storages are shown to those who may read all of them.
"""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.model import DataStorage, kind_of
from ha.health import Judgement, judge
from ha.health_facts import ClusterFacts, HostFacts, HostReport, PeerSeen
from ha.health_host_rules import committed_index
from ha.health_vip_rules import vip_holder_name
from nodeagent.api.requests import json_answer, services_of
from nodeagent.api.rights import sight_of
from nodeagent.api.views import Shown


def add_routes(app: web.Application) -> None:
    """Add the route."""
    app.router.add_get("/v1/health", health)


async def health(request: web.Request) -> web.Response:
    """GET /v1/health. 200 whatever the verdict is."""
    facts = _as_seen(request, await services_of(request).health.facts())
    return json_answer(shown_health(facts, judge(facts)))


def shown_health(facts: ClusterFacts, found: Judgement) -> Shown:
    """Return verdict and facts as the API shows them."""
    votes = found.votes
    return {
        "verdict": str(found.verdict),
        "line": found.line,
        "host_name": facts.name_of(facts.asked_id),
        "cluster_name": facts.cluster_name,
        "index": facts.index,
        "quorum": votes.quorum,
        "leader_name": facts.name_of(votes.leader_id) if votes.leader_id else "",
        "vip": facts.vip,
        "vip_holder_name": vip_holder_name(facts),
        "voters": votes.total,
        "voters_up": len(votes.up),
        "losses_survived": max(0, votes.losses_left),
        "findings": msgspec.to_builtins(found.findings),
        "vms_blocked": facts.blocked_count,
        "first_blocked": msgspec.to_builtins(facts.blocked),
        "hosts_in_maintenance": [host.name for host in facts.hosts if host.maintenance],
        "hosts_fenced": [host.name for host in facts.hosts if host.fenced],
        "hosts": [_host(facts, host, votes.leader_id) for host in facts.hosts],
    }


def _host(facts: ClusterFacts, host: HostFacts, leader_id: str) -> Shown:
    asked = facts.asked()
    peers = asked.report.peers if asked is not None and asked.report is not None else ()
    way = next((peer for peer in peers if peer.host_id == host.id), None)
    itself = host.id == facts.asked_id
    return {
        "id": host.id,
        "name": host.name,
        "role": "witness" if host.witness else "voter" if host.votes else "replica",
        "votes": host.votes,
        "leader": host.id == leader_id,
        "state": "joining" if host.joining else "fenced" if host.fenced else "member",
        "maintenance": host.maintenance,
        "vms": host.running_vms,
        "answers": host.report is not None,
        "why": host.silent_why,
        "gossip": "self" if itself else way.gossip if way is not None else "unknown",
        "lease_age_s": host.lease_age_s,
        "lease_fresh": host.lease_fresh,
        "clock_offset_ms": 0 if itself else way.clock_offset_ms if way is not None else None,
        **_told(facts, host.report),
    }


def _told(facts: ClusterFacts, report: HostReport | None) -> Shown:
    """Return what only the host itself can say; null where it said nothing."""
    guard = report.guard if report is not None else None
    libvirt = report.libvirt if report is not None else None
    arbitration = report.arbitration if report is not None else None
    said = guard if guard is not None and guard.answers else None
    return {
        "guard_answers": guard.answers if guard is not None else None,
        "guard_phase": said.phase if said is not None else None,
        "watchdog": said.watchdog if said is not None else None,
        "watchdog_armed": said.armed if said is not None else None,
        "libvirt_answers": libvirt.answers if libvirt is not None else None,
        "arbitration": arbitration.state if arbitration is not None else None,
        "secrets_open": not report.secrets_fault if report is not None else None,
        "applied_index": report.applied if report is not None else None,
        "lag": max(0, committed_index(facts) - report.applied) if report is not None else None,
        "storages": [
            {"id": it.storage_id, "name": it.name, "usable": it.usable, "why": it.why}
            for it in (report.storages if report is not None else ())
        ],
        "peers": [
            {
                "host_name": facts.name_of(peer.host_id),
                "round_trip_ms": peer.round_trip_ms,
                "why": peer.why,
                "gossip": peer.gossip,
            }
            for peer in _by_name(facts, report)
        ],
    }


def _by_name(facts: ClusterFacts, report: HostReport | None) -> list[PeerSeen]:
    peers = report.peers if report is not None else ()
    return sorted(peers, key=lambda peer: facts.name_of(peer.host_id))


def _as_seen(request: web.Request, facts: ClusterFacts) -> ClusterFacts:
    """Return the facts without names that the caller may not read."""
    sight = sight_of(request)
    if not sight.whole(("vm",)):
        facts = replace(facts, blocked=())
    if not sight.whole((kind_of(DataStorage),)):
        facts = replace(facts, hosts=tuple(map(_without_storages, facts.hosts)))
    return facts


def _without_storages(host: HostFacts) -> HostFacts:
    if host.report is None:
        return host
    hidden = tuple(
        replace(it, name=it.storage_id, why="" if it.usable else "it doesn't answer as it should")
        for it in host.report.storages
    )
    return replace(host, report=replace(host.report, storages=hidden))
