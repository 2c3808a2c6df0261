"""What belongs to a VM, found by index: its disks and NICs.

Used by whatever works on a VM; nothing here grows with the number of VMs in the cluster.
"""

from __future__ import annotations

from core.model import Disk, Nic
from raftstate.store import Store


def disks_of(store: Store, vm_id: str) -> tuple[Disk, ...]:
    """Return a VM's disks in their order."""
    return tuple(sorted(store.with_value(Disk, "vm_id", vm_id), key=lambda disk: disk.index))


def nics_of(store: Store, vm_id: str) -> tuple[Nic, ...]:
    """Return a VM's NICs in their order."""
    return tuple(sorted(store.with_value(Nic, "vm_id", vm_id), key=lambda nic: nic.index))
