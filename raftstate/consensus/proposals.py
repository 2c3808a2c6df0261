"""Proposals on their way into the log, each appended once at most, and the callers that wait for them.

Part of the engine. A proposal is handed to the leader of one term and may be appended in that term only. Once an entry
of a later term is applied here, a proposal that wasn't applied before it never will be, and is handed out again. A
caller gets its result when this node applies the entry, so it reads its own writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from core.errors import UnavailableError
from raftstate.consensus.engine import NodeId
from raftstate.consensus.entries import Proposal
from raftstate.consensus.messages import MAX_ENTRY_BYTES, Propose

MAX_WAITING = 10_000
REMEMBERED = 50_000
RETRY_S = 0.05
HAND_AGAIN_S = 1.0  # a host on the way may have lost it; the leader ignores a copy


@dataclass(slots=True)
class Waiting:
    """A caller. `term` is None while its proposal isn't handed to any leader; `link` is the way it went, if any."""

    number: int
    payload: bytes
    level: int
    future: asyncio.Future[bytes]
    term: int | None = None
    link: tuple[NodeId, int] | None = None
    copies: int = 0
    not_before_s: float = 0.0
    handed_s: float = 0.0
    reason: str = ""

    def as_message(self, origin: bytes, term: int) -> Propose:
        """Return what asks the leader of `term` to append it."""
        return Propose(term, origin, self.number, self.level, self.payload)

    def handed(self, term: int, link: tuple[NodeId, int] | None, now_s: float) -> None:
        """Note the leader's term and the way."""
        self.copies = self.copies + 1 if self.term == term else 1
        self.term, self.link, self.handed_s = term, link, now_s


class Callers:
    """The proposals of this node's callers, wherever the leader is."""

    def __init__(self, origin: bytes) -> None:
        self.origin = origin
        self._waiting: dict[int, Waiting] = {}
        self._new: dict[int, Waiting] = {}
        self._way: tuple[int, tuple[NodeId, int] | None] = (-1, None)
        self._look_s = 0.0
        self._number = 0

    def add(self, payload: bytes, level: int, future: asyncio.Future[bytes]) -> Waiting:
        """Take in a caller. Raises UnavailableError if too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            raise UnavailableError("too many changes are waiting; try again later")
        self._number += 1
        waiting = self._waiting[self._number] = Waiting(self._number, payload, level, future)
        self._new[self._number] = waiting
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """The caller has gone."""
        self._waiting.pop(waiting.number, None)
        self._new.pop(waiting.number, None)

    def to_send(self, now_s: float, term: int, link: tuple[NodeId, int] | None) -> list[Waiting]:
        """Return those to hand to the leader of `term` by `link` (None: it is this node), oldest first.

        Includes those handed to the same leader by another link, or so long ago that they may be lost: if they did
        arrive, that leader ignores the copy.
        """
        if (term, link) == self._way and now_s < self._look_s:
            new, self._new = list(self._new.values()), {}
            return new
        self._way, self._look_s = (term, link), now_s + RETRY_S
        self._new.clear()
        return [
            waiting for waiting in self._waiting.values() if _is_due(waiting, now_s, term, link)
        ]

    def resolve(self, number: int, result: bytes) -> None:
        """Give the caller its result."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(result)

    def refused(self, number: int, term: int, now_s: float, reason: str = "") -> None:
        """The leader of `term` did not append it; try another in a moment. Of two copies, one may have got in."""
        waiting = self._waiting.get(number)
        if waiting is not None and waiting.term == term and waiting.copies == 1:
            waiting.term, waiting.not_before_s, waiting.reason = None, now_s + RETRY_S, reason

    def applied_term(self, term: int) -> None:
        """Take back what was handed to leaders of earlier terms: it is in no log that counts."""
        for waiting in self._waiting.values():
            if waiting.term is not None and waiting.term < term:
                waiting.term = None

    def fail(self, number: int, reason: str) -> None:
        """The caller will never learn its result."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(UnavailableError(reason))

    def fail_all(self, reason: str) -> None:
        """Nobody here will learn anything any more."""
        for number in list(self._waiting):
            self.fail(number, reason)

    def fail_sent(self, reason: str) -> None:
        """Nobody can tell any more what became of those handed out."""
        for waiting in list(self._waiting.values()):
            if waiting.term is not None:
                self.fail(waiting.number, reason)


class Inbox:
    """What waits to be packed into the next entry while this node leads, its own and others' proposals."""

    def __init__(self) -> None:
        self._queue: deque[tuple[NodeId, Proposal, int]] = deque()
        self._seen: dict[tuple[bytes, int], None] = {}
        self.term = -1

    def __len__(self) -> int:
        return len(self._queue)

    def lead(self, term: int) -> None:
        """Begin a term with a clean memory; `put` is only for this term."""
        if term != self.term:
            self.term = term
            self._seen.clear()

    def put(self, sender: NodeId, proposal: Proposal, level: int) -> bool:
        """Take a proposal that needs `level`; False if there is no room. A duplicate is taken and ignored."""
        key = (proposal.origin, proposal.number)
        if key in self._seen:
            return True
        if len(self._queue) >= MAX_WAITING:
            return False
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._queue.append((sender, proposal, level))
        return True

    def pack(self) -> tuple[list[Proposal], int]:
        """Return what goes into the next entry, and the level that this entry needs."""
        packed: list[Proposal] = []
        size, needed = 0, 0
        while self._queue and (
            not packed or size + len(self._queue[0][1].payload) <= MAX_ENTRY_BYTES
        ):
            _, proposal, level = self._queue.popleft()
            packed.append(proposal)
            size += len(proposal.payload)
            needed = max(needed, level)
        return packed, needed

    def clear(self) -> list[tuple[NodeId, Proposal]]:
        """Give everything back: this node doesn't lead any more."""
        left = [(sender, proposal) for sender, proposal, _ in self._queue]
        self._queue.clear()
        self._seen.clear()
        self.term = -1
        return left


def _is_due(waiting: Waiting, now_s: float, term: int, link: tuple[NodeId, int] | None) -> bool:
    if waiting.term is None:
        return now_s >= waiting.not_before_s
    if waiting.term != term or link is None or waiting.link is None:
        return False
    return waiting.link != link or now_s - waiting.handed_s >= HAND_AGAIN_S
