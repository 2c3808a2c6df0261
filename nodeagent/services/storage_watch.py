"""Watches whether this host can use its data storages, and says in its record which it can't.

Placement leaves out a host that can't reach a storage of the VM's disks; the VM controller asks how long one has been
away before it gives a guest up (`nodeagent.services.storage_loss`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from core.errors import PlatformError, TemporaryError
from core.model import DataStorage, Host
from ha.health_facts import StorageSeen
from nodeagent.node import Node
from nodeagent.services.catching_up import caught_up
from nodeagent.services.storage_checks import StorageChecks, storages_of_host

log = logging.getLogger(__name__)

ROUND_S = 5.0
LOOKS_TO_BE_LOST = 2
START_TIMEOUT_S = 5.0


@dataclass(slots=True)
class _Kept:
    """What was seen of a storage. `failed_since_s` is None while it answers, even if it is full."""

    seen: StorageSeen
    failed_since_s: float | None = None
    failures: int = 0


class StorageWatch:
    """Looks every few seconds; a storage is lost to this host when it failed twice in a row, and back when it answers."""

    def __init__(self, node: Node, checks: StorageChecks) -> None:
        self._node, self._checks = node, checks
        self._kept: dict[str, _Kept] = {}
        self._elsewhere_since_s: dict[str, float] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        await caught_up(self._node.store)
        while True:
            await self.look()
            await asyncio.sleep(ROUND_S)

    async def look(self) -> None:
        """Look once, and write what changed."""
        storages = storages_of_host(self._node.store, self._node.host_id)
        found = await self._checks.look(storages)
        now_s = self._node.clock.monotonic_s()
        self._kept = {seen.storage_id: self._note(seen, now_s) for seen in found}
        self._elsewhere_since_s = {
            storage.id: self._elsewhere_since_s.get(storage.id, now_s)
            for storage in storages
            if self._is_elsewhere(storage.id)
        }
        await self._tell()

    def usable(self, storage_id: str) -> bool:
        """Tell whether a storage could be written and read when it was looked at last."""
        kept = self._kept.get(storage_id)
        return kept is not None and kept.seen.usable

    def lost_s(self, storage_id: str) -> float:
        """Return for how many seconds this host has been without a storage that another had all that time; 0: it isn't so.

        When a storage comes back for all, some hosts see it a little sooner: that alone is no reason to leave.
        """
        kept = self._kept.get(storage_id)
        elsewhere_since_s = self._elsewhere_since_s.get(storage_id)
        if kept is None or kept.failed_since_s is None or kept.failures < LOOKS_TO_BE_LOST:
            return 0.0
        if elsewhere_since_s is None:
            return 0.0
        now_s = self._node.clock.monotonic_s()
        return now_s - max(kept.failed_since_s, elsewhere_since_s)

    async def check(self, storages: Iterable[DataStorage]) -> None:
        """Make sure that storages answer right now, be they full: before a guest is started, which would hang on one that doesn't.

        Raises:
            TemporaryError: one of them does not.
        """
        for seen in await self._checks.look_at(storages, timeout_s=START_TIMEOUT_S):
            if not seen.usable and not seen.full:
                raise TemporaryError(
                    f"data storage {seen.name} can't be used on host {self._node.host_name}: {seen.why}"
                )

    def _is_elsewhere(self, storage_id: str) -> bool:
        """Tell whether some other host has a storage, as it said last."""
        return any(
            host.id != self._node.host_id
            and not host.witness
            and storage_id not in host.unreachable_storage_ids
            for host in self._node.store.all(Host)
        )

    def _note(self, seen: StorageSeen, now_s: float) -> _Kept:
        if seen.usable or seen.full:
            return _Kept(seen)
        before = self._kept.get(seen.storage_id)
        if before is None or before.failed_since_s is None:
            return _Kept(seen, now_s, 1)
        return _Kept(seen, before.failed_since_s, before.failures + 1)

    async def _tell(self) -> None:
        lost = tuple(
            sorted(id_ for id_, kept in self._kept.items() if kept.failures >= LOOKS_TO_BE_LOST)
        )
        host = self._node.host()
        if host.unreachable_storage_ids == lost:
            return
        try:
            await self._node.store.apply(puts=(replace(host, unreachable_storage_ids=lost),))
        except PlatformError as error:
            log.info("what storages are lost can't be reported yet", extra={"error": error.message})
        else:
            log.warning("the data storages that this host can't use changed", extra={"lost": lost})
