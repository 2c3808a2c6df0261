"""The target's side of a live migration: get ready, say where the guest is, clean up.

Called over the mesh by the source's `nodeagent.services.migration`. What another agent may do here is checked against
this host's own copy of the state: only the VM's owner, and only while the move is committed.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from core.errors import ConflictError, ForbiddenError, TemporaryError
from core.model import VM
from nodeagent.compute.hypervisor import DomainStatus
from nodeagent.compute.tunnel import (
    MIGRATE_DIR,
    directories_of_moves,
    prepare_target,
    remove_vm_directory,
)
from nodeagent.node import Node
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.storages import Storages
from nodeagent.services.vm_parts import disks_of
from nodeagent.services.vm_power import VmPower

log = logging.getLogger(__name__)

CATCH_UP_TIMEOUT_S = 5.0
NETWORK_TIMEOUT_S = 15.0


class PrepareIncoming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`index` is the log index of the reservation, which this host must have applied first."""

    vm_id: str
    generation: int
    index: int


class AboutIncoming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names a VM on its way here."""

    vm_id: str


class IncomingState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the guest is on this host, and whether its processors run here."""

    present: bool
    running: bool


class IncomingMigrations:
    """What the mesh may ask of this host about arriving guests."""

    def __init__(
        self, node: Node, power: VmPower, network: NetworkController, storages: Storages
    ) -> None:
        self._node = node
        self._power = power
        self._network = network
        self._storages = storages

    async def run(self) -> None:
        """Remove the directories of moves that are over, here and away, until cancelled."""
        watch = self._node.store.watch(VM)
        try:
            while True:
                await watch.next()
                self.sweep()
        finally:
            self._node.store.unwatch(watch)

    def sweep(self, *, directory: Path = MIGRATE_DIR) -> None:
        """Remove what moves left that are not reserved any more: a guest that arrived needs its way no longer."""
        here = self._node.host_id
        for vm_id in directories_of_moves(directory=directory):
            vm = self._node.store.get(VM, vm_id)
            moves = (
                vm is not None
                and vm.migrating_to_host_id
                and here in (vm.host_id, vm.migrating_to_host_id)
            )
            if not moves:
                remove_vm_directory(vm_id, directory=directory)

    def is_allowed(self, peer_id: str, vm_id: str) -> bool:
        """Tell whether that host is moving that VM here now; asked for every tunnel stream."""
        vm = self._node.store.get(VM, vm_id)
        if vm is None:
            return False
        return vm.host_id == peer_id and vm.migrating_to_host_id == self._node.host_id

    async def prepare(self, peer_id: str, body: PrepareIncoming) -> IncomingState:
        """Have disks, network, tunnel and guard ready.

        Raises:
            ForbiddenError: the state knows of no such move.
            ConflictError, TemporaryError: something is missing here; the message says what.
        """
        if self._power.closing:
            raise ConflictError(f"host {self._node.host_name} is being shut down")
        await self._caught_up(body.index)
        self._check(peer_id, body.vm_id)
        vm = self._node.store.need(VM, body.vm_id)
        if vm.generation != body.generation:
            raise ConflictError("the VM was started anew meanwhile: migrate it again")
        self._power.check_can_be_ended(vm)
        for disk in disks_of(self._node.store, vm.id):
            await self._storages.check_disk(disk)
        networks = self._power.networks_of(vm)
        await self._network.ensure(body.index, networks, timeout_s=NETWORK_TIMEOUT_S)
        await self._power.destroy(vm.id)
        prepare_target(vm.id)
        # Read again right before the guard is told which state this is: what was true above may not be any more.
        self._check(peer_id, body.vm_id)
        if self._node.store.need(VM, vm.id).generation != body.generation:
            raise ConflictError("the VM was started anew meanwhile: migrate it again")
        await self._node.guard.grant(
            vm.id,
            generation=vm.generation,
            lease_bound=self._power.is_lease_bound(vm),
            applied_index=self._node.store.index,
        )
        return IncomingState(present=False, running=False)

    async def state(self, body: AboutIncoming) -> IncomingState:
        """Say whether the guest is here."""
        domain = await self._node.hypervisor.get(body.vm_id)
        return IncomingState(
            present=domain is not None,
            running=domain is not None
            and domain.status is DomainStatus.RUNNING
            and not domain.migrating_in,
        )

    async def release(self, peer_id: str, body: AboutIncoming) -> IncomingState:
        """Remove what was prepared, and a guest that arrived only in part. The owner says that it has the guest.

        Raises:
            ForbiddenError: the VM is this host's own, or the caller is not its owner.
        """
        vm = self._node.store.get(VM, body.vm_id)
        if vm is None or vm.host_id != peer_id:
            raise ForbiddenError("only the host that owns the VM may take its move back")
        await self._power.destroy(vm.id)
        remove_vm_directory(vm.id)
        return IncomingState(present=False, running=False)

    def _check(self, peer_id: str, vm_id: str) -> None:
        if not self.is_allowed(peer_id, vm_id):
            raise ForbiddenError("this VM is not being moved here by that host")

    async def _caught_up(self, index: int) -> None:
        watch = self._node.store.watch(VM)
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                while self._node.store.index < index:
                    await watch.next()
        except TimeoutError:
            raise TemporaryError("this host's copy of the state lags behind: try again") from None
        finally:
            self._node.store.unwatch(watch)
