"""The hosts that VMs wait for after an orderly shutdown, as the leader sees them; the alarm when one isn't back in time.

Asked by the failover loop before it decides. What is told is kept in memory: a new leader begins with what is so then.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.model import Cluster, Host, Lease, Severity
from ha.shutdown import frozen_hosts
from nodeagent.services.event_log import EventLog
from raftstate.store import Store


class Freezes:
    """Times are monotonic seconds of this node's clock."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store, self._events = store, events
        self._before: frozenset[str] = frozenset()

    async def look(self, stamps_s: Mapping[str, float], now_s: float) -> frozenset[str]:
        """Return the hosts that VMs wait for now, and raise the alarm for those that they wait for no longer."""
        hosts = [host for host in self._store.all(Host) if host.frozen]
        leases = {h.id: lease for h in hosts if (lease := self._store.get(Lease, h.id))}
        frozen = frozen_hosts(
            hosts,
            {cluster.id: cluster for cluster in self._store.all(Cluster)},
            leases,
            {host_id: now_s - stamp_s for host_id, stamp_s in stamps_s.items()},
        )
        over, self._before = self._before - frozen, frozen
        for host in hosts:
            if host.id in over and leases[host.id].boot_id == host.down_boot_id:
                await self._events.record(
                    "host-not-back",
                    host,
                    f"host {host.name} is not back from its shutdown: its VMs wait no longer and start elsewhere",
                    severity=Severity.ALARM,
                )
        return frozen
