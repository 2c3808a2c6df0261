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
from raftstate.consensus.messages import MAX_ENTRY_BYTES, Proposal

MAX_WAITING = 10_000
REMEMBERED = 50_000
RETRY_S = 0.05


@dataclass(slots=True)
class Waiting:
    """A caller. `term` is None while its proposal isn't handed to any leader; `link` is the way it went, if any."""

    number: int
    payload: bytes
    future: asyncio.Future[bytes]
    term: int | None = None
    link: tuple[NodeId, int] | None = None
    copies: int = 0
    not_before_s: float = 0.0

    def handed(self, term: int, link: tuple[NodeId, int] | None) -> None:
        """Note the leader's term and the way."""
        self.copies = self.copies + 1 if self.term == term else 1
        self.term, self.link = term, link


class Callers:
    """The proposals of this node's callers, wherever the leader is."""

    def __init__(self, origin: bytes) -> None:
        self.origin = origin
        self._waiting: dict[int, Waiting] = {}
        self._number = 0

    def add(self, payload: bytes, future: asyncio.Future[bytes]) -> Waiting:
        """Take in a caller. Raises UnavailableError if too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            raise UnavailableError("too many changes are waiting; try again later")
        self._number += 1
        waiting = self._waiting[self._number] = Waiting(self._number, payload, future)
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """The caller has gone."""
        self._waiting.pop(waiting.number, None)

    def to_send(self, now_s: float, term: int, link: tuple[NodeId, int] | None) -> list[Waiting]:
        """Return those to hand to the leader of `term` by `link` (None: it is this node), oldest first.

        Includes those handed to the same leader in the same term by a link that has broken since: if they did
        arrive, that leader ignores the copy.
        """
        return [
            waiting
            for waiting in self._waiting.values()
            if (waiting.term is None and now_s >= waiting.not_before_s)
            or (
                waiting.term == term
                and link is not None
                and waiting.link is not None
                and waiting.link[0] == link[0]
                and waiting.link[1] != link[1]
            )
        ]

    def resolve(self, number: int, result: bytes) -> None:
        """Give the caller its result."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(result)

    def refused(self, number: int, term: int, now_s: float) -> None:
        """The leader of `term` did not append it; try another in a moment. Of two copies, one may have got in."""
        waiting = self._waiting.get(number)
        if waiting is not None and waiting.term == term and waiting.copies == 1:
            waiting.term, waiting.not_before_s = None, now_s + RETRY_S

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

    def fail_sent(self, reason: str) -> None:
        """Nobody can tell any more what became of those handed out."""
        for waiting in list(self._waiting.values()):
            if waiting.term is not None:
                self.fail(waiting.number, reason)


class Inbox:
    """What waits to be packed into the next entry while this node leads, its own and others' proposals."""

    def __init__(self) -> None:
        self._queue: deque[tuple[NodeId, Proposal]] = deque()
        self._seen: dict[tuple[bytes, int], None] = {}
        self.term = -1

    def __len__(self) -> int:
        return len(self._queue)

    def lead(self, term: int) -> None:
        """Begin a term with a clean memory; `put` is only for this term."""
        if term != self.term:
            self.term = term
            self._seen.clear()

    def put(self, sender: NodeId, proposal: Proposal) -> bool:
        """Take a proposal; False if there is no room. A duplicate is taken and ignored."""
        key = (proposal.origin, proposal.number)
        if key in self._seen:
            return True
        if len(self._queue) >= MAX_WAITING:
            return False
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._queue.append((sender, proposal))
        return True

    def pack(self) -> list[Proposal]:
        """Return what goes into the next entry."""
        packed: list[Proposal] = []
        size = 0
        while self._queue and (
            not packed or size + len(self._queue[0][1].payload) <= MAX_ENTRY_BYTES
        ):
            proposal = self._queue.popleft()[1]
            packed.append(proposal)
            size += len(proposal.payload)
        return packed

    def clear(self) -> list[tuple[NodeId, Proposal]]:
        """Give everything back: this node doesn't lead any more."""
        left = list(self._queue)
        self._queue.clear()
        self._seen.clear()
        self.term = -1
        return left
