"""Starting and stopping a guest on this host, in the one order that is safe.

Used by the VM controller and by workflow steps. A start is: commit a new generation (so that no other host has the
VM, and every older run of it is void), network in place, grant from the guard, QEMU paused, guard asked again,
resume. Anything that fails on the way takes the guest down again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, TemporaryError
from core.model import (
    VM,
    DataStorage,
    DataStorageKind,
    Event,
    Nic,
    PortGroup,
    PowerState,
    VMPhase,
)
from netfabric.names import bridge_name, tap_name
from nodeagent.compute.domain_spec import (
    Accelerator,
    Architecture,
    DiskCache,
    DiskSpec,
    DomainSpec,
    NicSpec,
)
from nodeagent.compute.hypervisor import DomainState, DomainStatus
from nodeagent.node import Node
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.storages import Storages
from nodeagent.services.vm_parts import disks_of, nics_of
from nodeagent.services.vm_plan import left_by_migration

log = logging.getLogger(__name__)

NETWORK_TIMEOUT_S = 20.0
POLL_S = 0.3


Shape = Callable[[DomainSpec, tuple[str, ...]], DomainSpec]


def unshaped(spec: DomainSpec, tags: tuple[str, ...]) -> DomainSpec:
    """Return the spec as it is."""
    del tags
    return spec


Telling = Callable[[VM], tuple[Event, ...]]


def untold(vm: VM) -> tuple[Event, ...]:
    """Tell nobody that a VM runs."""
    del vm
    return ()


StoragesAnswer = Callable[[tuple[DataStorage, ...]], Awaitable[None]]


async def unasked(storages: tuple[DataStorage, ...]) -> None:
    """Take storages for good."""
    del storages


class VmPower:
    """Starts and stops guests of this host; never two operations on one VM at a time."""

    def __init__(
        self,
        node: Node,
        storages: Storages,
        network: NetworkController,
        *,
        accelerator: Accelerator,
        cache: DiskCache,
        shape: Shape = unshaped,
        storages_answer: StoragesAnswer = unasked,
    ) -> None:
        """`shape` gives a VM's system tags their effect on what is started; `storages_answer` raises a PlatformError when
        a storage of its disks doesn't, so that nothing is started that would hang."""
        self._storages_answer = storages_answer
        self._shape = shape
        self._node = node
        self._store = node.store
        self._storages = storages
        self._network = network
        self._accelerator = accelerator
        self._cache = cache
        self._busy: set[str] = set()
        self.closing = False  # the host goes down: nothing is started here any more

    async def start(self, vm_id: str, *, tell: Telling = untold) -> None:
        """Make the VM run here; nothing happens when it does. Its host must be this one.

        `tell` gives the events that are recorded together with it.

        Raises:
            ConflictError: it belongs elsewhere, is wanted stopped, or the guard refuses (no lease).
            TemporaryError, PermanentError: the hypervisor, storage or network failed; nothing runs.
        """
        if self.closing:
            raise ConflictError(
                f"host {self._node.host_name} is being shut down", code="host-shutting-down"
            )
        if vm_id in self._busy:
            raise TemporaryError("the VM is being started or stopped already")
        self._busy.add(vm_id)
        try:
            await self._start(vm_id, tell)
        finally:
            self._busy.discard(vm_id)

    def is_starting(self) -> bool:
        """Tell whether a start is under way."""
        return bool(self._busy)

    async def shut_down(
        self, vm_id: str, *, timeout_s: float, give_up: Callable[[], bool] = lambda: False
    ) -> bool:
        """Press the power button and wait; False when the guest still runs after `timeout_s` or `give_up` says so."""
        domain = await self._node.hypervisor.get(vm_id)
        if domain is not None:
            await self._node.hypervisor.shutdown(vm_id)
        try:
            async with asyncio.timeout(timeout_s):
                while await self._node.hypervisor.get(vm_id) is not None:
                    if give_up():
                        return False
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True

    async def go_on(self, vm_id: str) -> None:
        """Let a guest go on that its hypervisor stopped because its storage failed.

        Raises:
            ConflictError: it is another host's, or the guard refuses.
            PlatformError: the hypervisor failed.
        """
        vm = self._store.need(VM, vm_id)
        if vm.host_id != self._node.host_id:
            raise ConflictError(f"VM {vm.name!r} belongs to another host now")
        await self._node.guard.check(vm_id, generation=vm.generation)
        await self._node.hypervisor.resume(vm_id)
        await self.report_running(vm_id)

    async def destroy(self, vm_id: str) -> None:
        """Cut the power; idempotent."""
        await self._node.hypervisor.destroy(vm_id)
        await self._node.guard.revoke(vm_id)

    async def finish_stop(self, vm_id: str) -> None:
        """Record that the guest is gone. Only its host may say so, and only after it is."""
        await self.destroy(vm_id)
        vm = self._store.get(VM, vm_id)
        if vm is not None and vm.host_id == self._node.host_id and vm.phase is not VMPhase.STOPPED:
            if vm.phase is VMPhase.DELETING:
                return
            await self._store.apply(puts=(replace(vm, phase=VMPhase.STOPPED, blocked_reason=""),))

    def is_lease_bound(self, vm: VM) -> bool:
        """Tell whether another host could run the VM: then it must die when this host's lease ends."""
        return any(it.kind is DataStorageKind.SHARED for it in self._storages_of(vm.id))

    def _storages_of(self, vm_id: str) -> tuple[DataStorage, ...]:
        ids = {disk.data_storage_id for disk in disks_of(self._store, vm_id)}
        return tuple(self._store.need(DataStorage, id_) for id_ in sorted(ids))

    def check_can_be_ended(self, vm: VM) -> None:
        """See that the guard can end this VM's guest when the lease ends, if another host may start it then.

        Raises:
            ConflictError: it can't, with this host's hypervisor.
        """
        if self.is_lease_bound(vm) and not self._node.hypervisor.guard_ends_guests:
            raise ConflictError(
                f"VM {vm.name!r} has disks on shared storage, and the hypervisor {self._node.hypervisor_name} of host "
                f"{self._node.host_name} runs guests that the guard can't end: give it local disks, or another host",
                code="unfenceable",
            )

    def networks_of(self, vm: VM) -> set[int]:
        """Return the network identifiers of the port groups that the VM's cards are in."""
        return {
            self._store.need(PortGroup, nic.port_group_id).vni
            for nic in nics_of(self._store, vm.id)
        }

    async def _start(self, vm_id: str, tell: Telling) -> None:
        vm = self._store.need(VM, vm_id)
        if vm.host_id != self._node.host_id:
            raise ConflictError(f"VM {vm.name!r} belongs to another host now")
        if vm.power is not PowerState.RUNNING:
            raise ConflictError(f"VM {vm.name!r} is wanted stopped")
        domain = await self._node.hypervisor.get(vm_id)
        current = domain is not None and domain.generation == vm.generation
        if domain is not None and current and await self._adopt(vm, domain, tell):
            return
        if domain is not None:
            await self.destroy(vm_id)
        await self._storages_answer(self._storages_of(vm_id))
        self.check_can_be_ended(vm)
        spec = await self._claimed(vm)
        self._check_still_ours(vm_id, spec.generation)  # nothing of this start is here yet
        try:
            await self._node.guard.grant(
                vm_id,
                generation=spec.generation,
                lease_bound=self.is_lease_bound(vm),
                applied_index=self._store.index,
            )
            await self._node.hypervisor.define_and_start(spec, paused=True)
            await self._node.guard.check(vm_id, generation=spec.generation)
            await self._node.hypervisor.resume(vm_id)
        except (PlatformError, asyncio.CancelledError):
            async with asyncio.timeout(30):
                await self._take_back(vm_id, spec.generation)
            raise
        await self.report_running(vm_id, tell=tell)

    async def _take_back(self, vm_id: str, generation: int) -> None:
        """Take down what a start has left, but not a guest of another generation, that arrived while the start hung."""
        domain = await self._node.hypervisor.get(vm_id)
        if domain is not None and domain.generation != generation:
            return
        await self._node.hypervisor.destroy(vm_id)
        grant = (await self._node.guard.status()).grants.get(vm_id)
        if grant is None or grant.generation == generation:
            await self._node.guard.revoke(vm_id)

    def _check_still_ours(self, vm_id: str, generation: int) -> None:
        """Read the VM once more, right before the guard is told which state this is.

        Between the claim and now the lease may have ended and begun anew, and the VM been given to another host; a
        grant asked with the index of the state that says so, for what was true before, would let it run twice.

        Raises:
            ConflictError: the VM is another host's, or was started anew.
        """
        now = self._store.need(VM, vm_id)
        if now.host_id != self._node.host_id or now.generation != generation:
            raise ConflictError(f"VM {now.name!r} was taken over while it was being started")

    async def _adopt(self, vm: VM, domain: DomainState, tell: Telling) -> bool:
        """Go on with a guest of this generation that runs or waits here, e.g. after the agent was killed."""
        await self._node.guard.check(vm.id, generation=vm.generation)
        match domain.status:
            case DomainStatus.RUNNING:
                pass
            case DomainStatus.PAUSED if vm.phase is VMPhase.STARTING and not left_by_migration(
                domain
            ):
                await self._node.hypervisor.resume(vm.id)
            case _:
                return False
        await self.report_running(vm.id, tell=tell)
        return True

    async def _claimed(self, vm: VM) -> DomainSpec:
        """Commit the new generation, then return the spec with network and files in place."""
        status = await self._node.guard.status()
        if not status.lease_valid:
            # The guard would refuse the grant: don't spend a generation on every try.
            raise ConflictError(
                f"host {self._node.host_name} holds no lease: is it connected to the cluster?",
                code="guard-no-lease",
            )
        claimed = replace(
            vm,
            generation=vm.generation + 1,
            boot_id=status.boot_id,
            phase=VMPhase.STARTING,
            migrating_to_host_id="",
        )
        index = await self._store.apply(puts=(claimed,))
        await self._network.ensure(index, self.networks_of(vm), timeout_s=NETWORK_TIMEOUT_S)
        return self._spec(claimed)

    async def report_running(self, vm_id: str, *, tell: Telling = untold) -> None:
        """Record that the guest runs here, if that is news, with the events that `tell` gives."""
        vm = self._store.need(VM, vm_id)
        done = vm.phase is VMPhase.RUNNING and not vm.blocked_reason and not vm.migrating_to_host_id
        if vm.host_id == self._node.host_id and not done:
            runs = replace(vm, phase=VMPhase.RUNNING, blocked_reason="", migrating_to_host_id="")
            await self._store.apply(puts=(runs, *tell(vm)))

    def _spec(self, vm: VM) -> DomainSpec:
        disks, nics = disks_of(self._store, vm.id), nics_of(self._store, vm.id)
        spec = DomainSpec(
            vm_id=vm.id,
            name=vm.name,
            generation=vm.generation,
            host_name=self._node.host_name,
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            disks=tuple(
                DiskSpec(
                    path=str(self._storages.disk_path(disk)),
                    target=f"vd{chr(ord('a') + disk.index)}",
                    cache=self._cache,
                )
                for disk in disks
            ),
            seed_path=str(self._storages.seed_path(disks[0])) if disks else "",
            nics=tuple(self._nic(nic) for nic in nics),
            accelerator=self._accelerator,
            architecture=Architecture(self._node.host().arch),
        )
        return self._shape(spec, vm.tags)

    def _nic(self, nic: Nic) -> NicSpec:
        group = self._store.need(PortGroup, nic.port_group_id)
        return NicSpec(
            tap=tap_name(nic.id), mac=nic.mac, bridge=bridge_name(group.vni), mtu=group.mtu
        )
