"""How changes ended: kept for a moment and then stored together, so that a busy agent doesn't commit once more for each.

Owned by `nodeagent.identity.audits`. What isn't stored when the agent dies is missing from audits whose begin was stored
with the change: those say that nobody knows the outcome. Without quorum the ends wait, up to a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from itertools import islice

from msgspec.structs import replace

from core.errors import PlatformError
from core.model import Audit
from raftstate.store import Store

log = logging.getLogger(__name__)

GATHER_S = 0.2
RETRY_S = 2.0
COMMIT_TIMEOUT_S = 2.0
TOGETHER_MAX = 100
TOGETHER_CHARACTERS_MAX = 200_000  # a transaction has two MiB at most
WAITING_MAX = 2000


class AuditEnds:
    """Whole audits, each with its end, on their way into the state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Audit] = deque()
        self._lost = 0
        self._some = asyncio.Event()
        self._turn = asyncio.Lock()

    def add(self, ended: Audit) -> None:
        """Store this soon. When too many wait it is lost, which the log says."""
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
            return
        self._waiting.append(ended)
        self._some.set()

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            if not await self.flush():
                await asyncio.sleep(RETRY_S)

    async def flush(self) -> bool:
        """Store everything that waits now; False when that can't be done at the moment."""
        async with self._turn:
            self._some.clear()
            while together := self._first_ones():
                try:
                    await self._commit(together)
                except PlatformError as error:
                    self._some.set()
                    log.warning(
                        "the ends of changes could not be audited yet",
                        extra={"waiting": len(self._waiting), "error": error.message},
                    )
                    return False
                for _ in together:
                    self._waiting.popleft()
            if self._lost:
                log.error("ends of changes are lost to the audit log", extra={"count": self._lost})
                self._lost = 0
            return True

    def _first_ones(self) -> list[Audit]:
        chosen: list[Audit] = []
        characters = 0
        for ended in islice(self._waiting, TOGETHER_MAX):
            characters += len(ended.before) + len(ended.after)
            if chosen and characters > TOGETHER_CHARACTERS_MAX:
                break
            chosen.append(ended)
        return chosen

    async def _commit(self, ended: list[Audit]) -> None:
        """Store these, whether their begins are there or not."""
        txn = replace(self._store.change(puts=ended), guards={})
        await self._store.commit(txn, timeout_s=COMMIT_TIMEOUT_S)
