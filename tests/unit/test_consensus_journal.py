"""The journal: what it gives to feeds and elections, when it wants a snapshot, and what trimming leaves."""

from pathlib import Path

import pytest

from raftstate.consensus.journal import Compaction, Journal
from raftstate.consensus.members import Members
from raftstate.consensus.wal import Wal
from raftstate.consensus.wal_room import DiskRoom


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def journal_at(path: Path, room: DiskRoom | None = None, **limits: int) -> Journal:
    wal = Wal(path, segment_bytes=4096, room=room)
    journal = Journal(wal, wal.open(), Members(), 0)
    journal.compaction = Compaction(**limits)
    return journal


def fill(journal: Journal, first: int, last: int, size: int = 50) -> None:
    for index in range(first, last + 1):
        journal.add(b"\x00" + bytes(size), index, 1)
        journal.sync()


def indexes(found: list[tuple[bytes, int, int]]) -> list[int]:
    return [index for _, index, _ in found]


def test_entries_for_a_feed_come_in_order_and_within_bounds(path):
    journal = journal_at(path)
    fill(journal, 5, 30)
    assert indexes(journal.entries(28)) == [28, 29, 30]
    assert indexes(journal.entries(5, 8)) == [5, 6, 7]
    assert indexes(journal.entries(28, 99)) == [28, 29, 30]
    assert indexes(journal.entries(5, max_bytes=51 * 3)) == [5, 6, 7]
    assert indexes(journal.entries(5, 7, max_bytes=10**6)) == [5, 6]
    assert indexes(journal.entries(5, max_bytes=1)) == [5]
    assert indexes(journal.entries(9, 9)) == []
    assert indexes(journal.entries(31)) == []
    assert indexes(journal.entries(4)) == []
    journal.close()


def test_a_snapshot_is_wanted_after_so_many_entries_or_bytes_since_the_last(path):
    journal = journal_at(path, entries=10, size_bytes=5000)
    fill(journal, 1, 10)
    assert not journal.wants_snapshot()
    fill(journal, 11, 11)
    assert journal.wants_snapshot()
    journal.snapshot_taken(5)
    assert not journal.wants_snapshot()
    fill(journal, 12, 12, size=4700)
    assert journal.wants_snapshot()
    journal.snapshot_taken(11)
    assert not journal.wants_snapshot()
    fill(journal, 13, 13, size=400)
    assert journal.wants_snapshot()
    journal.snapshot_taken(13)
    assert not journal.wants_snapshot()
    journal.close()


def test_trimming_keeps_a_little_for_slow_hosts(path):
    journal = journal_at(path, keep_entries=20, keep_bytes=10**6)
    fill(journal, 1, 100)
    before = journal.size_bytes
    journal.trim(60)
    assert (journal.first(), journal.last()) == (40, 100)
    assert journal.size_bytes == before  # the first segment holds newer ones too
    journal.trim(100)
    assert journal.first() == 80
    assert journal.size_bytes < before
    journal.close()


def test_trimming_keeps_no_more_bytes_than_allowed(path):
    journal = journal_at(path, keep_entries=50, keep_bytes=51 * 4)
    fill(journal, 1, 100)
    journal.trim(60)
    assert journal.first() == 56
    journal.trim(30)  # long ago
    assert journal.first() == 56
    journal.trim(10**6)
    assert journal.last() == 100
    journal.close()


def test_terms_and_generation_are_there_after_trimming_and_a_restart(path):
    journal = journal_at(path, keep_entries=0)
    journal.set_generation(3)
    journal.setCurrentTerm(8, "b")
    fill(journal, 1, 200)
    journal.trim(190)
    journal.close()
    journal = journal_at(path)
    assert (journal.generation, journal.getCurrentTerm(), journal.getVotedForNodeId()) == (
        3,
        8,
        "b",
    )
    assert 100 < journal.first() <= 190
    assert journal.last() == 200
    journal.close()


def test_the_commit_index_only_grows(path):
    journal = journal_at(path)
    journal.setRaftCommitIndex(7)
    journal.setRaftCommitIndex(5)
    assert journal.committed == journal.getRaftCommitIndex() == 7
    journal.close()


def test_the_journal_says_when_the_disk_is_full(path):
    free = [10]
    room = DiskRoom(reserve_bytes=5, free_bytes=lambda path: free[0], now=iter(range(99)).__next__)
    journal = journal_at(path, room)
    assert journal.full == ""
    free[0] = 4
    assert "the disk is full" in journal.full
    journal.setCurrentTerm(2, None)
    journal.sync()  # what must be written still is
    free[0] = 10
    assert journal.full == ""
    journal.close()
