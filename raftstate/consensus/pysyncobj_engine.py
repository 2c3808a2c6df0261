"""The consensus engine of the product: PySyncObj in its shell, on the mesh, over our log and the state machine.

Made by the agent once the host has an identity; `run` is a service. A voter takes part in elections and commits; any
other host gets what was committed from the host it follows. Everything happens on the event loop's thread in `_turn`:
after messages, new proposals, and every few hundredths of a second.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ConflictError, InvalidError, SupersededError, UnavailableError
from raftstate.consensus.changes import Changes
from raftstate.consensus.desk import Desk
from raftstate.consensus.divergence import Divergence
from raftstate.consensus.engine import NodeId, Peer, Point, Progress, Role, StateMachine
from raftstate.consensus.entries import (
    OLDEST_LEVEL,
    MemberChange,
    Proposal,
    TooNewError,
)
from raftstate.consensus.feed import FeedFollower, FeedSource
from raftstate.consensus.generation import shown
from raftstate.consensus.links import Links
from raftstate.consensus.messages import (
    MAX_PAYLOAD_BYTES,
    ChangeReply,
    ChangeRequest,
    Chunk,
    ChunkRequest,
    Fed,
    Follow,
    Hello,
    Message,
    Newer,
    Offer,
    Ping,
    Probe,
    ProbeAck,
    Propose,
    ReadReply,
    ReadRequest,
    Refused,
)
from raftstate.consensus.neighbours import Neighbours
from raftstate.consensus.raft_node import RaftNode, Settings
from raftstate.consensus.snapshot_header import SnapshotInfo

log = logging.getLogger(__name__)

TICK_S = 0.04
POLL_S = 0.05
HAND_OVER_PAUSE_S = 0.5
MAX_TICKS_IN_A_TURN = 8
INVITED_S = 5.0


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
        """Recover from `directory`. On the very first start `bootstrap` is `(me,)` to found a cluster, else its hosts.

        A joining host follows the hosts of `bootstrap` until the state tells it better (`follow`), and votes once a
        leader has called `add_voter` for it.

        Raises:
            FatalError: damaged or mismatched files, or a PySyncObj that isn't the pinned one.
        """
        settings = settings or Settings()
        self._me, self._links, self._machine = me, links, machine
        self._boot = rng.randbytes(12)
        self._level = settings.level
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._turn_due: asyncio.Handle | None = None
        self._apply_due: asyncio.Handle | None = None
        self._running = False
        self._ended: asyncio.Future[None] = loop.create_future()
        self._handed_over_s = -HAND_OVER_PAUSE_S
        self._invited: dict[NodeId, tuple[Peer, float]] = {}
        self._met: dict[NodeId, Peer] = {}
        self._parents: tuple[Peer, ...] = ()
        self._fault = ""
        self._node = node = RaftNode(
            me, directory, machine, self, bootstrap=bootstrap, rng=rng, settings=settings
        )
        self._raft, self._journal = node.raft, node.journal
        self._neighbours = Neighbours(node.digests, now=self._now)
        self._divergence = Divergence(self._now)
        self._desk = Desk(
            me.id,
            self._boot,
            node,
            links,
            changes=Changes(
                me.id,
                node.journal,
                live=links.live,
                holds=self._neighbours.holds,
                invite=self._invite,
                hand_over=self._hand_over,
            ),
            upstream=self._upstream,
            level=self.level,
            hand_over=self._hand_over,
        )
        self._source = FeedSource(
            node.journal,
            send=self._send_frame,
            offer=node.snapshots.offer,
            hints=lambda: (
                self._raft.raftCurrentTerm,
                self.leader() or "",
                self._follower.path if self.role() is Role.REPLICA else (),
            ),
            fresh=self._in_touch,
            now=self._now,
        )
        self._follower = FeedFollower(
            me.id, send=node.send, live=links.live, now=self._now, rng=rng
        )
        links.attach(self)
        node.tick()
        self._apply_waiting()

    # -- ConsensusEngine

    async def run(self) -> None:
        """Serve until cancelled. Raises FatalError when this node can't go on safely."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._links.run(), name="raft-links")
                group.create_task(self._node.snapshots.run(), name="raft-snapshots")
                group.create_task(self._turn_forever(), name="raft-turns")
                self.woken()
        except BaseExceptionGroup:
            self._node.check()
            raise
        finally:
            self._running = False
            if self._ended.done():
                self._ended.exception()  # it has been raised, or another error was
            self._desk.callers.fail_sent("the agent is stopping; the change may still be applied")
            self._node.close()

    async def propose(self, payload: bytes, *, timeout_s: float, level: int = 1) -> bytes:
        """Commit `payload` and return its result, once a quorum has it and this node has applied it.

        Raises:
            InvalidError: more than 2 MiB.
            ConflictError: `level` is above what this host or a voter knows; nothing was written.
            UnavailableError: no leader or quorum, or the outcome is unknown: it may still be applied later.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidError(
                f"a change of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
            )
        if level > self._level:
            raise ConflictError(f"this needs feature level {level}: upgrade this host first")
        if self._fault:
            raise UnavailableError(self._fault)
        waiting = self._desk.callers.add(payload, level, asyncio.get_running_loop().create_future())
        self.woken()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting.future
        except TimeoutError as error:
            fate = "it was not applied" if waiting.term is None else "it may still be applied"
            why = waiting.reason or self._desk.no_quorum(timeout_s)
            raise UnavailableError(f"{why}; {fate}") from error
        finally:
            self._desk.callers.forget(waiting)

    async def read_barrier(self, *, timeout_s: float) -> int:
        """Return the applied index once this node has applied everything committed before the call.

        Raises:
            UnavailableError: no leader or quorum in time.
        """
        if self._fault:
            raise UnavailableError(self._fault)
        reader = self._desk.readers.add(asyncio.get_running_loop().create_future())
        self.woken()
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.future
        except TimeoutError as error:
            raise UnavailableError(self._desk.no_quorum(timeout_s)) from error
        finally:
            self._desk.readers.forget(reader)

    def role(self) -> Role:
        """Tell whether this node votes, as far as its log says."""
        elections = self._node.shell.elections
        return (
            Role.VOTER
            if elections.is_voter(self._me.id) and not elections.retired
            else Role.REPLICA
        )

    def leader(self) -> NodeId | None:
        """Return the last known leader: a hint."""
        return self._raft.leader_id()

    def is_leader(self) -> bool:
        """Tell whether this node believes it leads: a hint."""
        return self._raft._isLeader() and not self._node.shell.muted

    def voters(self) -> tuple[Peer, ...]:
        """Return the members of the latest configuration in this node's log; empty before it has one."""
        return self._journal.members.latest()

    def connected(self) -> frozenset[NodeId]:
        """Return the nodes with a live raft connection to this one."""
        return self._links.live()

    def progress(self) -> Mapping[NodeId, Progress]:
        """Return what the hosts with a link to this one said last."""
        return self._neighbours.progress(self._links.live())

    def term(self) -> int:
        """Return the current Raft term."""
        return self._raft.raftCurrentTerm

    def commit_index(self) -> int:
        """Return the highest index this node knows to be committed."""
        return self._raft.raftCommitIndex

    def applied_index(self) -> int:
        """Return the highest index this node has applied."""
        return self._node.applied

    def lag(self) -> int:
        """Return how many committed entries this node has still to apply."""
        return max(0, self._raft.raftCommitIndex - self._node.applied)

    def generation(self) -> int:
        """Return the generation of the cluster (see `generation`), 0 before this host knows."""
        return self._journal.generation

    def level(self) -> int:
        """Return the feature level that can be written now: what every voter knows, as far as they have said so."""
        written = max(self._node.level, OLDEST_LEVEL)
        known = self._neighbours.levels()
        others = (peer.id for peer in self.voters() if peer.id != self._me.id)
        lowest = min((known.get(node, written) for node in others), default=self._level)
        return max(min(lowest, self._level), min(written, self._level))

    def fault(self) -> str:
        """Return why this node takes no part any more, or can't keep up; empty while all is well."""
        return self._fault or self._node.snapshots.fault or self._journal.full

    def point(self) -> Point | None:
        """Return where in the log the applied state is; None before this host has any."""
        if (position := self._node.position()) is None or not self._journal.members.known:
            return None
        _, (_, index, term), voters = position
        return Point(index, term, voters, self.generation(), self._node.level)

    def follow(self, parents: Sequence[Peer]) -> None:
        """Say whom to get the log from while this host doesn't vote, best first."""
        self._parents = tuple(peer for peer in parents if peer.id != self._me.id)

    async def add_voter(self, peer: Peer, *, timeout_s: float) -> None:
        """Make `peer` a voter. Idempotent. It must run and follow already; the leader calls it.

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

    async def _change(self, change: MemberChange, timeout_s: float) -> None:
        if self._fault:
            raise UnavailableError(self._fault)
        await self._desk.change_requests.until_done(change, timeout_s)

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

    def woken(self) -> None:
        """Take a turn soon: after everything that has arrived by now."""
        if self._turn_due is None and self._running:
            self._turn_due = asyncio.get_running_loop().call_soon(self._due)

    def _due(self) -> None:
        self._turn_due = None
        if not self._running or self._ended.done():
            return
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001 - handed to `run`, which raises it
            self._ended.set_exception(error)

    async def _turn_forever(self) -> None:
        while True:
            self.woken()
            await asyncio.wait({self._ended}, timeout=TICK_S)
            if self._ended.done():
                self._ended.result()

    def _turn(self) -> None:
        """Do everything that can be done now."""
        for _ in range(MAX_TICKS_IN_A_TURN):
            self._desk.pump()
            if not self._node.tick() or not self._has_more():
                break
        else:
            self.woken()
        if not self._node.shell.muted:
            self._source.serve(self._raft.raftCommitIndex)
            self._node.snapshots.tick()
            self._follow()
        if not self._running:
            self._apply_waiting()
        elif self._apply_due is None:  # after what was just sent has left
            self._apply_due = asyncio.get_running_loop().call_soon(self._apply_later)

    def _apply_later(self) -> None:
        self._apply_due = None
        if not self._running or self._ended.done():
            return
        try:
            self._apply_waiting()
        except Exception as error:  # noqa: BLE001 - handed to `run`, which raises it
            self._ended.set_exception(error)

    def _apply_waiting(self) -> None:
        """Apply what is committed, and let those go on who wait for it."""
        if self._node.has_waiting():
            self._node.apply_waiting()
            self._node.check()
        self._desk.reached(self._node.applied)

    def _has_more(self) -> bool:
        """Tell whether another tick finds something to do at once: entries to apply, or to append."""
        raft, last = self._raft, self._journal.last()
        if raft.raftLastApplied < raft.raftCommitIndex:
            return True
        if not raft._isLeader():
            return False
        alone = len(self._journal.members.latest()) == 1 and raft.raftCommitIndex < last
        return alone or (self._desk.has_entry() and raft.raftCommitIndex == last)

    def _follow(self) -> None:
        """Keep up with the parent while this host doesn't vote."""
        if self.role() is Role.VOTER:
            self._follower.set_parents(())
            return
        # What the log or the state says may be old: those it was told of when it joined come last.
        known = (
            *self._parents,
            *self._journal.members.latest(),
            *self._node.bootstrap,
            *self._met.values(),
        )
        first = {peer.id: peer for peer in reversed(known) if peer.id != self._me.id}
        order = dict.fromkeys(peer.id for peer in known if peer.id != self._me.id)
        self._follower.set_parents(first[node] for node in order)
        self._follower.tick(self._raft.raftCommitIndex, busy=self._node.snapshots.fetching)

    def _in_touch(self) -> bool:
        """Tell whether this node hears the cluster itself, so that others may rely on it."""
        if self._raft._isLeader():
            return True
        if self.role() is Role.VOTER:
            return self._node.shell.elections.leader_is_fresh()
        return self._follower.fresh()

    def _upstream(self) -> NodeId | None:
        """Return the linked host that is the leader, or nearer to it."""
        leader = self._raft.leader_id()
        if leader is not None and leader != self._me.id and leader in self._links.live():
            return leader
        return self._follower.parent if self.role() is Role.REPLICA else None

    # -- NodeUser

    def next_entry(self) -> None:
        """Called by PySyncObj while it leads, at the moment it appends."""
        self._desk.next_entry()

    def applied(self, proposal: Proposal, result: bytes | None) -> None:
        """A proposal was applied."""
        self._desk.applied(proposal, result)

    def replaced(self) -> None:
        """The state came as a whole."""
        self._desk.replaced()

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send if there is a link."""
        return self._links.send(peer, message)

    def live(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""
        return self._links.live()

    # -- LinkUser

    def linked(self, peer: NodeId) -> None:
        """A link is up."""
        self._node.shell.linked(peer)
        self.woken()

    def unlinked(self, peer: NodeId) -> None:
        """A link is down."""
        self._divergence.forget(peer)
        self._node.shell.unlinked(peer)
        self._source.unlinked(peer)
        self._node.snapshots.unlinked(peer)
        self.woken()

    def hello(self) -> Hello:
        """Introduce this host."""
        voters: list[tuple[str, str]] = [
            (peer.id, peer.address) for peer in self._journal.members.latest()
        ]
        return Hello(self._boot, self._me.address, voters, self.generation(), self._level)

    def met(self, peer: NodeId, hello: Hello) -> None:
        """Learn who the voters are, while the own log doesn't say, and what the other understands.

        Raises:
            InvalidError: it belongs to another generation of the cluster.
        """
        mine = self.generation()
        if mine and hello.generation and hello.generation != mine:
            if hello.generation > mine:
                self._superseded(hello.generation)
            raise InvalidError(
                f"{peer} is of generation {shown(hello.generation)}, this host of {shown(mine)}"
            )
        self._neighbours.met(peer, hello.level)
        if not self._journal.members.known:
            for host_id, address in hello.voters[:16]:
                self._met[NodeId(host_id)] = Peer(NodeId(host_id), address)

    def ping(self) -> Ping:
        """Say how far this host is."""
        applied = self._machine.applied()
        return Ping(applied, self._node.digests.get(applied, b""), self._journal.last())

    def pinged(self, peer: NodeId, ping: Ping) -> None:
        """A host said how far it is; compare what both hold at the same index."""
        found = self._neighbours.pinged(peer, ping)
        if found is None or self._fault:
            return
        self._divergence.compared(peer, found.agrees)
        if not found.agrees:
            log.critical("states differ", extra={"peer": peer, "index": found.index})
        wrong_to: NodeId | None = None
        if self.role() is Role.VOTER:
            live = self._links.live() - {self._me.id}
            others = (voter.id for voter in self.voters() if voter.id in live)
            wrong_to = self._divergence.outvoted_by(others, self._raft.leader_id())
        elif peer == self._follower.parent:
            parents = self._follower.parents
            if self._divergence.misfed(peer, found.agrees, len(parents)):
                wrong_to = peer
            elif not found.agrees:
                self._follower.leave()
        if wrong_to is not None:
            self._retreat(
                f"the state of this host differs from that of {wrong_to}, seen at index {found.index}: "
                "keep a copy of /var/lib/kvorum for a report, then run 'kvorum recover rejoin' here"
            )

    def peers_to_call(self) -> tuple[Peer, ...]:
        """Return whom to have links with."""
        if self._node.shell.muted:
            return ()
        if self.role() is Role.REPLICA:
            return self._follower.to_call()
        now_s = self._now()
        for node, (_, until_s) in list(self._invited.items()):
            if now_s >= until_s:
                del self._invited[node]
        invited = (peer for peer, _ in self._invited.values()) if self._raft._isLeader() else ()
        return (*self._journal.members.latest(), *invited)

    def received(self, peer: NodeId, message: Message) -> None:
        """Handle a message. Raises InvalidError for nonsense."""
        if self._node.shell.muted:
            return
        try:
            self._handle(peer, message)
        except InvalidError:
            raise
        except TooNewError as error:
            self._retreat(
                f"the cluster writes feature level {error.level}, this host knows {self._level}: upgrade this host"
            )
        except Exception as error:  # noqa: BLE001 - PySyncObj's state can't be trusted after an unexpected error
            self._node.stop(error)
        self.woken()

    def _handle(self, peer: NodeId, message: Message) -> None:
        term = self._raft.raftCurrentTerm
        match message:
            case Probe(asked, number):
                if asked == term:
                    self._node.send(peer, ProbeAck(term, number))
                elif asked < term:
                    self._node.send(peer, Newer(term))
            case ProbeAck(confirmed, number):
                self._desk.rounds.confirm(peer, number, confirmed)
            case Propose() | ReadRequest() | ChangeRequest():
                self._desk.request(peer, message)
            case Refused() | ReadReply() | ChangeReply():
                self._desk.reply(message)
            case Follow():
                self._source.asked(peer, message)
            case Fed():
                self._fed(peer, message)
            case Offer(feed=True):
                if self.role() is Role.REPLICA and message.index > self._raft.raftCommitIndex:
                    self._follower.heard(peer)
                    info = SnapshotInfo(
                        message.index, message.index_term, message.size_bytes, message.crc
                    )
                    self._node.snapshots.offered(peer, info)
            case ChunkRequest():
                self._node.snapshots.asked(peer, message)
            case Chunk():
                self._follower.heard(peer)
                self._node.snapshots.arrived(peer, message)
            case _:
                self._node.shell.receive(peer, message)

    def _fed(self, peer: NodeId, message: Fed) -> None:
        self._follower.heard(peer, message.path)
        if self.role() is Role.REPLICA and self._journal.members.known:
            self._node.shell.fed(message)

    # -- acting as the leader, and giving up

    def _invite(self, peer: Peer) -> None:
        """Have a link with a host that is to vote."""
        self._invited[peer.id] = (peer, self._now() + INVITED_S)

    def _hand_over(self) -> None:
        """Ask the best follower to lead. Asked again too soon, it would begin anew before its votes arrive."""
        if self._now() - self._handed_over_s >= HAND_OVER_PAUSE_S:
            self._handed_over_s = self._now()
            self._raft.transferLeadership()

    def _retreat(self, reason: str) -> None:
        """Take no part any more, but go on running: what is here can still be read.

        The others must see that this host is gone: a silent voter with a link would count as one that is up.
        """
        if self._fault:
            return
        log.critical("this host takes no part in consensus any more", extra={"reason": reason})
        self._fault = reason
        self._node.shell.muted = True
        self._desk.callers.fail_all(reason)
        self._links.hang_up()

    def _superseded(self, generation: int) -> None:
        """The cluster goes on elsewhere. A replica's copy is of no use any more; a voter's may be all that is left of
        what was acknowledged, so a person has to let it go.
        """
        found = f"the cluster began anew as generation {shown(generation)}"
        mine = shown(self.generation())
        if self.role() is Role.REPLICA:
            self._node.stop(SupersededError(f"{found}, this host has a copy of generation {mine}"))
            self.woken()
        else:
            self._retreat(
                f"{found} without this host, which voted in generation {mine}: "
                "stop the agent and run 'kvorum recover rejoin' here"
            )

    def _send_frame(self, peer: NodeId, frame: bytes) -> bool:
        return not self._node.shell.muted and self._links.send_frame(peer, frame)
