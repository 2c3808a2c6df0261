"""What belongs to a VM, found by index: its disks with their snapshots, and its NICs.

Used by whatever works on a VM; nothing here grows with the number of VMs in the cluster.
"""

from __future__ import annotations

from core.model import Disk, Nic, Snapshot
from raftstate.store import Store


def disks_of(store: Store, vm_id: str) -> tuple[Disk, ...]:
    """Return a VM's disks in their order."""
    return tuple(sorted(store.with_value(Disk, "vm_id", vm_id), key=lambda disk: disk.index))


def nics_of(store: Store, vm_id: str) -> tuple[Nic, ...]:
    """Return a VM's NICs in their order."""
    return tuple(sorted(store.with_value(Nic, "vm_id", vm_id), key=lambda nic: nic.index))


def snapshots_of(store: Store, disk_id: str) -> tuple[Snapshot, ...]:
    """Return a disk's snapshots, in the order they were taken in."""
    found = store.with_value(Snapshot, "disk_id", disk_id)
    return tuple(sorted(found, key=lambda snapshot: (snapshot.created_ms, snapshot.id)))


def layers_of(store: Store, disk: Disk) -> tuple[str, ...]:
    """Return the ids of all files of a disk, that which is written first."""
    layers = (snapshot.layer_id for snapshot in snapshots_of(store, disk.id))
    return tuple(dict.fromkeys((disk.top_layer_id, *layers)))
