"""Read barriers (ReadIndex, Raft thesis §6.4): how a node learns what it must have applied to read the present.

Part of the engine. The leader notes its commit index, asks the voters whether it still leads, and answers when a
quorum has said so. Requests that arrive while a round is under way wait for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from raftstate.consensus.engine import NodeId

Answer = Callable[[int | None], None]
REPEAT_S = 0.25
RETRY_S = 0.05


@dataclass(slots=True)
class _Round:
    number: int
    term: int
    index: int
    answers: list[Answer]
    asked_s: float
    confirmed: set[NodeId] = field(default_factory=set)


class ReadRounds:
    """The leader's half."""

    def __init__(
        self,
        me: NodeId,
        *,
        is_quorum: Callable[[set[NodeId]], bool],
        ask: Callable[[int, int], None],
    ) -> None:
        self._me, self._is_quorum, self._ask = me, is_quorum, ask
        self._queue: list[Answer] = []
        self._round: _Round | None = None
        self._number = 0

    def request(self, answer: Answer) -> None:
        """Call `answer(index)` when the present is known to be at `index`; with None if this node can't tell."""
        self._queue.append(answer)

    def tick(self, *, now_s: float, term: int, leading: bool, commit: int, settled: bool) -> None:
        """Start, repeat or give up rounds. `settled`: an entry of this very term has been committed."""
        if not leading or (self._round is not None and self._round.term != term):
            self._give_up()
        if not leading or not settled:
            return
        if self._round is None and self._queue:
            self._number += 1
            self._round = _Round(self._number, term, commit, self._queue, now_s - REPEAT_S)
            self._queue = []
            self.confirm(self._me, self._number, term)
        if self._round is not None and now_s - self._round.asked_s >= REPEAT_S:
            self._round.asked_s = now_s
            self._ask(term, self._round.number)

    def confirm(self, voter: NodeId, number: int, term: int) -> None:
        """A voter knows of no later term than `term`."""
        current = self._round
        if current is None or (current.number, current.term) != (number, term):
            return
        current.confirmed.add(voter)
        if self._is_quorum(current.confirmed):
            self._round = None
            for answer in current.answers:
                answer(current.index)

    def _give_up(self) -> None:
        answers = self._queue + (self._round.answers if self._round else [])
        self._queue, self._round = [], None
        for answer in answers:
            answer(None)


@dataclass(slots=True)
class Reader:
    """A caller of `read_barrier`. `index` is what must be applied, once known; `asked` the leader asked for it."""

    number: int
    future: asyncio.Future[int]
    index: int | None = None
    asked: object = None
    not_before_s: float = 0.0


class Readers:
    """The callers' half: asks whoever leads, again whenever that changes, and waits until enough is applied."""

    def __init__(self) -> None:
        self._readers: dict[int, Reader] = {}
        self._number = 0

    def add(self, future: asyncio.Future[int]) -> Reader:
        """Take in a caller."""
        self._number += 1
        reader = self._readers[self._number] = Reader(self._number, future)
        return reader

    def forget(self, reader: Reader) -> None:
        """The caller has gone."""
        self._readers.pop(reader.number, None)

    def to_ask(self, now_s: float, leader: object) -> list[Reader]:
        """Return those who haven't asked this leader (told apart by id, link and term), and mark them."""
        asking = [
            reader
            for reader in self._readers.values()
            if reader.index is None and reader.asked != leader and now_s >= reader.not_before_s
        ]
        for reader in asking:
            reader.asked = leader
        return asking

    def answered(self, number: int, index: int | None, now_s: float) -> None:
        """The leader answered; None: ask again in a moment."""
        if (reader := self._readers.get(number)) is None:
            return
        if index is None:
            reader.asked, reader.not_before_s = None, now_s + RETRY_S
        else:
            reader.index = index

    def applied(self, applied: int) -> None:
        """Let those go on who waited for no more than `applied`."""
        for reader in list(self._readers.values()):
            if reader.index is not None and reader.index <= applied:
                self.forget(reader)
                if not reader.future.done():
                    reader.future.set_result(applied)
