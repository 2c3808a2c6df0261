"""Whole consensus engines on an in-memory mesh: lost links, stuck links, crashes that lose what was not synced.

`Cluster` is what a scenario plays on; `checkers` says what must hold whatever happens.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pysyncobj.syncobj

from core.errors import FatalError, UnavailableError
from raftstate.consensus import messages
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.journal import Compaction
from raftstate.consensus.links import LinkUser
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.wal import Wal
from raftstate.consensus.wal_segment import frame, mark, salt
from tests.sim.checkers import History
from tests.sim.power import Power, tear

SEGMENT_BYTES = 4096
SMALL_LOG = Compaction(entries=30, pause_s=2.0, keep_entries=5)
RECONNECT_S = 0.2


class SimMachine:
    """A state machine that keeps every payload in order, and may lose its newest entries in a crash."""

    def __init__(self, history: History, node: str) -> None:
        self._history, self._node = history, node
        self.entries: list[tuple[int, list[bytes]]] = []

    def applied(self) -> int:
        return self.entries[-1][0] if self.entries else 0

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        assert index > self.applied()
        self.entries.append((index, list(payloads)))
        self._history.applied(self._node, index, list(payloads))
        return [b"%d:" % index + payload for payload in payloads]

    def digest(self) -> bytes:
        import zlib

        return b"%08x" % zlib.crc32(msgspec.msgpack.encode(self.entries))

    def freeze(self) -> SimFrozen:
        return SimFrozen(self.applied(), msgspec.msgpack.encode(self.entries))

    def stage(self, dump: Path):
        entries = msgspec.msgpack.decode(dump.read_bytes(), type=list[tuple[int, list[bytes]]])

        def swap() -> None:
            self.entries = list(entries)
            for index, payloads in self.entries:
                self._history.applied(self._node, index, payloads)

        return swap

    def payloads(self) -> list[bytes]:
        return [payload for _, payloads in self.entries for payload in payloads]

    def lose(self, rng: random.Random) -> None:
        """Forget up to a few of the last transactions, as SQLite may after a power loss."""
        for _ in range(rng.choice((0, 0, 1, 3))):
            if self.entries:
                self.entries.pop()


@dataclass
class SimFrozen:
    applied: int
    content: bytes

    def write(self, path: Path) -> None:
        path.write_bytes(self.content)

    def close(self) -> None:
        pass


async def inline(work):
    await asyncio.sleep(0.05)
    return work()


class LossyWal(Wal):
    """A log whose unsynced tail is torn by a crash."""

    dead = False

    def sync(self) -> None:
        if not self.dead:
            super().sync()

    def crash(self, rng: random.Random) -> None:
        """Leave a torn part of what was not synced behind what was; allocated zeros follow."""
        self.dead = True
        if not self._segments:
            return
        last = self._segments[-1]
        salted = salt(last.sequence)
        batch = b"".join(frame(salted, body) for _, body in self._pending)
        batch = (mark(salted, last.used) + batch)[: last.size - last.used]
        with last.path.open("r+b") as file:
            file.seek(last.used)
            file.write(batch)
        tear(last.path, last.used, last.used + len(batch), rng)


@dataclass
class Wire:
    """One direction of a link: FIFO; `held` while nothing gets through, `open` until it breaks."""

    queue: deque[bytes] = field(default_factory=deque)
    open: bool = True
    busy: bool = False


class Network:
    """All links of a cluster."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.users: dict[NodeId, MemoryLinks] = {}
        self.wires: dict[tuple[NodeId, NodeId], Wire] = {}
        self.cut: set[frozenset[NodeId]] = set()
        self.held: set[tuple[NodeId, NodeId]] = set()
        self.generation = 0

    def connect(self, a: NodeId, b: NodeId) -> None:
        pair = frozenset((a, b))
        if pair in self.cut or (a, b) in self.wires or not {a, b} <= self.users.keys():
            return
        self.generation += 1
        for x, y in ((a, b), (b, a)):
            self.wires[x, y] = Wire()
            self.users[x].links[y] = self.generation
        hellos = {x: self.users[x].user.hello() for x in (a, b)}
        for x, y in ((a, b), (b, a)):
            self.users[y].user.met(x, hellos[x])
        for x, y in ((a, b), (b, a)):
            self.users[x].user.linked(y)

    def reset(self, a: NodeId, b: NodeId) -> None:
        """Break a link; what is on it is lost."""
        for x, y in ((a, b), (b, a)):
            wire = self.wires.pop((x, y), None)
            if wire is not None:
                wire.open = False
            if x in self.users and self.users[x].links.pop(y, None) is not None:
                self.users[x].user.unlinked(y)

    def send(self, a: NodeId, b: NodeId, frame: bytes) -> None:
        if (wire := self.wires.get((a, b))) is not None:  # a crashed node may still try
            wire.queue.append(frame)
            self._pump(a, b, wire)

    def ping(self, a: NodeId, b: NodeId) -> None:
        self.send(a, b, messages.encode(self.users[a].user.ping()))

    def release(self, a: NodeId, b: NodeId) -> None:
        self.held.discard((a, b))
        if (wire := self.wires.get((a, b))) is not None:
            self._pump(a, b, wire)

    def _pump(self, a: NodeId, b: NodeId, wire: Wire) -> None:
        if not wire.busy and wire.queue and (a, b) not in self.held:
            wire.busy = True
            asyncio.get_running_loop().call_later(
                self.rng.uniform(0.0002, 0.004), self._deliver, a, b, wire
            )

    def _deliver(self, a: NodeId, b: NodeId, wire: Wire) -> None:
        wire.busy = False
        if not wire.open or (a, b) in self.held or b not in self.users:
            return
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            if wire.queue and wire.open and b in self.users:
                message = messages.decode(wire.queue.popleft())
                if isinstance(message, messages.Ping):
                    self.users[b].user.pinged(a, message)
                else:
                    self.users[b].user.received(a, message)
        self._pump(a, b, wire)


class MemoryLinks:
    """The `Links` of one node."""

    def __init__(self, me: NodeId, network: Network) -> None:
        self._me, self._network = me, network
        self.links: dict[NodeId, int] = {}
        self.user: LinkUser

    def attach(self, user: LinkUser) -> None:
        self.user = user

    async def run(self) -> None:
        self._network.users[self._me] = self
        while True:
            for peer in self.user.peers_to_call():
                if peer.id != self._me:
                    self._network.connect(self._me, peer.id)
            for peer in self.links:
                self._network.ping(self._me, peer)
            await asyncio.sleep(RECONNECT_S)

    def send(self, peer: NodeId, message: messages.Message) -> bool:
        if peer not in self.links:
            return False
        self._network.send(self._me, peer, messages.encode(message))
        return True

    def send_frame(self, peer: NodeId, frame: bytes) -> bool:
        if peer not in self.links:
            return False
        self._network.send(self._me, peer, frame)
        return True

    def live(self) -> frozenset[NodeId]:
        return frozenset(self.links)

    def generation(self, peer: NodeId) -> int:
        return self.links.get(peer, 0)


@dataclass
class Node:
    """One host: what survives a crash, and while it runs its engine."""

    peer: Peer
    directory: Path
    machine: SimMachine
    bootstrap: tuple[Peer, ...]
    engine: PySyncObjEngine | None = None
    task: asyncio.Task[None] | None = None
    wal: LossyWal | None = None
    burnt: bool = False


class Cluster:
    """Nodes named a, b, c…; the first founds, the others join."""

    def __init__(self, directory: Path, rng: random.Random, group: asyncio.TaskGroup) -> None:
        self.history = History()
        self.network = Network(rng)
        self.nodes: dict[str, Node] = {}
        self.rng = rng
        self._directory, self._group = directory, group
        self.power = Power(rng)
        self.power.install()
        pysyncobj.syncobj.random = rng

    def __getitem__(self, name: str) -> PySyncObjEngine:
        engine = self.nodes[name].engine
        assert engine is not None, f"{name} is down"
        return engine

    @property
    def up(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.engine is not None]

    def peer(self, name: str) -> Peer:
        return Peer(NodeId(name), f"10.77.0.{ord(name) - 96}:7444")

    def create(self, name: str, *, via: str | None = None) -> None:
        """Make and start a node that founds the cluster, or knows only `via`."""
        peer = self.peer(name)
        bootstrap = (self.peer(via) if via else peer,)
        machine = SimMachine(self.history, name)
        self.nodes[name] = Node(peer, self._directory / name, machine, bootstrap)
        self.start(name)

    def start(self, name: str) -> None:
        """Switch a node on; with a fuse armed it may not survive its own start."""
        node = self.nodes[name]
        assert node.engine is None
        node.wal = LossyWal(wal_path(node.directory), segment_bytes=SEGMENT_BYTES)
        try:
            node.engine = PySyncObjEngine(
                me=node.peer,
                directory=node.directory,
                machine=node.machine,
                links=MemoryLinks(node.peer.id, self.network),
                bootstrap=node.bootstrap,
                rng=self.rng,
                settings=Settings(wal=node.wal, compaction=SMALL_LOG, blocking=inline),
            )
        except (FatalError, OSError):
            if not node.burnt:
                raise
            self._off(node)
        else:
            node.task = self._group.create_task(self._run(node), name=f"engine-{name}")

    async def _run(self, node: Node) -> None:
        assert node.engine is not None
        try:
            await node.engine.run()
        except asyncio.CancelledError:
            pass
        except FatalError:
            if not node.burnt and node.engine is not None:
                raise

    def arm(self, name: str) -> None:
        """Let the power of a node fail in the middle of one of its next disk writes."""
        node = self.nodes[name]

        def burn() -> None:
            node.burnt = True
            if node.engine is not None:  # not a word more leaves it; the rest follows at once
                node.engine._node.shell.muted = True
                asyncio.get_running_loop().call_soon(self._crash_burnt, name)

        self.power.arm(node.directory.resolve(), self.rng.randint(0, 12), burn)

    def _crash_burnt(self, name: str) -> None:
        if self.nodes[name].burnt and self.nodes[name].engine is not None:
            self.crash(name)

    def _off(self, node: Node) -> None:
        self.power.tear(node.directory.resolve())
        self.power.restore(node.directory.resolve())
        node.engine = node.task = node.wal = None
        node.burnt = False

    def crash(self, name: str) -> None:
        """Power off: nothing more is written or sent, links break, unsynced writes tear."""
        node = self.nodes[name]
        assert node.engine is not None and node.wal is not None and node.task is not None
        if node.burnt:
            node.wal.dead = True
        else:
            node.wal.crash(self.rng)
        self.network.users.pop(node.peer.id, None)
        for other in self.nodes:
            self.network.reset(node.peer.id, NodeId(other))
        node.engine._turn = lambda: None  # type: ignore[method-assign]  # its tasks end one step later
        node.task.cancel()
        node.machine.lose(self.rng)
        self._off(node)

    def freeze(self, name: str, seconds: float) -> None:
        """Stop the process, as SIGSTOP does: it neither acts nor reads, and wakes with a stale view of the world."""
        engine = self[name]
        engine._turn = lambda: None  # type: ignore[method-assign]
        frozen = {(NodeId(a), NodeId(b)) for a in self.nodes for b in self.nodes if name in (a, b)}
        self.network.held |= frozen
        asyncio.get_running_loop().call_later(seconds, self._thaw, name, engine, frozen)

    def _thaw(self, name: str, engine: PySyncObjEngine, frozen: set[tuple[NodeId, NodeId]]) -> None:
        if self.nodes[name].engine is engine:
            engine.__dict__.pop("_turn", None)
            engine._wake.set()  # timers are served before what lies in the sockets
        for a, b in frozen:
            self.network.release(a, b)

    def cut(self, a: str, b: str) -> None:
        self.network.cut.add(frozenset((NodeId(a), NodeId(b))))
        self.network.reset(NodeId(a), NodeId(b))

    def isolate(self, name: str) -> None:
        for other in self.nodes:
            if other != name:
                self.cut(name, other)

    def heal(self) -> None:
        self.network.cut.clear()
        for a, b in list(self.network.held):
            self.network.release(a, b)

    async def until(self, condition, *, deadline_s: float, what: str) -> float:
        """Wait in virtual time; return how long it took."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not condition():
            if loop.time() - begun > deadline_s:
                raise AssertionError(f"not within {deadline_s} s: {what}")
            await asyncio.sleep(0.02)
        return loop.time() - begun

    def leader(self) -> str | None:
        """Return who leads in the highest term."""
        leading = [name for name in self.up if self[name].is_leader()]
        return max(leading, key=lambda name: self[name].term(), default=None)

    async def grow(self, count: int) -> None:
        """Found with `a` and let the next ones join as voters."""
        self.create("a")
        for name in "bcdefg"[: count - 1]:
            self.create(name, via="a")
            await self["a"].add_voter(self.peer(name), timeout_s=10)
        await self.until(
            lambda: all(len(self[name].voters()) == count for name in self.up),
            deadline_s=10,
            what="everybody knows all voters",
        )

    async def _serve(self, name: str) -> None:
        """Demand that a node takes a proposal; one that is being brought up to date may ask to try again."""
        for attempt in range(4):
            payload = b"last-%s-%d" % (name.encode(), attempt)
            try:
                assert (await self[name].propose(payload, timeout_s=15)).endswith(payload)
            except UnavailableError:
                continue
            self.history.acknowledged.add(payload)
            return
        raise AssertionError(f"{name} takes no proposal")

    async def converge(self) -> None:
        """Heal everything, then demand one leader, equal states everywhere, and service at every node."""
        self.heal()
        await asyncio.sleep(0)  # a power cut of this very moment still takes its node down
        for name, node in self.nodes.items():
            self.power.disarm(node.directory.resolve())
            if node.engine is None:
                self.start(name)
        await asyncio.sleep(
            9
        )  # the frozen wake, and changes of the voters that were on their way arrive
        await self.until(lambda: self.leader() is not None, deadline_s=20, what="a leader")
        members = [name for name in self.up if name in {p.id for p in self[self.leader()].voters()}]
        for name in members:
            await self._serve(name)
        await self.until(
            lambda: len({tuple(self.nodes[name].machine.payloads()) for name in members}) == 1,
            deadline_s=15,
            what="equal states",
        )
        self.history.check(self.nodes[members[0]].machine.payloads())
