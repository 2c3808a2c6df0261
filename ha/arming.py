"""When failover may be switched off, and when a profile may be changed. Pure; `nodeagent.services.ha_settings` asks.

A guard that doesn't say what it keeps to may belong to an agent that doesn't understand what others say of it, so while
one such host is in play nothing of this is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from core.model import VM, Host, HostState, Lease
from ha.fencing import is_movable
from ha.profile import Profile

GAPS = 2.0
"""A lease must be longer than so many times the longest time without a renewal, or an election kills guests."""


def is_certainly_over(profile: Profile, lease: Lease | None, age_s: float) -> bool:
    """Tell whether a host's last renewal is so old that its guard and watchdog have acted, if it enforces."""
    return lease is None or age_s >= profile.of(lease).safe_s


def old_guards(
    profile: Profile,
    hosts: Iterable[Host],
    leases: Mapping[str, Lease],
    ages_s: Mapping[str, float],
    voters: Collection[str],
) -> list[str]:
    """Return the names of hosts in play whose guards don't say what they keep to: those that are up, and voters."""
    return sorted(
        host.name
        for host in hosts
        if (lease := leases.get(host.id)) is not None
        and not lease.lease_s
        and (
            host.id in voters
            or not is_certainly_over(profile, lease, ages_s.get(host.id, float("inf")))
        )
    )


def under_way(
    profile: Profile,
    hosts: Iterable[Host],
    vms: Iterable[VM],
    leases: Mapping[str, Lease],
    ages_s: Mapping[str, float],
) -> list[str]:
    """Return what disarming waits for: hosts being fenced, migrations, and VMs of silent hosts that are not blocked."""
    known = {host.id: host for host in hosts}
    found = [
        f"host {host.name} is being fenced"
        for host in known.values()
        if host.state is HostState.FENCING
    ]
    for vm in vms:
        host = known.get(vm.host_id)
        if vm.migrating_to_host_id:
            found.append(f"VM {vm.name} is being migrated")
        elif host is not None and is_movable(vm) and not vm.blocked_reason:
            suspect_s = profile.of(leases.get(host.id)).suspect_s
            if ages_s.get(host.id, 0.0) >= suspect_s or host.state is HostState.FENCED:
                found.append(f"VM {vm.name} is being recovered from {host.name}")
    return sorted(found)


def holds(lease_s: float, gap_s: float | None) -> bool:
    """Tell whether a network whose longest time without a renewal is `gap_s` (None: not known) holds leases of this length."""
    return gap_s is None or lease_s > GAPS * gap_s
