"""One live migration, from order to end.

Used by `LibvirtHypervisor.migrate`. libvirt's own call lasts as long as the migration, so it has a thread
and a connection of its own, while this code watches the clock, reports progress and aborts. An abort is repeated until the call ends:
libvirt refuses it while the migration is only being prepared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import libvirt

from core.errors import ConflictError, PlatformError, TemporaryError
from nodeagent.compute.domain_xml import with_generation
from nodeagent.compute.hypervisor import MigrationOrder, MigrationProgress
from nodeagent.compute.libvirt_link import Lane, Link

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 1.0
CALL_TIMEOUT_S = 5.0
ABORT_GRACE_S = 15.0


def read_progress(domain: libvirt.virDomain) -> MigrationProgress | None:
    """Return what libvirt says of the job under way, None when there is none."""
    stats = domain.jobStats()
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return MigrationProgress(
        elapsed_ms=int(stats.get("time_elapsed", 0)),
        total_bytes=int(stats.get("data_total", 0)),
        processed_bytes=int(stats.get("data_processed", 0)),
        remaining_bytes=int(stats.get("data_remaining", 0)),
    )


def migration_flags(order: MigrationOrder) -> int:
    """Return libvirt's flags for an order."""
    flags: int = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_AUTO_CONVERGE
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    )
    if order.shared_is_safe:
        flags |= libvirt.VIR_MIGRATE_UNSAFE
    if order.stay_paused:
        flags |= libvirt.VIR_MIGRATE_PAUSED
    if order.copy_disks:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
    return flags


def migration_parameters(order: MigrationOrder) -> dict[str, str | int]:
    """Return libvirt's parameters for an order, without the target's XML."""
    parameters: dict[str, str | int] = {libvirt.VIR_MIGRATE_PARAM_URI: order.migrate_uri}
    if order.bandwidth_mib_per_s:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = order.bandwidth_mib_per_s
    if order.copy_disks and order.disks_uri:
        parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = order.disks_uri
    return parameters


class Migration:
    """A migration under way. `run` once; `abort` at any time from the same event loop."""

    def __init__(self, vm_id: str, order: MigrationOrder, link: Callable[[], Link]) -> None:
        """`link` returns the connection of the moment, which may be another one later, or raises TemporaryError."""
        self._vm_id = vm_id
        self._order = order
        self._link = link
        self._abort_wanted = False

    def abort(self) -> None:
        """Ask for the end; `run` then raises ConflictError unless the migration was already complete."""
        self._abort_wanted = True

    async def run(self, on_progress: Callable[[MigrationProgress], None]) -> None:
        """Migrate. Errors: see `Hypervisor.migrate`."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        log.info("migration begins", extra={"vm": self._vm_id, "target": self._order.target_uri})
        call = self._link().call_for_long(f"migrating VM {self._vm_id}", self._migrate)
        try:
            await self._watch(call, began_s + self._order.timeout_s, on_progress)
            if not call.done():
                await self._abort_until_done(call)
        except asyncio.CancelledError:
            await self._abort_until_done(call)
            raise
        self._judge(call)
        log.info(
            "migration done", extra={"vm": self._vm_id, "seconds": round(loop.time() - began_s, 2)}
        )

    def _judge(self, call: asyncio.Future[None]) -> None:
        """Raise what the call's end means; return when the VM runs at the target."""
        if not call.done():
            raise TemporaryError(
                f"migration of VM {self._vm_id} neither ends nor can be aborted; look at both hosts"
            )
        error = call.exception()
        if error is None:
            return
        if self._abort_wanted:
            raise ConflictError(f"migration of VM {self._vm_id} was aborted on request") from error
        if isinstance(error, ConflictError):
            raise TemporaryError(
                f"migration of VM {self._vm_id} was aborted: {error.message}"
            ) from error
        raise error

    async def _watch(
        self,
        call: asyncio.Future[None],
        end_s: float,
        on_progress: Callable[[MigrationProgress], None],
    ) -> None:
        """Return when the call has ended, an abort is wanted or the time is over."""
        loop = asyncio.get_running_loop()
        while not self._abort_wanted and (left_s := end_s - loop.time()) > 0:
            await asyncio.wait({call}, timeout=min(PROGRESS_INTERVAL_S, left_s))
            if call.done():
                return
            progress = await self._progress()
            if progress is not None:
                on_progress(progress)

    async def _progress(self) -> MigrationProgress | None:
        try:
            return await self._link().call(
                Lane.READ,
                "reading a migration",
                lambda connection: read_progress(connection.lookupByUUIDString(self._vm_id)),
                timeout_s=CALL_TIMEOUT_S,
            )
        except PlatformError:
            return None

    async def _abort_until_done(self, call: asyncio.Future[None]) -> None:
        """Ask libvirt to abort until the call has ended, for `ABORT_GRACE_S` at most."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + ABORT_GRACE_S
        while not call.done() and loop.time() < end_s:
            try:
                await self._link().call(
                    Lane.CHANGE,
                    f"aborting the migration of VM {self._vm_id}",
                    lambda connection: connection.lookupByUUIDString(self._vm_id).abortJob(),
                    timeout_s=CALL_TIMEOUT_S,
                )
            except PlatformError as error:
                log.debug(
                    "abort not accepted yet", extra={"vm": self._vm_id, "error": error.message}
                )
            await asyncio.wait({call}, timeout=0.2)

    def _migrate(self, connection: libvirt.virConnect) -> None:
        """Run in the migration's own thread."""
        order = self._order
        domain = connection.lookupByUUIDString(self._vm_id)
        parameters = migration_parameters(order)
        if order.generation is not None:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
            parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = with_generation(xml, order.generation)
        domain.migrateToURI3(order.target_uri, parameters, migration_flags(order))
