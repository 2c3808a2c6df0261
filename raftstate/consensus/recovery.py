"""What a starting node knows: snapshot, write-ahead log and machine, brought into agreement after any crash.

Called once by the engine's constructor. Also founds a cluster (the first snapshot, naming this host the only voter)
and prepares a joining host (an empty log and the voters to call).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import FatalError
from raftstate.consensus.engine import NodeId, Peer, StateMachine
from raftstate.consensus.entries import LEVEL, MEMBERSHIP, NO_OP, decode_change, entry_level
from raftstate.consensus.journal import Journal
from raftstate.consensus.members import Members
from raftstate.consensus.messages import Entry
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import SnapshotHeader, new_header
from raftstate.consensus.wal import (
    BootstrapRecord,
    EntryRecord,
    Recovered,
    TermRecord,
    Wal,
)

REJOIN = "run 'kvorum recover rejoin' on this host: it drops the state here and fetches it from the cluster"

# A joiner's log is entry 1 alone; a founder's begins above it, so that newcomers need the snapshot, voters included.
GENESIS = (bytes([NO_OP]), 1, 0)
FOUNDATION = ((bytes([NO_OP]), 2, 0), (bytes([NO_OP]), 3, 0))


def has_state(directory: Path) -> bool:
    """Tell whether a node has ever run in `directory`."""
    return wal_path(directory).exists() or (directory / "snapshot").exists()


def wal_path(directory: Path) -> Path:
    """Return where the write-ahead log lies."""
    return directory / "wal"


@dataclass(frozen=True, slots=True)
class Start:
    """What a node starts from. `snapshot` is None on a host that has joined but never been sent one.

    `level` is the highest feature level that anything in snapshot or log needs.
    """

    journal: Journal
    snapshot: SnapshotHeader | None
    peers: tuple[Peer, ...]  # to call before the log names the voters
    level: int


def recover(
    wal: Wal,
    store: SnapshotStore,
    me: Peer,
    bootstrap: tuple[Peer, ...],
    machine: StateMachine,
    level: int = LEVEL,
) -> Start:
    """Return what to start from; `bootstrap` counts only on the very first start (`(me,)` founds a cluster).

    Raises:
        FatalError: damaged files, files that don't belong together, or written by a version above `level`.
    """
    directory = store.directory
    store.sweep()
    header = store.latest()
    store.check()
    if header is not None and not wal.exists():
        raise FatalError(f"the log in {directory} is gone, with the votes this host gave; {REJOIN}")
    recovered = wal.open()
    if header is None and not recovered.entries:
        header = _first_start(wal, recovered, store, me, bootstrap, machine)
    if header is not None:
        _agree(wal, recovered, header, directory)
        if machine.applied() < header.machine_applied:
            machine.stage(store.dump_path(header))()
    elif not recovered.entries or recovered.entries[0] != GENESIS:
        raise FatalError(f"the snapshot in {directory} is gone; {REJOIN}")
    last = recovered.entries[-1][1]
    if machine.applied() > last:
        raise FatalError(
            f"the state (index {machine.applied()}) is newer than the log in {directory} (index {last}); {REJOIN}"
        )
    needed = max(
        header.level if header else 0,
        *(entry_level(command) for command, _, _ in recovered.entries),
    )
    if needed > level:
        raise FatalError(
            f"the log in {directory} was written by a newer version (feature level {needed}, this one knows {level}); "
            "install that version again"
        )
    committed = max(machine.applied(), header.index if header else 1)
    if header is not None:
        recovered.generation = max(recovered.generation, header.generation)
    journal = Journal(wal, recovered, members_of(header, recovered.entries), committed)
    if header is not None:
        journal.snapshot_taken(header.index)
    peers = tuple(Peer(NodeId(i), a) for i, a in recovered.bootstrap)
    return Start(journal, header, peers, needed)


def _first_start(
    wal: Wal,
    recovered: Recovered,
    store: SnapshotStore,
    me: Peer,
    bootstrap: tuple[Peer, ...],
    machine: StateMachine,
) -> SnapshotHeader | None:
    """Found a cluster or prepare to join one; a crash in here leaves a directory that counts as never used."""
    if machine.applied():
        raise FatalError(
            f"there is a state (index {machine.applied()}) but no log in {store.directory}; {REJOIN}"
        )
    if bootstrap == (me,):
        header = new_header(*FOUNDATION, voters=(me,), machine_applied=0, generation=1, level=0)
        frozen = machine.freeze()
        try:
            return store.write(header, frozen.write)
        finally:
            frozen.close()
    if not bootstrap:
        raise FatalError(f"{store.directory} holds no log, and no voters to join were given")
    recovered.bootstrap = [(peer.id, peer.address) for peer in bootstrap]
    recovered.entries = [GENESIS]
    wal.append(BootstrapRecord(recovered.bootstrap))
    wal.append(TermRecord(0, None))
    wal.append(EntryRecord(*GENESIS))
    wal.sync()
    return None


def _agree(wal: Wal, recovered: Recovered, header: SnapshotHeader, directory: Path) -> None:
    """Make the log begin with the snapshot's two entries; a crash may have come between the two files."""
    entries = recovered.entries
    first = entries[0][1] if entries else recovered.trimmed + 1
    if first > header.index or (entries and first > header.previous[1]):
        raise FatalError(
            f"the snapshot in {directory} (index {header.index}) is older than the log's first entry "
            f"({first}); {REJOIN}"
        )
    offset = header.previous[1] - entries[0][1] if entries else 0
    if entries[offset : offset + 2] == [header.previous, header.last]:
        del entries[:offset]  # in memory: on the disk whole segments go, when they are trimmed
        recovered.term = max(recovered.term, entries[-1][2])
        return
    # The log ends before the snapshot, or went another way: the snapshot is what was committed.
    entries[:] = [header.previous, header.last]
    recovered.term = max(recovered.term, entries[-1][2])
    wal.rewrite(recovered.records())


def members_of(header: SnapshotHeader | None, entries: Iterable[Entry]) -> Members:
    """Return who the voters were at every index of a log."""
    members = Members()
    if header is not None:
        members.reset(header.index, header.voters)
    for command, index, _ in entries:
        if command[0] == MEMBERSHIP:
            members.change(index, decode_change(command[1:]))
    return members
