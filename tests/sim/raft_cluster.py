"""Whole consensus engines on an in-memory mesh: lost links, stuck links, crashes that lose what was not synced.

`Cluster` is what a scenario plays on; `checkers` says what must hold whatever happens; `inside` knows the engine.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import FatalError, UnavailableError
from raftstate.consensus.engine import NodeId, Peer
from tests.sim import inside
from tests.sim.checkers import Entries, History, acknowledged_truly, committed_by_quorum, logs_match
from tests.sim.flavours import STORM, Flavour
from tests.sim.loop import OUTSIDE, Process, SimLoop
from tests.sim.machine import SimMachine
from tests.sim.network import MemoryLinks, Network
from tests.sim.power import Power

SENTENCES = {
    "torn tail of the log cut off": "torn tails cut",
    "the disk is full, no change is accepted": "refusals for a full disk",
}
FOR_EVER = math.inf
WATCH_S = 0.5
SLOW_SYNC_S = (0.05, 3.0)


@dataclass
class Node:
    """One host: what survives a crash, and while it runs its process. `last_log` is what it knew before it died."""

    peer: Peer
    directory: Path
    machine: SimMachine
    bootstrap: tuple[Peer, ...]
    process: Process
    engine: inside.Engine | None = None
    task: asyncio.Task[None] | None = None
    last_log: Entries = ()
    burnt: bool = False
    loses_power: bool = True

    @property
    def log(self) -> Entries:
        return self.last_log if self.engine is None else inside.log_of(self.engine)


class Cluster:
    """Nodes named a, b, c…; the first founds, the others join."""

    def __init__(
        self,
        directory: Path,
        rng: random.Random,
        group: asyncio.TaskGroup,
        flavour: Flavour = STORM,
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.loop, self.rng, self.flavour = loop, rng, flavour
        loop.rng = rng
        self.history = History()
        self.history.first_applied = self._first_applied
        self.report = self.history.report
        self.diary: deque[str] = deque(maxlen=60)
        self.nodes: dict[str, Node] = {}
        self.damaged = False  # a story makes a state wrong on purpose
        self.network = Network(rng, self.report)
        self.network.acknowledged = self._acknowledged
        self.power = Power(rng, self.report)
        self._directory, self._group = directory.resolve(), group
        self._last_leader = ""
        self._violated: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._surface)
        group.create_task(self._watch(), name="watch")

    def __getitem__(self, name: str) -> inside.Engine:
        engine = self.nodes[name].engine
        assert engine is not None, f"{name} is down"
        return engine

    @property
    def up(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.engine is not None]

    def note(self, what: str) -> None:
        """Write into the diary, which is printed if the run fails."""
        self.diary.append(f"{self.loop.now_s - 1000:9.3f} {what}")

    def peer(self, name: str) -> Peer:
        return Peer(NodeId(name), f"10.77.0.{ord(name) - 96}:7444")

    # -- the life of a node

    def create(self, name: str, *, via: str | None = None) -> None:
        """Make and start a node that founds the cluster, or knows only `via`."""
        peer = self.peer(name)
        bootstrap = (self.peer(via) if via else peer,)
        machine = SimMachine(self.history, name)
        self.nodes[name] = Node(peer, self._directory / name, machine, bootstrap, Process(name))
        self.power.add(self.nodes[name].directory)
        self.start(name)

    def start(self, name: str) -> None:
        """Switch a node on; with a fuse armed or a full disk it may not survive its own start."""
        node = self.nodes[name]
        assert node.engine is None
        node.process = Process(name)
        try:
            with node.process.entered():
                links = MemoryLinks(node.peer.id, self.network, node.process)
                node.engine = inside.make_engine(
                    self.flavour,
                    me=node.peer,
                    directory=node.directory,
                    machine=node.machine,
                    links=links,
                    bootstrap=node.bootstrap,
                    rng=self.rng,
                    free_bytes=lambda path: 0 if node.directory in self.power.full else 1 << 40,
                )
                node.process.started = True
                node.task = self._group.create_task(
                    self._run(node, node.process, node.engine), name=f"engine-{name}"
                )
        except (FatalError, OSError):
            if not node.burnt and node.directory not in self.power.full:
                raise
            self._end(node, torn=node.burnt and node.loses_power)

    async def _run(self, node: Node, process: Process, engine: inside.Engine) -> None:
        try:
            await engine.run()
        except asyncio.CancelledError:
            pass
        except Exception as error:
            if process.dead:
                return
            # There may be room again by the time that the error gets here.
            if node.directory not in self.power.full and not _of_a_full_disk(error):
                raise
            self.report["stops for a full disk"] += 1
            self.note(f"{node.peer.id} stops: disk full")
            self._end(node, torn=False)

    def _end(self, node: Node, *, torn: bool) -> None:
        """The process is no more: its links break, it can't touch its disk; with `torn` unsynced writes tear."""
        process, name = node.process, node.peer.id
        node.last_log = node.log
        node.engine = None
        self.network.leave(name)
        process.dead = True
        self.loop.wake(process)
        self.power.restore(node.directory)
        if node.task is not None:
            node.task.cancel()
        node.task, node.burnt = None, False
        if torn:
            node.machine.lose(self.rng)
            self.power.tear(node.directory)

    def crash(self, name: str) -> None:
        """Power off: nothing more is written or sent, links break, unsynced writes tear."""
        self.report["crashes"] += 1
        self._end(self.nodes[name], torn=True)

    def stop(self) -> None:
        """End all processes: the story is over."""
        if self._violated.done():
            self._violated.result()
        for name in self.up:
            self._end(self.nodes[name], torn=False)

    def kill(self, name: str) -> None:
        """End the process, as SIGKILL does: what it wrote stays in the kernel's cache, synced or not."""
        self.report["kills"] += 1
        self._end(self.nodes[name], torn=False)

    def arm(self, name: str, steps: int, *, loses_power: bool = True) -> None:
        """Let a node die in the middle of one of its next disk writes, for want of power or as by SIGKILL."""
        node = self.nodes[name]

        def burn() -> None:
            self.report["power cuts inside I/O" if loses_power else "kills inside I/O"] += 1
            self.note(f"{'power cut' if loses_power else 'killed'} inside I/O: {name}")
            node.burnt = node.process.dead = True
            node.loses_power = loses_power
            if node.engine is not None:
                self.loop.call_soon(self._burnt, node, node.process, context=OUTSIDE)

        self.power.arm(node.directory, steps, burn)

    def _burnt(self, node: Node, process: Process) -> None:
        if node.process is process and node.engine is not None:
            self._end(node, torn=node.loses_power)

    # -- misfortunes that end by themselves

    def freeze(self, name: str, seconds: float) -> None:
        """Stop the process, as SIGSTOP does: it neither acts nor reads, and wakes with a stale view of the world."""
        process = self.nodes[name].process
        self.loop.freeze(process, seconds)
        self.loop.call_later(seconds, self._thaw, process, context=OUTSIDE)

    def _thaw(self, process: Process) -> None:
        if self.loop.thaw(process):
            self.network.thawed(NodeId(process.name))

    def jump(self, name: str, seconds: float) -> None:
        """Put the node's clock forward: everything it waits for happens that much sooner."""
        self.loop.jump(self.nodes[name].process, seconds)

    def step_aside(self, name: str) -> None:
        """Let a node ask another to lead."""
        node = self.nodes[name]
        with node.process.entered():
            self._group.create_task(self[name].step_aside(timeout_s=1.0), name=f"step-aside-{name}")

    def slow_disk(self, name: str, seconds: float) -> None:
        """Let syncs take long for a while; the engine waits for them on its loop, so the node stands still."""

        def stall() -> None:
            self.report["stalls of a slow disk"] += 1
            self.freeze(name, self.rng.uniform(*SLOW_SYNC_S))

        directory = self.nodes[name].directory
        self.power.slow[directory] = stall
        self.loop.call_later(seconds, self.power.slow.pop, directory, None, context=OUTSIDE)

    def fill_disk(self, name: str, seconds: float) -> None:
        """Let writes fail for want of room for a while."""
        directory = self.nodes[name].directory
        self.power.full.add(directory)
        self.loop.call_later(seconds, self.power.full.discard, directory, context=OUTSIDE)

    # -- the network

    def cut(self, a: str, b: str, *, seconds: float | None = None) -> None:
        """No word between two nodes; their link breaks, or with a silent network stays, full of old messages."""
        cut, pair = self.network.cut, frozenset((NodeId(a), NodeId(b)))
        until_s = FOR_EVER if seconds is None else self.loop.now_s + seconds
        cut[pair] = max(cut.get(pair, 0.0), until_s)
        if not self.flavour.silent:
            self.network.reset(NodeId(a), NodeId(b))
        if seconds is not None:
            self.loop.call_later(seconds, self._expire, NodeId(a), NodeId(b), context=OUTSIDE)

    def _ambush(self, leader: NodeId) -> None:
        """All that was stuck on its way to a new leader arrives at once."""
        self.note(f"ambush {leader}")
        for other in sorted(self.nodes):
            self.network.mend_one(NodeId(other), leader)
            self.network.release(NodeId(other), leader)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something in a while."""
        self.loop.call_later(seconds, do, context=OUTSIDE)

    def hold(self, a: str, b: str, *, seconds: float | None = None) -> None:
        """Nothing gets from one to the other, but back."""
        held, way = self.network.held, (NodeId(a), NodeId(b))
        until_s = FOR_EVER if seconds is None else self.loop.now_s + seconds
        held[way] = max(held.get(way, 0.0), until_s)
        if seconds is not None:
            self.loop.call_later(seconds, self._expire, NodeId(a), NodeId(b), context=OUTSIDE)

    def _expire(self, a: NodeId, b: NodeId) -> None:
        """End what has lasted for its time between two nodes; of two cuts the longer one counts."""
        now_s = self.loop.now_s + 1e-6
        if self.network.cut.get(frozenset((a, b)), FOR_EVER) <= now_s:
            self.network.mend_one(a, b)
        if self.network.held.get((a, b), FOR_EVER) <= now_s:
            self.network.release(a, b)

    def isolate(self, name: str) -> None:
        for other in self.nodes:
            if other != name:
                self.cut(name, other)

    def heal(self) -> None:
        self.network.mend()
        self.network.lag.clear()
        for a, b in sorted(self.network.held):
            self.network.release(a, b)

    # -- looking on

    async def until(self, condition, *, deadline_s: float, what: str) -> float:
        """Wait in virtual time; return how long it took."""
        begun = self.loop.time()
        while not condition():
            if self.loop.time() - begun > deadline_s:
                raise AssertionError(f"not within {deadline_s} s: {what}")
            await asyncio.sleep(0.02)
        return self.loop.time() - begun

    def leader(self) -> str | None:
        """Return who leads in the highest term."""
        leading = [name for name in self.up if self[name].is_leader()]
        return max(leading, key=lambda name: self[name].term(), default=None)

    def state_changed(self, name: str, term: int, old: int, new: int) -> None:
        """A node became follower (0), candidate (1) or leader (2)."""
        if self.nodes[name].process.dead:
            return
        if new == 1:
            self.report["elections"] += 1
        elif new == 2:
            self.note(f"{name} leads in term {term}")
            self.history.leads(name, term)
            self.report["leaders elected"] += 1
            self.report["leader changes"] += name != self._last_leader
            self._last_leader = name
            if self.flavour.ambush and self.rng.random() < self.flavour.ambush:
                self.later(self.rng.uniform(0, 0.1), lambda: self._ambush(NodeId(name)))

    def logged(self, record: logging.LogRecord) -> None:
        """Count what the engine says; PySyncObj has nothing critical to say in a correct run."""
        if record.name.startswith("pysyncobj") and record.levelno >= logging.CRITICAL:
            self._violate(AssertionError(record.getMessage()))
        elif record.msg in SENTENCES:
            self.report[SENTENCES[record.msg]] += 1

    def truncated(self, count: int) -> None:
        self.report["uncommitted entries truncated"] += max(0, count)

    def _first_applied(self, name: str, index: int) -> None:
        engine = self.nodes[name].engine
        term = None if engine is None else inside.term_at(engine, index)
        if engine is None or term is None:
            return
        holders = {
            n.peer.id for n in self.nodes.values() if n.log and inside.holds(n.log, index, term)
        }
        as_of, now = inside.configurations(engine, index)
        if 2 * len(now & holders) <= len(now):
            committed_by_quorum(index, as_of, holders)

    def _acknowledged(self, follower: str, leader: str) -> None:
        there, here = self.nodes[follower].engine, self.nodes[leader].engine
        if here is None or there is None or not here.is_leader() or there.term() > here.term():
            return
        acknowledged_truly(
            leader,
            follower,
            inside.matched(here, follower),
            inside.log_of(here),
            inside.log_of(there),
        )

    async def _watch(self) -> None:
        """Compare logs now and then, and raise what was found elsewhere."""
        while True:
            await asyncio.wait({self._violated}, timeout=WATCH_S)
            if self._violated.done():
                self._violated.result()
            for name in self.up:
                assert self.damaged or "differs" not in self[name].fault(), self[name].fault()
            logs = [(node.peer.id, node.log) for node in self.nodes.values()]
            for number, (a, log_a) in enumerate(logs):
                for b, log_b in logs[:number]:
                    logs_match(a, log_a, b, log_b)

    def _surface(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """An error in a callback fails the run."""
        if "handle" not in context:
            return  # a result that nobody waited for any more, noticed whenever garbage is collected
        error = context.get("exception")
        self._violate(error if isinstance(error, Exception) else AssertionError(str(context)))

    def _violate(self, error: Exception) -> None:
        """The first one counts."""
        if not self._violated.done():
            self._violated.set_exception(error)

    # -- the beginning and the end of a run

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

    def served(self) -> list[str]:
        """Return who must serve once all is healed: everybody, replicas too, that has ever been told the state."""
        return [name for name in self.up if self[name].generation()]

    async def converge(self) -> None:
        """Heal everything, then demand one leader, equal states everywhere, and service at every node."""
        self.note("healed")
        self.heal()
        self.power.full.clear()
        self.power.slow.clear()
        await asyncio.sleep(0)  # a power cut of this very moment still takes its node down
        await asyncio.sleep(0)
        for name, node in self.nodes.items():
            self.power.disarm(node.directory)
            if node.engine is None:
                self.start(name)
            elif node.process in self.loop.frozen:
                self.loop.wake(node.process)
                self.network.thawed(node.peer.id)
        await asyncio.sleep(4)  # changes of the voters that were on their way arrive
        await self.until(lambda: self.leader() is not None, deadline_s=20, what="a leader")
        members = self.served()
        for name in members:
            await self._serve(name)
        await self.until(
            lambda: len({tuple(self.nodes[name].machine.payloads()) for name in members}) == 1,
            deadline_s=15,
            what="equal states",
        )
        assert len({self.nodes[name].machine.digest() for name in members}) == 1
        self.history.check(self.nodes[members[0]].machine.payloads())

    async def _serve(self, name: str) -> None:
        """Demand that a node takes a proposal; one that is being brought up to date may ask to try again."""
        for attempt in range(4):
            payload = b"last-%s-%d" % (name.encode(), attempt)
            try:
                with self.nodes[name].process.entered():
                    assert (await self[name].propose(payload, timeout_s=15)).endswith(payload)
            except UnavailableError as error:
                self.note(f"{name} refuses: {error.message}")
                continue
            self.history.acknowledged.add(payload)
            return
        raise AssertionError(f"{name} takes no proposal")


def _of_a_full_disk(error: BaseException | None) -> bool:
    """Tell whether a full disk was the cause of an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        error = error.__cause__
    return False
