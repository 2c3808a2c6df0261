"""What a host whose agent is stopped knows: its log, read as the agent would at its start, and the hosts in its state.

Used by all commands that work offline. Nothing is changed but what every start does: a torn tail is cut off, and what
crashes left behind is removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConflictError, FatalError
from core.member_file import MemberAddress, MemberRecord, bracketed, read_member_file
from core.model import Host
from core.paths import Paths
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.members import Members
from raftstate.consensus.messages import Entry
from raftstate.consensus.recovery import REJOIN, has_state, members_of, wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import SnapshotHeader
from raftstate.consensus.wal import Recovered, Wal
from raftstate.state.dump import finish_swap
from raftstate.state.peek import applied_in, resources_in


@dataclass(frozen=True, slots=True)
class Log:
    """A sound log. `tail` are the entries behind the snapshot, committed or not."""

    snapshot: SnapshotHeader
    dump: Path
    tail: list[Entry]
    term: int
    generation: int
    members: Members
    written_s: float  # Unix time of the last write

    @property
    def last_index(self) -> int:
        """The index of the last entry."""
        return self.tail[-1][1] if self.tail else self.snapshot.index

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self.tail[-1][2] if self.tail else self.snapshot.term


def read_record(paths: Paths) -> MemberRecord:
    """Return what makes this host a member.

    Raises:
        ConflictError: it is none.
        FatalError: the file is damaged.
    """
    record = read_member_file(paths.member_file)
    if record is None:
        raise ConflictError(f"this host is no member of a cluster: there is no {paths.member_file}")
    return record


def me(record: MemberRecord) -> Peer:
    """Return this host as consensus knows it."""
    return Peer(NodeId(record.host_id), f"{bracketed(record.address)}:{record.mesh_port}")


def read_log(paths: Paths) -> Log:
    """Read snapshot and log whole.

    Raises:
        ConflictError: this host has never been sent any state.
        FatalError: damaged; the message says what is, and what to do.
    """
    if not has_state(paths.raft):
        raise ConflictError(f"this host holds no state: there is nothing in {paths.raft}")
    store = SnapshotStore(paths.raft)
    header = store.latest()
    store.check()
    wal = Wal(wal_path(paths.raft))
    if not wal.exists():
        raise FatalError(
            f"the log in {paths.raft} is gone, with the votes this host gave; {REJOIN}"
        )
    recovered = wal.open()
    wal.close()
    if header is None:
        raise ConflictError("this host holds no state: it joined, but was never sent any")
    tail = _tail(header, recovered, paths.raft)
    dump = store.dump_path(header)
    return Log(
        snapshot=header,
        dump=dump,
        tail=tail,
        term=max(recovered.term, header.term),
        generation=max(recovered.generation, header.generation),
        members=members_of(header, tail),
        written_s=max(p.stat().st_mtime for p in (dump, *wal_path(paths.raft).iterdir())),
    )


def _tail(header: SnapshotHeader, recovered: Recovered, directory: Path) -> list[Entry]:
    """Return the entries that continue the snapshot; a log that ends before it, or went another way, has none."""
    entries = recovered.entries
    first = entries[0][1] if entries else recovered.trimmed + 1
    if first > header.index:
        raise FatalError(
            f"the snapshot in {directory} (index {header.index}) is older than the log's first entry ({first}); {REJOIN}"
        )
    offset = header.index - first
    return entries[offset + 1 :] if entries[offset : offset + 1] == [header.last] else []


def applied_index(paths: Paths) -> int | None:
    """Return how far the state database is; None: it isn't there, or can't be read."""
    try:
        finish_swap(paths.database)
        return applied_in(paths.database) if paths.database.exists() else None
    except (FatalError, OSError):
        return None


def known_hosts(paths: Paths) -> list[Host]:
    """Return the hosts that the state lists: the database, or else the snapshot; none if neither can be read."""
    try:
        if paths.database.exists():
            return resources_in(paths.database, Host)
    except FatalError:
        pass  # as if it weren't there
    try:
        store = SnapshotStore(paths.raft)
        header = store.latest()
        return resources_in(store.dump_path(header), Host) if header is not None else []
    except FatalError:
        return []


def other_members(paths: Paths, record: MemberRecord) -> tuple[MemberAddress, ...]:
    """Return all other hosts that anything here knows of: state, then log, then member.json; whatever can be read."""
    hosts = [
        MemberAddress(id=h.id, name=h.name, address=h.address, mesh_port=h.mesh_port)
        for h in known_hosts(paths)
    ]
    found = {host.id: host for host in (*record.members, *_voters(paths), *hosts)}
    found.pop(record.host_id, None)
    return tuple(sorted(found.values(), key=lambda host: host.name))


def _voters(paths: Paths) -> Iterable[MemberAddress]:
    try:
        log = read_log(paths)
    except (ConflictError, FatalError):
        return
    for peer in log.members.latest():
        address, _, port = peer.address.rpartition(":")
        yield MemberAddress(
            id=peer.id, name=peer.id, address=address.strip("[]"), mesh_port=int(port)
        )
