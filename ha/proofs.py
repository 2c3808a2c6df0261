"""The proofs that a host can no longer write: why its VMs may run elsewhere (docs/ha.md).

Pure; used by the HA manager for VMs and by the rescue of tasks. What it rests on is in the store, but for `age_s`, which
is by the judge's own clock.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from core.model import Host, HostState, Lease
from ha.profile import Profile


class Proof(StrEnum):
    """Why a host can no longer write to a VM's disks."""

    TIME = "time"  # L + W + m since its last renewal, its watchdog was armed and its guard not disarmed
    BOOT = (
        "boot"  # the VM wasn't started in the boot that renewed last, so nothing of it runs there
    )
    FENCED = "fenced"  # an operator said that it is off, and a working guard has killed its guests
    STORAGE = "storage"  # all storages of the VM's disks refuse what it writes, after its renewals were refused
    POWER = "power"  # its management board took its power away, after its renewals were refused


def silence_of(profile: Profile, host: Host | None, lease: Lease, age_s: float) -> Proof | None:
    """Return the proof that nothing runs on a host any more, or None; `age_s` since its last renewal was applied.

    The word of a management board counts for the boot that held the lease then, by the lease's revision: a host that
    came back since has renewed, and whoever acts on the proof guards that revision. L and W are those that the host
    said in its last renewal. Where its guard may let guests live on without a lease (`disarmed`), time proves nothing.
    """
    profile = profile.of(lease)
    if host is not None and host.state is HostState.FENCED:
        if host.off_lease_revision and host.off_lease_revision == lease.revision:
            return Proof.POWER
        if age_s >= profile.ended_s:
            return Proof.FENCED
    by_time = lease.watchdog_armed and not lease.disarmed
    return Proof.TIME if by_time and age_s >= profile.safe_s else None


def is_refused_by(host: Host | None, lease: Lease, storage_ids: Collection[str]) -> bool:
    """Tell whether all of these data storages refuse what a host writes, so that a VM with its disks there can't write.

    Their word counts for the boot and the lease that the host held then, like a management board's. Nothing follows for
    a VM without disks, nor from some of its storages.
    """
    return (
        host is not None
        and host.state in (HostState.FENCING, HostState.FENCED)
        and host.storage_lease_revision > 0
        and host.storage_lease_revision == lease.revision
        and host.fenced_boot_id == lease.boot_id
        and len(storage_ids) > 0
        and set(storage_ids) <= set(host.fenced_storage_ids)
    )
