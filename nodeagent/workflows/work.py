"""What every step of a VM workflow shares: the VM it works on and the services it works with."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ConflictError
from core.model import VM, Disk, Nic, Task
from nodeagent.node import Node
from nodeagent.services.migration import MigrationService
from nodeagent.services.storages import Storages
from nodeagent.services.vm_parts import disks_of, layers_of, nics_of
from nodeagent.services.vm_power import VmPower


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """The services of this host that steps use."""

    node: Node
    power: VmPower
    storages: Storages
    migration: MigrationService


@dataclass(frozen=True, slots=True)
class VmWork:
    """One task on one VM."""

    shop: Workshop
    task: Task

    @property
    def vm_id(self) -> str:
        return self.task.subject.removeprefix("vm/")

    def vm(self) -> VM:
        """Return the VM as it stands now.

        Raises:
            NotFoundError: it is gone.
        """
        return self.shop.node.store.need(VM, self.vm_id)

    def maybe_vm(self) -> VM | None:
        """Return the VM, or None when its record is gone already."""
        return self.shop.node.store.get(VM, self.vm_id)

    def disks(self) -> tuple[Disk, ...]:
        """Return the VM's disks in their order."""
        return disks_of(self.shop.node.store, self.vm_id)

    def layers(self, disk: Disk) -> tuple[str, ...]:
        """Return the ids of all files of one of the disks."""
        return layers_of(self.shop.node.store, disk)

    def nics(self) -> tuple[Nic, ...]:
        """Return the VM's NICs in their order."""
        return nics_of(self.shop.node.store, self.vm_id)

    def cancel_requested(self) -> bool:
        """Tell whether someone asked to cancel this task; a step that waits long looks at it."""
        task = self.shop.node.store.get(Task, self.task.id)
        return task is not None and task.cancel_requested

    def check_here(self) -> None:
        """Make sure that this host is in charge of the VM.

        Raises:
            ConflictError: another is.
        """
        vm = self.vm()
        if vm.host_id != self.shop.node.host_id:
            raise ConflictError(f"VM {vm.name!r} belongs to another host now")
