"""Which cluster and data center is meant when nobody says, and moving a host from one cluster to another.

Called by the services and handlers that make what belongs to a place. What `kvorum init` made stays the default however many
come later, so a new cluster changes nothing for those who don't name it.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.errors import ConflictError
from core.model import VM, Cluster, DataCenter, Host
from nodeagent.node import Node
from nodeagent.services.cascade import fenced
from raftstate.store import Store


def cluster_of(store: Store, ref: str) -> Cluster:
    """Return the cluster of that name or id; of an empty one, the first that was made.

    Raises:
        NotFoundError: there is none of that name or id.
    """
    if ref:
        return store.find(Cluster, ref)
    return min(store.all(Cluster), key=lambda cluster: (cluster.created_ms, cluster.id))


def data_center_of(store: Store, ref: str) -> DataCenter:
    """Return the data center of that name or id; of an empty one, the first that was made.

    Raises:
        NotFoundError: there is none of that name or id.
    """
    if ref:
        return store.find(DataCenter, ref)
    return min(store.all(DataCenter), key=lambda center: (center.created_ms, center.id))


async def move_host(node: Node, host: Host, cluster: Cluster) -> None:
    """Let a host belong to another cluster. Only one without VMs: these stay within their cluster.

    Raises:
        ConflictError: VMs are on it, or it is being removed, or somebody changed it meanwhile; nothing was changed.
    """
    if host.cluster_id == cluster.id:
        return
    _refuse_vms(node, host)
    async with fenced(node, (host,)) as fences:
        _refuse_vms(node, host)  # once more: from here on no VM can come to it
        await node.store.apply(puts=(replace(host, cluster_id=cluster.id),), deletes=fences)


def _refuse_vms(node: Node, host: Host) -> None:
    for vm in node.store.all(VM):
        if host.id in (vm.host_id, vm.migrating_to_host_id):
            raise ConflictError(
                f"VM {vm.name!r} is on host {host.name}, and VMs stay within their cluster: move or delete it first"
            )
