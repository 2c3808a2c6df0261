"""PySyncObj's journal on our write-ahead log: a list of entries in memory, every change recorded, `sync` as barrier.

PySyncObj calls the camelCase half; the shell calls the rest. Nothing is durable before `sync`, so the shell calls it
before any message leaves whose truth depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

from core.errors import FatalError
from raftstate.consensus.entries import MEMBERSHIP, decode_change
from raftstate.consensus.members import Members
from raftstate.consensus.messages import Entry
from raftstate.consensus.snapshot_header import SnapshotHeader
from raftstate.consensus.wal import (
    CutRecord,
    EntryRecord,
    GenerationRecord,
    Recovered,
    TermRecord,
    Wal,
)


@dataclass(frozen=True, slots=True)
class Compaction:
    """How much may follow the last snapshot before a new one, and how much is kept before it for slow hosts."""

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
        self._snapshot_index = 0
        self._bytes_since = 0
        self.snapshot_taken(recovered.entries[0][1] if recovered.entries else 0)

    # -- the shell's half

    @property
    def dirty(self) -> bool:
        """Tell whether something isn't durable yet."""
        return self._wal.dirty

    @property
    def size_bytes(self) -> int:
        """The size of the log on the disk, as far as it is in use."""
        return self._wal.size_bytes

    @property
    def full(self) -> str:
        """Why no more entries may be accepted: the disk is full. Empty if there is room."""
        return self._wal.full()

    @property
    def committed(self) -> int:
        """The highest index known to be committed."""
        return self._committed

    @property
    def bootstrap(self) -> list[tuple[str, str]]:
        """The voters this host was told of when it joined."""
        return self._state.bootstrap

    @property
    def generation(self) -> int:
        """Which life of the cluster the log belongs to."""
        return self._state.generation

    def set_generation(self, generation: int) -> None:
        """Record that the log belongs to a newer life of the cluster."""
        self._state.generation = generation
        self._wal.append(GenerationRecord(generation))

    def wants_snapshot(self) -> bool:
        """Tell whether enough has come since the last snapshot for a new one."""
        limits = self.compaction
        return (
            self.last() - self._snapshot_index > limits.entries
            or self._bytes_since > limits.size_bytes
        )

    def snapshot_taken(self, index: int) -> None:
        """Learn that a durable snapshot covers everything up to `index`."""
        self._snapshot_index = index
        self._bytes_since = sum(len(command) for command, _, _ in self.entries(index + 1))

    def trim(self, index: int) -> None:
        """Forget the entries below `index`, which a durable snapshot covers; some are kept, for slow hosts.

        On the disk whole segments go, so more may be there after a restart.
        """
        entries, offset, kept_bytes = self._state.entries, index - self.first(), 0
        offset = min(max(offset, 0), len(entries) - 1)
        lowest = max(0, offset - self.compaction.keep_entries)
        while offset > lowest and kept_bytes < self.compaction.keep_bytes:
            offset -= 1
            kept_bytes += len(entries[offset][0])
        del entries[:offset]
        self.members.compact(self.first())
        self._wal.trim(self.first())

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

    def entries(
        self, first: int, end: int | None = None, *, max_bytes: int | None = None
    ) -> list[Entry]:
        """Return the entries from `first` on and below `end`, at least one but not many more than `max_bytes` of them.

        Empty if `first` isn't held: ask `first()` whether it came too late.
        """
        held = self._state.entries
        start = first - held[0][1] if held else -1
        if start < 0:
            return []
        stop = len(held) if end is None else max(start, min(end - held[0][1], len(held)))
        if max_bytes is not None:
            for at in range(start, stop):
                max_bytes -= len(held[at][0])
                if max_bytes <= 0:
                    stop = at + 1
                    break
        return held[start:stop]

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
        self._bytes_since += len(command)
        self._wal.append(EntryRecord(command, index, term))
        if command[0] == MEMBERSHIP:
            self.members.change(index, decode_change(command[1:]))

    def clear(self) -> None:
        self._state.entries.clear()
        self._wal.append(CutRecord(0))
        if self._base is not None:
            self.members.reset(self._base.index, self._base.voters)
            self._committed = max(self._committed, self._base.index)
            self.snapshot_taken(self._base.index)
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
        """PySyncObj has made a snapshot durable that ends one above the entry at `offset`."""
        index = self.first() + offset
        self.snapshot_taken(index + 1)
        self.trim(index)

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
