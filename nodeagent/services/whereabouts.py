"""Who does the work on a resource: the host it lives on, else the ring of hosts that are alive and capable.

The directory of the bus (`core.bus`), and what chooses the hosts that hold copies of images. Made of this agent's copy
of the state, so two agents may differ for a moment; a hint, never a right.
"""

from __future__ import annotations

from typing import Protocol

from core.model import VM, Disk, Host, HostState, Mesh, Nic
from core.ring import Ring
from ha.profile import profile_in
from ha.serf.membership import MemberStatus
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node


class LeaseAges(Protocol):
    """Who is alive (`nodeagent.services.lease_relay`)."""

    def age_s(self, host_id: str) -> float: ...


class Whereabouts:
    """The `Directory` of the bus."""

    def __init__(self, node: Node, ages: LeaseAges) -> None:
        self._node = node
        self._ages = ages

    def owners(self, key: str, *, records_only: bool = False) -> list[str]:
        """Return the hosts that should work on `kind/id`, the first choice first; of what lives on a host, that one."""
        home = self.home(key)
        return [home] if home else self.ring(records_only=records_only).in_order(key)

    def home(self, key: str) -> str:
        """Return the id of the host that a resource lives on; empty when it lives on none."""
        store = self._node.store
        kind, _, id_ = key.partition("/")
        match kind:
            case "host" | "lease":
                return id_
            case "vm":
                vm = store.get(VM, id_)
                return vm.host_id if vm else ""
            case "nic":
                nic = store.get(Nic, id_)
                return self.home(f"vm/{nic.vm_id}") if nic else ""
            case "disk":
                disk = store.get(Disk, id_)
                return (disk.host_id or self.home(f"vm/{disk.vm_id}")) if disk else ""
            case _:
                return ""

    def ring(self, *, records_only: bool = False) -> Ring:
        """Return the hosts that are alive, by lease and gossip, and capable; `records_only`: any that is alive."""
        store = self._node.store
        fresh_s = profile_in(store.need(Mesh, MESH_ID)).lease_s / 2
        gossip = self._node.membership.members
        return Ring(
            host.id
            for host in store.all(Host)
            if (records_only or is_capable(host))
            and self._ages.age_s(host.id) < fresh_s
            and ((seen := gossip.get(host.id)) is None or seen.status is MemberStatus.ALIVE)
        )


def is_capable(host: Host) -> bool:
    """Tell whether a host may be given work on storage and guests: no witness, joining, fenced or in maintenance."""
    return (
        host.state is HostState.MEMBER
        and not host.witness
        and not host.maintenance
        and not host.joining
    )
