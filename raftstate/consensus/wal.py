"""The write-ahead log: one append-only file of checksummed records, replaced by a shorter one after a snapshot.

Used by `journal` only. A record is length, CRC and body; nothing counts until `sync` has returned. After a crash the
tail that was never synced may be torn: it is cut off. Damage before that point means that promised data is gone, and
is never repaired silently. To tell the two apart, each batch of writes starts with a mark saying how far the file was
synced: a readable mark behind a damaged record convicts the disk.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.errors import FatalError
from raftstate.consensus.messages import UNREADABLE, Entry

log = logging.getLogger(__name__)

MAGIC = b"KVWAL01\n"
_HEAD = struct.Struct("<II")
_MARK_MAGIC = b"\xf5SYNCED\xf5"
_MARK = struct.Struct("<8sQ")
MAX_RECORD_BYTES = 64 << 20


class EntryRecord(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """One log entry."""

    command: bytes
    index: int
    term: int


class TermRecord(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """The current term and whom this host voted for in it."""

    term: int
    vote: str | None


class CutRecord(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """The entries at `index` and above are gone: truncated, or all (0) for a snapshot."""

    index: int


class BootstrapRecord(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The voters this host was told of when it joined: (id, address)."""

    peers: list[tuple[str, str]]


Record = EntryRecord | TermRecord | CutRecord | BootstrapRecord
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


@dataclass(slots=True)
class Recovered:
    """What the records add up to."""

    entries: list[Entry] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    bootstrap: list[tuple[str, str]] = field(default_factory=list)

    def take(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case EntryRecord(command, index, term):
                if self.entries and index != self.entries[-1][1] + 1:
                    raise FatalError(f"log entry {index} follows {self.entries[-1][1]}")
                self.entries.append((command, index, term))
            case TermRecord(term, vote):
                self.term, self.vote = term, vote
            case CutRecord(index):
                keep = index - self.entries[0][1] if self.entries else 0
                del self.entries[max(0, keep) :]
            case BootstrapRecord(peers):
                self.bootstrap = peers

    def records(self) -> Iterator[Record]:
        """Yield the fewest records that add up to the same."""
        if self.bootstrap:
            yield BootstrapRecord(self.bootstrap)
        yield TermRecord(self.term, self.vote)
        for command, index, term in self.entries:
            yield EntryRecord(command, index, term)


class Wal:
    """The file. Everything but `sync` and `rewrite` only collects; an error of the disk is a FatalError for good."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[bytes] = []
        self._failed = False
        self._file = -1
        self.size_bytes = 0

    @property
    def dirty(self) -> bool:
        """Tell whether something waits for `sync`."""
        return bool(self._pending)

    def open(self) -> Recovered:
        """Read the file (made if absent), cut off a torn tail, and stay open for writing.

        Raises:
            FatalError: unreadable or damaged.
        """
        try:
            if not self._path.exists():
                self.rewrite(Recovered().records())
                return Recovered()
            content = self._path.read_bytes()
            recovered, end = _parse(content, self._path)
            self._file = os.open(self._path, os.O_WRONLY)
            if end < len(content):
                log.warning(
                    "torn tail of the log cut off", extra={"bytes": len(content) - end, "at": end}
                )
                os.ftruncate(self._file, end)
                os.fsync(self._file)
            os.lseek(self._file, end, os.SEEK_SET)
            self.size_bytes = end
        except OSError as error:
            raise FatalError(f"can't read the log {self._path}: {error.strerror}") from error
        return recovered

    def append(self, record: Record) -> None:
        """Add a record to the next batch."""
        self._pending.append(_frame(_encoder.encode(record)))

    def sync(self) -> None:
        """Write what is pending and wait until the disk has it."""
        if not self._pending:
            return
        if self._failed:
            raise FatalError(f"the log {self._path} failed before; the agent must be restarted")
        batch = _mark(self.size_bytes) + b"".join(self._pending)
        self._failed = (
            True  # until proven otherwise: after a failed fsync nobody knows what is on the disk
        )
        try:
            _write_all(self._file, batch)
            self._fdatasync(self._file)
        except OSError as error:
            raise FatalError(
                f"can't write the log {self._path} ({error.strerror}); free or replace the disk, then restart the agent"
            ) from error
        self._failed = False
        self._pending.clear()
        self.size_bytes += len(batch)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file by one that holds only `records`; durable on return, whole or not at all."""
        batch = b"".join((MAGIC, *(_frame(_encoder.encode(record)) for record in records)))
        batch += _mark(len(batch))
        draft = self._path.with_suffix(".new")
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            _write_all(file, batch)
            self._fdatasync(file)
            os.replace(draft, self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            self._failed = True
            raise FatalError(f"can't rewrite the log {self._path}: {error.strerror}") from error
        self.close()
        self._file, self.size_bytes = file, len(batch)
        self._pending.clear()

    def close(self) -> None:
        """Close the file. What is pending is lost, as in a crash."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

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


def _frame(body: bytes) -> bytes:
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _mark(synced: int) -> bytes:
    """Everything before `synced`, the place of this very mark, was on the disk when it was written."""
    return _frame(_MARK.pack(_MARK_MAGIC, synced))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _parse(content: bytes, path: Path) -> tuple[Recovered, int]:
    """Return the sum of all readable records, and where they end."""
    if content[: len(MAGIC)] != MAGIC:
        raise FatalError(
            f"{path} is not a log of this version; remove the host from the cluster and join it again"
        )
    recovered, position = Recovered(), len(MAGIC)
    while (body := _body_at(content, position)) is not None:
        if not body.startswith(_MARK_MAGIC):
            try:
                recovered.take(_decoder.decode(body))
            except (*UNREADABLE, FatalError) as error:
                raise _damaged(path, position) from error
        position += _HEAD.size + len(body)
    if position < len(content) and _mark_behind(content, position):
        raise _damaged(path, position)
    return recovered, position


def _body_at(content: bytes, position: int) -> bytes | None:
    if position + _HEAD.size > len(content):
        return None
    length, checksum = _HEAD.unpack_from(content, position)
    start = position + _HEAD.size
    if length == 0 or length > MAX_RECORD_BYTES or start + length > len(content):
        return None
    body = content[start : start + length]
    return body if zlib.crc32(body) == checksum else None


def _mark_behind(content: bytes, damaged: int) -> bool:
    """Tell whether a mark behind `damaged` proves that the damaged place had been synced."""
    found = content.find(_MARK_MAGIC, damaged)
    while found >= 0:
        position = found - _HEAD.size
        if position > damaged and _body_at(content, position) == _MARK.pack(_MARK_MAGIC, position):
            return True
        found = content.find(_MARK_MAGIC, found + 1)
    return False


def _damaged(path: Path, position: int) -> FatalError:
    return FatalError(
        f"the log {path} is damaged at byte {position}: the disk lost what it had stored; "
        "remove this host from the cluster, replace the disk and join the host again"
    )
