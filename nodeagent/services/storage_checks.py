"""Whether this host can use its data storages right now: a small write and read on each, with a deadline.

Used by the host's look at itself (`nodeagent.services.self_look`), by what watches its storages, and before a guest is started. A mount whose server is gone blocks whoever touches it in
the kernel, for as long as it pleases. So each storage is touched by one thread of its own, which is a daemon's (an agent
can exit while it hangs) and apart from the one that works on the storage; while it hangs no other is begun.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.errors import PlatformError
from core.model import Cluster, DataStorage, Host
from ha.health_facts import StorageSeen
from nodeagent.compute.call_threads import CallThreads
from raftstate.store import Store
from storage.directory_driver import LocalDriver, SharedDriver
from storage.driver import DataStorageDriver

CHECK_TIMEOUT_S = 1.0
FULL = (errno.ENOSPC, errno.EDQUOT)


def storages_of_host(store: Store, host_id: str) -> tuple[DataStorage, ...]:
    """Return the data storages that a host should be able to use: its data center's; none on a witness."""
    host = store.get(Host, host_id)
    cluster = store.get(Cluster, host.cluster_id) if host is not None else None
    if host is None or cluster is None or host.witness:
        return ()
    center = cluster.data_center_id
    return tuple(it for it in store.all(DataStorage) if it.data_center_id == center)


@dataclass(slots=True)
class _Check:
    """One storage's thread and what it does at present, begun at `since_s` of the loop's time."""

    thread: CallThreads
    pending: asyncio.Future[None] | None = None
    since_s: float = 0.0


class StorageChecks:
    """Looks at storages; `driver_of` raises PlatformErrors for a storage that this host has no driver for."""

    def __init__(
        self,
        driver_of: Callable[[DataStorage], DataStorageDriver],
        *,
        timeout_s: float = CHECK_TIMEOUT_S,
    ) -> None:
        self._driver_of, self._timeout_s = driver_of, timeout_s
        self._checks: dict[str, _Check] = {}

    async def look(self, storages: Iterable[DataStorage]) -> tuple[StorageSeen, ...]:
        """Check all that there are, at once; takes `timeout_s` at most."""
        storages = tuple(storages)
        self._forget(keep={storage.id for storage in storages})
        return await self.look_at(storages, timeout_s=self._timeout_s)

    async def look_at(
        self, storages: Iterable[DataStorage], *, timeout_s: float
    ) -> tuple[StorageSeen, ...]:
        """Check some of them at once; takes `timeout_s` at most."""
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(self._look(storage, timeout_s), name=f"check-{storage.name}")
                for storage in storages
            ]
        return tuple(look.result() for look in looks)

    async def _look(self, storage: DataStorage, timeout_s: float) -> StorageSeen:
        full = False
        try:
            driver = self._driver_of(storage)
            if isinstance(driver, LocalDriver | SharedDriver):
                why = await self._touched(storage.id, driver.check, timeout_s)
            else:
                async with asyncio.timeout(timeout_s):
                    await driver.ensure_ready()
                why = ""
        except PlatformError as error:
            why = error.message
        except OSError as error:  # a TimeoutError, too
            why = str(error) or f"it has not answered for {timeout_s:g} s"
            full = error.errno in FULL
        return StorageSeen(
            storage_id=storage.id, name=storage.name, usable=not why, why=why, full=full
        )

    async def _touched(self, storage_id: str, touch: Callable[[], None], timeout_s: float) -> str:
        """Return why not, empty when it went well."""
        loop = asyncio.get_running_loop()
        check = self._checks.get(storage_id)
        if check is None:
            check = self._checks[storage_id] = _Check(CallThreads(1, f"check-{storage_id[:8]}"))
        if check.pending is None or check.pending.done():
            check.since_s = loop.time()
            check.pending = loop.run_in_executor(check.thread, touch)
            check.pending.add_done_callback(_note)
        pending = check.pending
        await asyncio.wait([pending], timeout=timeout_s)
        if not pending.done():
            return f"it has not answered for {max(1, round(loop.time() - check.since_s))} s"
        pending.result()
        return ""

    def _forget(self, *, keep: set[str]) -> None:
        """Let the threads of deleted storages end."""
        for id_ in self._checks.keys() - keep:
            self._checks.pop(id_).thread.shutdown()


def _note(done: asyncio.Future[None]) -> None:
    """Look at the outcome, which nobody may wait for any more."""
    if not done.cancelled():
        done.exception()
