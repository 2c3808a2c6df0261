"""Requests on their way: of this host's own callers, and of other hosts, to the leader and back.

Part of the engine, which tells it when to act (`pump`) and what has been applied. A request is answered here while this
host leads, else passed on to a host that is nearer to the leader. The results of proposals don't travel back: whoever
waits gets its result when its own host applies the entry.
"""

from __future__ import annotations

from collections.abc import Callable

from core.errors import InvalidError
from raftstate.consensus.changes import ChangeRequests, Changes, Verdict
from raftstate.consensus.engine import NodeId
from raftstate.consensus.entries import MemberChange, Proposal, encode_proposals
from raftstate.consensus.links import Links
from raftstate.consensus.messages import (
    MAX_PAYLOAD_BYTES,
    ChangeReply,
    ChangeRequest,
    Probe,
    Propose,
    ReadReply,
    ReadRequest,
    Refused,
)
from raftstate.consensus.proposals import Callers, Inbox
from raftstate.consensus.raft_node import RaftNode
from raftstate.consensus.reads import Answer, Readers, ReadRounds
from raftstate.consensus.routes import HOPS_MAX, Routes

# How often a leader with a full disk asks another to lead: theirs may be full, too.
FLEE_AGAIN_S = 30.0

Request = Propose | ReadRequest | ChangeRequest
Reply = Refused | ReadReply | ChangeReply


class Desk:
    """`upstream` returns the linked host that leads or is nearer to the leader; `level` what may be written now."""

    def __init__(
        self,
        me: NodeId,
        boot: bytes,
        node: RaftNode,
        links: Links,
        *,
        changes: Changes,
        upstream: Callable[[], NodeId | None],
        level: Callable[[], int],
        hand_over: Callable[[], None],
    ) -> None:
        self._me, self._boot, self._node, self._links = me, boot, node, links
        self._raft, self._journal, self._now = node.raft, node.journal, node.now
        self._changes, self._upstream, self._level = changes, upstream, level
        self._hand_over = hand_over
        self._flee_again_s = 0.0
        self._applied_term = -1
        self._routes = Routes()
        self._inbox = Inbox()
        self.callers, self.readers = Callers(boot), Readers()
        self.rounds = ReadRounds(me, is_quorum=node.shell.elections.is_quorum, ask=self._ask_voters)
        self.change_requests = ChangeRequests(self._ask_change)

    # -- acting

    def pump(self) -> None:
        """Hand proposals and questions to whoever leads now."""
        raft, now_s = self._raft, self._now()
        term, leading = raft.raftCurrentTerm, raft._isLeader()
        if leading:
            self._inbox.lead(term)
            for waiting in self.callers.to_send(now_s, term, None):
                waiting.handed(term, None, now_s)
                self._take(self._me, waiting.as_message(self._boot, term))
            for reader in self.readers.to_ask(now_s, (self._me, 0, term)):
                self.rounds.request(self._answer_reader(reader.number))
            if self._journal.full and now_s >= self._flee_again_s:
                self._flee_again_s = now_s + FLEE_AGAIN_S
                self._hand_over()
        else:
            self._stop_leading(now_s)
            upstream = self._upstream()
            # A newcomer waits for its first snapshot, which would hide the results of what it proposed before.
            if upstream is not None and self._journal.members.known:
                link = (upstream, self._links.generation(upstream))
                for waiting in self.callers.to_send(now_s, term, link):
                    if self._node.send(upstream, waiting.as_message(self._boot, term)):
                        waiting.handed(term, link, now_s)
                for reader in self.readers.to_ask(now_s, (*link, term)):
                    self._node.send(upstream, ReadRequest(self._boot, reader.number))
        self.rounds.tick(
            now_s=now_s,
            term=term,
            leading=leading,
            commit=raft.raftCommitIndex,
            settled=self._journal.term_at(raft.raftCommitIndex) == term,
        )

    def _take(self, sender: NodeId, proposal: Propose) -> None:
        """Take a proposal in as the leader of its term; say no if it can't be appended."""
        if self._journal.full:
            reason = f"the leader takes no changes: {self._journal.full}"
        elif proposal.level > self._level():
            reason = (
                f"a voter doesn't know feature level {proposal.level} yet: upgrade all voters first"
            )
        elif self._inbox.put(
            sender,
            Proposal(proposal.origin, proposal.number, proposal.payload),
            proposal.level,
        ):
            return
        else:
            reason = "the leader has too many changes waiting"
        self._refuse(sender, Refused(proposal.term, proposal.origin, proposal.number, reason))

    def _refuse(self, sender: NodeId, refused: Refused) -> None:
        if refused.origin == self._boot:
            self.callers.refused(refused.number, refused.term, self._now(), refused.reason)
        else:
            self._node.send(sender, refused)

    def _stop_leading(self, now_s: float) -> None:
        self._changes.forget()
        term = self._inbox.term
        for sender, proposal in self._inbox.clear():
            self._refuse(sender, Refused(term, proposal.origin, proposal.number))

    def next_entry(self) -> None:
        """Append what waits, if anything; this host leads, at this very moment. One entry at a time is under way."""
        busy = self._journal.last() != self._raft.raftCommitIndex
        if busy or self._journal.full or self._node.shell.muted:
            return
        if (change := self._changes.take()) is not None:
            self._raft.append_change(change)
        else:
            proposals, level = self._inbox.pack()
            if proposals:
                self._raft.append(encode_proposals(proposals, level))

    def has_entry(self) -> bool:
        """Tell whether something waits to be appended."""
        return len(self._inbox) > 0

    def applied(self, proposal: Proposal, result: bytes | None) -> None:
        """A proposal was applied: its caller, if it waits here, gets the result."""
        if proposal.origin != self._boot:
            return
        if result is None:
            self.callers.fail(proposal.number, "the change was applied, but its result is unknown")
        else:
            self.callers.resolve(proposal.number, result)

    def replaced(self) -> None:
        """The state came as a whole: nobody knows which proposals are in it."""
        self.callers.fail_sent("this host was brought up to date; the change may be applied")

    def reached(self, applied: int) -> None:
        """Everything up to `applied` is applied: let those go on who wait for it."""
        if not self._node.shell.muted:
            self.readers.applied(applied)
        term = self._journal.term_at(applied)
        if term is not None and term != self._applied_term:
            self._applied_term = term
            self.callers.applied_term(term)
            self._node.woken()

    # -- requests that came from here or elsewhere

    def request(self, peer: NodeId, message: Request) -> None:
        """Answer as the leader, or pass it on."""
        self._routes.heard(message.origin, peer)
        upstream = self._upstream()
        if self._raft._isLeader():
            self._answer(peer, message)
        elif (
            upstream is None
            or upstream == peer
            or message.hops >= HOPS_MAX
            or not self._node.send(upstream, _one_hop_more(message))
        ):
            self._decline(peer, message)

    def _answer(self, peer: NodeId, message: Request) -> None:
        match message:
            case Propose():
                if len(message.payload) > MAX_PAYLOAD_BYTES:
                    raise InvalidError("proposal too big")
                if message.term != self._raft.raftCurrentTerm:
                    self._decline(peer, message)
                else:
                    self._inbox.lead(message.term)
                    self._take(peer, message)
            case ReadRequest(origin, number):
                self.rounds.request(lambda index: self._reply_read(peer, origin, number, index))
            case ChangeRequest(origin, number, add, host_id, address):
                verdict = self._consider(MemberChange(add, host_id, address))
                text = verdict.refusal or verdict.obstacle
                self._node.send(
                    peer, ChangeReply(origin, number, bool(verdict.obstacle), text[:500])
                )

    def _decline(self, peer: NodeId, message: Request) -> None:
        match message:
            case Propose(term, origin, number):
                self._node.send(peer, Refused(term, origin, number))
            case ReadRequest(origin, number):
                self._node.send(peer, ReadReply(origin, number, None))
            case ChangeRequest(origin, number):
                self._node.send(
                    peer, ChangeReply(origin, number, True, "the leader is just changing")
                )

    def reply(self, message: Reply) -> None:
        """Take an answer, or pass it on to where its question came from."""
        if message.origin != self._boot:
            if (peer := self._routes.back(message.origin)) is not None:
                self._node.send(peer, message)
            return
        match message:
            case Refused(term, _, number, reason):
                self.callers.refused(number, term, self._now(), reason)
            case ReadReply(_, number, index):
                self.readers.answered(number, index, self._now())
            case ChangeReply(_, number, retry, reason):
                verdict = Verdict(obstacle=reason) if retry else Verdict(not reason, reason)
                self.change_requests.answered(number, verdict)

    def _reply_read(self, peer: NodeId, origin: bytes, number: int, index: int | None) -> None:
        self._node.send(peer, ReadReply(origin, number, index))

    def _ask_voters(self, term: int, number: int) -> None:
        for peer in self._journal.members.latest():
            if peer.id != self._me:
                self._node.send(peer.id, Probe(term, number))

    def _answer_reader(self, number: int) -> Answer:
        return lambda index: self.readers.answered(number, index, self._now())

    def _ask_change(self, number: int, change: MemberChange) -> Verdict | None:
        """Judge a change, or send the question on its way."""
        if self._raft._isLeader():
            return self._consider(change)
        upstream = self._upstream()
        request = ChangeRequest(self._boot, number, change.add, change.host_id, change.address)
        if upstream is None or not self._node.send(upstream, request):
            return Verdict(obstacle="there is no leader; are most of the voters up?")
        return None

    def _consider(self, change: MemberChange) -> Verdict:
        verdict = self._changes.consider(change, self._raft.raftCommitIndex)
        self._node.woken()
        return verdict

    def no_quorum(self, timeout_s: float) -> str:
        """Say what is missing for an answer within `timeout_s`."""
        leader, voters = self._raft.leader_id(), self._journal.members.latest()
        up = sum(peer.id == self._me or peer.id in self._links.live() for peer in voters)
        if leader is None:
            return f"no leader within {timeout_s:g} s ({up} of {len(voters)} voters connected)"
        return f"no answer by a quorum within {timeout_s:g} s (leader {leader}, {up} of {len(voters)} voters connected)"


def _one_hop_more(message: Request) -> Request:
    match message:
        case Propose(term, origin, number, level, payload, hops):
            return Propose(term, origin, number, level, payload, hops + 1)
        case ReadRequest(origin, number, hops):
            return ReadRequest(origin, number, hops + 1)
        case ChangeRequest(origin, number, add, host_id, address, hops):
            return ChangeRequest(origin, number, add, host_id, address, hops + 1)
