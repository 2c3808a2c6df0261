"""The write-ahead log: what a crash may take, what must never go unnoticed, and a disk that is full."""

import contextlib
import logging
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import FatalError
from raftstate.consensus.wal import (
    BootstrapRecord,
    CutRecord,
    EntryRecord,
    GenerationRecord,
    Record,
    Recovered,
    TermRecord,
    Wal,
)
from raftstate.consensus.wal_records import MAX_RECORD_BYTES
from raftstate.consensus.wal_room import DiskRoom
from tests.faulty_os import FaultyOs
from tests.sim.power import Power

SEGMENT_BYTES = 4096
REFUSED = r"is damaged at byte|not a log of this version|is missing"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def opened(path: Path, segment_bytes: int = SEGMENT_BYTES, room: DiskRoom | None = None) -> Wal:
    wal = Wal(path, segment_bytes=segment_bytes, room=room)
    wal.open()
    return wal


def write(path: Path, *batches: Iterable[Record]) -> list[int]:
    """Write batches, a sync each; return the used size after each."""
    wal, sizes = opened(path), []
    for batch in batches:
        for record in batch:
            wal.append(record)
        wal.sync()
        sizes.append(wal.size_bytes)
    wal.close()
    return sizes


def reopen(path: Path) -> Recovered:
    wal = Wal(path, segment_bytes=SEGMENT_BYTES)
    try:
        return wal.open()
    finally:
        wal.close()


def entries(first: int, last: int, size: int = 50) -> list[EntryRecord]:
    return [EntryRecord(b"\x00" + b"x" * size, index, 1) for index in range(first, last + 1)]


def indexes(recovered: Recovered) -> list[int]:
    return [index for _, index, _ in recovered.entries]


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.wal"))


def numbers(path: Path) -> list[int]:
    return [int(segment.stem) for segment in segments(path)]


def test_everything_synced_is_there_after_a_crash(path):
    wal = opened(path)
    wal.append(TermRecord(7, "b"))
    wal.append(EntryRecord(b"\x00one", 1, 7))
    wal.sync()
    wal.append(EntryRecord(b"\x00two", 2, 7))  # never synced
    assert wal.dirty
    wal.close()
    recovered = reopen(path)
    assert (recovered.term, recovered.vote) == (7, "b")
    assert recovered.entries == [(b"\x00one", 1, 7)]


def test_truncation_and_rewriting_survive(path):
    write(path, (*entries(1, 5), CutRecord(3), EntryRecord(b"\x00new", 3, 2)))
    recovered = reopen(path)
    assert [(index, term) for _, index, term in recovered.entries] == [(1, 1), (2, 1), (3, 2)]
    wal = opened(path)
    del recovered.entries[:1]
    recovered.generation = 4
    wal.append(EntryRecord(b"\x00lost", 4, 2))
    wal.rewrite(recovered.records())
    assert not wal.dirty
    wal.append(EntryRecord(b"\x00more", 4, 2))
    wal.sync()
    wal.close()
    assert numbers(path) == [2]
    assert indexes(reopen(path)) == [2, 3, 4]
    assert reopen(path).generation == 4


def test_a_rewritten_log_may_be_bigger_than_a_segment(path):
    write(path, entries(1, 3))
    wal = opened(path)
    wal.rewrite(entries(1, 60_000))
    for record in entries(60_001, 60_100):
        wal.append(record)
    wal.sync()
    wal.close()
    assert indexes(reopen(path)) == list(range(1, 60_101))


def test_the_log_goes_on_in_the_next_segment(path):
    write(path, *([entry] for entry in entries(1, 200)))
    assert numbers(path) == list(range(1, len(segments(path)) + 1))
    assert len(segments(path)) > 4
    assert indexes(reopen(path)) == list(range(1, 201))


def test_one_sync_may_fill_many_segments(path):
    write(path, entries(1, 500), entries(501, 502))
    assert len(segments(path)) > 8
    assert indexes(reopen(path)) == list(range(1, 503))


def test_a_record_bigger_than_a_segment_gets_a_bigger_one(path):
    write(path, entries(1, 1), entries(2, 2, size=3 * SEGMENT_BYTES), entries(3, 3))
    assert [len(command) for command, _, _ in reopen(path).entries] == [
        51,
        3 * SEGMENT_BYTES + 1,
        51,
    ]


def test_a_record_beyond_all_bounds_is_not_taken(path):
    wal = opened(path)
    with pytest.raises(FatalError, match="a log record of"):
        wal.append(EntryRecord(bytes(MAX_RECORD_BYTES + 1), 1, 1))
    wal.close()


def test_files_have_their_full_size_before_anything_is_written(path):
    wal = opened(path)
    for record in entries(1, 100):
        wal.append(record)
        wal.sync()
        for file in path.iterdir():
            found = file.stat()
            assert found.st_size == SEGMENT_BYTES <= found.st_blocks * 512
    assert (path / "next").exists()
    wal.close()


def test_no_segment_grows_whatever_the_sizes_of_the_records(path):
    sized = [EntryRecord(b"\x00" + bytes(index % 61), index, 1) for index in range(1, 4000)]
    write(path, sized)
    assert {segment.stat().st_size for segment in segments(path)} == {SEGMENT_BYTES}
    assert len(reopen(path).entries) == len(sized)


def test_the_size_counts_what_is_used(path):
    sizes = write(path, entries(1, 1), entries(2, 2), entries(3, 100))
    assert 0 < sizes[0] < sizes[1] < SEGMENT_BYTES < sizes[2] < 100 * 80


# -- trimming


def test_trimming_drops_the_segments_that_hold_only_older_entries(path):
    write(path, *([entry] for entry in entries(1, 200)))
    wal = opened(path)
    before = wal.size_bytes
    wal.trim(1)
    assert numbers(path)[0] == 1
    wal.trim(101)
    assert wal.size_bytes < before * 0.6
    wal.close()
    kept = indexes(reopen(path))
    assert 60 < kept[0] <= 101
    assert kept == list(range(kept[0], 201))


def test_a_segment_goes_when_its_last_entry_is_below_and_not_before(path):
    write(path, entries(1, 200))
    wal = opened(path)
    while len(segments(path)) > 1:
        last, files = wal._segments[0].last_index, segments(path)
        wal.trim(last)
        assert segments(path) == files
        wal.trim(last + 1)
        assert segments(path) == files[1:]
        assert indexes(reopen(path)) == list(range(last + 1, 201))
    wal.close()


def test_the_segment_being_written_is_never_dropped(path):
    wal = opened(path)
    for record in entries(1, 100):
        wal.append(record)
    wal.sync()
    wal.trim(10**9)
    assert len(segments(path)) == 1
    wal.append(EntryRecord(b"\x00next", 101, 1))
    wal.sync()
    wal.close()
    assert indexes(reopen(path))[-1] == 101


def test_what_is_not_an_entry_outlives_the_segment_it_was_written_in(path):
    standing = (BootstrapRecord([("b", "b:7444")]), GenerationRecord(3), TermRecord(5, "b"))
    write(path, standing, *([entry] for entry in entries(1, 100)))
    wal = opened(path)
    wal.trim(90)
    wal.close()
    recovered = reopen(path)
    assert 1 < indexes(recovered)[0] <= 90
    assert (recovered.term, recovered.vote) == (5, "b")
    assert (recovered.bootstrap, recovered.generation) == ([("b", "b:7444")], 3)


def test_a_segment_restates_no_more_than_what_was_written_before_it(path):
    wal = opened(path)
    for record in (*entries(1, 150), TermRecord(9, "c"), *entries(151, 250)):
        wal.append(record)
    wal.sync()
    wal.close()
    for segment in segments(path)[2:]:
        segment.unlink()
    with segments(path)[1].open("r+b") as file:  # as if the second segment had never been sealed
        content = file.read()
        at = content.index(b"\xf5SEALED\xf5")
        file.seek(at - 8)
        file.write(bytes(24))
    assert reopen(path).term == 0


def test_truncated_entries_keep_their_segment_no_longer_than_needed(path):
    write(path, entries(1, 100), (CutRecord(20), *entries(20, 60)))
    wal = opened(path)
    wal.trim(61)
    wal.close()
    assert indexes(reopen(path))[-1] == 60


# -- crashes and broken disks


@settings(max_examples=60)
@given(data=st.data())
def test_a_torn_tail_is_cut_and_the_rest_kept(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "wal"
    sizes = write(path, entries(1, 3), entries(4, 8))
    (segment,) = segments(path)
    place = data.draw(st.integers(sizes[0], sizes[1] - 1))
    content = bytearray(segment.read_bytes())
    garbage = data.draw(st.binary(max_size=40))
    content[place : sizes[1]] = bytes(sizes[1] - place)
    content[place : place + len(garbage)] = garbage
    segment.write_bytes(content)
    kept = indexes(reopen(path))
    assert kept == list(range(1, len(kept) + 1))
    assert 3 <= len(kept) <= 8
    write(path, entries(len(kept) + 1, 12))
    assert indexes(reopen(path)) == list(range(1, 13))


def test_cutting_the_tail_leaves_nothing_of_it(path):
    sizes = write(path, entries(1, 3), entries(4, 8))
    (segment,) = segments(path)
    with segment.open("r+b") as file:
        file.seek(sizes[0] + 40)
        file.write(b"?")
    assert indexes(reopen(path)) == [1, 2, 3]
    (end,) = write(path, [])
    assert not any(segment.read_bytes()[end:])


def flip(file: Path, place: int) -> bytes:
    """Damage one byte; return what the file was."""
    content = file.read_bytes()
    with file.open("r+b") as handle:
        handle.seek(place)
        handle.write(bytes([content[place] ^ 0x41]))
    return content


def test_any_damage_before_the_last_sync_is_refused(path):
    sizes = write(path, entries(1, 3), entries(4, 6), entries(7, 9))
    (segment,) = segments(path)
    for place in range(sizes[1]):
        content = flip(segment, place)
        with pytest.raises(FatalError, match=REFUSED) as refusal:
            reopen(path)
        assert str(segment) in refusal.value.message
        segment.write_bytes(content)


def test_the_refusal_names_the_byte_and_the_way_out(path):
    sizes = write(path, entries(1, 3), entries(4, 6), entries(7, 9))
    flip(segments(path)[0], sizes[0] + 50)
    with pytest.raises(
        FatalError,
        match=rf"{segments(path)[0]} is damaged at byte {sizes[0] + 24}: .*kvorum recover rejoin",
    ):
        reopen(path)


def test_any_damage_to_a_segment_before_the_last_is_refused(path):
    write(path, *([entry] for entry in entries(1, 150)))
    middle = segments(path)[1]
    content = middle.read_bytes()
    used = content.rindex(b"\xf5SEALED\xf5") - 8
    for place in range(0, used, 41):
        flip(middle, place)
        with pytest.raises(FatalError, match=REFUSED):
            reopen(path)
        middle.write_bytes(content)
    flip(middle, used + 10)  # a broken seal: nothing that was promised is gone
    assert indexes(reopen(path)) == list(range(1, 151))


def test_any_damage_to_a_rewritten_log_is_refused(path):
    wal = opened(path)
    wal.rewrite((TermRecord(7, "b"), *entries(1, 5)))
    used = wal.size_bytes
    wal.close()
    (segment,) = segments(path)
    for place in range(used):
        content = flip(segment, place)
        with pytest.raises(FatalError, match=REFUSED):
            reopen(path)
        segment.write_bytes(content)


def test_the_last_vote_in_a_full_segment_is_as_safe_as_the_others(path):
    write(path, entries(1, 59), [TermRecord(3, "b")], entries(60, 69))
    first = segments(path)[0]
    content = first.read_bytes()
    seal = content.rindex(b"\xf5SEALED\xf5") - 8
    assert content[seal - 3 : seal] == b"\x03\xa1b"
    flip(first, seal - 1)
    with pytest.raises(FatalError, match="is damaged at byte"):
        reopen(path)


def test_a_lost_sector_of_zeros_is_not_taken_for_the_end(path):
    write(path, *([entry] for entry in entries(1, 30)))
    (segment,) = segments(path)
    with segment.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(512))
    with pytest.raises(FatalError, match="is damaged at byte"):
        reopen(path)


@pytest.mark.parametrize("lost", [1, -1])
def test_a_missing_segment_is_refused(path, lost):
    write(path, *([entry] for entry in entries(1, 150)))
    gone = segments(path)[lost]
    gone.unlink()
    with pytest.raises(FatalError, match=f"{gone} is missing.*kvorum recover rejoin"):
        reopen(path)


def test_a_segment_in_the_place_of_another_is_refused(path):
    write(path, *([entry] for entry in entries(1, 150)))
    first, second, *_ = segments(path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(FatalError, match=f"{second} is damaged"):
        reopen(path)


def test_a_shortened_file_is_refused(path):
    write(path, entries(1, 3))
    os.truncate(segments(path)[0], SEGMENT_BYTES - 1)
    with pytest.raises(FatalError, match=f"is damaged at byte {SEGMENT_BYTES - 1}"):
        reopen(path)


def test_a_log_of_another_format_is_refused(path):
    path.mkdir()
    for content in (b"PYSYNCOBJ" + bytes(100), b"KVWAL99\n" + bytes(100), b""):
        (path / f"{1:020}.wal").write_bytes(content)
        with pytest.raises(FatalError, match=REFUSED):
            reopen(path)


def test_older_segments_that_a_crash_left_behind_a_rewritten_log_are_removed(path):
    write(path, *([entry] for entry in entries(1, 150)))
    kept = {segment: segment.read_bytes() for segment in segments(path)}
    wal = opened(path)
    wal.rewrite(entries(70, 80))
    wal.close()
    (new,) = segments(path)
    del kept[sorted(kept)[1]]  # the crash came between two removals, in any order
    for segment, content in kept.items():
        segment.write_bytes(content)
    assert indexes(reopen(path)) == list(range(70, 81))
    assert segments(path) == [new]


def test_after_a_failed_sync_nothing_is_ever_promised_again(path, monkeypatch):
    disk = FaultyOs()
    disk.install(monkeypatch)
    wal = opened(path)
    disk.broken = True
    wal.append(entries(1, 1)[0])
    with pytest.raises(FatalError, match="can't write the log"):
        wal.sync()
    disk.broken = False  # the next fsync would lie: the kernel has dropped the dirty pages
    for act in (wal.sync, lambda: wal.rewrite([]), lambda: wal.trim(5)):
        with pytest.raises(FatalError, match="failed before"):
            act()
    wal.close()


# -- a full disk


class Room:
    """A disk whose free space and time a test sets."""

    def __init__(self) -> None:
        self.free, self.now_s, self.looks = 10_000, 0.0, 0
        self.room = DiskRoom(reserve_bytes=1000, free_bytes=self.look, now=lambda: self.now_s)

    def look(self, path: Path) -> int:
        self.looks += 1
        return self.free


def test_below_its_reserve_the_log_takes_nothing_until_there_is_room_again(path, caplog):
    caplog.set_level(logging.INFO)
    disk = Room()
    wal = opened(path, room=disk.room)
    assert wal.full() == ""
    disk.free = 999
    assert wal.full() == ""  # looked less than a second ago
    disk.now_s += 1
    assert "the disk is full" in wal.full()
    disk.free, disk.now_s = 1100, 2
    assert wal.full()  # a little more than the reserve, so that it doesn't go to and fro
    disk.free, disk.now_s = 2000, 3
    assert wal.full() == ""
    assert disk.looks == 4
    wal.close()
    about = [record.message for record in caplog.records if "disk" in record.message]
    assert about == [
        "the disk is full, no change is accepted",
        "the disk has room again, changes are accepted",
    ]


def test_the_log_says_full_while_it_can_still_write_and_recovers_by_itself(
    path, monkeypatch, caplog
):
    disk, space = FaultyOs(), Room()
    disk.install(monkeypatch)
    wal = opened(path, room=space.room)
    assert wal.full() == ""
    disk.disk_full = True
    wal.append(entries(1, 1, size=SEGMENT_BYTES // 8)[0])
    wal.sync()
    assert "the disk is full: no room" in wal.full()
    assert "No space left on device" in wal.full()
    assert sorted(file.suffix for file in path.iterdir()) == [".wal"]
    for term in range(1, 20):  # votes are still written down
        wal.append(TermRecord(term, "b"))
        wal.sync()
    space.now_s = 5
    assert wal.full()
    disk.disk_full, space.now_s = False, 6
    assert wal.full() == ""
    for record in entries(2, 300):
        wal.append(record)
    wal.sync()
    wal.close()
    assert indexes(reopen(path)) == list(range(1, 301))
    assert reopen(path).term == 19
    assert sum("disk" in record.message for record in caplog.records) == 1


def test_with_no_room_at_all_nothing_is_promised_and_nothing_lost(path, monkeypatch):
    disk = FaultyOs()
    disk.install(monkeypatch)
    wal = opened(path, room=Room().room)
    for record in entries(1, 3):
        wal.append(record)
    wal.sync()
    (path / "next").unlink()
    wal._has_spare = False
    disk.disk_full = True
    for record in entries(4, 100):
        wal.append(record)
    with pytest.raises(FatalError, match="No space left on device"):
        wal.sync()
    wal.close()
    disk.disk_full = False
    kept = indexes(reopen(path))
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= 3


def test_a_log_opens_on_a_full_disk(path, monkeypatch):
    write(path, *([entry] for entry in entries(1, 150)))
    disk = FaultyOs()
    disk.install(monkeypatch)
    disk.disk_full = True
    assert indexes(reopen(path)) == list(range(1, 151))


def test_a_disk_that_cannot_be_asked_counts_as_full(tmp_path):
    room = DiskRoom(free_bytes=lambda path: os.stat(path / "gone").st_size, now=lambda: 0.0)
    assert "No such file" in room.look(tmp_path, lambda: "")


def test_the_default_reserve_is_a_small_part_of_the_disk(tmp_path):
    room = DiskRoom(free_bytes=lambda path: 0, now=lambda: 0.0)
    assert "the disk is full: 0 MiB are free" in room.look(tmp_path, lambda: "")
    room = DiskRoom(free_bytes=lambda path: 512 << 20, now=lambda: 0.0)
    assert room.look(tmp_path, lambda: "") == ""


@pytest.mark.parametrize("step", range(24))
def test_a_power_loss_after_a_kill_takes_nothing_that_was_written_after_it(tmp_path, step):
    """The kill may come between the new name of a segment and its sync; what follows goes into that segment."""
    home = (tmp_path / "node").resolve()
    home.mkdir()
    for seed in range(6):
        power = Power(random.Random(seed))
        power.add(home)
        power.install()
        try:
            wal = Wal(home / str(seed) / "wal", segment_bytes=1024)
            (home / str(seed)).mkdir()
            wal.open()
            power.arm(home, step, lambda: None)
            last = 0
            with contextlib.suppress(OSError, FatalError):
                for index in range(1, 20):
                    wal.append(EntryRecord(b"\x01" * 150, index, 1))
                    wal.sync()
                    last = index
            wal.close()
            power.restore(home)  # only the process is dead; what the kernel knows stays
            wal = Wal(home / str(seed) / "wal", segment_bytes=1024)
            begun = wal.open().last_index()
            assert begun >= last
            wal.append(EntryRecord(b"\x01", begun + 1, 2))
            wal.sync()
            wal.close()
            power.tear(home)
            after = Wal(home / str(seed) / "wal", segment_bytes=1024)
            assert after.open().last_index() == begun + 1
            after.close()
        finally:
            Power.remove()
