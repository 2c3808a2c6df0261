"""The audit log: a record before each change, its end after it, and failed log-ins told together.

Used by the API's middleware and the log-in. A change whose begin can't be stored isn't made. Failures of strangers are
counted in memory and stored once a few seconds, one record for each address, so that a flood can't fill the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

from msgspec.structs import replace

from core.clock import Clock, new_id
from core.errors import PlatformError
from core.model import Audit
from nodeagent.identity.callers import Caller
from raftstate.store import Store

log = logging.getLogger(__name__)

FLUSH_S = 5.0
ADDRESSES_MAX = 100
END_TIMEOUT_S = 2.0
TEXT_MAX = 200
OTHERS = "others"


@dataclass(slots=True)
class _Failures:
    count: int
    first_ms: int
    last_ms: int
    names: set[str]
    code: str


class Audits:
    """Writes audits in this host's name."""

    def __init__(self, store: Store, host_id: str, *, clock: Clock, rng: random.Random) -> None:
        self._store = store
        self._host_id = host_id
        self._clock = clock
        self._rng = rng
        self._failures: dict[tuple[str, str], _Failures] = {}

    def make(
        self, caller: Caller | None, action: str, *, subject: str = "", request_id: str = ""
    ) -> Audit:
        """Return an audit that begins now and is not stored yet; without a caller, of a stranger."""
        id_ = new_id(self._rng)
        return Audit(
            id=id_,
            name=id_,
            action=action,
            operator=caller.name if caller else "",
            account_id=caller.account_id if caller else "",
            via=caller.via if caller else "",
            address=caller.address if caller else "",
            subject=subject[:TEXT_MAX],
            host_id=self._host_id,
            request_id=request_id,
            created_ms=self._clock.wall_ms(),
        )

    async def begin(self, audit: Audit) -> Audit:
        """Store the begin of a change.

        Raises:
            UnavailableError: no quorum; the change must not be made.
        """
        await self._store.apply(puts=(audit,))
        return self._store.need(Audit, audit.id)

    async def end(self, audit: Audit, *, result: int, code: str = "", **known: str) -> None:
        """Store how it ended. Without quorum the record stays without an end, which says that nobody knows."""
        ended = replace(audit, result=result, code=code, ended_ms=self._clock.wall_ms(), **known)
        try:
            await self._store.apply(puts=(ended,), timeout_s=END_TIMEOUT_S)
        except PlatformError as error:
            log.warning(
                "the end of a change could not be audited",
                extra={"audit": audit.id, "error": error.message},
            )

    def login_failed(self, address: str, name: str, code: str) -> None:
        """Count a failed log-in; `name` is what was typed."""
        now_ms = self._clock.wall_ms()
        if (address, code) not in self._failures and len(self._failures) >= ADDRESSES_MAX:
            address = OTHERS
        found = self._failures.setdefault(
            (address, code), _Failures(0, now_ms, now_ms, set(), code)
        )
        found.count += 1
        found.last_ms = now_ms
        if len(found.names) < 5:
            found.names.add(name[:63])

    async def run(self) -> None:
        """Store the failures every few seconds until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Store the failures counted until now; without quorum they wait."""
        waiting, self._failures = self._failures, {}
        if not waiting:
            return
        try:
            await self._store.apply(
                puts=[self._of_failures(key[0], f) for key, f in waiting.items()]
            )
        except PlatformError as error:
            log.warning("failed log-ins could not be audited yet", extra={"error": error.message})
            for key, found in waiting.items():
                newer = self._failures.get(key)
                if newer is not None:
                    newer.count += found.count
                    newer.first_ms = found.first_ms
                    newer.names |= found.names
                else:
                    self._failures[key] = found

    def _of_failures(self, address: str, found: _Failures) -> Audit:
        return replace(
            self.make(None, "log in"),
            address=address,
            result=429 if found.code == "held-back" else 401,
            code=found.code,
            count=found.count,
            message="names tried: " + ", ".join(sorted(found.names)),
            created_ms=found.first_ms,
            ended_ms=found.last_ms,
        )
