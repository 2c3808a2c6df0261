"""When to fence a host that doesn't renew its lease, by its power or by the storages: a pure decision of the leader.

Fencing is faster than waiting for T_safe, and final: first it is committed that the host's renewals are refused, then its
management board switches it off (`nodeagent.services.fencing`), or the storages of its VMs refuse what it writes
(`nodeagent.services.storage_fencing`), or both. So it is done for a reason only: VMs that others can run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.model import VM, Bmc, BmcState, Host, HostState, Lease, PowerState, VMPhase
from ha.profile import Profile


@dataclass(frozen=True, slots=True)
class Fence:
    """Refuse the host's renewals from now on, have its power taken away, and what it writes refused by these storages.

    Guards both revisions.
    """

    host_id: str
    host_revision: int
    lease_revision: int
    storage_ids: tuple[str, ...] = ()


def to_fence(
    *,
    profile: Profile,
    hosts: Mapping[str, Host],
    leases: Mapping[str, Lease],
    bmcs: Mapping[str, Bmc],
    movable: Iterable[VM],
    ages_s: Mapping[str, float],
    suspected: frozenset[str],
    voters: frozenset[str],
    up: frozenset[str],
    by_storage: Mapping[str, frozenset[str]] | None = None,
) -> list[Fence]:
    """Return the hosts to be fenced now, by name.

    `movable` are the VMs that would run elsewhere; `by_storage` has, by host, the storages that can free some of these by
    refusing the host, which is not done where the guard may let guests live on without a lease: nothing would end them, and
    the host could never renew; `suspected` the hosts that were silent a round ago already. Of three
    hosts or less one at a time is fenced, of more a third at most: many silent hosts are a fault of the network, or ours.
    None is whose vote is needed: without a quorum it could not be recorded that it is off. `up` are the nodes that the
    leader's log reaches, and the leader.
    """
    silent = [id_ for id_ in hosts if ages_s.get(id_, 0.0) >= profile.of(leases.get(id_)).suspect_s]
    if len(silent) > max(1, len(hosts) // 3):
        return []
    worth_it = {id_ for vm in movable for id_ in (vm.host_id, vm.migrating_to_host_id) if id_}
    storages = by_storage or {}
    found = []
    for host in sorted((hosts[id_] for id_ in silent), key=lambda host: host.name):
        bmc, lease = bmcs.get(host.id), leases.get(host.id)
        reliable = bmc is not None and bmc.state is BmcState.OK
        spare = has_quorum_without(host.id, voters=voters, up=up)
        wanted = host.state is HostState.MEMBER and host.id in suspected & worth_it
        ends = lease is not None and not lease.disarmed
        refusing = tuple(sorted(storages.get(host.id, ()))) if ends else ()
        if (reliable or refusing) and lease and spare and wanted:
            found.append(Fence(host.id, host.revision, lease.revision, refusing))
    return found


def has_quorum_without(host_id: str, *, voters: frozenset[str], up: frozenset[str]) -> bool:
    """Tell whether the voters that are up are a majority though this host is not."""
    return len((voters & up) - {host_id}) > len(voters) // 2


def is_movable(vm: VM) -> bool:
    """Tell whether a VM is one that runs and would be started elsewhere, wherever its disks are."""
    return (
        vm.ha
        and vm.power is PowerState.RUNNING
        and vm.phase not in (VMPhase.CREATING, VMPhase.DELETING)
    )
