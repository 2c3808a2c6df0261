"""The audit log: a record before or with each change, its end after it, and failed log-ins told together.

Used by the API's middleware, the log-in and the check of signatures. A change whose begin can't be stored isn't made. Ends
are stored a moment later, many together (`nodeagent.identity.audit_ends`). Failures of strangers are counted in memory and
stored once a few seconds, one record for each address, so that a flood can't fill the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from core.clock import Clock, new_ordered_id
from core.errors import PlatformError
from core.model import Audit
from nodeagent.identity.audit_ends import AuditEnds
from nodeagent.identity.callers import Caller
from raftstate.rider import RIDER, Rider
from raftstate.store import Store

log = logging.getLogger(__name__)

StoreIt = Callable[[Audit], Awaitable[None]]

FLUSH_S = 5.0
ADDRESSES_MAX = 100
BEGIN_TIMEOUT_S = 2.0
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
        self._ends = AuditEnds(store)
        self._failures: dict[tuple[str, str, str], _Failures] = {}

    def make(
        self, caller: Caller | None, action: str, *, subject: str = "", request_id: str = ""
    ) -> Audit:
        """Return an audit that begins now and is not stored yet; without a caller, of a stranger."""
        now_ms = self._clock.wall_ms()
        id_ = new_ordered_id(self._rng, now_ms)
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
            created_ms=now_ms,
        )

    async def begin(self, audit: Audit, store_it: StoreIt | None = None) -> Audit:
        """Store the begin of a change; `store_it` does it together with something else.

        Raises:
            UnavailableError: no quorum; the change must not be made.
        """
        if store_it is None:
            await self._store.apply(puts=(audit,))
        else:
            await store_it(audit)
        return self._store.need(Audit, audit.id)

    @contextlib.contextmanager
    def along(self, audit: Audit) -> Iterator[None]:
        """Have the begin of a change stored with the first transaction that the block commits, both or neither."""
        rider = Rider(audit)
        token = RIDER.set(rider)
        try:
            yield
        finally:
            RIDER.reset(token)
            rider.stay_behind()

    async def begin_if_possible(self, audit: Audit) -> Audit | None:
        """Store the begin of a change that must be possible without quorum too; None when it can't be stored soon."""
        try:
            await self._store.apply(puts=(audit,), timeout_s=BEGIN_TIMEOUT_S)
        except PlatformError as error:
            log.warning("a change could not be audited", extra={"error": error.message})
            return None
        return self._store.need(Audit, audit.id)

    def end_of(self, audit_id: str, *, of_host: str, result: int) -> None:
        """Have it stored how a change of another host ended that can't do so itself any more."""
        audit = self._store.get(Audit, audit_id)
        if audit is not None and audit.host_id == of_host and not audit.result:
            self.end(audit, result=result)

    def end(self, audit: Audit, *, result: int, code: str = "", **known: str) -> None:
        """Have it stored soon how a change ended, and with it the whole audit, if its begin isn't stored."""
        ended_ms = self._clock.wall_ms()
        self._ends.add(replace(audit, result=result, code=code, ended_ms=ended_ms, **known))

    def login_failed(self, address: str, name: str, code: str) -> None:
        """Count a failed log-in; `name` is what was typed."""
        self._failed("log in", address, name, code)

    def signature_refused(self, address: str, key_id: str, code: str) -> None:
        """Count a signed request that was refused although its access key exists."""
        self._failed("sign a request", address, key_id, code)

    def _failed(self, action: str, address: str, name: str, code: str) -> None:
        now_ms = self._clock.wall_ms()
        if (action, address, code) not in self._failures and len(self._failures) >= ADDRESSES_MAX:
            address = OTHERS
        found = self._failures.setdefault(
            (action, address, code), _Failures(0, now_ms, now_ms, set(), code)
        )
        found.count += 1
        found.last_ms = now_ms
        if len(found.names) < 5:
            found.names.add(name[:63])

    async def run(self) -> None:
        """Store the ends soon, and the failures every few seconds, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ends.run(), name="audit-ends")
            group.create_task(self._run_failures(), name="audit-failures")

    async def _run_failures(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush_failures()

    async def flush(self) -> None:
        """Store what waits now; without quorum it goes on waiting."""
        await self._ends.flush()
        await self._flush_failures()

    async def flush_ends(self, *, timeout_s: float) -> None:
        """Store the ends now, if that is possible in time: for whoever reads them, and before the agent stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ends.flush()

    async def _flush_failures(self) -> None:
        waiting, self._failures = self._failures, {}
        if not waiting:
            return
        try:
            await self._store.apply(
                puts=[self._of_failures(key[0], key[1], f) for key, f in waiting.items()]
            )
        except PlatformError as error:
            log.warning("refused callers could not be audited yet", extra={"error": error.message})
            for key, found in waiting.items():
                newer = self._failures.get(key)
                if newer is not None:
                    newer.count += found.count
                    newer.first_ms = found.first_ms
                    newer.names |= found.names
                else:
                    self._failures[key] = found

    def _of_failures(self, action: str, address: str, found: _Failures) -> Audit:
        return replace(
            self.make(None, action),
            address=address,
            result=429 if found.code == "held-back" else 401,
            code=found.code,
            count=found.count,
            message="names tried: " + ", ".join(sorted(found.names)),
            created_ms=found.first_ms,
            ended_ms=found.last_ms,
        )
