"""The steps of making, starting, stopping and deleting a VM. Each is idempotent in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, TemporaryError
from core.model import DataStorage, Disk, Host, Leftover, PowerState, Resource, VMPhase
from core.workflow import CancelledByUserError, RepeatStepError
from nodeagent.services.cascade import plan_of
from nodeagent.services.host_room import room_on, tried_again
from nodeagent.workflows.cancelling import stoppable
from nodeagent.workflows.work import VmWork

# A host that has just booted, or whose guard renews again, has a lease within seconds.
LEASE_TO_COME = frozenset({"guard-no-lease", "guard-lease-old", "guard-behind"})


@dataclass(frozen=True, slots=True)
class KeepRecords:
    """The records were made with the task; undoing the whole workflow removes them."""

    work: VmWork
    name: str = "keep-records"
    spoils_vm: ClassVar[bool] = True

    async def do(self) -> Mapping[str, str]:
        self.work.check_here()
        return {
            "vm": self.work.vm().name,
            "disks": " ".join(disk.name for disk in self.work.disks()),
            "nics": " ".join(nic.name for nic in self.work.nics()),
            "ips": " ".join(nic.ip for nic in self.work.nics()),
        }

    async def undo(self) -> None:
        await drop_records(self.work)

    def left_behind(self) -> tuple[Leftover, ...]:
        return (Leftover(step=self.name, resource=self.work.task.subject, what="the VM's records"),)


@dataclass(frozen=True, slots=True)
class FetchImage:
    """Have the image's verified copy on the disk's data storage. It stays there for the next VM.

    Cancelling stops it at once: only whole, verified copies count.
    """

    work: VmWork
    name: str = "fetch-image"

    async def do(self) -> None:
        for disk in self.work.disks():
            if disk.image_sha256:
                copy = self.work.shop.storages.ensure_image(disk)
                await stoppable(copy, self.work.cancel_requested)

    async def undo(self) -> None:
        return

    def left_behind(self) -> tuple[Leftover, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class CreateDisks:
    """Make the disk files."""

    work: VmWork
    name: str = "create-disks"
    spoils_vm: ClassVar[bool] = True

    async def do(self) -> None:
        for disk in self.work.disks():
            await self.work.shop.storages.create_disk(disk)

    async def undo(self) -> None:
        for disk in self.work.disks():
            await self.work.shop.storages.delete_disk(disk, self.work.layers(disk))

    def left_behind(self) -> tuple[Leftover, ...]:
        return files_of_disks(self.work, self.name)


@dataclass(frozen=True, slots=True)
class WriteSeed:
    """Write the cloud-init seed beside the first disk."""

    work: VmWork
    name: str = "write-seed"
    spoils_vm: ClassVar[bool] = True

    async def do(self) -> None:
        await self.work.shop.storages.write_seed(self.work.disks()[0], self.work.vm())

    async def undo(self) -> None:
        for disk in self.work.disks()[:1]:
            await self.work.shop.storages.delete_seed(disk)

    def left_behind(self) -> tuple[Leftover, ...]:
        return seeds_of(self.work, self.name)


@dataclass(frozen=True, slots=True)
class StartGuest:
    """Bring the guest up, if it is wanted up."""

    work: VmWork
    name: str = "start-guest"

    async def do(self) -> Mapping[str, str]:
        vm = self.work.vm()
        if vm.power is PowerState.RUNNING:
            await self._start(vm.id)
        elif vm.phase is not VMPhase.STOPPED:
            await self.work.shop.node.store.apply(puts=(replace(vm, phase=VMPhase.STOPPED),))
        return {"host": self.work.shop.node.host_name}

    async def _start(self, vm_id: str) -> None:
        try:
            await self.work.shop.power.start(vm_id)
        except ConflictError as error:
            if error.code in LEASE_TO_COME:
                raise TemporaryError(error.message) from error
            raise

    async def undo(self) -> None:
        """Take it down again; a start that failed leaves the VM stopped, as it was."""
        vm = self.work.maybe_vm()
        if vm is None or vm.host_id != self.work.shop.node.host_id:
            return
        await self.work.shop.power.destroy(vm.id)
        stopped = replace(vm, power=PowerState.STOPPED, phase=VMPhase.STOPPED)
        if stopped != vm:
            await self.work.shop.node.store.apply(puts=(stopped,))


@dataclass(frozen=True, slots=True)
class StopGuest:
    """Shut the guest down within the time given, or cut its power when forced.

    Cancelling ends the wait. The power button is pressed by then: a guest that still obeys is brought up again.
    """

    work: VmWork
    name: str = "stop-guest"

    async def do(self) -> None:
        self.work.check_here()
        power = self.work.shop.power
        if self.work.task.arguments.get("force"):
            await power.destroy(self.work.vm_id)
        else:
            await self._shut_down()
        try:
            await power.finish_stop(self.work.vm_id)
        except PlatformError as error:
            raise RepeatStepError(
                f"the guest is down, which can't be recorded now, this is tried again: {error.message}"
            ) from error

    async def undo(self) -> None:
        """Running is what is wanted again: a guest that went down is brought up by the VM controller, whatever room others took."""
        await tried_again(self._want_running)

    async def _want_running(self) -> None:
        vm, store = self.work.maybe_vm(), self.work.shop.node.store
        if vm is not None and vm.power is PowerState.STOPPED:
            wanted = replace(vm, power=PowerState.RUNNING)
            await store.apply(puts=(wanted, room_on(store, vm.host_id)))

    async def _shut_down(self) -> None:
        timeout_s = float(self.work.task.arguments.get("timeout_s", "90"))
        asked = self.work.cancel_requested
        if await self.work.shop.power.shut_down(
            self.work.vm_id, timeout_s=timeout_s, give_up=asked
        ):
            return
        if asked():
            raise CancelledByUserError("the task was cancelled")
        raise ConflictError(
            f"VM {self.work.vm().name!r} did not shut down within {timeout_s:g} s: "
            "stop it with --force to cut its power, or give it more time"
        )


@dataclass(frozen=True, slots=True)
class RebootGuest:
    """Ask the guest to restart."""

    work: VmWork
    name: str = "reboot-guest"

    async def do(self) -> None:
        self.work.check_here()
        await self.work.shop.node.hypervisor.reboot(self.work.vm_id)

    async def undo(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class DestroyGuest:
    """Cut the power of a VM that is being deleted."""

    work: VmWork
    name: str = "destroy-guest"

    async def do(self) -> None:
        if self.work.maybe_vm() is not None:
            self.work.check_here()
        await self.work.shop.power.destroy(self.work.vm_id)

    async def undo(self) -> None:
        """A delete that can't begin leaves the VM as it is, stopped, and surely so."""
        vm = self.work.maybe_vm()
        if vm is not None and vm.phase is VMPhase.DELETING:
            await self.work.shop.power.destroy(vm.id)
            await self.work.shop.node.store.apply(puts=(replace(vm, phase=VMPhase.STOPPED),))


@dataclass(frozen=True, slots=True)
class DeleteDisks:
    """Remove the files of the VM. Deleted files don't come back, so from here on there is only forward."""

    work: VmWork
    name: str = "delete-disks"
    no_return: ClassVar[bool] = True
    spoils_vm: ClassVar[bool] = True

    async def do(self) -> None:
        disks = self.work.disks()
        try:
            for disk in disks[:1]:
                await self.work.shop.storages.delete_seed(disk)
            for disk in disks:
                await self.work.shop.storages.delete_disk(disk, self.work.layers(disk))
        except PlatformError as error:
            raise RepeatStepError(
                f"the VM's files can't be deleted now, this is tried again: {error.message}"
            ) from error

    async def undo(self) -> None:
        """Only a rollback that an earlier version began gets here: what is half deleted is deleted to the end."""
        await self.do()
        await drop_records(self.work)

    def left_behind(self) -> tuple[Leftover, ...]:
        return (*files_of_disks(self.work, self.name), *seeds_of(self.work, self.name))


@dataclass(frozen=True, slots=True)
class DropRecords:
    """Forget the VM, its NICs and its disks in one transaction."""

    work: VmWork
    name: str = "drop-records"
    spoils_vm: ClassVar[bool] = True

    async def do(self) -> None:
        await drop_records(self.work)

    async def undo(self) -> None:
        return

    def left_behind(self) -> tuple[Leftover, ...]:
        return (Leftover(step=self.name, resource=self.work.task.subject, what="the VM's records"),)


def files_of_disks(work: VmWork, step: str) -> tuple[Leftover, ...]:
    """Return the files of a VM's disks, of which some may be gone."""
    return tuple(
        Leftover(
            step=step, resource=f"disk/{disk.id}", what=f"the disk's files{place_of(work, disk)}"
        )
        for disk in work.disks()
    )


def seeds_of(work: VmWork, step: str) -> tuple[Leftover, ...]:
    """Return the cloud-init seed of a VM, which lies beside its first disk."""
    return tuple(
        Leftover(
            step=step,
            resource=work.task.subject,
            what=f"the VM's cloud-init seed{place_of(work, disk)}",
        )
        for disk in work.disks()[:1]
    )


def place_of(work: VmWork, disk: Disk) -> str:
    """Return where the files of a disk are, as it goes on after their name."""
    store = work.shop.node.store
    storage, host = store.get(DataStorage, disk.data_storage_id), store.get(Host, disk.host_id)
    on = f" on data storage {storage.name} ({storage.path})" if storage is not None else ""
    return f"{on} of host {host.name}" if host is not None else on


async def drop_records(work: VmWork) -> None:
    """Delete the records of a VM and what belongs to it.

    What came in its way since its deletion was accepted goes along: nothing can be related to it any more by now.
    """
    vm, store = work.maybe_vm(), work.shop.node.store
    gone: tuple[Resource, ...] = (*work.disks(), *work.nics())
    if vm is not None:
        plan = plan_of(store, vm)
        gone = (*plan.gone, *(touched.resource for touched in plan.refused))
    if gone:
        await store.apply(deletes=gone)
