"""The write-ahead log: a row of segment files, allocated beforehand; nothing in it counts until `sync` has returned.

Used by `journal` and `recovery`. All that waits goes to the disk in one write and one fdatasync. A new segment restates
whatever isn't a log entry, so that old ones are simply unlinked once a snapshot covers their entries. After a crash the
tail that was never synced is cut off; damage before it means that promised data is gone, and is never repaired
silently. `wal_segment` describes the files, `wal_records` what is in them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from core.errors import FatalError
from raftstate.consensus import wal_segment
from raftstate.consensus.wal_records import (
    BootstrapRecord,
    CutRecord,
    EntryRecord,
    GenerationRecord,
    Record,
    Recovered,
    TermRecord,
    encode_record,
)
from raftstate.consensus.wal_room import DiskRoom
from raftstate.consensus.wal_segment import (
    FRAME_BYTES,
    HEAD_BYTES,
    MARK_BYTES,
    SUFFIX,
    Head,
    Segment,
    frame,
    garbage,
    mark,
    missing,
    read_head,
    read_segment,
    salt,
    seal,
    segment_path,
)

__all__ = [
    "IO_MODULES",
    "BootstrapRecord",
    "CutRecord",
    "EntryRecord",
    "GenerationRecord",
    "Record",
    "Recovered",
    "TermRecord",
    "Wal",
    "durable_replace",
    "sync_directory",
]

log = logging.getLogger(__name__)

# All modules of the log that touch files, each through its global `os`: tests put a failing disk in its place.
IO_MODULES = (sys.modules[__name__], wal_segment)

SEGMENT_BYTES = 16 << 20
_SPARE = "next"  # allocated, not yet part of the log
_SPARE_FROM = 16  # the next segment is allocated once a 16th of this one is used
_REWRITE_BYTES = 1 << 20


class Wal:
    """The log in a directory. Everything but `sync`, `rewrite` and `trim` only collects; a failed write is for good.

    `segment_bytes` is the least size of a segment; one record that is bigger gets a bigger one.
    """

    def __init__(
        self, path: Path, *, segment_bytes: int = SEGMENT_BYTES, room: DiskRoom | None = None
    ) -> None:
        self._path, self._segment_bytes = path, segment_bytes
        self._room = room or DiskRoom()
        self._segments: list[Segment] = []
        self._standing = Recovered()  # without entries: what the next segment restates
        self._pending: list[tuple[Record, bytes]] = []
        self._last_index = 0
        self._has_spare = False
        self._failed = False
        self._file = -1

    @property
    def dirty(self) -> bool:
        """Tell whether something waits for `sync`."""
        return bool(self._pending)

    @property
    def size_bytes(self) -> int:
        """The bytes in use, over all segments."""
        return sum(segment.used for segment in self._segments)

    def full(self) -> str:
        """Return why nothing may be accepted for the log, empty if there is room. Looks once a second."""
        return self._room.look(self._path, self._allocate_spare)

    def exists(self) -> bool:
        """Tell whether there is a log in the directory already."""
        return any(self._path.glob(f"*{SUFFIX}"))

    def open(self) -> Recovered:
        """Read the log (made if absent), cut off a torn tail, and stay open for writing.

        Raises:
            FatalError: unreadable or damaged.
        """
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            # A killed process may have left names here that the disk lacks yet: a power loss would take the segment.
            sync_directory(self._path.parent)
            sync_directory(self._path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path / _SPARE)
            paths = sorted(self._path.glob(f"*{SUFFIX}"))
            if not paths:
                self._begin(Recovered().standing(), anew=True)
                return Recovered()
            recovered = self._read(paths)
            self._cut_tail()
        except OSError as error:
            raise FatalError(f"can't read the log {self._path}: {error.strerror}") from error
        self._last_index = recovered.last_index()
        for record in recovered.standing():
            self._standing.take(record)
        return recovered

    def append(self, record: Record) -> None:
        """Add a record to the next batch."""
        self._pending.append((record, encode_record(record)))

    def sync(self) -> None:
        """Write what is pending and wait until the disk has it."""
        if not self._pending:
            return
        self._refuse_if_failed()
        self._failed = (
            True  # until proven otherwise: after a failed fsync nobody knows what is on the disk
        )
        try:
            while self._pending:
                self._write_what_fits()
        except OSError as error:
            raise FatalError(
                f"can't write the log {self._path} ({error.strerror}); free or replace the disk, then restart the agent"
            ) from error
        self._failed = False
        if not self._room.reason and (why := self._allocate_spare()):
            self._room.refuse(self._path, why)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the whole log by `records`; durable on return, whole or not at all."""
        self._refuse_if_failed()
        try:
            self._begin(records, anew=True)
        except OSError as error:
            self._failed = True
            raise FatalError(f"can't rewrite the log {self._path}: {error.strerror}") from error
        self._pending.clear()

    def trim(self, index: int) -> None:
        """Unlink the oldest segments that hold only entries below `index`; the one being written stays."""
        self._refuse_if_failed()
        try:
            while len(self._segments) > 1 and self._segments[0].last_index < index:
                os.unlink(self._segments[0].path)
                sync_directory(self._path)  # one by one: no gap, whatever the power does
                del self._segments[0]
        except OSError as error:
            self._failed = True
            raise FatalError(f"can't trim the log {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file. What is pending is lost, as in a crash."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # -- opening

    def _read(self, paths: list[Path]) -> Recovered:
        """Read all segments that count; a crash may have left older ones behind."""
        heads: list[tuple[Path, Head]] = []
        for path in reversed(paths):
            if heads and heads[0][1].previous_end == 0:
                os.unlink(path)
                continue
            head = read_head(path)
            if heads and head.sequence + 1 != heads[0][1].sequence:
                raise missing(segment_path(self._path, head.sequence + 1))
            heads.insert(0, (path, head))
        recovered = Recovered(trimmed=heads[0][1].last_index)
        following = [head for _, head in heads[1:]]
        for (path, head), after in zip(heads, [*following, None], strict=True):
            self._segments.append(read_segment(path, head, recovered, after))
        return recovered

    def _cut_tail(self) -> None:
        """Open the last segment for writing and zero what a crash has left behind its end."""
        last = self._segments[-1]
        self._file = os.open(last.path, os.O_RDWR)
        torn = list(garbage(self._file, last.used, last.size))
        for position, length in torn:
            _write_all(self._file, bytes(length), position)
        if torn:
            log.warning("torn tail of the log cut off", extra={"at": last.used})
        self._fdatasync(self._file)  # a killed process may have left here what the disk lacks yet

    # -- writing

    def _write_what_fits(self) -> None:
        """Write and sync as much of what is pending as the segment can take, or begin the next segment."""
        segment = self._segments[-1]
        room, count = segment.size - segment.used - 2 * MARK_BYTES, 0  # a mark before, a seal after
        for _, body in self._pending:
            room -= FRAME_BYTES + len(body)
            if room < 0:
                break
            count += 1
        if not count:
            self._begin(self._standing.standing(), anew=False, needed=len(self._pending[0][1]))
            return
        salted, batch = salt(segment.sequence), self._pending[:count]
        parts = [frame(salted, body) for _, body in batch]
        content = mark(salted, segment.used) + b"".join(parts)
        _write_all(self._file, content, segment.used)
        self._fdatasync(self._file)
        segment.used += len(content)
        del self._pending[:count]
        for record, _ in batch:
            if type(record) is EntryRecord:
                self._last_index = record.index
                segment.last_index = max(segment.last_index, record.index)
            elif type(record) is CutRecord:
                self._last_index = min(self._last_index, max(0, record.index - 1))
            else:
                self._standing.take(record)

    def _begin(self, records: Iterable[Record], *, anew: bool, needed: int = 0) -> None:
        """Go on in a new segment that holds `records` from the start; `anew`: the older ones don't count any more.

        Its name is the commit point: it gets it when everything in it is durable.
        """
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        path, spare = segment_path(self._path, sequence), self._path / _SPARE
        file = os.open(spare, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            standing, end, last_index = _write_records(file, salt(sequence), records)
            least = end + needed + FRAME_BYTES + 2 * MARK_BYTES
            segment = Segment(sequence, path, max(self._segment_bytes, least), end, last_index)
            os.posix_fallocate(file, 0, segment.size)
            before = (0, 0) if anew else (self._segments[-1].used, self._last_index)
            _write_all(file, Head(sequence, segment.size, end, *before).pack(), 0)
            self._fdatasync(file)
            os.replace(spare, path)
            sync_directory(self._path)
            self._leave(anew)
        except Exception:
            os.close(file)
            raise
        self._file, self._has_spare, self._standing = file, False, standing
        self._segments.append(segment)
        if anew:
            self._last_index = last_index

    def _leave(self, anew: bool) -> None:
        """Finish the segment written so far, or remove all of them."""
        if anew:
            for old in self._segments:
                os.unlink(old.path)
            self._segments.clear()
        else:
            last = self._segments[-1]
            _write_all(self._file, seal(salt(last.sequence), last.used), last.used)
            self._fdatasync(self._file)
        self.close()

    def _allocate_spare(self) -> str:
        """Get the room for the next segment if it is time to; return why it can't be had, else nothing."""
        last = self._segments[-1]
        if self._has_spare or last.used < last.size // _SPARE_FROM:
            return ""
        spare = self._path / _SPARE
        try:
            file = os.open(spare, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(file, 0, self._segment_bytes)
            finally:
                os.close(file)
        except OSError as error:
            with contextlib.suppress(OSError):  # what a half-made file holds is wanted elsewhere
                os.unlink(spare)
            return error.strerror or repr(error)
        self._has_spare = True
        return ""

    def _refuse_if_failed(self) -> None:
        if self._failed:
            raise FatalError(f"the log {self._path} failed before; the agent must be restarted")

    def _fdatasync(self, file: int) -> None:
        os.fdatasync(file)


def durable_replace(draft: Path, final: Path) -> None:
    """Put a finished file in the place of another, so that after a crash one of the two is there, whole."""
    handle = os.open(draft, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(draft, final)
    sync_directory(final.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(file: int, content: bytes, position: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(file, view, position)
        view, position = view[count:], position + count


def _write_records(file: int, salted: int, records: Iterable[Record]) -> tuple[Recovered, int, int]:
    """Write records behind the head; return what isn't an entry, where they end, and the highest index."""
    standing, end, last_index = Recovered(), HEAD_BYTES, 0
    parts: list[bytes] = []
    size = 0
    for record in records:
        parts.append(frame(salted, encode_record(record)))
        size += len(parts[-1])
        if isinstance(record, EntryRecord):
            last_index = max(last_index, record.index)
        else:
            standing.take(record)
        if size >= _REWRITE_BYTES:
            _write_all(file, b"".join(parts), end)
            end, size, parts = end + size, 0, []
    _write_all(file, b"".join(parts), end)
    return standing, end + size, last_index
