"""`GET /v1/clusters/{cluster}/room`: what would become of the highly available VMs if hosts were lost.

One entry for each loss that admission control tries (`ha.admission`), the worst first. It counts VMs, and names none.
"""

from __future__ import annotations

from aiohttp import web

from core.model import Cluster
from ha.admission import Loss, losses, told
from nodeagent.api.requests import found_of, json_answer, node_of, services_of
from nodeagent.api.views import Shown
from nodeagent.services.admission import room_view


def add_routes(app: web.Application) -> None:
    """Add the route."""
    app.router.add_get("/v1/clusters/{cluster}/room", show_room)


async def show_room(request: web.Request) -> web.Response:
    """GET /v1/clusters/{cluster}/room. 200: what is set, and each loss with where its VMs would go."""
    store, cluster = node_of(request).store, found_of(request, Cluster, "cluster")
    view = room_view(store, services_of(request).leases, cluster)
    names = {host.id: host.name for host in view.hosts}
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
    return {
        "hosts": sorted(host.name for host in loss.hosts),
        "vms": loss.vms,
        "memory_mib": loss.memory_mib,
        "placed": {names[id_]: count for id_, count in sorted(loss.placed.items())},
        "left_out": len(loss.left_out),
        "missing_mib": loss.missing_mib,
        "why": told(loss) if loss.left_out else "",
    }
