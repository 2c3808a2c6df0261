"""Host leases: renewals collected into one transaction, and the judge that knows how old each lease is.

`LeaseBatcher` runs in agents that take renewals (from guards, or passed on by other agents). `LeaseJudge` lives in every
agent and is fed by the store's watch of kind `lease`; the HA manager of the leader reads it. Holder and judge use two
different clocks and need no synchronisation: a renewal is applied later than it was sent, so the judge's stamp + L is
never earlier than the holder's deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from core.attributes import OWNER, attribute
from core.clock import Clock
from core.errors import ConflictError, NotFoundError, PlatformError, UnavailableError
from core.model import Host, HostState, Lease

log = logging.getLogger(__name__)

BATCH_S = 0.5
COMMIT_S = 4.0
WAITING_MAX = 20_000
BOOT_CHANGE_S = 3.0


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard asks: body of POST /v1/local/lease and /mesh/lease.

    `seq` grows within a boot. `guests` counts lease-bound VMs that run or may start on the host, -1 if not known.
    """

    host_id: Annotated[str, attribute("The host.", by=OWNER)]
    boot_id: Annotated[str, attribute("The boot that it is in.", by=OWNER)]
    seq: Annotated[int, attribute("Counts renewals within a boot.", by=OWNER)]
    watchdog_armed: Annotated[bool, attribute("Whether its watchdog would reset it.", by=OWNER)] = (
        False
    )
    guests: Annotated[
        int, attribute("Lease-bound VMs that run or may start; -1: not known.", by=OWNER)
    ] = -1
    lease_s: Annotated[
        float, attribute("How long the guard takes a renewal for; 0: it doesn't say.", by=OWNER)
    ] = 0.0
    watchdog_s: Annotated[float, attribute("Time of its watchdog.", by=OWNER)] = 0.0
    disarmed: Annotated[
        bool, attribute("Whether the end of its lease may have no consequence.", by=OWNER)
    ] = False


class RenewalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Status 200: the renewal is committed at log index `index`. The rest repeats what it said, as it was understood."""

    index: int
    lease_s: float = 0.0
    watchdog_s: float = 0.0
    disarmed: bool = False


def answer_to(renewal: Renewal, index: int) -> RenewalAnswer:
    """Return the answer to a renewal that was committed."""
    return RenewalAnswer(
        index=index,
        lease_s=renewal.lease_s,
        watchdog_s=renewal.watchdog_s,
        disarmed=renewal.disarmed,
    )


def lease_of(renewal: Renewal, before: Lease | None = None) -> Lease:
    """Return the resource that the commit of a renewal puts in place of the one `before`. `seq` never falls in a boot."""
    same_boot = before is not None and before.boot_id == renewal.boot_id
    return Lease(
        id=renewal.host_id,
        name=renewal.host_id,
        revision=before.revision if before is not None else 0,
        boot_id=renewal.boot_id,
        seq=max(renewal.seq, before.seq) if before is not None and same_boot else renewal.seq,
        watchdog_armed=renewal.watchdog_armed,
        lease_s=renewal.lease_s,
        watchdog_s=renewal.watchdog_s,
        disarmed=renewal.disarmed,
    )


def check_renewal(renewal: Renewal, host: Host | None, lease: Lease | None) -> None:
    """Say whether a host may renew. Pure; `host` and `lease` are what the store holds.

    A fenced host may not, until it shows that its guests are gone: another boot, or a guard that counts none. Nor may
    one with terms of before, which come late: the guard may keep to other ones by now. Nor one of a disarmed guard that
    passed an older agent, which drops what it doesn't know: it would seem to enforce.

    Raises:
        NotFoundError: no such member.
        ConflictError: the host is fenced (code `fenced`), or the renewal is overtaken (code `overtaken`).
    """
    if host is None:
        raise NotFoundError(
            f"host {renewal.host_id} is not a member of this cluster: join it again"
        )
    same_boot = lease is not None and lease.boot_id == renewal.boot_id
    if lease is not None and same_boot and lease.disarmed and not renewal.lease_s:
        raise ConflictError(
            f"an agent on the way dropped what host {host.name} says of its lease", code="overtaken"
        )
    if lease is not None and same_boot and renewal.seq < lease.seq:
        told = (renewal.lease_s, renewal.watchdog_s, renewal.watchdog_armed, renewal.disarmed)
        if told != (lease.lease_s, lease.watchdog_s, lease.watchdog_armed, lease.disarmed):
            raise ConflictError(
                f"host {host.name} says other things of its lease by now", code="overtaken"
            )
    if host.state is HostState.MEMBER:
        return
    other_boot = lease is not None and lease.boot_id != renewal.boot_id
    if not other_boot and renewal.guests != 0:
        raise ConflictError(
            f"host {host.name} is fenced: its VMs were taken away, and it still runs guests of before",
            code="fenced",
        )


@dataclass(slots=True)
class _Waiting:
    """The newest renewal of a host in the batch to come, and all who wait for it."""

    renewal: Renewal
    futures: list[asyncio.Future[int]]


class LeaseBatcher:
    """Turns any number of renewals into at most one commit per `batch_s`, and answers each with its log index.

    A renewal is checked when it comes and once more when its batch is committed: meanwhile the host may have been fenced
    or removed. `commit` writes all renewals in one transaction and returns its index. It reads what it guards before it
    first waits for anything. It must put the lease (`lease_of`), guard the revision of a host that is fenced and make it a
    member again; it raises a `PlatformError` when nothing is known to be committed. `host_of` and `lease_of_host` read the local store; `age_s_of` is `LeaseJudge.age_s`.
    """

    def __init__(
        self,
        *,
        commit: Callable[[tuple[Renewal, ...]], Awaitable[int]],
        host_of: Callable[[str], Host | None],
        lease_of_host: Callable[[str], Lease | None],
        age_s_of: Callable[[str], float | None],
        batch_s: float = BATCH_S,
        commit_s: float = COMMIT_S,
    ) -> None:
        self._commit = commit
        self._host_of = host_of
        self._lease_of_host = lease_of_host
        self._age_s_of = age_s_of
        self._batch_s = batch_s
        self._commit_s = commit_s
        self._waiting: dict[str, _Waiting] = {}
        self._former_boots: dict[str, set[str]] = {}
        self._arrived = asyncio.Event()

    async def renew(self, renewal: Renewal) -> int:
        """Commit a renewal with those of other hosts; returns the log index. Takes at most `batch_s` + `commit_s`.

        Raises:
            NotFoundError, ConflictError: see `check_renewal`; also `two-boots` when another boot of the host renewed less
            than 3 s ago, and `former-boot` when this boot was followed by another.
            UnavailableError: not known to be committed.
        """
        lease = self._lease_of_host(renewal.host_id)
        check_renewal(renewal, self._host_of(renewal.host_id), lease)
        self._check_boot(renewal, lease)
        if len(self._waiting) >= WAITING_MAX:
            raise UnavailableError("too many hosts wait for their lease: try again")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(renewal.host_id, _Waiting(renewal, []))
        if renewal.boot_id != waiting.renewal.boot_id or renewal.seq > waiting.renewal.seq:
            waiting.renewal = renewal
        waiting.futures.append(future)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._batch_s + self._commit_s + 1.0):
                return await future
        except TimeoutError:
            raise UnavailableError("the lease was not renewed in time") from None

    def _check_boot(self, renewal: Renewal, lease: Lease | None) -> None:
        former = self._former_boots.setdefault(renewal.host_id, set())
        if renewal.boot_id in former:
            raise ConflictError(
                f"host {renewal.host_id} renews with a boot that was followed by another: is it a copy of the host?",
                code="former-boot",
            )
        if lease is None or lease.boot_id == renewal.boot_id:
            return
        age_s = self._age_s_of(renewal.host_id)
        if age_s is not None and age_s < BOOT_CHANGE_S:
            raise ConflictError(
                f"host {renewal.host_id} renews with two boots at a time: wait if it rebooted, "
                "switch one off if it was copied",
                code="two-boots",
            )
        former.add(lease.boot_id)

    async def run(self) -> None:
        """Commit batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            began_s = loop.time()
            self._arrived.clear()
            waiting, self._waiting = self._waiting, {}
            await self._commit_batch(tuple(waiting.values()))
            await asyncio.sleep(max(0.0, began_s + self._batch_s - loop.time()))

    async def _commit_batch(self, collected: tuple[_Waiting, ...]) -> None:
        batch = tuple(one for one in collected if self._may_still_renew(one))
        if not batch:
            return
        try:
            async with asyncio.timeout(self._commit_s):
                index = await self._commit(tuple(waiting.renewal for waiting in batch))
        except TimeoutError:
            self._fail(batch, UnavailableError("the commit of the leases took too long"))
        except PlatformError as error:
            self._fail(batch, error)
        else:
            for waiting in batch:
                for future in waiting.futures:
                    if not future.done():
                        future.set_result(index)

    def _may_still_renew(self, waiting: _Waiting) -> bool:
        """Tell whether a renewal that was let in still may count; refuse it if not."""
        host_id = waiting.renewal.host_id
        try:
            check_renewal(waiting.renewal, self._host_of(host_id), self._lease_of_host(host_id))
        except PlatformError as error:
            for future in waiting.futures:
                if not future.done():
                    future.set_exception(error)
            return False
        return True

    def _fail(self, batch: tuple[_Waiting, ...], error: PlatformError) -> None:
        for waiting in batch:
            for future in waiting.futures:
                if not future.done():
                    future.set_exception(
                        UnavailableError(f"the lease was not renewed: {error.message}")
                    )


class LeaseJudge:
    """When this node applied each host's last renewal, by its own monotonic clock. Stamps are never saved."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stamps_s: dict[str, float] = {}
        self._revisions: dict[str, int] = {}
        self._boots: dict[str, str] = {}
        self._booted_s: dict[str, float] = {}

    def reset(self, leases: Iterable[Lease]) -> None:
        """Begin anew with the leases of a store just opened, or loaded from a snapshot: all renewed now."""
        now_s = self._clock.monotonic_s()
        self._stamps_s = {}
        self._revisions = {}
        for lease in leases:
            self._stamps_s[lease.id] = now_s
            self._revisions[lease.id] = lease.revision
            self._note_boot(lease, now_s)

    def applied(self, lease: Lease) -> None:
        """Note a renewal, at once when the store applied it. An old revision seen again changes nothing."""
        if lease.revision > self._revisions.get(lease.id, -1):
            self._revisions[lease.id] = lease.revision
            self._stamps_s[lease.id] = self._clock.monotonic_s()
            self._note_boot(lease, self._stamps_s[lease.id])

    def _note_boot(self, lease: Lease, now_s: float) -> None:
        if self._boots.get(lease.id, lease.boot_id) != lease.boot_id:
            self._booted_s[lease.id] = now_s
        self._boots[lease.id] = lease.boot_id

    def removed(self, host_id: str) -> None:
        """Forget a host that left the cluster."""
        self._stamps_s.pop(host_id, None)
        self._revisions.pop(host_id, None)
        self._boots.pop(host_id, None)
        self._booted_s.pop(host_id, None)

    def stamps_s(self) -> dict[str, float]:
        """Return a copy of all stamps (monotonic seconds of this node's clock) by host id."""
        return dict(self._stamps_s)

    def booted_s(self) -> dict[str, float]:
        """Return when each host was first seen in another boot than before, by host id; since this agent started."""
        return dict(self._booted_s)

    def age_s(self, host_id: str) -> float | None:
        """Return the seconds since the host's last renewal was applied here; None when there never was one."""
        stamp_s = self._stamps_s.get(host_id)
        return None if stamp_s is None else self._clock.monotonic_s() - stamp_s
