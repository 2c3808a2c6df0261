"""One Raft node without a network: log, shell, PySyncObj, snapshots and state machine, put together and kept in step.

Used by `pysyncobj_engine`, which brings messages and callers. The first error that leaves the node's state in doubt
makes it fall silent at once and for good: `check` then raises a FatalError.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from core.errors import FatalError
from raftstate.consensus.elections import Elections, Timing
from raftstate.consensus.engine import NodeId, Peer, StateMachine
from raftstate.consensus.entries import LEVEL, Proposal, decode_proposals, entry_level
from raftstate.consensus.journal import Compaction
from raftstate.consensus.messages import Entry, Message
from raftstate.consensus.pysyncobj_driver import Raft, check_source, make_node
from raftstate.consensus.recovery import recover, wal_path
from raftstate.consensus.shell import Shell
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import SnapshotHeader, SnapshotInfo
from raftstate.consensus.snapshots import Snapshots
from raftstate.consensus.wal import Wal

log = logging.getLogger(__name__)

T = TypeVar("T")

DIGESTS_KEPT = 1024


class Blocking(Protocol):
    """Runs blocking work beside the event loop, one call at a time."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, when it is done; a cancellation waits for its end."""


class OneThread:
    """The `Blocking` of the product: a single thread, made at the first call."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    async def __call__(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})  # whoever cleans up next must find the work at an end
            if not future.cancelled():
                future.exception()  # nobody waits for it any more
            raise


@dataclass(frozen=True, slots=True)
class Settings:
    """What tests turn and the product leaves alone. `wal` is the log to write; `level` the newest one understood."""

    timing: Timing = field(default_factory=Timing)
    compaction: Compaction = field(default_factory=Compaction)
    wal: Wal | None = None
    blocking: Blocking | None = None
    level: int = LEVEL


class NodeUser(Protocol):
    """What the node asks of the engine."""

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send if there is a link."""

    def live(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""

    def next_entry(self) -> None:
        """Append what waits, if anything: this node leads, at this very moment."""

    def applied(self, proposal: Proposal, result: bytes | None) -> None:
        """A proposal was applied; None: its result is unknown here."""

    def replaced(self) -> None:
        """The state came as a whole from another host."""

    def woken(self) -> None:
        """Something has happened: take a turn."""


class RaftNode:
    """Construct it inside the running event loop; it recovers from `directory` and applies what is committed."""

    def __init__(
        self,
        me: Peer,
        directory: Path,
        machine: StateMachine,
        user: NodeUser,
        *,
        bootstrap: tuple[Peer, ...],
        rng: random.Random,
        settings: Settings,
    ) -> None:
        check_source()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._me, self._machine, self._user = me, machine, user
        self.now = asyncio.get_running_loop().time
        self._fatal: FatalError | None = None
        self._agreed: tuple[Peer, ...] | None = None  # the voters that PySyncObj knows, too
        self._swap: tuple[SnapshotHeader, Callable[[], None]] | None = None
        self._waiting: deque[tuple[int, bytes]] = deque()  # committed, for the machine to apply
        self.digests: OrderedDict[int, bytes] = OrderedDict()

        wal = settings.wal or Wal(wal_path(directory))
        store = SnapshotStore(directory)
        start = recover(wal, store, me, bootstrap, machine, settings.level)
        self.journal, self.bootstrap = start.journal, start.peers
        self.journal.compaction = settings.compaction
        self._start = start.snapshot
        self.level = start.level  # of the newest entry or snapshot that this node holds
        self.snapshots = Snapshots(
            self,
            store,
            blocking=settings.blocking or OneThread(),
            pause_s=settings.compaction.pause_s,
        )
        self.shell = Shell(
            self.journal,
            self,
            me=me.id,
            level=settings.level,
            make_node=make_node,
            elections=lambda show: Elections(
                self.journal,
                me=me.id,
                timing=settings.timing,
                rng=rng,
                now=self.now,
                send=self.send,
                show=show,
            ),
        )
        self.raft = Raft(
            me,
            self.journal.members.latest() or self.bootstrap,
            journal=self.journal,
            shell=self.shell,
            has_snapshot=start.snapshot is not None,
            timing=settings.timing,
            apply=self._apply,
            before_append=user.next_entry,
            read_snapshot=self._read_snapshot,
        )

    # -- what the shell and the snapshots ask

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send, unless the node has fallen silent."""
        return not self.shell.muted and self._user.send(peer, message)

    def linked(self) -> frozenset[NodeId]:
        """Return the hosts with a link."""
        return self._user.live()

    def newest_snapshot(self) -> SnapshotInfo | None:
        """Return what can be offered to a host that is too far behind."""
        return self.snapshots.info()

    def offered(self, peer: NodeId, info: SnapshotInfo) -> None:
        """Fetch a snapshot."""
        self.snapshots.offered(peer, info)

    def woken(self) -> None:
        """Take a turn soon."""
        self._user.woken()

    @property
    def applied(self) -> int:
        """The highest index whose entry the machine has applied; PySyncObj's count runs ahead of it."""
        return self._waiting[0][0] - 1 if self._waiting else self.raft.raftLastApplied

    @property
    def machine(self) -> StateMachine:
        """The state machine."""
        return self._machine

    def position(self) -> tuple[Entry, Entry, tuple[Peer, ...]] | None:
        """Return the last two applied entries and the voters as of then; None if they aren't held."""
        applied = self.applied
        if applied - 1 < self.journal.first():
            return None
        previous, last = self.journal.entries(applied - 1, applied + 1)
        return previous, last, self.journal.members.at(applied)

    def may_install(self, index: int) -> bool:
        """Tell whether a snapshot that ends at `index` would bring this node forward, and it may be replaced now."""
        idle = not self.raft._isLeader() and not self.shell.elections.shown
        return not self.shell.muted and idle and index > self.raft.raftCommitIndex

    def install(self, header: SnapshotHeader, swap: Callable[[], None]) -> None:
        """Replace log and state by a snapshot that lies ready; it is this node's own on the disk already."""
        self.apply_waiting()
        self._swap = (header, swap)
        try:
            self.shell.install(header)
        except Exception as error:  # noqa: BLE001 - PySyncObj's state can't be trusted after an unexpected error
            self.stop(error)

    def close(self) -> None:
        """Fall silent and close the log."""
        self.shell.muted = True
        self.snapshots.close()
        self.raft.destroy()

    # -- acting

    def tick(self) -> bool:
        """Act on what has arrived and on the time; tell whether another tick may find more to do."""
        before = self._position()
        try:
            self.journal.sync()  # a lone voter commits what is in its own log
            self.raft.tick()
            self.shell.tick()
        except Exception as error:  # noqa: BLE001 - PySyncObj's state can't be trusted after an unexpected error
            self.stop(error)
        self.check()
        return self._position() != before

    def stop(self, error: Exception) -> None:
        """Say nothing more to anybody; `check` raises from now on."""
        if self._fatal is None:
            log.critical("consensus stops", extra={"error": repr(error)})
            if not isinstance(error, FatalError):
                fatal = FatalError(f"consensus can't go on: {error!r}; restart the agent")
                fatal.__cause__ = error
                error = fatal
            self._fatal = error
        self.shell.muted = True

    def check(self) -> None:
        """Raise FatalError if this node can't go on."""
        latest = self.journal.members.latest()
        if latest is not self._agreed and self.journal.members.known:
            self._agreed = latest
            others = {node.id for node in self.raft.otherNodes}
            if others != {peer.id for peer in latest} - {self._me.id}:
                self.stop(
                    FatalError("PySyncObj and the log disagree on the voters; restart the agent")
                )
        if self._fatal is not None:
            raise self._fatal

    def _position(self) -> tuple[int, ...]:
        raft = self.raft
        return (
            self.journal.last(),
            raft.raftCommitIndex,
            raft.raftLastApplied,
            raft.raftCurrentTerm,
            raft._isLeader(),
        )

    # -- what PySyncObj calls back

    def _apply(self, index: int, content: bytes) -> None:
        """Take in a committed entry. Must not raise: PySyncObj would apply it again for ever."""
        self._waiting.append((index, content))

    def has_waiting(self) -> bool:
        """Tell whether there is something for `apply_waiting`."""
        return bool(self._waiting)

    def apply_waiting(self) -> None:
        """Have the machine apply what is committed, once the others have been told of it: they need not wait for this."""
        while self._waiting and self._fatal is None:
            self._apply_one(*self._waiting[0])
            if self._fatal is None:
                self._waiting.popleft()

    def _apply_one(self, index: int, content: bytes) -> None:
        try:
            self.journal.sync()
            proposals = decode_proposals(content)
            results: list[bytes | None] = [None] * len(proposals)
            if index > self._machine.applied():
                results[:] = self._machine.apply(index, [p.payload for p in proposals])
                self.level = max(self.level, entry_level(b"\0" + content))
                self._remember_digest(index)
            for proposal, result in zip(proposals, results, strict=True):
                self._user.applied(proposal, result)
        except Exception as error:  # noqa: BLE001 - whatever it is, the machine can't follow the log any more
            self.stop(error)

    def _remember_digest(self, index: int) -> None:
        self.digests[index] = self._machine.digest()
        if len(self.digests) > DIGESTS_KEPT:
            self.digests.popitem(last=False)

    def _read_snapshot(self) -> tuple[Entry, Entry, tuple[Peer, ...]]:
        """Give PySyncObj the snapshot: at a start the one `recover` has read, later one that lies ready."""
        if self._swap is None:
            header = self._start
            assert header is not None
            return header.previous, header.last, self.journal.members.latest()
        (header, swap), self._swap = self._swap, None
        try:
            swap()
            self.digests.clear()
            self.level = max(self.level, header.level)
            if header.generation > self.journal.generation:
                self.journal.set_generation(header.generation)
            self.journal.rebase(header)
            self._user.replaced()
        except Exception as error:
            self.stop(error)
            raise
        return header.previous, header.last, header.voters
