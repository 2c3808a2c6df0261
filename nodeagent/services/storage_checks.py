"""Whether this host can use its data storages right now: a small write and read on each, with a deadline.

Used by the host's look at itself (`nodeagent.services.self_look`). A mount whose server is gone blocks whoever touches it in
the kernel, for as long as it pleases. So each storage is touched by one thread of its own, which is a daemon's (an agent
can exit while it hangs) and apart from the one that works on the storage; while it hangs no other is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.errors import PlatformError
from core.model import DataStorage
from ha.health_facts import StorageSeen
from nodeagent.compute.call_threads import CallThreads
from storage.directory_driver import LocalDriver, SharedDriver
from storage.driver import DataStorageDriver

CHECK_TIMEOUT_S = 1.0


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
        """Check all of them at once; takes `timeout_s` at most."""
        storages = tuple(storages)
        self._forget(keep={storage.id for storage in storages})
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(self._look(storage), name=f"check-{storage.name}")
                for storage in storages
            ]
        return tuple(look.result() for look in looks)

    async def _look(self, storage: DataStorage) -> StorageSeen:
        try:
            driver = self._driver_of(storage)
            if isinstance(driver, LocalDriver | SharedDriver):
                why = await self._touched(storage.id, driver.check)
            else:
                async with asyncio.timeout(self._timeout_s):
                    await driver.ensure_ready()
                why = ""
        except PlatformError as error:
            why = error.message
        except OSError as error:  # a TimeoutError, too
            why = str(error) or f"it has not answered for {self._timeout_s:g} s"
        return StorageSeen(storage_id=storage.id, name=storage.name, usable=not why, why=why)

    async def _touched(self, storage_id: str, touch: Callable[[], None]) -> str:
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
        await asyncio.wait([pending], timeout=self._timeout_s)
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
