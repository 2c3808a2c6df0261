"""The consensus engine of the product: PySyncObj in its shell, on the mesh, over our log and the state machine.

Made by the agent once the host has an identity; `run` is a service. Everything happens on the event loop's thread in
`_turn`: after each message, each new proposal, and every few hundredths of a second.
"""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

from core.errors import ConflictError, InvalidError, UnavailableError
from raftstate.consensus.changes import Changes, Verdict
from raftstate.consensus.engine import NodeId, Peer, StateMachine
from raftstate.consensus.links import Links
from raftstate.consensus.messages import (
    MAX_PAYLOAD_BYTES,
    ChangeReply,
    ChangeRequest,
    Hello,
    MemberChange,
    Message,
    Newer,
    Probe,
    ProbeAck,
    Proposal,
    Propose,
    ReadReply,
    ReadRequest,
    Refused,
    encode_proposals,
)
from raftstate.consensus.proposals import Callers, Inbox
from raftstate.consensus.raft_node import RaftNode, Settings
from raftstate.consensus.reads import Answer, Readers, ReadRounds

log = logging.getLogger(__name__)

TICK_S = 0.04
ASK_S = 1.0
POLL_S = 0.05
HAND_OVER_PAUSE_S = 0.5
MAX_TICKS_IN_A_TURN = 8


class PySyncObjEngine:
    """A `ConsensusEngine`. Construct it inside the running event loop; `run` makes it take part."""

    def __init__(
        self,
        *,
        me: Peer,
        directory: Path,
        machine: StateMachine,
        links: Links,
        bootstrap: tuple[Peer, ...],
        rng: random.Random,
        settings: Settings | None = None,
    ) -> None:
        """Recover from `directory`. On the very first start `bootstrap` is `(me,)` to found a cluster, else its voters.

        A joining host stays passive until a leader has called `add_voter` for it.

        Raises:
            FatalError: damaged or mismatched files, or a PySyncObj that isn't the pinned one.
        """
        self._me, self._links = me, links
        self._boot = rng.randbytes(12)
        self._wake = asyncio.Event()
        self._now = asyncio.get_running_loop().time
        self._handed_over_s = -HAND_OVER_PAUSE_S
        self._met: dict[NodeId, Peer] = {}
        self._callers, self._inbox, self._readers = Callers(self._boot), Inbox(), Readers()
        self._questions = 0
        self._replies: dict[int, asyncio.Future[Verdict]] = {}
        self._applied_term = -1
        self._node = node = RaftNode(
            me,
            directory,
            machine,
            self,
            bootstrap=bootstrap,
            rng=rng,
            settings=settings or Settings(),
        )
        self._raft, self._journal = node.raft, node.journal
        self._rounds = ReadRounds(
            me.id, is_quorum=node.shell.elections.is_quorum, ask=self._ask_voters
        )
        self._changes = Changes(
            me.id,
            node.journal,
            live=links.live,
            is_up_to_date=node.shell.is_up_to_date,
            bring_up=node.bring_up,
            hand_over=self._hand_over,
        )
        links.attach(self)
        node.tick()

    # -- ConsensusEngine

    async def run(self) -> None:
        """Serve until cancelled. Raises FatalError when this node can't go on safely."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._links.run(), name="raft-links")
                group.create_task(self._turn_forever(), name="raft-turns")
        except BaseExceptionGroup:
            self._node.check()
            raise
        finally:
            self._callers.fail_sent("the agent is stopping; the change may still be applied")
            self._node.close()

    async def propose(self, payload: bytes, *, timeout_s: float) -> bytes:
        """Commit `payload` and return its result, once a quorum has it and this node has applied it.

        Raises:
            InvalidError: more than 2 MiB.
            UnavailableError: no leader or quorum, or the outcome is unknown: it may still be applied later.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidError(
                f"a change of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
            )
        waiting = self._callers.add(payload, asyncio.get_running_loop().create_future())
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.future
        except TimeoutError as error:
            fate = "it was not applied" if waiting.term is None else "it may still be applied"
            raise UnavailableError(f"{self._no_quorum(timeout_s)}; {fate}") from error
        finally:
            self._callers.forget(waiting)

    async def read_barrier(self, *, timeout_s: float) -> int:
        """Return the applied index once this node has applied everything committed before the call.

        Raises:
            UnavailableError: no leader or quorum in time.
        """
        reader = self._readers.add(asyncio.get_running_loop().create_future())
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.future
        except TimeoutError as error:
            raise UnavailableError(self._no_quorum(timeout_s)) from error
        finally:
            self._readers.forget(reader)

    def leader(self) -> NodeId | None:
        """Return the last known leader: a hint."""
        return self._raft.leader_id()

    def is_leader(self) -> bool:
        """Tell whether this node believes it leads: a hint."""
        return self._raft._isLeader()

    def voters(self) -> tuple[Peer, ...]:
        """Return the members of the latest configuration in this node's log; empty before it has one."""
        return self._journal.members.latest()

    def connected(self) -> frozenset[NodeId]:
        """Return the nodes with a live raft connection to this one."""
        return self._links.live()

    def term(self) -> int:
        """Return the current Raft term."""
        return self._raft.raftCurrentTerm

    def commit_index(self) -> int:
        """Return the highest index this node knows to be committed."""
        return self._raft.raftCommitIndex

    def applied_index(self) -> int:
        """Return the highest index this node has applied."""
        return self._raft.raftLastApplied

    def lag(self) -> int:
        """Return how many committed entries this node has still to apply."""
        return max(0, self._raft.raftCommitIndex - self._raft.raftLastApplied)

    async def add_voter(self, peer: Peer, *, timeout_s: float) -> None:
        """Make `peer` a voter. Idempotent. It must run already; the leader waits for a connection from it.

        Raises:
            UnavailableError: no leader, quorum or connection in time; the message says which. Ask again.
        """
        await self._change(MemberChange(True, peer.id, peer.address), timeout_s)

    async def remove_voter(self, node: NodeId, *, timeout_s: float) -> None:
        """Take `node` out of the voters. Idempotent. A leader hands over before it is removed.

        Raises:
            ConflictError: it is the last voter.
            UnavailableError: no leader or quorum in time. Ask again.
        """
        await self._change(MemberChange(False, node, ""), timeout_s)

    async def step_aside(self, *, timeout_s: float) -> None:
        """Let another voter lead, e.g. before a planned stop; return when one does, or after `timeout_s`.

        Saves the others the second and a half in which they would wait for a sign of this leader.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_leader() and len(self.voters()) > 1:
                    self._hand_over()
                    await asyncio.sleep(POLL_S)
                while self.leader() is None:
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            log.info("nobody took over in time")

    # -- the engine's heartbeat

    async def _turn_forever(self) -> None:
        while True:
            self._wake.clear()
            self._turn()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _turn(self) -> None:
        """Do everything that can be done now."""
        for _ in range(MAX_TICKS_IN_A_TURN):
            self._pump()
            if not self._node.tick():
                break
        else:
            self._wake.set()
        self._readers.applied(self._raft.raftLastApplied)
        self._node.compact_if_big()

    def _pump(self) -> None:
        """Hand proposals and questions to whoever leads now."""
        raft, now_s = self._raft, self._now()
        term, leading, leader = raft.raftCurrentTerm, raft._isLeader(), raft.leader_id()
        if leading:
            self._inbox.lead(term)
            for waiting in self._callers.to_send(now_s, term, None):
                proposal = Proposal(self._boot, waiting.number, waiting.payload)
                if self._inbox.put(self._me.id, proposal):
                    waiting.handed(term, None)
            for reader in self._readers.to_ask(now_s, (self._me.id, 0, term)):
                self._rounds.request(self._answer_reader(reader.number))
        else:
            self._stop_leading(now_s)
            generation = 0 if leader is None else self._links.generation(leader)
            # A newcomer waits for its first snapshot, which would hide the results of what it proposed before.
            if leader is not None and generation and self._journal.members.known:
                link = (leader, generation)
                for waiting in self._callers.to_send(now_s, term, link):
                    message = Propose(term, self._boot, waiting.number, waiting.payload)
                    if self._node.send(leader, message):
                        waiting.handed(term, link)
                for reader in self._readers.to_ask(now_s, (*link, term)):
                    self._node.send(leader, ReadRequest(reader.number))
        self._rounds.tick(
            now_s=now_s,
            term=term,
            leading=leading,
            commit=raft.raftCommitIndex,
            settled=self._journal.term_at(raft.raftCommitIndex) == term,
        )
        applied_term = self._journal.term_at(raft.raftLastApplied)
        if applied_term is not None and applied_term != self._applied_term:
            self._applied_term = applied_term
            self._callers.applied_term(applied_term)

    def _stop_leading(self, now_s: float) -> None:
        self._changes.forget()
        term = self._inbox.term
        for sender, proposal in self._inbox.clear():
            if sender == self._me.id:
                self._callers.refused(proposal.number, term, now_s)
            else:
                self._node.send(sender, Refused(term, proposal.number))

    # -- NodeUser

    def next_entry(self) -> None:
        """Called by PySyncObj while it leads, at the moment it appends: one entry at a time is under way."""
        if self._journal.last() != self._raft.raftCommitIndex:
            return
        if (change := self._changes.take()) is not None:
            self._raft.append_change(change)
        elif proposals := self._inbox.pack():
            self._raft.append(encode_proposals(proposals))

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send if there is a link."""
        return self._links.send(peer, message)

    def live(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""
        return self._links.live()

    def applied(self, proposal: Proposal, result: bytes | None) -> None:
        """A proposal was applied: its caller, if it waits here, gets the result."""
        if proposal.origin != self._boot:
            return
        if result is None:
            self._callers.fail(proposal.number, "the change was applied, but its result is unknown")
        else:
            self._callers.resolve(proposal.number, result)

    def replaced(self) -> None:
        """The state came as a whole from the leader: nobody knows which proposals are in it."""
        self._callers.fail_sent("this host was brought up to date; the change may be applied")

    # -- LinkUser

    def linked(self, peer: NodeId) -> None:
        """A link is up."""
        self._node.shell.linked(peer)
        self._wake.set()

    def unlinked(self, peer: NodeId) -> None:
        """A link is down."""
        self._node.shell.unlinked(peer)
        self._wake.set()

    def hello(self) -> Hello:
        """Introduce this host."""
        voters = [(peer.id, peer.address) for peer in self._journal.members.latest()]
        return Hello(self._boot, self._me.address, list(voters))

    def met(self, peer: NodeId, hello: Hello) -> None:
        """Learn the voters from those who know, while the own log doesn't say."""
        if not self._journal.members.known:
            for host_id, address in hello.voters[:16]:
                self._met[NodeId(host_id)] = Peer(NodeId(host_id), address)

    def peers_to_call(self) -> tuple[Peer, ...]:
        """Return the voters, as far as they are known."""
        if self._journal.members.known:
            return self._journal.members.latest()
        return (*self._node.bootstrap, *self._met.values())

    def received(self, peer: NodeId, message: Message) -> None:
        """Handle a message. Raises InvalidError for nonsense."""
        if self._node.shell.muted:
            return
        try:
            self._handle(peer, message)
        except InvalidError:
            raise
        except Exception as error:  # noqa: BLE001 - PySyncObj's state can't be trusted after an unexpected error
            self._node.stop(error)
        self._wake.set()

    def _handle(self, peer: NodeId, message: Message) -> None:
        raft, now_s = self._raft, self._now()
        term = raft.raftCurrentTerm
        match message:
            case Probe(asked, number):
                if asked == term:
                    self._node.send(peer, ProbeAck(term, number))
                elif asked < term:
                    self._node.send(peer, Newer(term))
            case ProbeAck(confirmed, number):
                self._rounds.confirm(peer, number, confirmed)
            case Propose(of_term, origin, number, payload):
                if len(payload) > MAX_PAYLOAD_BYTES:
                    raise InvalidError("proposal too big")
                leading = raft._isLeader() and of_term == term
                if leading:
                    self._inbox.lead(term)
                if not leading or not self._inbox.put(peer, Proposal(origin, number, payload)):
                    self._node.send(peer, Refused(of_term, number))
            case Refused(of_term, number):
                self._callers.refused(number, of_term, now_s)
            case ReadRequest(number):
                if raft._isLeader():
                    self._rounds.request(lambda index: self._reply_read(peer, number, index))
                else:
                    self._reply_read(peer, number, None)
            case ReadReply(number, index):
                self._readers.answered(number, index, now_s)
            case ChangeRequest(number, add, host_id, address):
                verdict = self._consider(MemberChange(add, host_id, address))
                obstacle = verdict.refusal or verdict.obstacle
                self._node.send(peer, ChangeReply(number, bool(verdict.obstacle), obstacle))
            case ChangeReply(number, retry, reason):
                future = self._replies.get(number)
                if future is not None and not future.done():
                    future.set_result(
                        Verdict(obstacle=reason)
                        if retry
                        else Verdict(done=not reason, refusal=reason)
                    )
            case _:
                self._node.shell.receive(peer, message)

    # -- questions and answers

    def _ask_voters(self, term: int, number: int) -> None:
        for peer in self._journal.members.latest():
            if peer.id != self._me.id:
                self._node.send(peer.id, Probe(term, number))

    def _answer_reader(self, number: int) -> Answer:
        return lambda index: self._readers.answered(number, index, self._now())

    def _reply_read(self, peer: NodeId, number: int, index: int | None) -> None:
        self._node.send(peer, ReadReply(number, index))

    def _hand_over(self) -> None:
        """Ask the best follower to lead. Asked again too soon, it would begin anew before its votes arrive."""
        if self._now() - self._handed_over_s >= HAND_OVER_PAUSE_S:
            self._handed_over_s = self._now()
            self._raft.transferLeadership()

    def _consider(self, change: MemberChange) -> Verdict:
        if not self._raft._isLeader():
            return Verdict(obstacle="the leader is just changing")
        return self._changes.consider(change, self._raft.raftCommitIndex)

    async def _change(self, change: MemberChange, timeout_s: float) -> None:
        verdict = Verdict(obstacle="there is no leader")
        try:
            async with asyncio.timeout(timeout_s):
                while not verdict.done:
                    verdict = await self._ask_change(change, verdict)
                    self._wake.set()
                    if verdict.refusal:
                        raise ConflictError(verdict.refusal)
                    if not verdict.done:
                        await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise UnavailableError(
                f"the voters could not be changed within {timeout_s:g} s: {verdict.obstacle}"
            ) from error

    async def _ask_change(self, change: MemberChange, before: Verdict) -> Verdict:
        """Return the leader's verdict, the one before if there is no answer."""
        leader = self._raft.leader_id()
        if leader == self._me.id:
            return self._consider(change)
        if leader is None:
            return Verdict(obstacle="there is no leader; are most of the voters up?")
        self._questions += 1
        number = self._questions
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._replies[number] = future
        try:
            if not self._node.send(
                leader, ChangeRequest(number, change.add, change.host_id, change.address)
            ):
                return Verdict(obstacle=f"the leader {leader} is not connected")
            async with asyncio.timeout(ASK_S):
                return await future
        except TimeoutError:
            return before
        finally:
            del self._replies[number]

    def _no_quorum(self, timeout_s: float) -> str:
        leader, voters = self._raft.leader_id(), self._journal.members.latest()
        up = sum(peer.id == self._me.id or peer.id in self._links.live() for peer in voters)
        if leader is None:
            return f"no leader within {timeout_s:g} s ({up} of {len(voters)} voters connected)"
        return f"no answer by a quorum within {timeout_s:g} s (leader {leader}, {up} of {len(voters)} voters connected)"
