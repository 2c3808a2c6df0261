"""What operators ask of hosts: remove one, or confirm that one is off.

Called by the API. Confirming is the last resort where no watchdog or power controller can prove it (docs/ha.md).
"""

from __future__ import annotations

from msgspec.structs import replace

from core.errors import ConflictError
from core.model import VM, Disk, Host, HostState, Lease, Mesh, Severity
from ha.profile import profile_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from raftstate.consensus.engine import NodeId

CHANGE_VOTERS_TIMEOUT_S = 15.0


async def remove_host(node: Node, host: Host) -> None:
    """Take a host out of the cluster. Its vote ends first, its record and with it its right to connect last.

    Raises:
        ConflictError: VMs or local disks are on it, or it is this very host.
        UnavailableError: no quorum.
    """
    if host.id == node.host_id:
        raise ConflictError(f"this agent runs on {host.name}: remove it through another member")
    for vm in node.store.all(VM):
        if host.id in (vm.host_id, vm.migrating_to_host_id):
            raise ConflictError(f"VM {vm.name!r} is on host {host.name}: move or delete it first")
    for disk in node.store.all(Disk):
        if disk.host_id == host.id:
            raise ConflictError(f"disk {disk.name!r} is on host {host.name}: delete its VM first")
    await node.engine.remove_voter(NodeId(host.id), timeout_s=CHANGE_VOTERS_TIMEOUT_S)
    lease = node.store.get(Lease, host.id)
    events = EventLog(node)
    event = events.make("host-removed", host, f"host {host.name} was removed from the cluster")
    await node.store.apply(
        puts=(event,), deletes=[r for r in (node.store.need(Host, host.id), lease) if r]
    )


async def confirm_off(node: Node, host: Host, lease_age_s: float) -> int:
    """Fence a host on the operator's word; return how many VMs are freed by it.

    Raises:
        ConflictError: the host renewed its lease a moment ago, so it is on.
    """
    profile = profile_of(node.store.need(Mesh, MESH_ID).ha_profile)
    if lease_age_s < profile.ended_s:
        raise ConflictError(
            f"host {host.name} renewed its lease {lease_age_s:.0f} s ago, so it is on: "
            "switch it off, wait, and confirm again"
        )
    lease = node.store.get(Lease, host.id)
    message = f"an operator confirmed that host {host.name} is off"
    event = EventLog(node).make("host-confirmed-off", host, message, severity=Severity.WARNING)
    await node.store.apply(
        puts=(replace(host, state=HostState.FENCED), event),
        guards=[lease] if lease is not None else [],
    )
    return sum(1 for vm in node.store.all(VM) if vm.host_id == host.id)
