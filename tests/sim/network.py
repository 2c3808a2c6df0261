"""An in-memory mesh whose links break, stall, lag and lose one direction.

Links are FIFO and lose all at once, as TCP does. What was on the way when a process died may still arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from core.errors import InvalidError
from raftstate.consensus import messages
from raftstate.consensus.engine import NodeId
from raftstate.consensus.links import LinkUser
from tests.sim.loop import OUTSIDE, Process, SimLoop

RECONNECT_S = 0.3
LATENCY_S = (0.0002, 0.004)

Way = tuple[NodeId, NodeId]


@dataclass
class Wire:
    """One direction of a link; `open` until it breaks."""

    queue: deque[messages.Message] = field(default_factory=deque)
    open: bool = True
    busy: bool = False
    fetches: bool = False  # a snapshot, from the other end


class Network:
    """All links of a cluster."""

    def __init__(self, rng: random.Random, report: Counter[str]) -> None:
        self.rng, self.report = rng, report
        self.users: dict[NodeId, MemoryLinks] = {}
        self.wires: dict[Way, Wire] = {}
        self.cut: dict[frozenset[NodeId], float] = {}  # until when
        self.held: dict[Way, float] = {}
        self.lag: dict[Way, tuple[float, float]] = {}
        self.generation = 0
        self.acknowledged: Callable[[str, str], None] = lambda follower, leader: None

    def connect(self, a: NodeId, b: NodeId) -> None:
        """Make a link, if anything allows it."""
        if frozenset((a, b)) in self.cut or (a, b) in self.wires:
            return
        if not {a, b} <= self.users.keys() or self._frozen(a) or self._frozen(b):
            return
        self.generation += 1
        for x, y in ((a, b), (b, a)):
            self.wires[x, y] = Wire()
            self.users[x].links[y] = self.generation
        hellos = {x: self.users[x].hello() for x in (a, b)}
        for x, y in ((a, b), (b, a)):
            with self.users[y].process.entered():
                self.users[y].user.met(x, hellos[x])
        for x, y in ((a, b), (b, a)):
            with self.users[x].process.entered():
                self.users[x].user.linked(y)

    def reset(self, a: NodeId, b: NodeId) -> bool:
        """Break a link; what is on it is lost. Tell whether there was one."""
        broken = False
        for x, y in ((a, b), (b, a)):
            wire = self.wires.pop((x, y), None)
            if wire is not None:
                broken, wire.open = True, False
                if any(isinstance(message, messages.Chunk) for message in wire.queue):
                    self.report["transfers cut"] += 1
            if x in self.users and self.users[x].links.pop(y, None) is not None:
                with self.users[x].process.entered():
                    self.users[x].user.unlinked(y)
        return broken

    def leave(self, name: NodeId) -> None:
        """A process has died: a part of what it had sent arrives, then its links are gone."""
        for (a, b), wire in list(self.wires.items()):
            if a != name or self._blocked(a, b):
                continue
            for _ in range(self.rng.randint(0, len(wire.queue))):
                if wire.open and wire.queue:
                    self._receive(a, b, wire)
        self.users.pop(name, None)
        for other in {b for a, b in self.wires if a == name}:
            self.reset(name, other)

    def send(self, a: NodeId, b: NodeId, message: messages.Message) -> None:
        if (wire := self.wires.get((a, b))) is not None:
            if isinstance(message, messages.ChunkRequest) and not wire.fetches:
                wire.fetches = True
                self.report["transfers resumed" if message.offset else "transfers begun"] += 1
            wire.queue.append(message)
            self._pump(a, b, wire)

    def release(self, a: NodeId, b: NodeId) -> None:
        """Let a held direction flow again."""
        self.held.pop((a, b), None)
        if (wire := self.wires.get((a, b))) is not None:
            self._pump(a, b, wire)

    def mend(self) -> None:
        """End all cuts: what waited on silent links flows again."""
        for a, b in sorted(tuple(sorted(pair)) for pair in self.cut):
            self.mend_one(a, b)

    def mend_one(self, a: NodeId, b: NodeId) -> None:
        """End one cut."""
        self.cut.pop(frozenset((a, b)), None)
        for x, y in ((a, b), (b, a)):
            if (wire := self.wires.get((x, y))) is not None:
                self._pump(x, y, wire)

    def thawed(self, name: NodeId) -> None:
        """A frozen process goes on: so does what waited for it."""
        for (a, b), wire in list(self.wires.items()):
            if name in (a, b):
                self._pump(a, b, wire)

    def _blocked(self, a: NodeId, b: NodeId) -> bool:
        if (a, b) in self.held or frozenset((a, b)) in self.cut:
            return True
        return self._frozen(a) or self._frozen(b)

    def _frozen(self, name: NodeId) -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        return name in self.users and self.users[name].process in loop.frozen

    def _pump(self, a: NodeId, b: NodeId, wire: Wire) -> None:
        if wire.busy or not wire.queue or self._blocked(a, b):
            return
        wire.busy = True
        delay_s = self.rng.uniform(*self.lag.get((a, b), LATENCY_S))
        loop = asyncio.get_running_loop()
        loop.call_later(delay_s, self._deliver, a, b, wire, context=OUTSIDE)

    def _deliver(self, a: NodeId, b: NodeId, wire: Wire) -> None:
        wire.busy = False
        if self._blocked(a, b):
            return
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            if wire.queue and wire.open and b in self.users:
                self._receive(a, b, wire)
        if wire.open:
            self._pump(a, b, wire)

    def _receive(self, a: NodeId, b: NodeId, wire: Wire) -> None:
        message = wire.queue.popleft()
        user = self.users[b]
        try:
            with user.process.entered():
                if isinstance(message, messages.Ping):
                    user.user.pinged(a, message)
                else:
                    user.user.received(a, message)
            if isinstance(message, messages.Ack):
                self.acknowledged(a, b)
        except InvalidError as error:
            raise AssertionError(f"{a} sent nonsense to {b}: {error.message}") from error


class MemoryLinks:
    """The `Links` of one process."""

    def __init__(self, me: NodeId, network: Network, process: Process) -> None:
        self._me, self._network, self.process = me, network, process
        self.links: dict[NodeId, int] = {}
        self.user: LinkUser

    def attach(self, user: LinkUser) -> None:
        self.user = user

    def hello(self) -> messages.Hello:
        with self.process.entered():
            return self.user.hello()

    async def run(self) -> None:
        if not self.process.dead:
            self._network.users[self._me] = self
        while not self.process.dead:
            for peer in self.user.peers_to_call():
                if peer.id != self._me:
                    self._network.connect(self._me, peer.id)
            for peer in list(self.links):
                self.send(peer, self.user.ping())
            await asyncio.sleep(RECONNECT_S)

    def send(self, peer: NodeId, message: messages.Message) -> bool:
        return self.send_frame(peer, messages.encode(message))

    def hang_up(self) -> None:
        for peer in list(self.links):
            self._network.reset(self._me, peer)
        self._network.users.pop(self._me, None)

    def send_frame(self, peer: NodeId, frame: bytes) -> bool:
        if peer not in self.links or self.process.dead:
            return False
        self._network.send(self._me, peer, messages.decode(frame))
        return True

    def live(self) -> frozenset[NodeId]:
        return frozenset(self.links)

    def generation(self, peer: NodeId) -> int:
        return self.links.get(peer, 0)
