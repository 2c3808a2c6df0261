"""Starting again: what recovery makes of snapshot, log and machine after a crash; snapshots and members."""

import shutil
from pathlib import Path

import pytest

from core.errors import FatalError
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import (
    MEMBERSHIP,
    MemberChange,
    Proposal,
    encode_change,
    encode_proposals,
)
from raftstate.consensus.journal import Compaction, Journal
from raftstate.consensus.members import Members
from raftstate.consensus.recovery import recover, wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import new_header
from raftstate.consensus.wal import Wal
from tests.sim.checkers import History
from tests.sim.machine import SimMachine

ME = Peer(NodeId("a"), "10.0.0.1:7444")
OTHER = Peer(NodeId("b"), "10.0.0.2:7444")
NOOP = b"\x01"


# -- members


def change(add: bool, name: str) -> MemberChange:
    return MemberChange(add, name, f"{name}:7444")


def ids(members: Members) -> list[str]:
    return [peer.id for peer in members.latest()]


def test_the_latest_configuration_counts_until_its_entry_is_truncated():
    members = Members()
    assert not members.known
    members.reset(3, (ME,))
    members.change(5, change(True, "b"))
    members.change(9, change(True, "c"))
    assert ids(members) == ["a", "b", "c"]
    assert [peer.id for peer in members.at(8)] == ["a", "b"]
    members.truncate(9)
    assert ids(members) == ["a", "b"]
    members.change(9, change(False, "b"))
    members.compact(9)
    assert ids(members) == ["a"]
    assert members.latest_index() == 9


# -- recovery


def machine() -> SimMachine:
    return SimMachine(History(), "a")


def start(directory: Path, bootstrap: tuple[Peer, ...] = (ME,), state: SimMachine | None = None):
    wal = Wal(wal_path(directory), segment_bytes=4096)
    return recover(wal, SnapshotStore(directory), ME, bootstrap, state or machine())


def test_a_founder_is_the_only_voter_and_remembers_it(tmp_path):
    for _ in range(2):
        begun = start(tmp_path)
        assert begun.journal.members.latest() == (ME,)
        assert (begun.journal.first(), begun.journal.last()) == (2, 3)
        begun.journal.close()


def test_a_joiner_remembers_whom_to_call_and_knows_no_voters(tmp_path):
    start(tmp_path, (OTHER,)).journal.close()
    begun = start(tmp_path, ())
    assert begun.peers == (OTHER,)
    assert not begun.journal.members.known
    begun.journal.close()


def test_voters_in_the_log_count_at_a_start_even_if_not_committed(tmp_path):
    begun = start(tmp_path)
    begun.journal.add(bytes([MEMBERSHIP]) + encode_change(change(True, "b")), 4, 1)
    begun.journal.sync()
    begun.journal.close()
    begun = start(tmp_path)
    assert [peer.id for peer in begun.journal.members.latest()] == ["a", "b"]
    begun.journal.close()


def write(
    directory: Path,
    previous: tuple[bytes, int, int],
    last: tuple[bytes, int, int],
    *voters: Peer,
    state: SimMachine | None = None,
) -> None:
    """Leave a snapshot, as a crash right after it was written would."""
    state = state or machine()
    header = new_header(
        previous,
        last,
        voters or (ME,),
        machine_applied=state.applied(),
        generation=1,
        level=0,
    )
    SnapshotStore(directory).write(header, state.freeze().write)


def filled(directory: Path, last: int) -> Journal:
    journal = start(directory).journal
    journal.compaction = Compaction(keep_entries=0)
    for index in range(4, last + 1):
        journal.add(NOOP, index, 1)
    journal.sync()
    return journal


def test_a_crash_between_snapshot_and_compaction_keeps_the_tail(tmp_path):
    journal = filled(tmp_path, 20)
    write(tmp_path, (NOOP, 9, 1), (NOOP, 10, 1))
    journal.close()
    begun = start(tmp_path)
    assert (begun.journal.first(), begun.journal.last()) == (9, 20)
    begun.journal.close()


@pytest.mark.parametrize(
    "installed", [((NOOP, 29, 2), (NOOP, 30, 2)), ((NOOP, 9, 3), (NOOP, 10, 3))]
)
def test_a_crash_while_installing_a_snapshot_ends_with_the_snapshot(tmp_path, installed):
    journal = filled(tmp_path, 20)
    write(tmp_path, *installed, ME, OTHER)
    journal.close()
    for _ in range(2):
        begun = start(tmp_path)
        assert list(begun.journal[:]) == list(installed)
        assert begun.journal.members.latest() == (ME, OTHER)
        begun.journal.close()


def test_a_machine_behind_the_snapshot_is_loaded_from_it(tmp_path):
    ahead = machine()
    ahead.apply(4, [b"one"])
    journal = filled(tmp_path, 20)
    write(tmp_path, (NOOP, 9, 1), (NOOP, 10, 1), state=ahead)
    journal.close()
    lost = machine()
    begun = start(tmp_path, state=lost)
    assert lost.payloads() == [b"one"]
    begun.journal.close()


def test_a_machine_ahead_of_the_log_is_refused(tmp_path):
    filled(tmp_path, 5).close()
    foreign = machine()
    foreign.apply(40, [b"from elsewhere"])
    with pytest.raises(FatalError, match="newer than the log"):
        start(tmp_path, state=foreign)


def test_a_lost_snapshot_is_refused(tmp_path):
    filled(tmp_path, 5).close()
    (tmp_path / "snapshot").unlink()
    with pytest.raises(FatalError, match=r"snapshot in .* is gone"):
        start(tmp_path)


def test_a_lost_log_is_refused_for_the_votes_in_it(tmp_path):
    filled(tmp_path, 5).close()
    shutil.rmtree(wal_path(tmp_path))
    with pytest.raises(FatalError, match=r"the log in .* is gone.*kvorum recover rejoin"):
        start(tmp_path)


def test_a_damaged_snapshot_is_refused(tmp_path):
    filled(tmp_path, 5).close()
    (tmp_path / "snapshot").write_bytes(b"")
    with pytest.raises(FatalError, match="is damaged"):
        start(tmp_path)


def test_trimming_keeps_the_log_small(tmp_path):
    journal = filled(tmp_path, 2000)
    before = journal.size_bytes
    write(tmp_path, (NOOP, 1989, 1), (NOOP, 1990, 1))
    journal.trim(1989)
    assert (journal.first(), journal.last()) == (1989, 2000)
    assert journal.size_bytes < before / 8
    on_disk = sum(path.stat().st_size for path in wal_path(tmp_path).iterdir())
    assert on_disk <= 3 * 4096
    journal.close()
    begun = start(tmp_path)
    assert (begun.journal.first(), begun.journal.last()) == (1989, 2000)
    begun.journal.close()


def test_a_committed_entry_is_never_truncated(tmp_path):
    journal = filled(tmp_path, 10)
    journal.setRaftCommitIndex(8)
    with pytest.raises(FatalError, match="committed log entry 7"):
        journal.deleteEntriesFrom(7 - journal.first())
    journal.deleteEntriesFrom(9 - journal.first())
    assert journal.last() == 8
    journal.close()


def test_a_log_written_by_a_newer_version_is_refused(tmp_path):
    journal = filled(tmp_path, 5)
    journal.add(b"\x00" + encode_proposals([Proposal(b"x", 1, b"future")], 7), 6, 1)
    journal.sync()
    journal.close()
    with pytest.raises(FatalError, match="feature level 7"):
        start(tmp_path)
