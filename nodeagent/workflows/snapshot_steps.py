"""The steps of taking, going back to and deleting a snapshot of a stopped VM. Each is idempotent in both directions.

A new layer is made first, then one transaction says that the disk uses it, and files go only once no record needs them. So
whenever the host dies, the records name files that are there and whole. Another host may have taken the task over while this
one stood still: before anything takes effect in files that others may know of, `SnapshotWork.sure` asks the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError
from core.model import (
    VM,
    Disk,
    Leftover,
    PowerState,
    Resource,
    Snapshot,
    SnapshotState,
    Task,
    VMPhase,
)
from core.workflow import RepeatStepError
from nodeagent.services.storages import Storages
from nodeagent.services.task_journal import ENDED, TaskTakenError
from nodeagent.services.vm_parts import layers_of, snapshots_of
from nodeagent.workflows.cancelling import stoppable
from nodeagent.workflows.vm_steps import place_of
from nodeagent.workflows.work import VmWork
from raftstate.store import Store
from storage.layers import LayeredStorage


@dataclass(frozen=True, slots=True)
class SnapshotWork:
    """One task on one snapshot. What it was opened with is in the task's arguments (`nodeagent.services.snapshots`)."""

    work: VmWork

    def argument(self, name: str) -> str:
        """Return what the task was opened with."""
        return self.work.task.arguments.get(name, "")

    @property
    def new_layer_id(self) -> str:
        """The layer that the task makes; empty: none."""
        return self.argument("new_layer_id")

    @property
    def dropped(self) -> tuple[str, ...]:
        """The layers that the task removes in the end, upper ones first."""
        return tuple(self.argument("dropped").split())

    def disk(self) -> Disk:
        """Return the disk as it stands now.

        Raises:
            NotFoundError: it is gone.
        """
        return self.work.shop.node.store.need(Disk, self.argument("disk_id"))

    def snapshot(self) -> Snapshot:
        """Return the snapshot as it stands now.

        Raises:
            NotFoundError: it is gone.
        """
        return self.work.shop.node.store.need(Snapshot, self.argument("snapshot_id"))

    def maybe_snapshot(self) -> Snapshot | None:
        """Return the snapshot, or None when its record is gone already."""
        return self.work.shop.node.store.get(Snapshot, self.argument("snapshot_id"))

    def layers(self) -> LayeredStorage:
        """Return what keeps the layers of the disk; raises like `Storages.layers`."""
        return self.work.shop.storages.layers(self.disk())

    def stopped_vm(self) -> VM:
        """Return the VM, which is this host's and stopped, to be guarded by what is stored.

        Raises:
            ConflictError: it isn't.
        """
        self.work.check_here()
        vm = self.work.vm()
        if vm.power is not PowerState.STOPPED or vm.phase is not VMPhase.STOPPED:
            raise ConflictError(f"VM {vm.name!r} is {vm.phase}, not stopped")
        return vm

    async def sure(self) -> None:
        """Make sure, by the log, that the task is still this host's and the VM is stopped.

        Raises:
            TaskTakenError: it isn't any more.
            UnavailableError: nobody can tell now.
        """
        store, host_id = self.work.shop.node.store, self.work.shop.node.host_id
        await store.barrier()
        task = store.get(Task, self.work.task.id)
        if task is None or task.state in ENDED or task.runner_host_id != host_id:
            raise TaskTakenError("the task was ended or given to another host meanwhile")
        self.stopped_vm()

    async def drop(self, layer_id: str) -> None:
        """Remove a layer that no record needs any more.

        Raises:
            ConflictError: one does, or another layer lies on it.
        """
        await self.sure()
        store, disk = self.work.shop.node.store, self.disk()
        if layer_id in layers_of(store, disk):
            raise ConflictError(f"layer {layer_id} of disk {disk.name!r} is still in use: it stays")
        await self.layers().drop_layer(layer_id)

    def file_of(self, step: str, layer_id: str) -> Leftover:
        """Return what is said of the file of a layer that may be left behind."""
        disk = self.disk()
        where = place_of(self.work, disk)
        return Leftover(
            step=step, resource=f"disk/{disk.id}", what=f"the file of layer {layer_id}{where}"
        )

    def record_of(self, step: str) -> Leftover:
        """Return what is said of the snapshot's record."""
        key = f"snapshot/{self.argument('snapshot_id')}"
        return Leftover(step=step, resource=key, what="the snapshot's record")


@dataclass(frozen=True, slots=True)
class _Step:
    """What the steps share: made of the task's work, as all steps are."""

    work: VmWork

    @property
    def about(self) -> SnapshotWork:
        return SnapshotWork(self.work)

    @property
    def store(self) -> Store:
        return self.work.shop.node.store

    @property
    def storages(self) -> Storages:
        return self.work.shop.storages


class KeepSnapshot(_Step):
    """The record was made with the task; undoing the whole workflow removes it."""

    name = "keep-snapshot"

    async def do(self) -> Mapping[str, str]:
        self.about.stopped_vm()
        return {"snapshot": self.about.snapshot().name}

    async def undo(self) -> None:
        if (snapshot := self.about.maybe_snapshot()) is not None:
            await self.store.apply(deletes=(snapshot,))

    def left_behind(self) -> tuple[Leftover, ...]:
        return (self.about.record_of(self.name),)


class AddLayer(_Step):
    """Make an empty layer on that of the snapshot. The VM will go on in it."""

    name = "add-layer"

    async def do(self) -> None:
        await self.about.sure()
        below = self.about.snapshot().layer_id
        await self.about.layers().add_layer(self.about.new_layer_id, below)

    async def undo(self) -> None:
        await self.about.drop(self.about.new_layer_id)

    def left_behind(self) -> tuple[Leftover, ...]:
        return (self.about.file_of(self.name, self.about.new_layer_id),)


class UseLayer(_Step):
    """Have the disk go on from the snapshot, in the new layer: one transaction, before and after which the VM could start."""

    name = "use-layer"

    async def do(self) -> Mapping[str, str]:
        await self.about.sure()
        disk, snapshot, new = self.about.disk(), self.about.snapshot(), self.about.new_layer_id
        if disk.top_layer_id == new:
            return {"snapshot": snapshot.name}
        used = replace(
            disk, layer_id=new, current_snapshot_id=snapshot.id, size_bytes=snapshot.size_bytes
        )
        puts: tuple[Resource, ...] = (used,)
        if snapshot.state is SnapshotState.TAKING:
            stored = await self.storages.stored_bytes(disk, snapshot.layer_id)
            puts = (used, replace(snapshot, state=SnapshotState.READY, stored_bytes=stored))
        await self.store.apply(puts=puts, guards=(self.about.stopped_vm(),))
        return {"snapshot": snapshot.name}

    async def undo(self) -> None:
        disk = self.about.disk()
        if disk.top_layer_id != self.about.new_layer_id:
            return
        old = self.about.argument("old_layer_id")
        back = replace(
            disk,
            layer_id="" if old == disk.id else old,
            current_snapshot_id=self.about.argument("old_snapshot_id"),
            size_bytes=int(self.about.argument("old_size_bytes")),
        )
        puts: tuple[Resource, ...] = (back,)
        snapshot = self.about.maybe_snapshot()
        if (
            snapshot is not None and snapshot.layer_id == old
        ):  # it was being taken, and is written on
            puts = (back, replace(snapshot, state=SnapshotState.TAKING))
        await self.store.apply(puts=puts, guards=(self.about.stopped_vm(),))

    def left_behind(self) -> tuple[Leftover, ...]:
        return ()


class MarkSnapshot(_Step):
    """The record was marked with the task; undoing the whole workflow takes that back."""

    name = "mark-snapshot"

    async def do(self) -> Mapping[str, str]:
        self.about.stopped_vm()
        return {"snapshot": self.about.snapshot().name}

    async def undo(self) -> None:
        snapshot = self.about.maybe_snapshot()
        if snapshot is not None and snapshot.state is SnapshotState.DELETING:
            # Without files to drop it never came to be, and can only be deleted.
            state = SnapshotState.READY if self.about.dropped else SnapshotState.TAKING
            await self.store.apply(puts=(replace(snapshot, state=state),))

    def left_behind(self) -> tuple[Leftover, ...]:
        return (self.about.record_of(self.name),)


class MergeLayers(_Step):
    """Have each layer that lies on the snapshot's hold what that holds too: frozen ones in their place, the disk's in a new one.

    Until the snapshot is forgotten all is there twice, so this can be left and undone at any moment. Cancelling stops it at once.
    """

    name = "merge-layers"

    async def do(self) -> None:
        self.about.stopped_vm()
        await stoppable(self._merge(), self.work.cancel_requested)

    async def _merge(self) -> None:
        if not self.about.dropped:
            return
        layers, below = self.about.layers(), self.about.dropped[-1]
        top = self.about.disk().top_layer_id
        for layer_id in await layers.layers_on(below):
            into = self.about.new_layer_id if layer_id == top else layer_id
            await layers.merge_layer(layer_id, below, into_id=into, sure=self.about.sure)

    async def undo(self) -> None:
        if self.about.new_layer_id:
            await self.about.drop(self.about.new_layer_id)

    def left_behind(self) -> tuple[Leftover, ...]:
        new = self.about.new_layer_id
        return (self.about.file_of(self.name, new),) if new else ()


class ForgetSnapshot(_Step):
    """Have those that went on from the snapshot go on from its parent, and forget it, in one transaction. From here there is only forward."""

    name = "forget-snapshot"
    no_return: ClassVar[bool] = True

    async def do(self) -> None:
        try:
            await self._forget()
        except PlatformError as error:
            raise RepeatStepError(
                f"the snapshot can't be forgotten now, this is tried again: {error.message}"
            ) from error

    async def _forget(self) -> None:
        await self.about.sure()
        snapshot = self.about.maybe_snapshot()
        if snapshot is None:
            return
        disk = self.about.disk()
        puts: list[Resource] = [
            replace(
                child,
                parent_id=snapshot.parent_id,
                stored_bytes=await self.storages.stored_bytes(disk, child.layer_id),
            )
            for child in snapshots_of(self.store, disk.id)
            if child.parent_id == snapshot.id
        ]
        if disk.current_snapshot_id == snapshot.id:
            puts.append(
                replace(
                    disk,
                    layer_id=self.about.new_layer_id,
                    current_snapshot_id=snapshot.parent_id,
                )
            )
        await self.store.apply(puts=puts, deletes=(snapshot,), guards=(self.about.stopped_vm(),))

    async def undo(self) -> None:
        return

    def left_behind(self) -> tuple[Leftover, ...]:
        return (self.about.record_of(self.name), *_files(self.about, self.name))


class DropLayers(_Step):
    """Remove the files that nothing needs any more. Deleted files don't come back, so from here there is only forward."""

    name = "drop-layers"
    no_return: ClassVar[bool] = True

    async def do(self) -> None:
        try:
            for layer_id in self.about.dropped:
                await self.about.drop(layer_id)
        except PlatformError as error:
            raise RepeatStepError(
                f"the files of what isn't needed any more can't be removed now, this is tried again: {error.message}"
            ) from error

    async def undo(self) -> None:
        return

    def left_behind(self) -> tuple[Leftover, ...]:
        return _files(self.about, self.name)


def _files(about: SnapshotWork, step: str) -> tuple[Leftover, ...]:
    return tuple(about.file_of(step, layer_id) for layer_id in about.dropped)
