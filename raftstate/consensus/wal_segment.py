"""One segment file of the write-ahead log: its layout, and the reader that tells a torn tail from a broken disk.

    head     magic, sequence number, size of the file, end of the head's records, end of the segment before, index of
             the last entry before this segment, CRC32C
    records  the standing state (term, vote, ...), restated, so that older segments can be unlinked
    batches  a mark and records, one batch for each sync
    seal     the log goes on in the next segment
    zeros    allocated beforehand: the normal end

A record is its length, a CRC32C salted with the segment's sequence number, and its body. A mark says that everything
before it had been synced when it was written; so does a seal, the head for its own records, and the head of the next
segment for this one. A bad record before such a proof is damage; without one it is the torn tail of an unfinished sync.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from crc32c import crc32c

from core.errors import FatalError
from raftstate.consensus.messages import UNREADABLE
from raftstate.consensus.wal_records import (
    MAX_RECORD_BYTES,
    EntryRecord,
    Recovered,
    decode_record,
)

MAGIC = b"KVWAL02\n"
SUFFIX = ".wal"
_HEAD = struct.Struct("<8sQQQQQ")
_U32 = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _U32.size
_FRAME = struct.Struct("<II")
FRAME_BYTES = _FRAME.size
_MARK_MAGIC = b"\xf5SYNCED\xf5"
_SEAL_MAGIC = b"\xf5SEALED\xf5"
_MARK = struct.Struct("<8sQ")
MARK_BYTES = FRAME_BYTES + _MARK.size
_NO_RECORD = _MARK_MAGIC[0]  # no msgpack array begins so
_READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a segment. `previous_end` is 0 if nothing before this segment counts."""

    sequence: int
    size: int
    records_end: int
    previous_end: int
    last_index: int

    def pack(self) -> bytes:
        """Return the bytes."""
        body = _HEAD.pack(MAGIC, *astuple(self))
        return body + _U32.pack(crc32c(body))


@dataclass(slots=True)
class Segment:
    """A segment of the log in use: `used` of its `size` bytes; no entry in it is above `last_index`."""

    sequence: int
    path: Path
    size: int
    used: int
    last_index: int = 0


def segment_path(directory: Path, sequence: int) -> Path:
    """Return the name of a segment; names sort as numbers do."""
    return directory / f"{sequence:020}{SUFFIX}"


def salt(sequence: int) -> int:
    """Return what the checksums of a segment start from: a record of another segment is a bad one here."""
    return crc32c(sequence.to_bytes(8, "little"))


def frame(salted: int, body: bytes) -> bytes:
    """Return a record as it lies in the file."""
    return _FRAME.pack(len(body), crc32c(body, salted)) + body


def mark(salted: int, position: int) -> bytes:
    """Return the mark for `position`: everything before it is on the disk."""
    return frame(salted, _MARK.pack(_MARK_MAGIC, position))


def seal(salted: int, position: int) -> bytes:
    """Return the seal for `position`: the log goes on in the next segment."""
    return frame(salted, _MARK.pack(_SEAL_MAGIC, position))


def damaged(path: Path, position: int) -> FatalError:
    """Return the refusal of a log that has lost what it had promised to keep."""
    return FatalError(
        f"the log {path} is damaged at byte {position}: the disk lost what it had stored; replace the disk if it is "
        "failing, then run 'kvorum recover rejoin' on this host"
    )


def missing(path: Path) -> FatalError:
    """Return the refusal of a log that lacks a segment."""
    return FatalError(
        f"the log {path} is missing: the disk lost what it had stored; replace the disk if it is failing, "
        "then run 'kvorum recover rejoin' on this host"
    )


def read_head(path: Path) -> Head:
    """Return the head of a segment. Raises FatalError if it is unreadable, OSError if the file is."""
    file = os.open(path, os.O_RDONLY)
    try:
        content = _read(file, HEAD_BYTES, 0)
        size = os.fstat(file).st_size
    finally:
        os.close(file)
    body = content[: _HEAD.size]
    if len(content) < HEAD_BYTES or _U32.pack(crc32c(body)) != content[_HEAD.size :]:
        if content and not content.startswith(MAGIC) and any(content[: len(MAGIC)]):
            raise _other_format(path)
        raise damaged(path, 0)
    magic, *numbers = _HEAD.unpack(body)
    if magic != MAGIC:
        raise _other_format(path)
    head = Head(*numbers)
    if path.name != segment_path(path.parent, head.sequence).name:
        raise damaged(path, len(MAGIC))
    if size < head.size:  # files are made in their full size, so this is no torn tail
        raise damaged(path, size)
    return head


def read_segment(path: Path, head: Head, recovered: Recovered, next_head: Head | None) -> Segment:
    """Add the records of a segment to `recovered`; `next_head` is None for the last one.

    Raises:
        FatalError: damaged, or the segment after it is missing.
    """
    if recovered.last_index() != head.last_index:
        raise damaged(path, 0)
    file = os.open(path, os.O_RDONLY)
    try:
        end, sealed, last_index = _read_records(file, path, head, recovered)
        promised = head.records_end if next_head is None else next_head.previous_end
        proven = end >= promised if next_head is None else end == promised
        if not proven or (not sealed and _proof_behind(file, head, end)):
            raise damaged(path, end)
    finally:
        os.close(file)
    if sealed and next_head is None:
        raise missing(segment_path(path.parent, head.sequence + 1))
    return Segment(head.sequence, path, head.size, end, last_index)


def garbage(file: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces (position, length) of a file between `start` and `end` that aren't all zeros."""
    for position, content in _pieces(file, start, end):
        if content.count(0) != len(content):
            yield position, len(content)


def _other_format(path: Path) -> FatalError:
    return FatalError(
        f"{path} is not a log of this version; remove the host from the cluster and join it again"
    )


def _read_records(file: int, path: Path, head: Head, recovered: Recovered) -> tuple[int, bool, int]:
    """Take all good records; return where they end, whether a seal is there, and the highest index seen."""
    entries, end, highest = recovered.entries, HEAD_BYTES, recovered.last_index()
    for position, body in _good_records(file, head):
        if body[0] == _NO_RECORD:
            if body == _MARK.pack(_SEAL_MAGIC, position):
                return position, True, max(highest, recovered.last_index())
            if body != _MARK.pack(_MARK_MAGIC, position):
                break
        else:
            try:
                record = decode_record(body)
                if type(record) is EntryRecord and entries and record.index == entries[-1][1] + 1:
                    entries.append((record.command, record.index, record.term))
                else:
                    highest = max(highest, recovered.last_index())
                    recovered.take(record)
            except (*UNREADABLE, FatalError) as error:
                raise damaged(path, position) from error
        end = position + FRAME_BYTES + len(body)
    return end, False, max(highest, recovered.last_index())


def _good_records(file: int, head: Head) -> Iterator[tuple[int, bytes]]:
    """Yield positions and bodies up to the first record that is bad or isn't there."""
    salted, unpack = salt(head.sequence), _FRAME.unpack_from
    base, at, buffer, wanted = HEAD_BYTES, 0, b"", FRAME_BYTES
    while True:
        rest = buffer[at:]
        missing = max(_READ_BYTES, wanted - len(rest))
        base, at, buffer = base + at, 0, rest + _read(file, missing, base + at + len(rest))
        if len(buffer) < wanted:
            return
        while at + FRAME_BYTES <= len(buffer):
            length, checksum = unpack(buffer, at)
            wanted = FRAME_BYTES + length
            if not 0 < length <= MAX_RECORD_BYTES or base + at + wanted > head.size:
                return
            if at + wanted > len(buffer):
                break
            body = buffer[at + FRAME_BYTES : at + wanted]
            if crc32c(body, salted) != checksum:
                return
            yield base + at, body
            at += wanted
        else:
            wanted = FRAME_BYTES


def _proof_behind(file: int, head: Head, bad: int) -> bool:
    """Tell whether something behind `bad` proves that this place had been synced."""
    salted = salt(head.sequence)
    for start, content in _pieces(file, bad, head.size, overlap=MARK_BYTES):
        for magic, make in ((_MARK_MAGIC, mark), (_SEAL_MAGIC, seal)):
            found = content.find(magic)
            while found >= 0:
                position = start + found - FRAME_BYTES
                if position > bad:
                    whole = make(salted, position)
                    if content[found:].startswith(whole[FRAME_BYTES:]) and (
                        _read(file, MARK_BYTES, position) == whole
                    ):
                        return True
                found = content.find(magic, found + 1)
    return False


def _pieces(file: int, start: int, end: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
    while start < end:
        content = _read(file, min(_READ_BYTES, end - start), start)
        if not content:
            return
        yield start, content
        start += len(content) - (overlap if len(content) == _READ_BYTES else 0)


def _read(file: int, count: int, position: int) -> bytes:
    """Read `count` bytes, fewer only at the end of the file."""
    content = os.pread(file, count, position)
    while len(content) < count and (
        more := os.pread(file, count - len(content), position + len(content))
    ):
        content += more
    return content
