"""What a starting node knows: snapshot, write-ahead log and machine, brought into agreement after any crash.

Called once by the engine's constructor. Also founds a cluster (the first snapshot, naming this host the only voter)
and prepares a joining host (an empty log and the voters to call).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import FatalError
from raftstate.consensus.engine import NodeId, Peer, StateMachine
from raftstate.consensus.journal import Journal
from raftstate.consensus.members import Members
from raftstate.consensus.messages import MEMBERSHIP, NO_OP, decode_change
from raftstate.consensus.snapshot import (
    SnapshotHeader,
    make_header,
    read_snapshot,
    write_snapshot,
)
from raftstate.consensus.wal import (
    BootstrapRecord,
    EntryRecord,
    Recovered,
    TermRecord,
    Wal,
    durable_replace,
)

# A joiner's log is entry 1 alone; a founder's begins above it, so that newcomers need the snapshot, voters included.
GENESIS = (bytes([NO_OP]), 1, 0)
FOUNDATION = ((bytes([NO_OP]), 2, 0), (bytes([NO_OP]), 3, 0))


def has_state(directory: Path) -> bool:
    """Tell whether a node has ever run in `directory`."""
    return wal_path(directory).exists() or snapshot_path(directory).exists()


def snapshot_path(directory: Path) -> Path:
    """Return where the snapshot lies."""
    return directory / "snapshot"


def wal_path(directory: Path) -> Path:
    """Return where the write-ahead log lies."""
    return directory / "wal"


@dataclass(frozen=True, slots=True)
class Start:
    """What a node starts from. `snapshot` is None on a host that has joined but never been sent one."""

    journal: Journal
    snapshot: SnapshotHeader | None
    peers: tuple[Peer, ...]  # to call before the log names the voters


def recover(
    wal: Wal, directory: Path, me: Peer, bootstrap: tuple[Peer, ...], machine: StateMachine
) -> Start:
    """Return what to start from; `bootstrap` counts only on the very first start (`(me,)` founds a cluster).

    Raises:
        FatalError: damaged files, or files that don't belong together.
    """
    found = read_snapshot(snapshot_path(directory))
    if found is not None and not wal.exists():
        raise FatalError(
            f"the log in {directory} is gone, with the votes this host gave; run 'kvorum recover rejoin' on this host"
        )
    recovered = wal.open()
    if found is None and not recovered.entries:
        found = _first_start(wal, recovered, directory, me, bootstrap, machine)
    header, dump = found if found is not None else (None, b"")
    if header is not None:
        _agree(wal, recovered, header, directory)
        if machine.applied() < header.machine_applied:
            machine.load(dump)
    elif not recovered.entries or recovered.entries[0] != GENESIS:
        raise FatalError(
            f"the snapshot in {directory} is gone; remove this host from the cluster and join it again"
        )
    last = recovered.entries[-1][1]
    if machine.applied() > last:
        raise FatalError(
            f"the state (index {machine.applied()}) is newer than the log in {directory} (index {last}); "
            "remove this host from the cluster, empty its state directory and join it again"
        )
    committed = max(machine.applied(), header.index if header else 1)
    journal = Journal(wal, recovered, _members(header, recovered), committed)
    if header is not None:
        journal.snapshot_taken(header.index)
    return Start(journal, header, tuple(Peer(NodeId(i), a) for i, a in recovered.bootstrap))


def _first_start(
    wal: Wal,
    recovered: Recovered,
    directory: Path,
    me: Peer,
    bootstrap: tuple[Peer, ...],
    machine: StateMachine,
) -> tuple[SnapshotHeader, bytes] | None:
    """Found a cluster or prepare to join one; a crash in here leaves a directory that counts as never used."""
    if machine.applied():
        raise FatalError(
            f"there is a state (index {machine.applied()}) but no log in {directory}; "
            "remove this host from the cluster, empty its state directory and join it again"
        )
    if bootstrap == (me,):
        header, dump = make_header(*FOUNDATION, voters=(me,), machine_applied=0), machine.dump()
        draft = snapshot_path(directory).with_suffix(".new")
        write_snapshot(draft, header, dump)
        durable_replace(draft, snapshot_path(directory))
        return header, dump
    if not bootstrap:
        raise FatalError(f"{directory} holds no log, and no voters to join were given")
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
            f"({first}); remove this host from the cluster and join it again"
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


def _members(header: SnapshotHeader | None, recovered: Recovered) -> Members:
    members = Members()
    if header is not None:
        members.reset(header.index, header.voters)
    for command, index, _ in recovered.entries:
        if command[0] == MEMBERSHIP:
            members.change(index, decode_change(command[1:]))
    return members
