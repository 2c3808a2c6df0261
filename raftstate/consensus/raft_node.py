"""One Raft node without a network: log, shell, PySyncObj and state machine, put together and kept in step.

Used by `pysyncobj_engine`, which brings messages and callers. The first error that leaves the node's state in doubt
makes it fall silent at once and for good: `check` then raises a FatalError.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.errors import FatalError
from raftstate.consensus.elections import Elections, Timing
from raftstate.consensus.engine import NodeId, Peer, StateMachine
from raftstate.consensus.journal import Compaction
from raftstate.consensus.messages import Entry, Message, Proposal, decode_proposals
from raftstate.consensus.pysyncobj_driver import Raft, check_source, make_node
from raftstate.consensus.recovery import recover, snapshot_path, wal_path
from raftstate.consensus.shell import Shell
from raftstate.consensus.snapshot import SnapshotHeader, make_header, write_snapshot
from raftstate.consensus.wal import Wal

log = logging.getLogger(__name__)

BRING_UP_PAUSE_S = 1.0
BRING_UP_BYTES_PER_S = 10e6


@dataclass(frozen=True, slots=True)
class Settings:
    """What tests turn and the product leaves alone; `wal` is the log to write."""

    timing: Timing = field(default_factory=Timing)
    compaction: Compaction = field(default_factory=Compaction)
    wal: Wal | None = None


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
        """The state came as a whole from the leader."""


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
        self._me, self._directory, self._machine, self._user = me, directory, machine, user
        self._now = asyncio.get_running_loop().time
        self._compacted_s = self._now()
        self._bring_up_again_s = 0.0
        self._fatal: FatalError | None = None
        self._installing: tuple[SnapshotHeader, bytes] | None = None

        wal = settings.wal or Wal(wal_path(directory))
        start = recover(wal, directory, me, bootstrap, machine)
        self.journal, self.bootstrap = start.journal, start.peers
        self.journal.compaction = settings.compaction
        self._snapshot = start.snapshot
        self.shell = Shell(
            self.journal,
            me=me.id,
            send=self.send,
            linked=user.live,
            make_node=make_node,
            elections=lambda show: Elections(
                self.journal,
                me=me.id,
                timing=settings.timing,
                rng=rng,
                now=self._now,
                send=self.send,
                show=show,
            ),
            prepare_install=self._prepare_install,
        )
        self.raft = Raft(
            me,
            self.journal.members.latest() or self.bootstrap,
            journal=self.journal,
            shell=self.shell,
            snapshot=snapshot_path(directory),
            timing=settings.timing,
            apply=self._apply,
            before_append=user.next_entry,
            serialize=self._write_snapshot,
            deserialize=self._read_snapshot,
        )

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send, unless the node has fallen silent."""
        return not self.shell.muted and self._user.send(peer, message)

    def close(self) -> None:
        """Fall silent and close the log."""
        self.shell.muted = True
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
        members, others = self.journal.members, {node.id for node in self.raft.otherNodes}
        if members.known and others != {peer.id for peer in members.latest()} - {self._me.id}:
            self.stop(FatalError("PySyncObj and the log disagree on the voters; restart the agent"))
        if self._fatal is not None:
            raise self._fatal

    def compact_if_big(self) -> None:
        """Ask for a snapshot when the log has grown."""
        if not self.journal.wants_snapshot():
            return
        if self._now() - self._compacted_s >= self.journal.compaction.pause_s:
            self._compacted_s = self._now()
            self.raft.forceLogCompaction()

    def bring_up(self, newcomer: NodeId) -> None:
        """Send a host the snapshot, and again if no answer comes; a bigger one takes longer."""
        if self._now() < self._bring_up_again_s:
            return
        blob = snapshot_path(self._directory).read_bytes()
        self._bring_up_again_s = self._now() + BRING_UP_PAUSE_S + len(blob) / BRING_UP_BYTES_PER_S
        self.shell.bring_up(newcomer, blob)

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
        """Apply one committed entry. Must not raise: PySyncObj would apply it again for ever."""
        if self._fatal is not None:
            return
        try:
            self.journal.sync()
            proposals = decode_proposals(content)
            results: list[bytes | None] = [None] * len(proposals)
            if index > self._machine.applied():
                results[:] = self._machine.apply(index, [p.payload for p in proposals])
            for proposal, result in zip(proposals, results, strict=True):
                self._user.applied(proposal, result)
        except Exception as error:  # noqa: BLE001 - whatever it is, the machine can't follow the log any more
            self.stop(error)

    def _write_snapshot(self, draft: Path, previous: Entry, last: Entry) -> None:
        voters = self.journal.members.at(last[1])
        header = make_header(previous, last, voters, self._machine.applied())
        try:
            write_snapshot(draft, header, self._machine.dump())
        except OSError as error:
            log.error("can't write a snapshot", extra={"error": repr(error)})
            raise
        log.info("snapshot written", extra={"index": header.index})

    def _prepare_install(self, header: SnapshotHeader, dump: bytes) -> None:
        self._installing = (header, dump)

    def _read_snapshot(self) -> tuple[Entry, Entry, tuple[Peer, ...]]:
        """Give PySyncObj the snapshot: at a start the one `recover` has read, later one from the leader."""
        if self._installing is None:
            header = self._snapshot
            assert header is not None
            return header.previous, header.last, self.journal.members.latest()
        (header, dump), self._installing = self._installing, None
        try:
            self._machine.load(dump)
            self.journal.rebase(header)
            self._user.replaced()
        except Exception as error:
            self.stop(error)
            raise
        return header.previous, header.last, header.voters
