"""Work without locks: what touches one resource happens one after another, the rest side by side up to a limit a kind.

Used by the agent for the tasks it runs, for images, and for what the bus delivers (`core.bus`). A turn is for one
resource and of one kind (boots, migrations …). On one resource, turns begin in the order they were asked for; beyond that nobody waits for a
stranger: one whose resource is busy, or whose kind is at its limit, is passed by those that can begin. What waits is
bounded, so that a flood is refused with a word instead of growing until the agent dies. A turn runs in the task of
whoever asked for it: its error and its cancellation are theirs, and touch nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from core.clock import Clock
from core.errors import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")

WAITING_MAX = 1000


class QueueFullError(UnavailableError):
    """Too much of this kind waits already; nothing was begun."""

    code = "queue-full"


@dataclass(frozen=True, slots=True)
class Limit:
    """How many turns of a kind run at a time, and how many may wait. Both at least 1."""

    at_once: int
    waiting_max: int = WAITING_MAX


class KindState(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on in a kind.

    `oldest_s` is how long the one that waits longest has waited, 0 when none does. `failed` counts the turns that
    ended with an error since the agent started.
    """

    kind: str
    at_once: int
    running: int
    waiting: int
    oldest_s: float
    failed: int


class _Ticket:
    """One who waits, or whose turn it is."""

    def __init__(self, kind: str, resource: str, since_s: float) -> None:
        self.kind, self.resource, self.since_s = kind, resource, since_s
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class WorkQueues:
    """All queues of one agent."""

    def __init__(self, limits: Mapping[str, Limit], clock: Clock) -> None:
        """`limits` names every kind there is."""
        self._limits, self._clock = dict(limits), clock
        self._waiting: list[_Ticket] = []
        self._busy: set[str] = set()
        self._running = dict.fromkeys(self._limits, 0)
        self._failed = dict.fromkeys(self._limits, 0)

    @asynccontextmanager
    async def turn(self, kind: str, resource: str) -> AsyncIterator[None]:
        """Wait for the resource to be free and for room in the kind; hold both for the length of the context.

        Don't ask for a turn on a resource whose turn you have: it would wait for itself.

        Raises:
            QueueFullError: too many wait already.
        """
        await self._enter(kind, resource)
        try:
            yield
        except Exception:
            self._failed[kind] += 1
            raise
        finally:
            self._leave(kind, resource)

    async def perform(self, kind: str, resource: str, job: Callable[[], Awaitable[T]]) -> T:
        """Do a job in its turn and return its result; what it raises goes to the caller alone.

        Raises:
            QueueFullError: too many wait already; the job was not begun.
        """
        async with self.turn(kind, resource):
            return await job()

    def state(self) -> tuple[KindState, ...]:
        """Return what runs and what waits, kind by kind in the order of their names."""
        now_s = self._clock.monotonic_s()
        return tuple(self._state_of(kind, now_s) for kind in sorted(self._limits))

    def _state_of(self, kind: str, now_s: float) -> KindState:
        since = [ticket.since_s for ticket in self._waiting if ticket.kind == kind]
        return KindState(
            kind=kind,
            at_once=self._limits[kind].at_once,
            running=self._running[kind],
            waiting=len(since),
            oldest_s=now_s - min(since) if since else 0.0,
            failed=self._failed[kind],
        )

    async def _enter(self, kind: str, resource: str) -> None:
        ticket = _Ticket(kind, resource, self._clock.monotonic_s())
        self._waiting.append(ticket)
        self._call_next()
        if ticket.called.done():
            return
        try:
            self._refuse_if_full(kind)
            await ticket.called
        except BaseException:
            # Cancelled, or refused. It may have been called in the same moment: then the turn is given back.
            if ticket.called.done() and not ticket.called.cancelled():
                self._leave(kind, resource)
            else:
                self._waiting.remove(ticket)
                self._call_next()  # it may have kept its resource from others
            raise

    def _refuse_if_full(self, kind: str) -> None:
        limit = self._limits[kind]
        if sum(1 for ticket in self._waiting if ticket.kind == kind) > limit.waiting_max:
            log.warning("a work queue is full", extra={"kind": kind, "waiting": limit.waiting_max})
            raise QueueFullError(
                f"{limit.waiting_max} {kind} wait on this host already: try again later, "
                "or let more run at a time ([limits] in /etc/kvorum/agent.toml)"
            )

    def _leave(self, kind: str, resource: str) -> None:
        self._busy.discard(resource)
        self._running[kind] -= 1
        self._call_next()

    def _call_next(self) -> None:
        """Call everyone who can begin, the longest waiting first."""
        still: list[_Ticket] = []
        awaited = set(self._busy)
        for ticket in self._waiting:
            room = self._running[ticket.kind] < self._limits[ticket.kind].at_once
            if room and ticket.resource not in awaited and not ticket.called.done():
                self._busy.add(ticket.resource)
                self._running[ticket.kind] += 1
                ticket.called.set_result(None)
            else:
                still.append(ticket)
            awaited.add(ticket.resource)
        self._waiting = still
