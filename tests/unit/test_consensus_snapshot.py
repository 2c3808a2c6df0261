"""Snapshots on disk: whole or not there after any crash, and no damage goes unnoticed."""

import errno
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConflictError, FatalError, InvalidError, TemporaryError
from raftstate.consensus import snapshot_files, snapshot_part, wal
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.snapshot_fetch import SnapshotFetch
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import (
    MAGIC,
    SnapshotHeader,
    encode_manifest,
    new_header,
    parse_manifest,
    stream_end,
)

A = Peer(NodeId("a"), "10.0.0.1:7444")
B = Peer(NodeId("b"), "10.0.0.2:7444")
NOOP = b"\x01"
DISK = (snapshot_files, snapshot_part, wal)


def header_at(index: int, *, generation: int = 1) -> SnapshotHeader:
    before, last = (NOOP, index - 1, 3), (NOOP, index, 3)
    return new_header(before, last, (B, A), machine_applied=index, generation=generation, level=1)


def writes(content: bytes) -> Callable[[Path], None]:
    """Return a dump writer. It doesn't sync: that is the store's business."""

    def write(path: Path) -> None:
        file = snapshot_files.os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for start in range(0, len(content), 1000):
                snapshot_files.os.write(file, content[start : start + 1000])
        finally:
            os.close(file)

    return write


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def dump_of(store: SnapshotStore) -> bytes:
    header = store.latest()
    assert header is not None
    return store.dump_path(header).read_bytes()


# -- writing


def test_a_snapshot_is_there_again_after_a_restart(tmp_path):
    written = SnapshotStore(tmp_path).write(header_at(7), writes(b"state" * 999))
    again = SnapshotStore(tmp_path)
    again.check()
    assert again.latest() == written
    assert (written.index, written.term, written.voters) == (7, 3, (A, B))
    assert (written.dump_bytes, written.dump_crc) == (4995, crc32c(b"state" * 999))
    assert dump_of(again) == b"state" * 999


def test_no_snapshot_is_none(tmp_path):
    store = SnapshotStore(tmp_path)
    store.check()
    store.sweep()
    assert store.latest() is None


def test_a_new_snapshot_leaves_nothing_of_the_old(tmp_path):
    store = SnapshotStore(tmp_path)
    store.write(header_at(7), writes(b"old"))
    new = store.write(header_at(9), writes(b"new"))
    assert names(tmp_path) == ["snapshot", store.dump_path(new).name]


def test_an_older_snapshot_never_replaces_a_newer(tmp_path):
    store = SnapshotStore(tmp_path)
    store.write(header_at(9), writes(b"newer"))

    def overtaken(path: Path) -> None:
        store.write(header_at(12), writes(b"newest"))
        path.write_bytes(b"late")

    with pytest.raises(ConflictError):
        store.write(header_at(8), lambda path: pytest.fail("the dump was in vain"))
    with pytest.raises(ConflictError):
        store.write(header_at(10), overtaken)
    assert dump_of(SnapshotStore(tmp_path)) == b"newest"
    assert len(names(tmp_path)) == 2


def test_a_new_generation_may_begin_at_a_lower_index(tmp_path):
    store = SnapshotStore(tmp_path)
    store.write(header_at(9), writes(b"lost"))
    store.write(header_at(8, generation=2), writes(b"restored"))
    assert dump_of(SnapshotStore(tmp_path)) == b"restored"


def test_a_failing_dump_changes_nothing(tmp_path):
    store = SnapshotStore(tmp_path)
    store.write(header_at(7), writes(b"old"))
    before = names(tmp_path)

    def disk_full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def broken(path: Path) -> None:
        path.write_bytes(b"half")
        raise FatalError("the database is damaged")

    with pytest.raises(TemporaryError, match="No space left on device"):
        store.write(header_at(8), disk_full)
    with pytest.raises(FatalError, match="the database is damaged"):
        store.write(header_at(8), broken)
    assert names(tmp_path) == before
    assert dump_of(SnapshotStore(tmp_path)) == b"old"


def test_the_sweep_takes_what_crashes_left_but_not_what_can_be_resumed(tmp_path):
    store = SnapshotStore(tmp_path)
    header = store.write(header_at(7), writes(b"state"))
    for name in (
        "snapshot.new",
        "snapshot-9.draft",
        "snapshot-9.draft-journal",
        "snapshot-5-00000000.db",
        "incoming-7-0123abcd.part",  # as old as what is here
        "incoming-9-0123abcd.part-wal",
        "incoming-9-0123abcd.part",
        "wal",
    ):
        (tmp_path / name).write_bytes(b"x")
    SnapshotStore(tmp_path).sweep()
    kept = ["incoming-9-0123abcd.part", "snapshot", store.dump_path(header).name, "wal"]
    assert names(tmp_path) == kept


# -- damage


@pytest.mark.parametrize("place", ["snapshot", "dump"])
def test_any_changed_or_missing_byte_is_noticed(tmp_path, place):
    header = SnapshotStore(tmp_path).write(header_at(7), writes(b"dump" * 20))
    path = (
        tmp_path / "snapshot" if place == "snapshot" else SnapshotStore(tmp_path).dump_path(header)
    )
    whole = path.read_bytes()
    damages = [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(len(whole))]
    damages += [whole[:i] for i in range(len(whole))] + [whole + b"\x00"]
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(FatalError, match="kvorum recover rejoin"):
            SnapshotStore(tmp_path).check()


def test_a_missing_dump_is_noticed(tmp_path):
    store = SnapshotStore(tmp_path)
    store.dump_path(store.write(header_at(7), writes(b"dump"))).unlink()
    with pytest.raises(FatalError, match=r"is gone.*kvorum recover rejoin"):
        SnapshotStore(tmp_path).check()


def sealed(body: bytes) -> bytes:
    """Return a manifest with right length and checksum around anything."""
    blob = MAGIC + struct.pack("<I", len(body)) + body
    return blob + struct.pack("<I", crc32c(blob))


@pytest.mark.parametrize(
    "wrong",
    [
        {"previous": (NOOP, 5, 3)},
        {"previous": (NOOP, 6, 4)},
        {"previous": (b"", 6, 3)},
        {"last": (b"\x02no change", 7, 3)},
        {"members": []},
        {"members": [("a", "x"), ("a", "y")]},
        {"members": [("", "x")]},
        {"machine_applied": 8},
        {"machine_applied": -1},
        {"dump_bytes": (64 << 30) + 1},
        {"dump_crc": 1 << 32},
        {"generation": -1},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(wrong):
    good = header_at(7)
    assert parse_manifest(encode_manifest(good)) == good
    with pytest.raises(InvalidError):
        parse_manifest(encode_manifest(msgspec.structs.replace(good, **wrong)))


@given(st.binary(max_size=200), st.data())
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_the_manifest_parser_fail_otherwise_than_by_refusing(noise, data):
    good = msgspec.msgpack.encode(header_at(7))
    start = data.draw(st.integers(0, len(good)))
    mutated = good[:start] + noise + good[data.draw(st.integers(start, len(good))) :]
    for blob in (noise, sealed(noise), sealed(mutated), encode_manifest(header_at(7)) + noise):
        try:
            header = parse_manifest(blob)
        except InvalidError:
            continue
        assert header.index == header.previous[1] + 1  # still good, such as a changed address
        assert header.voters


def test_an_endless_manifest_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "snapshot").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FatalError, match="not a snapshot"):
        SnapshotStore(tmp_path).latest()


def test_the_stream_s_checksum_covers_dump_and_manifest(tmp_path):
    header = SnapshotStore(tmp_path).write(header_at(7), writes(b"dump" * 20))
    stream = b"dump" * 20 + stream_end(header)
    assert (header.info().size_bytes, header.info().crc) == (len(stream), crc32c(stream))


# -- power cuts


class Cut(OSError):
    """The power is gone."""


class Disk:
    """Stands in for `os`: cuts the power at one step; then un-synced bytes tear and un-synced names may be undone."""

    def __init__(self, rng: random.Random, steps: int) -> None:
        self._rng, self.steps = rng, steps
        self.dead = False
        self._synced: dict[Path, int] = {}
        self._uncut: dict[Path, bytes] = {}
        self._undo: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _step(self) -> None:
        if self.dead or self.steps == 0:
            self.dead = True
            raise Cut(errno.EIO, "the power is gone")
        self.steps -= 1

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_CREAT and not path.exists():
            self._step()
            self._undo.append(lambda: path.unlink(missing_ok=True))
        if flags & os.O_TRUNC:
            self._synced[path] = 0
        return os.open(path, flags, mode)

    def write(self, file: int, data: Any) -> int:
        try:
            self._step()
        except Cut:
            os.write(file, bytes(data)[: self._rng.randint(0, len(data))])
            raise
        self._synced.setdefault(self._path(file), os.fstat(file).st_size)
        return os.write(file, data)

    def fsync(self, file: int) -> None:
        self._step()
        path = self._path(file)
        if path.is_dir():
            self._undo.clear()
        else:
            self._synced.pop(path, None)
            self._uncut.pop(path, None)

    def ftruncate(self, file: int, size: int) -> None:
        self._step()
        path = self._path(file)
        self._uncut.setdefault(path, path.read_bytes())
        os.ftruncate(file, size)

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        before = target.read_bytes() if target.exists() else None

        def undo() -> None:
            if target.exists():
                target.rename(source)
            if before is not None:
                target.write_bytes(before)

        os.replace(source, target)
        for unsafe in (self._synced, self._uncut):
            if source in unsafe:
                unsafe[target] = unsafe.pop(source)
        self._undo.append(undo)

    def unlink(self, path: Path) -> None:
        self._step()
        content = path.read_bytes()
        os.unlink(path)
        self._undo.append(lambda: path.write_bytes(content))

    def crash(self) -> None:
        """Lose what no sync had made safe, or some of it."""
        for path, content in self._uncut.items():
            if path.exists() and self._rng.random() < 0.5:
                path.write_bytes(content)
        for path, synced in self._synced.items():
            if path.exists() and path.stat().st_size > synced:
                content = bytearray(path.read_bytes())
                del content[self._rng.randint(synced, len(content)) :]
                if len(content) > synced:
                    content[self._rng.randrange(synced, len(content))] ^= 0xFF
                path.write_bytes(content)
        for undo in reversed(self._undo):
            if self._rng.random() < 0.5:
                undo()

    @staticmethod
    def _path(file: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{file}"))


def cut_at(disk: Disk, work: Callable[[], object]) -> bool:
    """Do `work` on a disk whose power fails in it or right after it; tell whether it was finished."""
    for module in DISK:
        module.os = disk
    try:
        work()
    except (FatalError, TemporaryError, Cut):
        assert disk.dead
    finally:
        for module in DISK:
            module.os = os
    disk.crash()
    return not disk.dead


def restarted(directory: Path) -> SnapshotStore:
    store = SnapshotStore(directory)
    store.check()
    store.sweep()
    return store


OLD, NEW = b"old state" * 500, b"new state" * 700


@pytest.mark.parametrize("luck", range(6))
@pytest.mark.parametrize("same_index", [False, True])
def test_after_a_power_cut_at_any_step_of_writing_there_is_the_old_or_the_new(
    tmp_path, luck, same_index
):
    new = header_at(7 if same_index else 9, generation=2)
    for steps in range(100):
        directory = tmp_path / str(steps)
        directory.mkdir()
        SnapshotStore(directory).write(header_at(7), writes(OLD))
        disk = Disk(random.Random(luck), steps)
        store = SnapshotStore(directory)
        finished = cut_at(disk, lambda s=store: s.write(new, writes(NEW)))
        after = restarted(directory)
        assert dump_of(after) in ((NEW,) if finished else (OLD, NEW))
        assert len(names(directory)) == 2
        after.write(header_at(10, generation=2), writes(b"goes on"))
        if finished and disk.steps > 0:  # and no step was left, the removal of the old included
            assert steps > 12
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("luck", range(6))
def test_after_a_power_cut_at_any_step_of_adopting_there_is_the_old_or_the_new(tmp_path, luck):
    other = tmp_path / "other"
    other.mkdir()
    header = SnapshotStore(other).write(header_at(9), writes(NEW))
    stream, info = NEW + stream_end(header), header.info()
    for steps in range(100):
        directory = tmp_path / str(steps)
        directory.mkdir()
        SnapshotStore(directory).write(header_at(7), writes(OLD))

        def fetch(store: SnapshotStore) -> None:
            fetching = SnapshotFetch(store)
            try:
                for ask in fetching.offered(A.id, info, 0):
                    fetching.arrived(
                        A.id, info.index, info.crc, ask.offset, stream[ask.offset :], 0
                    )
                if fetching.blocked:
                    raise Cut(errno.EIO, fetching.blocked)
                got, dump = fetching.verify_and_open()
                assert dump.read_bytes() == NEW
                fetching.adopt(got)
            finally:
                fetching.close()

        disk = Disk(random.Random(luck), steps)
        finished = cut_at(disk, lambda d=directory, f=fetch: f(SnapshotStore(d)))
        after = restarted(directory)
        assert dump_of(after) in ((NEW,) if finished else (OLD, NEW))
        if dump_of(after) == OLD:
            try:
                fetch(after)
            except InvalidError:  # what had come was torn: then once more from the beginning
                fetch(after)
        assert dump_of(restarted(directory)) == NEW
        assert len(names(directory)) == 2
        if finished and disk.steps > 0:
            assert steps > 10
            return
    raise AssertionError("it never came to its end")
