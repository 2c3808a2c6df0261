"""The seam between the agent and whatever runs its guests.

VM controllers, the HA loop and migrations call a `Hypervisor`; `LibvirtHypervisor` is the real one and
`InMemoryHypervisor` the one of tests and simulations. One contract test holds for both.

Domains are transient: libvirt keeps no definition of a stopped VM. Who may run a VM is decided in the replicated
store, so a definition left on a host would be a second truth which `virsh start`, libvirt's autostart or a
booting host could act on. A running domain survives restarts of the agent and of libvirtd (its state is in
libvirt's run directory), is found again by its id, and carries its generation as metadata.

Every method raises:
    TemporaryError: libvirt is away, too slow or failed in a way that may pass. The outcome of a change is then
        unknown: read the state before deciding anything.
    PermanentError: libvirt refuses the request as it stands.
and, where said, NotFoundError or ConflictError. Waiting is bounded by the driver's deadlines in every case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from nodeagent.compute.domain_spec import DomainSpec

IO_ERROR = "io-error"
"""Why a guest is paused that its hypervisor stopped because a read or write of a disk failed."""


class DomainStatus(StrEnum):
    """What a domain does. There is no "stopped": a domain that does not run does not exist."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainState:
    """One domain of ours on this host.

    `generation` is -1 when its metadata is missing or damaged: such a domain may not run. `reason` says why it is
    paused: `user`, `io-error` or `migration`. `migrating_out`: this process is moving it away now. `migrating_in`:
    it is paused for a migration and nobody moves it away, so it waits for its memory from another host; seldom it
    is a source whose migration failed in its last moment (the VM's record tells which).
    """

    vm_id: str
    generation: int
    status: DomainStatus
    reason: str = ""
    migrating_in: bool = False
    migrating_out: bool = False


class EventKind(StrEnum):
    """What happened. `RESYNC`: events may have been missed (reconnected, or reader too slow): list the domains."""

    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    REBOOTED = "rebooted"
    IO_ERROR = "io-error"
    SHUT_DOWN = "shut-down"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    FAILED = "failed"
    MIGRATED_OUT = "migrated-out"
    RESYNC = "resync"

    @property
    def is_end(self) -> bool:
        """True when the domain does not exist on this host any more."""
        return self in _ENDS


_ENDS = frozenset(
    {
        EventKind.SHUT_DOWN,
        EventKind.DESTROYED,
        EventKind.CRASHED,
        EventKind.FAILED,
        EventKind.MIGRATED_OUT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """Something that happened to a VM on this host; `vm_id` is empty for `RESYNC`.

    `detail` is libvirt's reason: a VM that came by migration is `started` and then `resumed` with `migrated`.
    """

    vm_id: str
    kind: EventKind
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the machine offers. Versions are `major.minor.release`."""

    host_name: str
    architecture: str
    cpus: int
    memory_mib: int
    libvirt_version: str
    qemu_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationProgress:
    """How far a migration is. Bytes are of guest memory (and of disks when they are copied)."""

    elapsed_ms: int
    total_bytes: int
    processed_bytes: int
    remaining_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationOrder:
    """How to move a VM.

    `target_uri` and `migrate_uri` are libvirt's, as its source side sees them. `shared_is_safe` says that all its
    disks lie on storage both hosts see coherently, although libvirt does not know the file system as shared.
    `copy_disks` sends the disks too: the target needs files of the same path and size. `disks_uri` is where to.
    `generation` is what the target is to know the VM by (None: the same). `stay_paused` leaves the VM paused at the
    target, so that somebody may check its rights before it runs there. `bandwidth_mib_per_s` 0: no limit.
    `timeout_s` bounds the whole: after it the migration is aborted and the VM goes on at the source.
    """

    target_uri: str
    migrate_uri: str
    timeout_s: float
    shared_is_safe: bool = False
    copy_disks: bool = False
    disks_uri: str = ""
    generation: int | None = None
    stay_paused: bool = False
    bandwidth_mib_per_s: int = 0


class Hypervisor(Protocol):
    """One host's guests. See the module for what all methods have in common."""

    async def run(self) -> None:
        """Stay connected until cancelled. Nothing works before this runs."""
        ...

    @property
    def guard_ends_guests(self) -> bool:
        """Tell whether each guest is a process that the host's guard finds and kills when its lease ends (`ha.guard.guests`).

        If not, no VM that another host could start runs on this hypervisor: it might run twice.
        """
        ...

    @property
    def is_healthy(self) -> bool:
        """False while libvirt does not answer: place no VM here; guests go on."""
        ...

    @property
    def probes_missed(self) -> int:
        """How many times in a row libvirt did not answer; from three on the host is degraded."""
        ...

    async def wait_connected(self) -> None:
        """Return when calls can succeed; waits without limit."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[DomainEvent]]:
        """Subscribe. Any number of readers; each first gets a `RESYNC`, and again whenever it is too slow.

        libvirt itself loses an event now and then (a VM that ends while a restarted libvirtd still finds its
        QEMUs again has none), so list the domains from time to time as well.
        """
        ...

    async def host_facts(self) -> HostFacts: ...

    async def list_domains(self) -> tuple[DomainState, ...]:
        """Return all domains of ours on this host, ordered by id."""
        ...

    async def get(self, vm_id: str) -> DomainState | None:
        """Return one domain, or None when it is not here."""
        ...

    async def define_and_start(self, spec: DomainSpec, *, paused: bool) -> DomainState:
        """Start a VM; idempotent for the same generation.

        Raises:
            ConflictError: it is here already with another generation.
        """
        ...

    async def resume(self, vm_id: str) -> None:
        """Let a paused VM run; nothing happens when it runs. Raises NotFoundError."""
        ...

    async def suspend(self, vm_id: str) -> None:
        """Stop a VM's processors, keep its memory; nothing happens when it is paused. Raises NotFoundError."""
        ...

    async def shutdown(self, vm_id: str) -> None:
        """Press the power button; the guest may ignore it. Raises NotFoundError."""
        ...

    async def reboot(self, vm_id: str) -> None:
        """Ask the guest to restart. Raises NotFoundError."""
        ...

    async def reset(self, vm_id: str) -> None:
        """Press the reset button. Raises NotFoundError."""
        ...

    async def destroy(self, vm_id: str) -> None:
        """Cut the power. When it returns, QEMU is gone. Nothing happens when the VM is not here."""
        ...

    async def undefine(self, vm_id: str) -> None:
        """Remove a stored definition if somebody made one by hand; ours are transient and leave none."""
        ...

    async def set_generation(self, vm_id: str, generation: int) -> None:
        """Change the generation a running VM carries. Raises NotFoundError."""
        ...

    async def migrate(
        self,
        vm_id: str,
        order: MigrationOrder,
        *,
        on_progress: Callable[[MigrationProgress], None] = lambda progress: None,
    ) -> None:
        """Move a running VM away. When it returns, the VM runs there and is not here.

        After an error it usually goes on here: ask `get` on both hosts. Should it be paused here with reason
        `migration`, resume it once it is certain that it does not run at the target. Cancelling aborts.
        `on_progress` is called about once a second.

        Raises:
            NotFoundError: it is not here.
            ConflictError: it is being migrated already, or `abort_migration` stopped it.
        """
        ...

    async def abort_migration(self, vm_id: str) -> bool:
        """Ask a migration to stop, also one that an agent of before began; the VM goes on here. Return whether one was under way."""
        ...

    async def migration_progress(self, vm_id: str) -> MigrationProgress | None:
        """Return how far a migration from here is, None when there is none."""
        ...
