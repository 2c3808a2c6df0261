"""A hypervisor without guests, for tests and simulations of everything above it.

It keeps the same contract as the real one (tests/contract/test_hypervisor.py), uses no clock but the event
loop's, and can be told to be away, to lose a guest, or to let one power itself off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from core.errors import ConflictError, NotFoundError, PermanentError, TemporaryError
from nodeagent.compute.domain_spec import DomainSpec, check_spec, check_vm_id
from nodeagent.compute.event_feed import RESYNC, EventFeed
from nodeagent.compute.hypervisor import (
    IO_ERROR,
    DomainEvent,
    DomainState,
    DomainStatus,
    EventKind,
    HostFacts,
    MigrationOrder,
    MigrationProgress,
)

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Domain:
    spec: DomainSpec
    state: DomainState


class InMemoryHypervisor:
    """See `Hypervisor`. `targets` maps a migration's target URI to the hypervisor behind it."""

    def __init__(
        self,
        *,
        host_name: str = "host",
        targets: Mapping[str, InMemoryHypervisor] | None = None,
        start_s: float = 0.0,
        migration_s: float = 0.0,
    ) -> None:
        self._host_name = host_name
        self._targets = {} if targets is None else targets
        self._start_s = start_s
        self._migration_s = migration_s
        self._domains: dict[str, _Domain] = {}
        self._aborts: dict[str, asyncio.Event] = {}
        self._progress: dict[str, MigrationProgress] = {}
        self._feed = EventFeed()
        self._connected = asyncio.Event()
        self._away = False

    # What tests do to it.

    def set_away(self, away: bool) -> None:
        """Let all calls fail as if libvirtd hung, or answer again. Guests go on."""
        self._away = away
        if not away:
            self._feed.publish(RESYNC)

    def lose_guest(self, vm_id: str, kind: EventKind) -> None:
        """End a guest from outside the platform, e.g. `SHUT_DOWN` (powered itself off) or `FAILED` (QEMU killed)."""
        del self._domains[vm_id]
        self._feed.publish(DomainEvent(vm_id=vm_id, kind=kind))

    def fail_io(self, vm_id: str) -> None:
        """Stop a guest as if a read or write of its disk had failed."""
        self._set(vm_id, status=DomainStatus.PAUSED, reason=IO_ERROR)
        self._feed.publish(DomainEvent(vm_id=vm_id, kind=EventKind.IO_ERROR))

    def lose_power(self) -> None:
        """End everything without any event."""
        self._domains.clear()

    # What the agent does with it.

    async def run(self) -> None:
        self._connected.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._connected.clear()

    @property
    def guard_ends_guests(self) -> bool:
        return True

    @property
    def is_healthy(self) -> bool:
        return self._connected.is_set() and not self._away

    @property
    def probes_missed(self) -> int:
        return 3 if self._away else 0

    async def wait_connected(self) -> None:
        await self._connected.wait()

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[DomainEvent]]:
        return self._feed.events()

    async def host_facts(self) -> HostFacts:
        self._check()
        return HostFacts(
            host_name=self._host_name,
            architecture="x86_64",
            cpus=8,
            memory_mib=16384,
            libvirt_version="0.0.0",
            qemu_version="0.0.0",
        )

    async def list_domains(self) -> tuple[DomainState, ...]:
        self._check()
        return tuple(self._state(vm_id) for vm_id in sorted(self._domains))

    async def get(self, vm_id: str) -> DomainState | None:
        self._check()
        return self._state(vm_id) if check_vm_id(vm_id) in self._domains else None

    async def define_and_start(self, spec: DomainSpec, *, paused: bool) -> DomainState:
        check_spec(spec)
        self._check()
        await asyncio.sleep(self._start_s)
        self._check()
        present = self._domains.get(spec.vm_id)
        if present is not None:
            if present.state.generation != spec.generation:
                raise ConflictError(
                    f"VM {spec.vm_id} is here with generation {present.state.generation}, not {spec.generation}: "
                    "destroy it first"
                )
            return present.state
        state = DomainState(
            vm_id=spec.vm_id,
            generation=spec.generation,
            status=DomainStatus.PAUSED if paused else DomainStatus.RUNNING,
            reason="user" if paused else "",
        )
        self._domains[spec.vm_id] = _Domain(spec, state)
        self._publish(spec.vm_id, EventKind.STARTED, "booted")
        return state

    async def resume(self, vm_id: str) -> None:
        if self._find(vm_id).state.status is not DomainStatus.RUNNING:
            self._set(vm_id, status=DomainStatus.RUNNING, reason="")
            self._publish(vm_id, EventKind.RESUMED, "unpaused")

    async def suspend(self, vm_id: str) -> None:
        if self._find(vm_id).state.status is not DomainStatus.PAUSED:
            self._set(vm_id, status=DomainStatus.PAUSED, reason="user")
            self._publish(vm_id, EventKind.SUSPENDED, "paused")

    async def shutdown(self, vm_id: str) -> None:
        self._find(vm_id)
        self.lose_guest(vm_id, EventKind.SHUT_DOWN)

    async def reboot(self, vm_id: str) -> None:
        self._find(vm_id)
        self._publish(vm_id, EventKind.REBOOTED, "")

    async def reset(self, vm_id: str) -> None:
        self._find(vm_id)
        self._publish(vm_id, EventKind.REBOOTED, "")

    async def destroy(self, vm_id: str) -> None:
        check_vm_id(vm_id)
        self._check()
        if vm_id in self._domains:
            self.lose_guest(vm_id, EventKind.DESTROYED)

    async def undefine(self, vm_id: str) -> None:
        check_vm_id(vm_id)
        self._check()

    async def set_generation(self, vm_id: str, generation: int) -> None:
        domain = self._find(vm_id)
        self._domains[vm_id] = _Domain(domain.spec, replace(domain.state, generation=generation))

    async def migrate(
        self,
        vm_id: str,
        order: MigrationOrder,
        *,
        on_progress: Callable[[MigrationProgress], None] = lambda progress: None,
    ) -> None:
        self._find(vm_id)
        if vm_id in self._aborts:
            raise ConflictError(f"VM {vm_id} is being migrated already")
        target = self._targets.get(order.target_uri)
        if target is None:
            raise PermanentError(f"nothing is behind {order.target_uri}")
        abort = self._aborts[vm_id] = asyncio.Event()
        try:
            await self._move(vm_id, order, target, abort, on_progress)
        finally:
            del self._aborts[vm_id]
            self._progress.pop(vm_id, None)

    async def abort_migration(self, vm_id: str) -> bool:
        abort = self._aborts.get(vm_id)
        if abort is not None:
            abort.set()
        return abort is not None

    async def migration_progress(self, vm_id: str) -> MigrationProgress | None:
        return self._progress.get(vm_id)

    async def _move(
        self,
        vm_id: str,
        order: MigrationOrder,
        target: InMemoryHypervisor,
        abort: asyncio.Event,
        on_progress: Callable[[MigrationProgress], None],
    ) -> None:
        target._accept(self._find(vm_id), order)
        try:
            half = self._find(vm_id).spec.memory_mib * MIB // 2
            self._progress[vm_id] = MigrationProgress(
                elapsed_ms=0, total_bytes=2 * half, processed_bytes=half, remaining_bytes=half
            )
            on_progress(self._progress[vm_id])
            try:
                async with asyncio.timeout(min(self._migration_s, order.timeout_s)):
                    await abort.wait()
                raise ConflictError(f"migration of VM {vm_id} was aborted on request")
            except TimeoutError:
                if self._migration_s > order.timeout_s:
                    raise TemporaryError(
                        f"migration of VM {vm_id} was aborted: it took too long"
                    ) from None
            self._check()
            target._check()
            self._find(vm_id)
        except BaseException:
            target._domains.pop(vm_id, None)
            raise
        self.lose_guest(vm_id, EventKind.MIGRATED_OUT)
        target._finish(vm_id, stay_paused=order.stay_paused)

    def _accept(self, domain: _Domain, order: MigrationOrder) -> None:
        self._check()
        vm_id = domain.spec.vm_id
        if vm_id in self._domains:
            raise ConflictError(f"VM {vm_id} is at the target already")
        state = replace(
            domain.state, status=DomainStatus.PAUSED, reason="migration", migrating_in=True
        )
        if order.generation is not None:
            state = replace(state, generation=order.generation)
        self._domains[vm_id] = _Domain(domain.spec, state)
        self._publish(vm_id, EventKind.STARTED, "migrated")

    def _finish(self, vm_id: str, *, stay_paused: bool) -> None:
        if stay_paused:
            self._set(vm_id, status=DomainStatus.PAUSED, reason="migration")
            return
        self._set(vm_id, status=DomainStatus.RUNNING, reason="")
        self._publish(vm_id, EventKind.RESUMED, "migrated")

    def _check(self) -> None:
        if self._away or not self._connected.is_set():
            raise TemporaryError("libvirt is away; its connection is being restored")

    def _state(self, vm_id: str) -> DomainState:
        return replace(self._domains[vm_id].state, migrating_out=vm_id in self._aborts)

    def _find(self, vm_id: str) -> _Domain:
        check_vm_id(vm_id)
        self._check()
        domain = self._domains.get(vm_id)
        if domain is None:
            raise NotFoundError(f"VM {vm_id} is not on this host")
        return domain

    def _set(self, vm_id: str, *, status: DomainStatus, reason: str) -> None:
        domain = self._domains[vm_id]
        self._domains[vm_id] = _Domain(
            domain.spec, replace(domain.state, status=status, reason=reason, migrating_in=False)
        )

    def _publish(self, vm_id: str, kind: EventKind, detail: str) -> None:
        self._feed.publish(DomainEvent(vm_id=vm_id, kind=kind, detail=detail))
