"""What users ask of snapshots: each request becomes one transaction that states the wish and opens a task on the VM.

Called by `nodeagent.api.snapshots` on any agent; the VM's host does the work (`nodeagent.workflows.snapshot_steps`). A VM has
one open task at a time, and is stopped meanwhile: so nothing else touches its disk. Nothing is changed by a refused request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from core.errors import ConflictError, UnavailableError
from core.model import (
    VM,
    Disk,
    PowerState,
    Resource,
    Snapshot,
    SnapshotState,
    Task,
    VMPhase,
    check_name,
)
from nodeagent.node import Node
from nodeagent.services.vm_parts import disks_of, snapshots_of
from nodeagent.services.vm_tasks import IdSource, new_task
from raftstate.store import Store

CHAIN_MAX = 128
"""How many snapshots may go on from each other; QEMU refuses chains of 200 files."""
MANY = 5
"""With more, a task that takes another one begins with a warning."""


@dataclass(frozen=True, slots=True)
class OpenedSnapshot:
    """A snapshot and the task that works on it."""

    snapshot: Snapshot
    task: Task


class SnapshotService:
    """One method a request."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store

    async def take(
        self, vm: VM, ids: IdSource, *, name: str = "", description: str = ""
    ) -> OpenedSnapshot:
        """Keep what a stopped VM's disk holds now. It has the VM's tags, so whoever may see the VM sees it.

        Raises:
            InvalidError: the name can't be one.
            ConflictError: not stopped, busy, or too long a chain; or the name is taken.
            UnavailableError: no quorum; repeat with the same idempotency key.
        """
        snapshot_id = ids.id_for("snapshot")
        if (before := self._before(ids, snapshot_id)) is not None:
            return before
        disk = self._disk_to_work_on(vm)
        now_ms = self._node.clock.wall_ms()
        name = check_name(name or _name_at(vm, now_ms), "snapshot")
        if self._store.claim_holder(f"snapshot.name/{name}"):
            raise ConflictError(f"snapshot name {name!r} is already taken: choose another")
        if len(chain_of(self._store, disk)) >= CHAIN_MAX:
            raise ConflictError(
                f"disk {disk.name!r} goes on from {CHAIN_MAX} snapshots already, no more are possible: "
                "delete one of them first",
                code="too-many-snapshots",
            )
        snapshot = Snapshot(
            id=snapshot_id,
            name=name,
            disk_id=disk.id,
            parent_id=disk.current_snapshot_id,
            layer_id=disk.top_layer_id,
            size_bytes=disk.size_bytes,
            description=description,
            tags=vm.tags,
            created_ms=now_ms,
        )
        number = len(snapshots_of(self._store, disk.id))
        warning = (
            f"the disk has {number} snapshots already: each makes it slower and takes room; "
            "they are no backup, delete those that aren't needed"
            if number >= MANY
            else ""
        )
        return await self._open(
            "take-snapshot",
            snapshot,
            (vm, disk),
            ids,
            {"new_layer_id": ids.id_for("layer")},
            changed=snapshot,
            warning=warning,
        )

    async def revert(self, snapshot: Snapshot, ids: IdSource) -> OpenedSnapshot:
        """Have the disk of a stopped VM hold again what it held then; what was written since its last snapshot is lost.

        Raises:
            ConflictError: not stopped or busy, or the snapshot isn't ready.
            UnavailableError: no quorum; repeat with the same idempotency key.
        """
        if (before := self._before(ids, snapshot.id)) is not None:
            return before
        vm = self._vm_of(snapshot)
        disk = self._disk_to_work_on(vm)
        if snapshot.state is not SnapshotState.READY:
            raise ConflictError(
                f"snapshot {snapshot.name!r} is {snapshot.state}, not ready: it can't be gone back to"
            )
        return await self._open(
            "revert-snapshot",
            snapshot,
            (vm, disk, snapshot),
            ids,
            {"new_layer_id": ids.id_for("layer"), "dropped": disk.top_layer_id},
        )

    async def delete(self, snapshot: Snapshot, ids: IdSource) -> OpenedSnapshot:
        """Forget a snapshot; what the disk holds, and other snapshots, stay as they are.

        Raises:
            ConflictError: not stopped or busy.
            UnavailableError: no quorum; repeat with the same idempotency key.
        """
        if (before := self._before(ids, snapshot.id)) is not None:
            return before
        vm = self._vm_of(snapshot)
        disk = self._disk_to_work_on(vm)
        going = {"new_layer_id": "", "dropped": snapshot.layer_id}
        if snapshot.layer_id == disk.top_layer_id:
            going["dropped"] = ""  # it never came to be, and the disk is still written there
        elif disk.current_snapshot_id == snapshot.id:
            going["new_layer_id"] = ids.id_for("layer")
            going["dropped"] = f"{disk.top_layer_id} {snapshot.layer_id}"
        marked = replace(snapshot, state=SnapshotState.DELETING)
        return await self._open("delete-snapshot", snapshot, (vm, disk), ids, going, changed=marked)

    def vm_of(self, snapshot: Snapshot) -> VM | None:
        """Return the VM whose disk a snapshot is of, None while that is going."""
        disk = self._store.get(Disk, snapshot.disk_id)
        return self._store.get(VM, disk.vm_id) if disk is not None else None

    # -- parts

    def _before(self, ids: IdSource, snapshot_id: str) -> OpenedSnapshot | None:
        """Return what a request that is repeated has begun."""
        task = self._store.get(Task, ids.id_for("task"))
        snapshot = self._store.get(Snapshot, snapshot_id)
        return OpenedSnapshot(snapshot, task) if task and snapshot else None

    def _vm_of(self, snapshot: Snapshot) -> VM:
        if (vm := self.vm_of(snapshot)) is None:
            raise ConflictError(f"the VM of snapshot {snapshot.name!r} is being deleted")
        return vm

    def _disk_to_work_on(self, vm: VM) -> Disk:
        """Return the disk of a VM that is surely stopped."""
        if vm.phase is VMPhase.DELETING:
            raise ConflictError(f"VM {vm.name!r} is being deleted")
        if vm.power is not PowerState.STOPPED or vm.phase is not VMPhase.STOPPED:
            raise ConflictError(
                f"VM {vm.name!r} is {vm.phase}, and only a stopped VM's snapshots can be taken, gone back to or deleted: "
                f"kvorum vm stop {vm.name}",
                code="vm-not-stopped",
            )
        disks = disks_of(self._store, vm.id)
        if len(disks) != 1:
            raise ConflictError(
                f"VM {vm.name!r} has {len(disks)} disks: snapshots are of VMs with one"
            )
        return disks[0]

    async def _open(
        self,
        workflow: str,
        snapshot: Snapshot,
        as_seen: tuple[VM | Disk | Snapshot, ...],
        ids: IdSource,
        arguments: Mapping[str, str],
        *,
        changed: Snapshot | None = None,
        warning: str = "",
    ) -> OpenedSnapshot:
        """Record the wish and the task, unless one of `as_seen` was changed meanwhile: VM and disk, maybe the snapshot."""
        vm, disk = as_seen[0], as_seen[1]
        assert isinstance(vm, VM) and isinstance(disk, Disk), "a VM and its disk come first"
        about = {
            "snapshot_id": snapshot.id,
            "disk_id": disk.id,
            "old_layer_id": disk.top_layer_id,
            "old_snapshot_id": disk.current_snapshot_id,
            "old_size_bytes": str(disk.size_bytes),
        }
        task = new_task(self._node, workflow, vm, ids, {**about, **arguments}, warning=warning)
        beside, guards = ids.beside(task)
        puts: tuple[Resource, ...] = (task, *((changed,) if changed else ()), *beside)
        await self._store.apply(puts=puts, guards=(*as_seen, *guards), request_id=ids.request_id)
        opened = self._before(ids, snapshot.id)
        if opened is None:
            raise UnavailableError("the task was opened but is gone again: look at the snapshots")
        return opened


def chain_of(store: Store, disk: Disk) -> tuple[Snapshot, ...]:
    """Return the snapshots that a disk goes on from, the latest first."""
    by_id = {one.id: one for one in snapshots_of(store, disk.id)}
    chain: list[Snapshot] = []
    at = by_id.pop(disk.current_snapshot_id, None)
    while at is not None:
        chain.append(at)
        at = by_id.pop(at.parent_id, None)
    return tuple(chain)


def _name_at(vm: VM, now_ms: int) -> str:
    """Return a name for a snapshot that was given none: that of the VM, and the moment in UTC."""
    moment = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    return f"{vm.name[:47].rstrip('.-')}-{moment}"
