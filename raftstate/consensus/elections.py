"""When this node may stand for election: pre-vote, patience with a living leader, and what PySyncObj gets to see.

Part of `shell`. PySyncObj stands for election only when it believes that somebody is connected, so connections are
hidden from it until a quorum has said in a pre-vote (Raft thesis §9.6) that it would vote for us. A node that merely
hears nobody therefore never disturbs a working leader.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from raftstate.consensus.engine import NodeId
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import Message, PreVote, PreVoteGranted


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds. A leader is missed after `silence_s` and replaced a few round trips later."""

    heartbeat_s: float = 0.25
    silence_s: tuple[float, float] = (1.5, 2.0)
    retry_s: tuple[float, float] = (0.3, 0.6)
    patience_s: float = 1.2  # how long after a sign of the leader nobody gets our vote
    quorum_s: float = 2.0  # a leader that hasn't heard a quorum for so long steps down


class Elections:
    """Decides by time and pre-votes; `show` tells PySyncObj of all connections (True) or of none."""

    def __init__(
        self,
        journal: Journal,
        *,
        me: NodeId,
        timing: Timing,
        rng: random.Random,
        now: Callable[[], float],
        send: Callable[[NodeId, Message], bool],
        show: Callable[[bool], None],
    ) -> None:
        self._journal, self._me, self._timing, self._rng = journal, me, timing, rng
        self._now, self._send, self._show = now, send, show
        self._heard_s = self._asked_s = now()
        self._wait_s = rng.uniform(*timing.silence_s)
        self._granted: set[NodeId] | None = None
        self._asked_term = 0
        self._retired = False
        self.shown = False
        self.transfer_term = -1

    @property
    def retired(self) -> bool:
        """Tell whether the voters said that this host is none of them, whatever its log says."""
        return self._retired

    def is_voter(self, node: NodeId) -> bool:
        """Tell whether `node` is a voter in the latest configuration."""
        return any(peer.id == node for peer in self._journal.members.latest())

    def is_quorum(self, nodes: set[NodeId]) -> bool:
        """Tell whether `nodes` hold a majority of the latest configuration."""
        voters = self._journal.members.latest()
        return 2 * sum(peer.id in nodes for peer in voters) > len(voters)

    def leader_is_fresh(self) -> bool:
        """Tell whether a leader gave a sign of life lately."""
        return self._now() - self._heard_s < self._timing.patience_s

    def heard_leader(self) -> None:
        """A message of the current leader arrived."""
        self._heard_s = self._now()
        self._granted, self._retired, self.transfer_term = None, False, -1
        self.set_shown(False)

    def gave_vote(self) -> None:
        """Leave the candidate time to win."""
        self._pause(self._timing.silence_s)

    def retire(self) -> None:
        """The voters say that this host is none of them any more; a leader that calls again ends it."""
        self._retired = True
        self.set_shown(False)

    def transfer(self, term: int) -> None:
        """The leader of `term` asks this node to take over at once."""
        if self.is_voter(self._me):
            self.transfer_term = term
            self._asked_term = term
            self.set_shown(True)

    def set_shown(self, shown: bool) -> None:
        """Show or hide all connections."""
        if shown != self.shown:
            self.shown = shown
            self._show(shown)

    def tick(self, *, term: int, leading: bool) -> None:
        """Begin a pre-vote when the leader has been silent for long enough."""
        if leading:
            return
        if self.shown and term != self._asked_term:  # the election these votes allowed has begun
            self.set_shown(False)
        silence_over = self._now() - max(self._heard_s, self._asked_s) > self._wait_s
        if not silence_over or self._retired or not self.is_voter(self._me):
            return
        self._pause(self._timing.retry_s)
        self.set_shown(False)
        self._granted, self._asked_term = {self._me}, term
        question = PreVote(term + 1, self._journal.last(), self._journal.last_term())
        for peer in self._journal.members.latest():
            if peer.id != self._me:
                self._send(peer.id, question)

    def would_vote(self, question: PreVote, *, term: int, leading: bool) -> bool:
        """Tell whether a candidate with this log and term would get our vote now."""
        mine = (self._journal.last_term(), self._journal.last())
        theirs = (question.last_term, question.last_index)
        return (
            not leading and not self.leader_is_fresh() and question.term > term and theirs >= mine
        )

    def granted(self, peer: NodeId, answer: PreVoteGranted, *, term: int) -> None:
        """Count a pre-vote; with a quorum, let PySyncObj stand for election."""
        if self._granted is None or answer.term != self._asked_term + 1 or term != self._asked_term:
            return
        self._granted.add(peer)
        if self.is_quorum(self._granted):
            self._granted = None
            self.set_shown(True)

    def _pause(self, range_s: tuple[float, float]) -> None:
        self._asked_s, self._wait_s = self._now(), self._rng.uniform(*range_s)
