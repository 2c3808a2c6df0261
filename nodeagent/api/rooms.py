"""`GET /v1/clusters/{cluster}/room`: what would become of the highly available VMs if hosts were lost.

One entry for each loss that admission control tries (`ha.admission`), the worst first. It counts VMs, and names none; hosts that the
caller may not see are counted together, without their names.
"""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from core.model import Cluster
from ha.admission import Loss, losses, told
from nodeagent.api.requests import found_of, json_answer, node_of, services_of
from nodeagent.api.rights import sight_of
from nodeagent.api.views import Shown
from nodeagent.services.admission import room_view

UNSEEN = "(others)"


def add_routes(app: web.Application) -> None:
    """Add the route."""
    app.router.add_get("/v1/clusters/{cluster}/room", show_room)


async def show_room(request: web.Request) -> web.Response:
    """GET /v1/clusters/{cluster}/room. 200: what is set, and each loss with where its VMs would go."""
    store, cluster = node_of(request).store, found_of(request, Cluster, "cluster")
    view = room_view(store, services_of(request).leases, cluster)
    sight = sight_of(request)
    names = {host.id: host.name for host in view.hosts if sight.sees(host)}
    found = list(losses(view))
    return json_answer(
        {
            "cluster_name": cluster.name,
            "admission": str(cluster.admission),
            "host_failures": cluster.host_failures,
            "bearable": not any(loss.left_out for loss in found),
            "losses": [_shown(loss, names) for loss in found],
            "index": store.index,
        }
    )


def _shown(loss: Loss, names: dict[str, str]) -> Shown:
    placed: Counter[str] = Counter()
    for id_, count in loss.placed.items():
        placed[names.get(id_, UNSEEN)] += count
    whole = all(host.id in names for host in loss.hosts)
    return {
        "hosts": sorted(names.get(host.id, UNSEEN) for host in loss.hosts),
        "vms": loss.vms,
        "memory_mib": loss.memory_mib,
        "placed": dict(sorted(placed.items())),
        "left_out": len(loss.left_out),
        "ruled_out": len(loss.ruled_out),
        "missing_mib": loss.missing_mib,
        "why": told(loss) if loss.left_out and whole else "",
    }
