"""What becomes of the VMs of a host that is shut down in order: which policy holds, and for how long VMs wait. Pure.

Used by the host that goes down (`nodeagent.services.host_shutdown`) and by the leader's failover.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from core.model import Cluster, Host, Lease, ShutdownPolicy


class Going(StrEnum):
    """How a host goes down."""

    REBOOT = "reboot"
    POWER_OFF = "power-off"


def policy_for(cluster: Cluster, host: Host, going: Going) -> ShutdownPolicy:
    """Return migrate, failover or freeze."""
    of_host = host.shutdown_policy
    policy = cluster.shutdown_policy if of_host is ShutdownPolicy.CLUSTER else of_host
    if policy in (ShutdownPolicy.CONDITIONAL, ShutdownPolicy.CLUSTER):
        return ShutdownPolicy.FREEZE if going is Going.REBOOT else ShutdownPolicy.FAILOVER
    return policy


def is_frozen(host: Host, cluster: Cluster, lease: Lease | None, age_s: float) -> bool:
    """Tell whether VMs still wait for a host; `age_s` since its last renewal was applied.

    A host that renewed with another boot is back, whatever its record still says.
    """
    return (
        host.frozen
        and lease is not None
        and lease.boot_id == host.down_boot_id
        and age_s < cluster.freeze_s_max
    )


def frozen_hosts(
    hosts: Iterable[Host],
    clusters: Mapping[str, Cluster],
    leases: Mapping[str, Lease],
    ages_s: Mapping[str, float],
) -> frozenset[str]:
    """Return the ids of hosts that VMs wait for."""
    return frozenset(
        host.id
        for host in hosts
        if host.frozen
        and (cluster := clusters.get(host.cluster_id)) is not None
        and is_frozen(host, cluster, leases.get(host.id), ages_s.get(host.id, 0.0))
    )
