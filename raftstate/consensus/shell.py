"""The safe shell around PySyncObj: the transport it believes to talk to, which lets only correct Raft through.

PySyncObj's defects are mended here, on the way in and out: nothing leaves before the journal is durable, AppendEntries
is normalised, acknowledgements carry their term, votes are counted once per host, old leaders are told, elections wait
for a pre-vote, snapshots are checked before they replace anything. `pysyncobj_engine` connects it with the links.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import InvalidError
from raftstate.consensus.elections import Elections
from raftstate.consensus.engine import NodeId
from raftstate.consensus.entries import check_command
from raftstate.consensus.journal import Journal
from raftstate.consensus.messages import (
    Ack,
    Append,
    Fed,
    Message,
    Newer,
    NotVoter,
    Offer,
    PreVote,
    PreVoteGranted,
    RequestVote,
    TimeoutNow,
    Vote,
)
from raftstate.consensus.normaliser import Plan, normalise, verified
from raftstate.consensus.snapshot_header import SnapshotHeader, SnapshotInfo

log = logging.getLogger(__name__)

OFFER_AGAIN_S = 0.2
NOBODY = NodeId("")  # stands for a leader that isn't known


class Node(Protocol):
    """PySyncObj's name of a host."""

    @property
    def id(self) -> str:
        """The host id."""


class Raft(Protocol):
    """What the shell reads of PySyncObj, and the one thing it has it do."""

    @property
    def raftCurrentTerm(self) -> int: ...
    @property
    def raftCommitIndex(self) -> int: ...
    @property
    def otherNodes(self) -> set[Any]: ...
    def _isLeader(self) -> bool: ...
    def _getLeader(self) -> Any: ...
    def tick(self) -> None: ...


PySyncObjMessage = dict[str, Any]


class ShellUser(Protocol):
    """What the shell asks of the node around it."""

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send if there is a link."""

    def linked(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""

    def newest_snapshot(self) -> SnapshotInfo | None:
        """Return what can be offered to a host that is too far behind."""

    def offered(self, peer: NodeId, info: SnapshotInfo) -> None:
        """A leader, or whoever feeds this host, says that only its snapshot helps; fetch it."""

    def now(self) -> float:
        """Return the loop's time in seconds."""


@dataclass(frozen=True, slots=True)
class _Answering:
    """The Append or Offer being handled: what its acknowledgement may say."""

    term: int
    next: int | None
    back_to: int | None


class Shell:
    """PySyncObj's transport. `send` and `show` go down to the links, `receive` comes up from them."""

    ready = True

    def __init__(
        self,
        journal: Journal,
        user: ShellUser,
        *,
        me: NodeId,
        level: int,
        make_node: Callable[[str], Node],
        elections: Callable[[Callable[[bool], None]], Elections],
    ) -> None:
        self._journal, self._me, self._user, self._level = journal, me, user, level
        self._send, self._linked = user.send, user.linked
        self._node = make_node
        self.elections = elections(self._show)
        self._raft: Raft | None = None
        self._answering: _Answering | None = None
        self._votes: tuple[int, set[NodeId]] = (0, set())
        self._leader: tuple[int, NodeId] | None = None  # the one that was heard in its term
        self._behind: dict[NodeId, float] = {}  # who needs a snapshot, and when it was offered last
        self._deliver: Callable[[Node, PySyncObjMessage], None] = lambda node, message: None
        self._connected: Callable[[Node], None] = lambda node: None
        self._disconnected: Callable[[Node], None] = lambda node: None
        self.muted = False

    @property
    def raft(self) -> Raft:
        """PySyncObj, known once its constructor has returned."""
        assert self._raft is not None
        return self._raft

    def attach(self, raft: Raft) -> None:
        """Learn to know PySyncObj."""
        self._raft = raft

    # -- what PySyncObj calls

    def setOnMessageReceivedCallback(
        self, callback: Callable[[Node, PySyncObjMessage], None]
    ) -> None:
        self._deliver = callback

    def setOnNodeConnectedCallback(self, callback: Callable[[Node], None]) -> None:
        self._connected = callback

    def setOnNodeDisconnectedCallback(self, callback: Callable[[Node], None]) -> None:
        self._disconnected = callback

    def setOnReadonlyNodeConnectedCallback(self, callback: object) -> None:
        """There are no read-only nodes here."""

    def setOnReadonlyNodeDisconnectedCallback(self, callback: object) -> None:
        """There are no read-only nodes here."""

    def setOnUtilityMessageCallback(self, message: str, callback: object) -> None:
        """PySyncObj's unauthenticated admin verbs are not offered."""

    def addNode(self, node: Node) -> None:
        """Links follow the journal's members by themselves."""

    def dropNode(self, node: Node) -> None:
        """A removed host keeps its link: it may go on forwarding proposals."""

    def destroy(self) -> None:
        """Nothing of its own to close."""

    def send(self, node: Node, message: PySyncObjMessage) -> bool:
        """Translate and send, once the journal holds what the message promises."""
        if self.muted:
            return False
        peer = NodeId(node.id)
        match message["type"]:
            case "append_entries" if "serialized" in message or peer in self._behind:
                translated: Message | None = self._offer_out(peer, message)
            case "append_entries":
                previous = message["prevLogIdx"]
                translated = Append(
                    message["term"],
                    message["commit_index"],
                    None if previous is None else (previous, message["prevLogTerm"]),
                    message["entries"],
                )
            case "next_node_idx":
                translated = self._ack_out(message)
            case "request_vote":
                translated = RequestVote(
                    message["term"],
                    message["last_log_index"],
                    message["last_log_term"],
                    message["term"] == self.elections.transfer_term + 1,
                )
            case "response_vote":
                self.elections.gave_vote()
                translated = Vote(message["term"])
            case "timeout_now":
                translated = TimeoutNow(message["term"])
            case other:
                log.error("message not sent: unexpected", extra={"type": other})
                return False
        if translated is None:
            return False
        self._journal.sync()
        return self._send(peer, translated)

    def state_changed(self, old: int, new: int) -> None:
        """PySyncObj became follower (0), candidate (1) or leader (2)."""
        self._behind.clear()
        if new == 2:
            self.elections.set_shown(True)
        elif old == 2:
            self.elections.set_shown(False)
            self.elections.gave_vote()

    # -- what the engine calls

    def tick(self) -> None:
        """Let time pass."""
        self.elections.tick(term=self.raft.raftCurrentTerm, leading=self.raft._isLeader())

    def linked(self, peer: NodeId) -> None:
        """A link to `peer` is up."""
        if self.elections.shown:
            self._connected(self._node(peer))

    def unlinked(self, peer: NodeId) -> None:
        """The link to `peer` is gone, with all that was on it."""
        self._behind.pop(peer, None)
        if self.elections.shown:
            self._disconnected(self._node(peer))

    def step_down(self, term: int) -> None:
        """Give way to `term`: PySyncObj does so for a vote request, and never votes for an empty log."""
        self._deliver(
            self._node("newer-term"),
            {"type": "request_vote", "term": term, "last_log_term": -1, "last_log_index": 0},
        )

    def install(self, header: SnapshotHeader) -> None:
        """Let PySyncObj take over the snapshot that has been made ready; not while this node leads or stands."""
        term = self.raft.raftCurrentTerm
        body: PySyncObjMessage = {"serialized": True}
        if self._leader is not None and self._leader[0] == term:
            self._hand_over(self._leader[1], term, header.index, body, next_=header.index + 1)
        else:
            self._hand_over(NOBODY, term, header.index, body)

    def receive(self, peer: NodeId, message: Message) -> None:
        """Handle one message of Raft proper.

        Raises:
            InvalidError: nonsense; the link should be closed.
            FatalError: this node can't go on.
        """
        match message:
            case Append() | Offer():
                self._from_leader(peer, message)
            case Ack():
                self._ack_in(peer, message)
            case RequestVote():
                self._vote_request(peer, message)
            case Vote(term):
                self._vote(peer, term)
            case PreVote():
                self._pre_vote(peer, message)
            case PreVoteGranted():
                if self.elections.is_voter(peer):
                    self.elections.granted(peer, message, term=self.raft.raftCurrentTerm)
            case Newer(term):
                if term > self.raft.raftCurrentTerm and self.elections.is_voter(peer):
                    self.step_down(term)
            case TimeoutNow(term):
                leader = self.raft._getLeader()
                if term == self.raft.raftCurrentTerm and leader is not None and leader.id == peer:
                    self.elections.transfer(term)
                    self._deliver(self._node(peer), {"type": "timeout_now", "term": term})
                    self.raft.tick()  # begin now: the leader's next heartbeat would call it off
            case NotVoter(index):
                if index >= self._journal.members.latest_index():
                    self.elections.retire()
            case _:
                raise InvalidError(f"unexpected message {type(message).__name__}")

    # -- from the leader

    def _from_leader(self, peer: NodeId, message: Append | Offer) -> None:
        if message.term < self.raft.raftCurrentTerm:
            self._send(peer, Newer(self.raft.raftCurrentTerm))
            return
        leader = (self.raft.raftCurrentTerm, self._me) if self.raft._isLeader() else self._leader
        if leader is not None and leader[0] == message.term and leader[1] != peer:
            log.critical("two leaders in one term", extra={"peer": peer, "leader": leader[1]})
            raise InvalidError(f"{peer} can't lead in term {message.term}: {leader[1]} does")
        self._leader = (message.term, peer)
        self.elections.heard_leader()
        if isinstance(message, Offer):
            self._offer_in(peer, message)
        elif message.entries and self._journal.full:
            self._sign_of_life(peer, message.term)
        else:
            _check_entries(message, self._level)
            plan = normalise(message, self._journal, self.raft.raftCommitIndex)
            self._append(peer, message.term, plan)

    def fed(self, message: Fed) -> None:
        """Take in committed entries from whoever feeds this host, which doesn't vote; nothing is acknowledged.

        Raises:
            InvalidError: nonsense.
            TooNewError: this version can't apply them.
            FatalError: they contradict what was committed here.
        """
        if message.entries and self._journal.full:
            return
        # Whoever took a snapshot may hold entries of a term that it hasn't heard of otherwise.
        last_term = message.entries[-1][2] if message.entries else 0
        term = max(self.raft.raftCurrentTerm, message.term, last_term)
        append = Append(term, message.commit, message.previous, message.entries)
        _check_entries(append, self._level)
        plan = normalise(append, self._journal, self.raft.raftCommitIndex)
        index, previous_term = plan.previous or (None, None)
        body = {"entries": plan.entries, "prevLogIdx": index, "prevLogTerm": previous_term}
        self._deliver(
            self._node(message.leader),
            {"type": "append_entries", "term": term, "commit_index": plan.commit, **body},
        )

    def _append(self, peer: NodeId, term: int, plan: Plan) -> None:
        index, previous_term = plan.previous or (None, None)
        body = {"entries": plan.entries, "prevLogIdx": index, "prevLogTerm": previous_term}
        self._hand_over(peer, term, plan.commit, body, next_=plan.next, back_to=plan.back_to)

    def _hand_over(
        self,
        peer: NodeId,
        term: int,
        commit: int,
        body: PySyncObjMessage,
        *,
        next_: int | None = None,
        back_to: int | None = None,
    ) -> None:
        self._answering = _Answering(term, next_, back_to)
        try:
            self._deliver(
                self._node(peer),
                {"type": "append_entries", "term": term, "commit_index": commit, **body},
            )
        finally:
            self._answering = None

    def _offer_in(self, peer: NodeId, offer: Offer) -> None:
        known = self._journal.term_at(offer.index) == offer.index_term
        if offer.index <= self.raft.raftCommitIndex or known:
            self._append(peer, offer.term, verified(self._journal, offer.index, offer.commit))
            return
        self._user.offered(
            peer, SnapshotInfo(offer.index, offer.index_term, offer.size_bytes, offer.crc)
        )
        self._sign_of_life(peer, offer.term)

    def _sign_of_life(self, peer: NodeId, term: int) -> None:
        """Recognise the leader and answer it, without taking anything in."""
        tail = (self._journal.last(), self._journal.last_term())
        self._append(peer, term, Plan(tail, [], commit=0))
        self._journal.sync()  # the term, if it is new
        self._send(peer, Ack(term, self._journal.last() + 1, reset=False, success=False))

    # -- from followers

    def _ack_in(self, peer: NodeId, ack: Ack) -> None:
        raft, node = self.raft, self._node(peer)
        if ack.term > raft.raftCurrentTerm:
            raise InvalidError("acknowledgement of a term that never was")
        if ack.term < raft.raftCurrentTerm or not raft._isLeader():
            return
        if ack.success and ack.next > self._journal.last() + 1:
            raise InvalidError("acknowledgement of entries that don't exist")
        if node not in raft.otherNodes:
            return
        if ack.success:
            self._behind.pop(peer, None)
        self._deliver(
            node,
            {
                "type": "next_node_idx",
                "next_node_idx": max(1, min(ack.next, self._journal.last() + 1)),
                "reset": ack.reset,
                "success": ack.success,
            },
        )

    # -- from candidates

    def _pre_vote(self, peer: NodeId, question: PreVote) -> None:
        raft, members = self.raft, self._journal.members
        if question.term <= raft.raftCurrentTerm:
            self._send(peer, Newer(raft.raftCurrentTerm))
        elif self.elections.would_vote(
            question, term=raft.raftCurrentTerm, leading=raft._isLeader()
        ):
            self._send(peer, PreVoteGranted(question.term))
        if (
            members.known
            and not self.elections.is_voter(peer)
            and members.latest_index() <= raft.raftCommitIndex
        ):
            self._send(peer, NotVoter(raft.raftCommitIndex))

    def _vote_request(self, peer: NodeId, request: RequestVote) -> None:
        """Hosts that aren't voters here may ask too: the entry that made them voters may not have arrived yet."""
        wanted = request.transfer and self.elections.is_voter(peer)
        if not wanted and (self.raft._isLeader() or self.elections.leader_is_fresh()):
            return
        self._deliver(
            self._node(peer),
            {
                "type": "request_vote",
                "term": request.term,
                "last_log_term": request.last_term,
                "last_log_index": request.last_index,
            },
        )

    def _vote(self, peer: NodeId, term: int) -> None:
        if term != self.raft.raftCurrentTerm:
            return
        if self._votes[0] != term:
            self._votes = (term, set())
        if peer in self._votes[1] or not self.elections.is_voter(peer):
            return
        self._votes[1].add(peer)
        self._deliver(self._node(peer), {"type": "response_vote", "term": term})

    # -- towards the links

    def _ack_out(self, message: PySyncObjMessage) -> Message | None:
        answering = self._answering
        if answering is None:
            return None
        next_ = message["next_node_idx"]
        if message["success"]:
            if answering.next is None:
                return None
            next_ = answering.next
        elif message["reset"] and answering.back_to is not None:
            next_ = answering.back_to
        return Ack(answering.term, next_, message["reset"], message["success"])

    def _offer_out(self, peer: NodeId, message: PySyncObjMessage) -> Message | None:
        """Offer the snapshot, now and then, to a host that needs it, until it acknowledges something."""
        now_s = self._user.now()
        if now_s - self._behind.get(peer, -OFFER_AGAIN_S) < OFFER_AGAIN_S:
            return None
        info = self._user.newest_snapshot()
        if info is None:
            return None
        self._behind[peer] = now_s
        return Offer(
            message["term"],
            message["commit_index"],
            info.index,
            info.term,
            info.size_bytes,
            info.crc,
            feed=False,
        )

    def _show(self, shown: bool) -> None:
        for peer in sorted(self._linked()):
            (self._connected if shown else self._disconnected)(self._node(peer))


def _check_entries(append: Append, level: int) -> None:
    """Raise InvalidError unless the entries are contiguous, in order of terms, and can be applied one day."""
    if append.previous is None:
        if append.entries:
            raise InvalidError("entries without a place")
        return
    index, term = append.previous
    for command, at, entry_term in append.entries:
        if at != index + 1 or not term <= entry_term <= append.term:
            raise InvalidError(
                f"entry {at} of term {entry_term} after entry {index} of term {term}"
            )
        check_command(command, level)
        index, term = at, entry_term
