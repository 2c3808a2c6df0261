"""PySyncObj's journal on our write-ahead log: a list of entries in memory, every change recorded, `sync` as barrier.

PySyncObj calls the camelCase half; the shell calls the rest. Nothing is durable before `sync`, so the shell calls it
before any message leaves whose truth depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

from core.errors import FatalError
from raftstate.consensus.members import Members
from raftstate.consensus.messages import MEMBERSHIP, Entry, decode_change
from raftstate.consensus.snapshot import SnapshotHeader
from raftstate.consensus.wal import CutRecord, EntryRecord, Recovered, TermRecord, Wal


@dataclass(frozen=True, slots=True)
class Compaction:
    """When the log is cut, and how much is kept behind the snapshot so that a slow voter needn't be sent one."""

    entries: int = 5_000
    size_bytes: int = 64 << 20
    pause_s: float = 10.0
    keep_entries: int = 500
    keep_bytes: int = 8 << 20


class Journal:
    """The log from the snapshot's last two entries on. `recovery` makes it."""

    def __init__(self, wal: Wal, recovered: Recovered, members: Members, committed: int) -> None:
        self.compaction = Compaction()
        self.members = members
        self._wal = wal
        self._state = recovered
        self._committed = committed
        self._base: SnapshotHeader | None = None

    # -- the shell's half

    @property
    def dirty(self) -> bool:
        """Tell whether something isn't durable yet."""
        return self._wal.dirty

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self._wal.size_bytes

    @property
    def bootstrap(self) -> list[tuple[str, str]]:
        """The voters this host was told of when it joined."""
        return self._state.bootstrap

    def wants_compaction(self) -> bool:
        """Tell whether the log has grown enough for a snapshot."""
        limits = self.compaction
        return (
            len(self) > limits.entries + limits.keep_entries or self.size_bytes > limits.size_bytes
        )

    def sync(self) -> None:
        """Make everything so far durable. Raises FatalError."""
        self._wal.sync()

    def close(self) -> None:
        """Close the file without syncing."""
        self._wal.close()

    def first(self) -> int:
        """Return the index of the first entry held."""
        return self._state.entries[0][1]

    def last(self) -> int:
        """Return the index of the last entry."""
        return self._state.entries[-1][1]

    def last_term(self) -> int:
        """Return the term of the last entry."""
        return self._state.entries[-1][2]

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`; None if it isn't held."""
        offset = index - self.first()
        return self._state.entries[offset][2] if 0 <= offset < len(self._state.entries) else None

    def first_of_term(self, index: int) -> int:
        """Return the lowest index held whose entries up to `index` are all of one term."""
        term = self.term_at(index)
        while index > self.first() and self.term_at(index - 1) == term:
            index -= 1
        return index

    def rebase(self, header: SnapshotHeader) -> None:
        """Prepare for the snapshot that PySyncObj is about to install: its next `clear` adopts its voters."""
        self._base = header

    # -- PySyncObj's half

    def add(self, command: bytes, index: int, term: int) -> None:
        entries = self._state.entries
        assert not entries or index == entries[-1][1] + 1, "a gap in the log"
        entries.append((command, index, term))
        self._wal.append(EntryRecord(command, index, term))
        if command[0] == MEMBERSHIP:
            self.members.change(index, decode_change(command[1:]))

    def clear(self) -> None:
        self._state.entries.clear()
        self._wal.append(CutRecord(0))
        if self._base is not None:
            self.members.reset(self._base.index, self._base.voters)
            self._committed = max(self._committed, self._base.index)
            self._base = None

    def deleteEntriesFrom(self, offset: int) -> None:
        if offset >= len(self._state.entries):
            return
        index = self.first() + offset
        if index <= self._committed:
            raise FatalError(
                f"the leader asked to truncate the committed log entry {index}; this must never happen: "
                "keep the raft directories of all hosts and report it"
            )
        del self._state.entries[offset:]
        self._wal.append(CutRecord(index))
        self.members.truncate(index)

    def deleteEntriesTo(self, offset: int) -> None:
        """Compact, after a snapshot has been made durable. Some entries more are kept, for slow voters."""
        kept_bytes, lowest = 0, max(0, offset - self.compaction.keep_entries)
        while offset > lowest and kept_bytes < self.compaction.keep_bytes:
            offset -= 1
            kept_bytes += len(self._state.entries[offset][0])
        del self._state.entries[:offset]
        self.members.compact(self.first())
        self._wal.rewrite(self._state.records())

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        return self._state.entries[at]

    def __len__(self) -> int:
        return len(self._state.entries)

    def _destroy(self) -> None:
        self._wal.close()

    def setRaftCommitIndex(self, index: int) -> None:
        self._committed = max(self._committed, index)

    def getRaftCommitIndex(self) -> int:
        """Not stored: the snapshot and the machine know a lower bound, and the leader tells the rest."""
        return self._committed

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        self._state.term, self._state.vote = term, vote
        self._wal.append(TermRecord(term, vote))

    def getCurrentTerm(self) -> int:
        return self._state.term

    def getVotedForNodeId(self) -> str | None:
        return self._state.vote

    def onOneSecondTimer(self) -> None:
        pass
