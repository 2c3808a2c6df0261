"""The real hypervisor: QEMU through libvirtd on this host.

Made by the agent's composition root, which also runs `run()`. Methods may be called from any task of the event
loop. libvirtd may restart or hang at any time: guests don't mind, calls fail with TemporaryError within their
deadline, and `run()` gets a new connection as soon as libvirtd answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import libvirt

from core.errors import ConflictError, NotFoundError, PlatformError, TemporaryError
from nodeagent.compute.domain_spec import DomainSpec, check_vm_id
from nodeagent.compute.domain_xml import (
    METADATA_NAMESPACE,
    METADATA_PREFIX,
    DomainMark,
    domain_xml,
    mark_xml,
)
from nodeagent.compute.event_feed import RESYNC, EventFeed
from nodeagent.compute.hypervisor import (
    DomainEvent,
    DomainState,
    HostFacts,
    MigrationOrder,
    MigrationProgress,
)
from nodeagent.compute.libvirt_link import Lane, Link
from nodeagent.compute.libvirt_migration import Migration, read_progress
from nodeagent.compute.libvirt_state import (
    read_domain_states,
    read_host_facts,
    read_mark,
    read_state,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

SYSTEM_URI = "qemu:///system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long libvirt may take, in seconds. `change_s` covers a destroy, for which libvirt asks QEMU twice."""

    read_s: float = 5.0
    change_s: float = 30.0
    start_s: float = 30.0
    open_s: float = 15.0
    probe_interval_s: float = 5.0
    retry_s_min: float = 0.2
    retry_s_max: float = 5.0


class LibvirtHypervisor:
    """See `Hypervisor`."""

    def __init__(self, uri: str = SYSTEM_URI, deadlines: Deadlines = Deadlines()) -> None:
        self._uri = uri
        self._deadlines = deadlines
        self._feed = EventFeed()
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._probes_missed = 0
        self._migrations: dict[str, Migration] = {}

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        retry_s = self._deadlines.retry_s_min
        while True:
            link = Link(self._uri, on_event=self._feed.publish, on_lost=self._forget_link)
            try:
                await link.open(timeout_s=self._deadlines.open_s)
                retry_s = self._deadlines.retry_s_min
                await self._use(link)
            except PlatformError as error:
                self._probes_missed += 1
                log.warning(
                    "libvirt does not answer", extra={"uri": self._uri, "error": error.message}
                )
            finally:
                link.give_up()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, self._deadlines.retry_s_max)

    @property
    def guard_ends_guests(self) -> bool:
        return True

    @property
    def is_healthy(self) -> bool:
        return self._link is not None

    @property
    def probes_missed(self) -> int:
        """How many times in a row libvirt did not answer."""
        return self._probes_missed

    async def wait_connected(self) -> None:
        await self._connected.wait()

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[DomainEvent]]:
        return self._feed.events()

    async def host_facts(self) -> HostFacts:
        return await self._read("reading the host", read_host_facts)

    async def list_domains(self) -> tuple[DomainState, ...]:
        leaving = frozenset(self._migrations)
        return await self._read(
            "listing domains", lambda connection: read_domain_states(connection, leaving)
        )

    async def get(self, vm_id: str) -> DomainState | None:
        leaving = frozenset(self._migrations)
        try:
            return await self._read_domain(
                vm_id, "reading a domain", lambda domain: read_state(domain, leaving)
            )
        except NotFoundError:
            return None

    async def define_and_start(self, spec: DomainSpec, *, paused: bool) -> DomainState:
        xml = domain_xml(spec)
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        present = await self.get(spec.vm_id)
        if present is None:
            state = await self._now().call(
                Lane.START,
                f"starting VM {spec.vm_id}",
                lambda connection: read_state(connection.createXML(xml, flags), frozenset()),
                timeout_s=self._deadlines.start_s,
            )
            log.info(
                "domain started",
                extra={"vm": spec.vm_id, "generation": spec.generation, "paused": paused},
            )
            return state
        if present.generation != spec.generation:
            raise ConflictError(
                f"VM {spec.vm_id} is here with generation {present.generation}, not {spec.generation}: destroy it first"
            )
        return present

    async def resume(self, vm_id: str) -> None:
        def work(domain: libvirt.virDomain) -> None:
            if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                domain.resume()

        await self._change(vm_id, "resuming", work)

    async def suspend(self, vm_id: str) -> None:
        def work(domain: libvirt.virDomain) -> None:
            if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                domain.suspend()

        await self._change(vm_id, "suspending", work)

    async def shutdown(self, vm_id: str) -> None:
        await self._change(
            vm_id,
            "shutting down",
            lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
        )

    async def reboot(self, vm_id: str) -> None:
        await self._change(
            vm_id,
            "rebooting",
            lambda domain: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN),
        )

    async def reset(self, vm_id: str) -> None:
        await self._change(vm_id, "resetting", lambda domain: domain.reset(0))

    async def destroy(self, vm_id: str) -> None:
        try:
            await self._change(vm_id, "destroying", lambda domain: domain.destroy())
        except NotFoundError:
            return
        except ConflictError:
            # It ended by itself between the look-up and the call.
            if await self.get(vm_id) is not None:
                raise

    async def undefine(self, vm_id: str) -> None:
        def work(domain: libvirt.virDomain) -> None:
            if domain.isPersistent():
                domain.undefineFlags(
                    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                )

        try:
            await self._change(vm_id, "undefining", work)
        except NotFoundError:
            return

    async def set_generation(self, vm_id: str, generation: int) -> None:
        def work(domain: libvirt.virDomain) -> None:
            old = read_mark(domain)
            mark = DomainMark(
                vm_id=vm_id, name="" if old is None else old.name, generation=generation
            )
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                mark_xml(mark),
                METADATA_PREFIX,
                METADATA_NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )

        await self._change(vm_id, "marking", work)

    async def migrate(
        self,
        vm_id: str,
        order: MigrationOrder,
        *,
        on_progress: Callable[[MigrationProgress], None] = lambda progress: None,
    ) -> None:
        check_vm_id(vm_id)
        if vm_id in self._migrations:
            raise ConflictError(f"VM {vm_id} is being migrated already")
        migration = Migration(vm_id, order, self._now)
        self._migrations[vm_id] = migration
        try:
            await migration.run(on_progress)
        finally:
            del self._migrations[vm_id]

    async def abort_migration(self, vm_id: str) -> bool:
        migration = self._migrations.get(vm_id)
        if migration is not None:
            migration.abort()
            return True
        # libvirt goes on alone with what an agent of before began.
        under_way = False

        def work(domain: libvirt.virDomain) -> None:
            nonlocal under_way
            under_way = read_progress(domain) is not None
            if under_way:
                domain.abortJob()

        try:
            await self._change(vm_id, "aborting a migration of", work)
        except (NotFoundError, ConflictError):
            pass  # it is over, or can't be aborted at this very moment
        return under_way

    async def migration_progress(self, vm_id: str) -> MigrationProgress | None:
        if vm_id not in self._migrations:
            return None
        return await self._read_domain(vm_id, "reading a migration", read_progress)

    async def _use(self, link: Link) -> None:
        """Serve calls through a link until it is lost, probing it all the time."""
        self._link = link
        self._probes_missed = 0
        self._connected.set()
        self._feed.publish(RESYNC)
        log.info("libvirt connected", extra={"uri": self._uri})
        while True:
            try:
                async with asyncio.timeout(self._deadlines.probe_interval_s):
                    await link.lost.wait()
                return
            except TimeoutError:
                await link.call(
                    Lane.READ,
                    "a probe",
                    lambda connection: connection.getLibVersion(),
                    timeout_s=self._deadlines.read_s,
                )

    def _forget_link(self) -> None:
        self._link = None
        self._connected.clear()

    def _now(self) -> Link:
        if self._link is None:
            raise TemporaryError("libvirt is away; its connection is being restored")
        return self._link

    async def _read(self, what: str, work: Callable[[libvirt.virConnect], T]) -> T:
        return await self._now().call(Lane.READ, what, work, timeout_s=self._deadlines.read_s)

    async def _read_domain(
        self, vm_id: str, what: str, work: Callable[[libvirt.virDomain], T]
    ) -> T:
        check_vm_id(vm_id)
        return await self._read(what, lambda connection: work(connection.lookupByUUIDString(vm_id)))

    async def _change(
        self, vm_id: str, verb: str, work: Callable[[libvirt.virDomain], object]
    ) -> None:
        check_vm_id(vm_id)
        await self._now().call(
            Lane.CHANGE,
            f"{verb} VM {vm_id}",
            lambda connection: work(connection.lookupByUUIDString(vm_id)),
            timeout_s=self._deadlines.change_s,
        )
        log.info("domain changed", extra={"vm": vm_id, "change": verb})
