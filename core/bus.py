"""The way of a piece of work to the agent that owns the resource: the caller names the resource, never a host.

A service offers a contract on every agent (`offer`); whoever needs work done calls it with the key of a resource
(`call`). The bus asks who owns the resource now, and delivers to that agent's work queue, here or over the mesh. When
the owner doesn't answer, the call goes to the next owner if doing it twice is harmless. Ownership is a hint that spreads
work and keeps two agents from doing the same: safety stays with the guards and claims of transactions.

A service that fails, or whose queue is full, fails its own calls only; that is kept with the service's faults.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from core.clock import Clock
from core.errors import ConflictError, InvalidError, NotFoundError, PlatformError, UnavailableError
from core.service_faults import ServiceFaults
from core.work_queue import QueueFullError, WorkQueues

log = logging.getLogger(__name__)

M = TypeVar("M", bound=msgspec.Struct)
A = TypeVar("A", bound=msgspec.Struct)

CALL_S = 30.0
PAUSE_S = 0.5
NOT_OFFERED = "not-offered"


@dataclass(frozen=True, slots=True)
class Contract(Generic[M, A]):
    """What a service takes and gives. The same on caller and owner.

    `idempotent`: doing it twice is harmless, so a call whose outcome is unknown is made again at the next owner.
    `attempt_s` is how long one owner may take, waiting in its queue included. `records_only`: it only changes records, so
    any live member can do it; else only hosts that can work on storage and guests.
    """

    name: str
    message: type[M]
    answer: type[A]
    idempotent: bool
    attempt_s: float = 5.0
    records_only: bool = False


class BusCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call on its way. `key` is the resource, `kind/id`; the owner gives up after `timeout_s`."""

    service: str
    key: str
    timeout_s: float
    body: msgspec.Raw


class BusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: a body, or a problem when `code` is set."""

    body: msgspec.Raw = msgspec.Raw(b"{}")
    code: str = ""
    detail: str = ""
    status: int = 200


class Directory(Protocol):
    """Knows who owns what (`nodeagent.services.whereabouts`)."""

    def owners(self, key: str, *, records_only: bool) -> Sequence[str]:
        """Return the ids of the hosts that should do the work on a resource, the first choice first."""
        ...


class Carrier(Protocol):
    """Brings a call to another agent's `Bus.answer` (`nodeagent.services.mesh_carrier`)."""

    async def deliver(self, host_id: str, call: BusCall, *, timeout_s: float) -> BusAnswer:
        """Return the answer.

        Raises:
            NotFoundError: that agent has no bus; nothing was done.
            UnavailableError: no answer in time; whether it took effect is unknown.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Offer:
    """A contract with who fulfils it here."""

    contract: Contract[Any, Any]
    kind: str
    handle: Callable[[str, Any], Awaitable[msgspec.Struct]]


class Bus:
    """One agent's end of the bus."""

    def __init__(
        self,
        host_id: str,
        directory: Directory,
        carrier: Carrier,
        queues: WorkQueues,
        faults: ServiceFaults,
        clock: Clock,
    ) -> None:
        self._host_id = host_id
        self._directory, self._carrier = directory, carrier
        self._queues, self._faults, self._clock = queues, faults, clock
        self._offers: dict[str, _Offer] = {}

    def offer(
        self, contract: Contract[M, A], handle: Callable[[str, M], Awaitable[A]], *, kind: str
    ) -> None:
        """Fulfil a contract on this agent; calls wait their turn among the work of `kind`."""
        assert contract.name not in self._offers, "a contract is offered once"
        self._offers[contract.name] = _Offer(contract, kind, handle)

    async def call(
        self, contract: Contract[M, A], key: str, message: M, *, timeout_s: float = CALL_S
    ) -> A:
        """Have the owner of a resource do something, within `timeout_s` in all, and return its answer.

        Raises:
            UnavailableError: no owner answered in time. Without `idempotent`, it may have been done all the same.
            PlatformError: the owner's refusal, with its code; also `queue-full` and `service-failed`.
        """
        body = msgspec.Raw(msgspec.json.encode(message))
        end_s = self._clock.monotonic_s() + timeout_s
        silent: list[str] = []
        last = "no host can take it"
        while (left_s := end_s - self._clock.monotonic_s()) > 0:
            owners = self._directory.owners(key, records_only=contract.records_only)
            owner = next((id_ for id_ in owners if id_ not in silent), None)
            if owner is None:
                silent.clear()  # all were tried: one may be back, or another may be in charge now
                await asyncio.sleep(min(PAUSE_S, left_s))
                continue
            attempt_s = min(contract.attempt_s, left_s)
            call = BusCall(service=contract.name, key=key, timeout_s=attempt_s, body=body)
            try:
                answer = await self._deliver(owner, call, attempt_s)
            except UnavailableError as error:
                if not contract.idempotent:
                    raise
                last = error.message
            else:
                if answer.code != NOT_OFFERED:
                    return _content(answer, contract)
                last = answer.detail
            silent.append(owner)
            log.info(
                "a call goes to the next owner",
                extra={"key": key, "service": contract.name, "host": owner, "error": last},
            )
        raise UnavailableError(
            f"{contract.name} for {key} was done by no host within {timeout_s:g} s: {last}"
        )

    async def answer(self, call: BusCall) -> BusAnswer:
        """Do what was asked, in its turn; never raises but for cancellation. Called for this agent and by the mesh."""
        offer = self._offers.get(call.service)
        if offer is None:
            return BusAnswer(
                code=NOT_OFFERED,
                detail=f"this host doesn't offer {call.service[:60]!r}",
                status=404,
            )
        try:
            message = msgspec.json.decode(call.body, type=offer.contract.message)
        except msgspec.DecodeError as error:
            return _problem(InvalidError(f"the call can't be read: {error}"))
        timeout_s = max(0.0, min(call.timeout_s, offer.contract.attempt_s))
        try:
            async with asyncio.timeout(timeout_s), self._queues.turn(offer.kind, call.key):
                content = msgspec.json.encode(await offer.handle(call.key, message))
        except QueueFullError as error:
            self._faults.note(call.service, error, self._clock.wall_ms())
            return _problem(error)
        except PlatformError as error:
            return _problem(error)
        except Exception as error:
            extra = {"service": call.service, "key": call.key}
            log.exception("a service failed a call", extra=extra)
            return self._failed(call, error)
        return BusAnswer(body=msgspec.Raw(content))

    def _failed(self, call: BusCall, error: Exception) -> BusAnswer:
        """Keep what went wrong, which is a mistake of ours or takes too long, and tell the caller without details."""
        self._faults.note(call.service, error, self._clock.wall_ms())
        if isinstance(error, TimeoutError):
            why = f"{call.service} for {call.key} took too long on this host"
            return _problem(UnavailableError(why, code="too-slow"))
        why = f"{call.service} failed on this host: see its agent's log"
        return _problem(PlatformError(why, code="service-failed"))

    async def _deliver(self, owner: str, call: BusCall, timeout_s: float) -> BusAnswer:
        if owner == self._host_id:
            return await self.answer(call)
        try:
            return await self._carrier.deliver(owner, call, timeout_s=timeout_s)
        except NotFoundError as error:
            return BusAnswer(code=NOT_OFFERED, detail=error.message, status=404)


def _problem(error: PlatformError) -> BusAnswer:
    return BusAnswer(code=error.code, detail=error.message, status=error.http_status)


def _content(answer: BusAnswer, contract: Contract[M, A]) -> A:
    """Return the decoded body, or raise the problem that came instead."""
    if not answer.code:
        return msgspec.json.decode(answer.body, type=contract.answer)
    families = (InvalidError, NotFoundError, ConflictError, UnavailableError)
    family = next((f for f in families if f.http_status == answer.status), PlatformError)
    raise family(answer.detail, code=answer.code)
