"""A guest that its hypervisor stopped because its storage failed: it goes on here, or starts on a host that has the storage.

QEMU stops a guest at the first read or write that fails, and tries that one again when the guest goes on; so a guest that
waits loses nothing. Called by the VM controller. Where all hosts lost the storage nothing is done: the guests go on where
they are when it is back.
"""

from __future__ import annotations

from core.model import VM, DataStorage
from nodeagent.node import Node
from nodeagent.services.moving_on import MovingOn
from nodeagent.services.storage_watch import StorageWatch
from nodeagent.services.vm_parts import disks_of
from nodeagent.services.vm_plan import Action

LOST_S_MIN = 25.0


class StorageLoss:
    """Decides about guests that wait for their storage, and gives away those that wait in vain."""

    def __init__(self, node: Node, watch: StorageWatch, moving_on: MovingOn) -> None:
        self._node, self._watch, self._moving_on = node, watch, moving_on

    def next_action(self, vm: VM) -> Action:
        """Return RESUME when all storages of the VM are well, LEAVE when one has long been lost to this host alone.

        Otherwise AFTER_IO_ERROR: ask again soon.
        """
        storages = self._storages(vm.id)
        if all(self._watch.usable(storage.id) for storage in storages):
            return Action.RESUME
        if vm.ha and self._lost(storages):
            return Action.LEAVE
        return Action.AFTER_IO_ERROR

    async def leave(self, vm_id: str) -> None:
        """Take the guest down and give the VM to a host that has its storages.

        Raises:
            PlatformError: no host has them or room for it, or the guest can't be taken down: it stays.
        """
        await self._watch.look()  # right before something that can't be taken back
        lost = self._lost(self._storages(vm_id))
        names = ", ".join(storage.name for storage in lost)
        if lost:
            await self._moving_on.leave(
                vm_id, f"has been without its data storage {names} for {LOST_S_MIN:g} s"
            )

    def _storages(self, vm_id: str) -> list[DataStorage]:
        store = self._node.store
        ids = {disk.data_storage_id for disk in disks_of(store, vm_id)}
        return [store.need(DataStorage, id_) for id_ in sorted(ids)]

    def _lost(self, storages: list[DataStorage]) -> list[DataStorage]:
        return [it for it in storages if self._watch.lost_s(it.id) >= LOST_S_MIN]
