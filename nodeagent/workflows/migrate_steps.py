"""The steps of a live migration.

Until `hand-over` the source owns the VM and every step can be undone. The target's guard holds a grant for the same
generation meanwhile, given on the committed reservation; QEMU itself runs the guest on one side only.

A target that is lost is waited for until failover has a proof that it holds nothing and takes the reservation off the record
(`ha.manager.EndMigration`). Then it isn't asked any more: what is left to do is here, to end libvirt's job and to say that the
guest runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from msgspec.structs import replace

from core.errors import ConflictError
from core.model import VM, Host, Lease, VMPhase
from core.workflow import CancelledByUserError
from nodeagent.services.host_room import still_room, tried_again
from nodeagent.services.placement_rules import leaving, still_allowed
from nodeagent.workflows.cancelling import stoppable
from nodeagent.workflows.work import VmWork


@dataclass(frozen=True, slots=True)
class ReserveTarget:
    """Commit where the VM is going, so that every host prepares its network for both places."""

    work: VmWork
    name: str = "reserve-target"

    async def do(self) -> None:
        await tried_again(self._reserve)

    async def _reserve(self) -> None:
        vm, target = self.work.vm(), _target(self.work)
        if vm.migrating_to_host_id == target.id or vm.host_id == target.id:
            return
        self.work.check_here()
        if vm.phase is not VMPhase.RUNNING:
            raise ConflictError(f"VM {vm.name!r} is {vm.phase}, not running")
        node = self.work.shop.node
        reserved = replace(vm, migrating_to_host_id=target.id, phase=VMPhase.MIGRATING)
        leaves = leaving(node.store, vm, node.host())
        rules = still_allowed(node.store, vm, target, leaves=leaves, moves=True)
        room = still_room(node.store, vm, target)
        await node.store.apply(puts=(reserved, room), guards=(target, *rules))

    async def undo(self) -> None:
        vm = self.work.maybe_vm()
        if vm is None or vm.host_id != self.work.shop.node.host_id:
            return
        if not vm.migrating_to_host_id and vm.phase is not VMPhase.MIGRATING:
            return
        await self.work.shop.node.store.apply(
            puts=(replace(vm, migrating_to_host_id="", phase=VMPhase.RUNNING),)
        )


@dataclass(frozen=True, slots=True)
class PrepareTarget:
    """Have the target's network, tunnel and guard ready before the first byte moves."""

    work: VmWork
    name: str = "prepare-target"

    async def do(self) -> None:
        work = self.work
        if _is_there(work):
            return
        try:
            await stoppable(
                work.shop.migration.prepare(work.vm(), _target(work)),
                lambda: _target_is_lost(work),
            )
        except CancelledByUserError:
            raise _lost(work) from None

    async def undo(self) -> None:
        work = self.work
        if _is_there(work) or _target_is_lost(work):
            return
        try:
            await stoppable(
                work.shop.migration.release(work.vm_id, _target(work)),
                lambda: _target_is_lost(work),
            )
        except CancelledByUserError:
            return


@dataclass(frozen=True, slots=True)
class MoveGuest:
    """Move memory and state. After an agent's crash in the middle, look where the guest is.

    Cancelling aborts the move as long as the guest has not arrived; then it comes too late. So does the loss of the target.
    """

    work: VmWork
    name: str = "move-guest"

    async def do(self) -> None:
        work, migration = self.work, self.work.shop.migration
        if _is_there(work):
            return
        if _target_is_lost(work):
            raise _lost(work)
        try:
            await stoppable(
                migration.move(work.vm(), _target(work)),
                lambda: work.cancel_requested() or _target_is_lost(work),
                stop=lambda: migration.abort(work.vm_id),
            )
        except CancelledByUserError:
            if work.cancel_requested():
                raise
            raise _lost(work) from None

    async def undo(self) -> None:
        """A migration that did not complete left the guest here. If it arrived after all, it belongs there.

        If it runs on neither side, the owner starts it again. Not knowing is an error: this is tried again.
        """
        vm, migration = self.work.maybe_vm(), self.work.shop.migration
        if vm is None:
            return
        if _target_is_lost(self.work):
            await migration.end(vm.id)
            return
        if _is_there(self.work) or await migration.settle(vm, _target(self.work)):
            await HandOver(self.work).do()


@dataclass(frozen=True, slots=True)
class HandOver:
    """Commit the new owner. The proof is P-stop: QEMU ended here when the guest resumed there."""

    work: VmWork
    name: str = "hand-over"
    may_cancel: ClassVar[bool] = False
    no_return: ClassVar[bool] = True

    async def do(self) -> Mapping[str, str]:
        vm, target = self.work.vm(), _target(self.work)
        store = self.work.shop.node.store
        if vm.host_id != target.id:
            # The target's lease was renewed in its present boot before it let the guest in; the barrier makes sure
            # that this copy of the state has that renewal. The boot recorded here is what failover judges by.
            await store.barrier()
            moved = replace(
                vm,
                host_id=target.id,
                boot_id=store.need(Lease, target.id).boot_id,
                migrating_to_host_id="",
                phase=VMPhase.RUNNING,
            )
            await store.apply(puts=(moved,))
        await self.work.shop.node.guard.revoke(vm.id)
        return {"host": target.name}

    async def undo(self) -> None:
        return


def _target(work: VmWork) -> Host:
    return work.shop.node.store.need(Host, work.task.arguments["target_host_id"])


def _is_there(work: VmWork) -> bool:
    vm: VM | None = work.maybe_vm()
    return vm is not None and vm.host_id == work.task.arguments["target_host_id"]


def _target_is_lost(work: VmWork) -> bool:
    """Tell whether failover took the reservation off the record, on a proof: nothing at the target runs or writes any more."""
    vm: VM | None = work.maybe_vm()
    return (
        vm is not None
        and vm.host_id == work.shop.node.host_id
        and vm.migrating_to_host_id != work.task.arguments["target_host_id"]
    )


def _lost(work: VmWork) -> ConflictError:
    return ConflictError(
        f"host {_target(work).name} was lost while VM {work.vm().name!r} was being moved there: it stays where it is",
        code="migration-target-lost",
    )
