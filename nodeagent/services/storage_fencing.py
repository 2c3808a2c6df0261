"""Has data storages refuse what a host writes that is being fenced, and has them readmit it after it has booted; on the leader.

It was committed before that the host's renewals are refused, and which storages may refuse it from now on (`ha.fencing`). When
a storage has said that it takes nothing more of that boot, this is committed with the revision of the lease: a proof for
the VMs whose disks are all on such storages (`ha.proofs`). A storage that fails leaves it to the other proofs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError
from core.model import DataStorage, Host, HostState, Lease, Severity
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.fencing import still_being_fenced
from nodeagent.services.leader_rounds import leader_rounds
from storage.fencing import FencingStorage

log = logging.getLogger(__name__)

LOOK_S = 2.0
RETRY_S = 5.0
WITHIN_S = 20.0
COMMIT_TRIES = 5


class StorageFencing:
    """The leader's loop; idle on every other node. `fencing` returns what fences by a storage, None if that can't."""

    def __init__(
        self,
        node: Node,
        fencing: Callable[[DataStorage], FencingStorage | None],
        events: EventLog,
    ) -> None:
        self._node, self._store = node, node.store
        self._fencing = fencing
        self._events = events
        self._under_way: set[str] = set()
        self._commits = asyncio.Lock()
        self._told: set[tuple[str, str, str]] = set()

    async def run(self) -> None:
        """Fence and readmit until cancelled."""
        await leader_rounds(self._node, self._begin, Host, every_s=LOOK_S)

    def _begin(self, group: asyncio.TaskGroup) -> None:
        for host in self._store.all(Host):
            if host.id in self._under_way or not host.refusing_storage_ids:
                continue
            if host.state is HostState.MEMBER:
                work = self._readmit(host)
            elif host.state is HostState.FENCING and self._not_fenced(host):
                work = self._fence(host)
            else:
                continue
            self._under_way.add(host.id)
            group.create_task(self._contained(host, work), name=f"storage-fence-{host.id}")

    async def _contained(self, host: Host, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ConflictError as error:
            log.info("fencing was overtaken", extra={"host": host.id, "error": error.message})
        except PlatformError as error:
            log.warning("fencing failed", extra={"host": host.id, "error": error.message})
            await asyncio.sleep(RETRY_S)
        finally:
            self._under_way.discard(host.id)

    # ---- a host that is lost

    def _not_fenced(self, host: Host) -> list[str]:
        lease = self._store.get(Lease, host.id)
        said = lease is not None and host.storage_lease_revision == lease.revision
        fenced = set(host.fenced_storage_ids) if said else set()
        return sorted(set(host.refusing_storage_ids) - fenced)

    async def _fence(self, host: Host) -> None:
        now, lease = await still_being_fenced(self._node, host)
        if now.fenced_boot_id != lease.boot_id:
            return  # another boot holds the lease than was meant: nothing can be said of it
        failures = await asyncio.gather(
            *(self._fence_by(now, lease, id_) for id_ in self._not_fenced(now))
        )
        if why := "; ".join(failure for failure in failures if failure):
            message = f"host {host.name} can't be kept from writing, its VMs wait longer: {why}"
            await self._tell("host-storage-fencing-failed", now, message, Severity.ALARM)
            raise UnavailableError(why)

    async def _fence_by(self, host: Host, lease: Lease, storage_id: str) -> str:
        """Fence by one storage and record it; return why that failed, or nothing."""
        storage = self._store.get(DataStorage, storage_id)
        if storage is None:
            return ""
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._need(storage).fence(host.id, lease.boot_id)
            await self._record(host.id, lease, storage)
        except TimeoutError:
            return f"data storage {storage.name} did not answer within {WITHIN_S:g} s"
        except PlatformError as error:
            return f"data storage {storage.name}: {error.message}"
        return ""

    async def _record(self, host_id: str, lease: Lease, storage: DataStorage) -> None:
        """Commit a storage's word, for the lease that the host held when it was asked, and for no other."""
        async with self._commits:
            for left in reversed(range(COMMIT_TRIES)):
                host = self._store.get(Host, host_id)
                meant = host is not None and host.state is not HostState.MEMBER
                if host is None or not meant or host.fenced_boot_id != lease.boot_id:
                    raise ConflictError("the host came back, or was changed")
                before = (
                    host.fenced_storage_ids if host.storage_lease_revision == lease.revision else ()
                )
                fenced = replace(
                    host,
                    fenced_storage_ids=tuple(sorted({*before, storage.id})),
                    storage_lease_revision=lease.revision,
                )
                message = f"data storage {storage.name} takes nothing more that {host.name} writes"
                event = self._events.make(
                    "host-storage-fenced", host, message, severity=Severity.WARNING
                )
                try:
                    await self._store.apply(puts=(fenced, event), guards=(lease,))
                except ConflictError:
                    held = self._store.get(Lease, host_id)
                    if not left or held is None or held.revision != lease.revision:
                        raise
                else:
                    return

    # ---- a host that is back

    async def _readmit(self, host: Host) -> None:
        await self._store.barrier()
        now, lease = self._store.get(Host, host.id), self._store.get(Lease, host.id)
        if now is None or lease is None or not self._node.engine.is_leader():
            raise ConflictError(f"host {host.name} is not this agent's to readmit any more")
        if now.state is not HostState.MEMBER or now.revision != host.revision:
            raise ConflictError(f"host {host.name} was changed")
        if lease.boot_id == now.fenced_boot_id:
            message = (
                f"host {host.name} is back in the boot that its data storages refuse: boot it again"
            )
            await self._tell("host-needs-boot", now, message, Severity.ALARM)
            return
        for storage_id in now.refusing_storage_ids:
            storage = self._store.get(DataStorage, storage_id)
            if storage is not None:
                await self._readmit_to(now, lease, storage)
        held = self._store.get(Lease, host.id)
        if held is None or held.boot_id != lease.boot_id:
            raise ConflictError(f"host {host.name} has booted once more")
        readmitted = replace(now, refusing_storage_ids=(), fenced_boot_id="")
        message = f"host {host.name} may write to its data storages again: it has booted"
        event = self._events.make("host-readmitted", host, message)
        await self._store.apply(puts=(readmitted, event))

    async def _readmit_to(self, host: Host, lease: Lease, storage: DataStorage) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._need(storage).readmit(host.id, lease.boot_id)
        except (TimeoutError, PlatformError) as error:
            why = error.message if isinstance(error, PlatformError) else "it did not answer"
            message = f"data storage {storage.name} may still refuse host {host.name}: {why}"
            await self._tell("host-not-readmitted", host, message, Severity.ALARM)
            raise UnavailableError(message) from error

    # ---- both

    def _need(self, storage: DataStorage) -> FencingStorage:
        """Return what fences by a storage.

        Raises:
            PlatformError: it can't be had on this host.
        """
        found = self._fencing(storage)
        if found is None:
            raise UnavailableError("its driver on the leading host can't fence")
        return found

    async def _tell(self, code: str, host: Host, message: str, severity: Severity) -> None:
        """Record an event once for a fenced boot."""
        told = (code, host.id, host.fenced_boot_id)
        if told in self._told:
            return
        self._told = {it for it in self._told if it[:2] != told[:2]} | {told}
        try:
            await self._events.record(code, host, message, severity=severity)
        except PlatformError as failure:
            log.warning("can't record it", extra={"error": failure.message})
