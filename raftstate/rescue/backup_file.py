"""A backup: one file with a consistent copy of everything replicated, and what it says about itself.

Written by an agent (`GET /v1/state/backup`), passed on by `kvorum state backup`, checked by `verify`, used by restore.

    magic, length of the header, header (msgpack), the state's dump (SQLite), CRC32C of all before

Fields may be added to the header; a reader skips those it doesn't know. `level` says what version it takes to read the dump.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
from crc32c import crc32c

from core.errors import InvalidError
from raftstate.consensus.messages import Address, HostId, Index, Term
from raftstate.consensus.snapshot_header import Checksum, DumpBytes
from raftstate.rescue.keys import LockedKey

MAGIC = b"KVBACK1\n"
HEADER_BYTES_MAX = 1 << 20
PIECE_BYTES = 1 << 20
_U32 = struct.Struct("<I")
_HEAD_BYTES = len(MAGIC) + _U32.size

Name = Annotated[str, msgspec.Meta(max_length=300)]
OnBytes = Callable[[int, int], None]


class BackupHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says about itself. `index` is the last log entry in it; `counts` how many resources of each kind.

    `ca_sha256`, the fingerprint of the cluster's certificate authority, is what no two clusters share.
    """

    cluster_name: Name
    ca_sha256: Name
    host_name: Name  # where it was taken
    version: Name
    created_ms: Index
    generation: Index
    level: Index
    index: Index
    term: Term
    machine_applied: Index
    voters: list[tuple[HostId, Name, Address]]  # id, name, address
    counts: dict[Name, Index]
    dump_bytes: DumpBytes
    dump_crc: Checksum
    key: LockedKey | None = None

    @property
    def file_bytes(self) -> int:
        """The size of the whole file."""
        return len(_head(self)) + self.dump_bytes + _U32.size


_decoder: msgspec.msgpack.Decoder[BackupHeader] = msgspec.msgpack.Decoder(BackupHeader)


def pieces(header: BackupHeader, dump: BinaryIO) -> Iterator[bytes]:
    """Yield the file, for a dump open at its start. Blocks.

    Raises:
        InvalidError: the dump isn't as long as the header says.
    """
    head = _head(header)
    crc, left = crc32c(head), header.dump_bytes
    yield head
    while left:
        piece = dump.read(min(PIECE_BYTES, left))
        if not piece:
            raise InvalidError(f"the dump ends {left} bytes early")
        crc, left = crc32c(piece, crc), left - len(piece)
        yield piece
    yield _U32.pack(crc)


class Reader:
    """Checks a backup as it arrives in pieces of any size, and gives the parts back; `finish` at its end."""

    def __init__(self) -> None:
        self.header: BackupHeader | None = None
        self._waiting = b""
        self._left = 0
        self._crc = self._dump_crc = 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece, and return the bytes of the dump in it.

        Raises:
            InvalidError: it isn't a backup, or damaged.
        """
        if self.header is None:
            self._waiting += piece
            self.header = self._read_head()
            if self.header is None:
                return b""
            piece, self._waiting = self._waiting, b""
        dump, rest = piece[: self._left], piece[self._left :]
        self._left -= len(dump)
        self._crc, self._dump_crc = crc32c(dump, self._crc), crc32c(dump, self._dump_crc)
        self._waiting += rest
        if len(self._waiting) > _U32.size:
            raise InvalidError("the backup is damaged: there is something behind its end")
        return dump

    def finish(self) -> BackupHeader:
        """Return the header of a backup that has arrived whole.

        Raises:
            InvalidError: it ends early, or its checksum is wrong.
        """
        if self.header is None:
            raise InvalidError("this is no backup, or only the beginning of one")
        if self._left or len(self._waiting) != _U32.size:
            raise InvalidError("the backup is cut off: its end is missing")
        wrong = self._dump_crc != self.header.dump_crc
        if wrong or self._waiting != _U32.pack(self._crc):
            raise InvalidError("the backup is damaged: its checksum is wrong")
        return self.header

    def _read_head(self) -> BackupHeader | None:
        if not MAGIC.startswith(self._waiting[: len(MAGIC)]):
            raise InvalidError("this is no backup of the state (or of a version that is too new)")
        if len(self._waiting) < _HEAD_BYTES:
            return None
        (length,) = _U32.unpack_from(self._waiting, len(MAGIC))
        if length > HEADER_BYTES_MAX:
            raise InvalidError("the backup is damaged: its header can't be that long")
        end = _HEAD_BYTES + length
        if len(self._waiting) < end:
            return None
        try:
            header = _decoder.decode(self._waiting[_HEAD_BYTES:end])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidError(
                f"the backup is damaged: its header can't be read ({error})"
            ) from None
        self._crc, self._left = crc32c(self._waiting[:end]), header.dump_bytes
        self._waiting = self._waiting[end:]
        return header


class Copier:
    """Passes a backup on as it arrives, with a key added to its header. Feed it all, then `finish`."""

    def __init__(self, lock: Callable[[BackupHeader], LockedKey] | None) -> None:
        self._lock = lock
        self._reader = Reader()
        self._crc: int | None = None
        self.header: BackupHeader | None = None

    def feed(self, piece: bytes) -> bytes:
        """Return what to write for a piece that arrived. Raises InvalidError."""
        dump = self._reader.feed(piece)
        if self._reader.header is None:
            return b""
        if self._crc is None:
            header = self._reader.header
            if self._lock is not None:
                header = msgspec.structs.replace(header, key=self._lock(header))
            self.header, self._crc = header, 0
            dump = _head(header) + dump
        self._crc = crc32c(dump, self._crc)
        return dump

    def finish(self) -> bytes:
        """Return the end. Raises InvalidError if what arrived wasn't whole."""
        self._reader.finish()
        assert self._crc is not None, "it was whole"
        return _U32.pack(self._crc)


def verify(path: Path, *, on_bytes: OnBytes, dump: Path | None = None) -> BackupHeader:
    """Read a backup through, and copy the dump in it to a new file `dump` if one is given. Blocks.

    Raises:
        InvalidError: damaged, no backup, or it can't be read or copied.
    """
    reader = Reader()
    try:
        with path.open("rb") as file:
            size_bytes, done = os.fstat(file.fileno()).st_size, 0
            target = dump.open("xb") if dump is not None else None
            try:
                while piece := file.read(PIECE_BYTES):
                    part = reader.feed(piece)
                    if target is not None:
                        target.write(part)
                    done += len(piece)
                    on_bytes(done, size_bytes)
            finally:
                if target is not None:
                    target.close()
    except OSError as error:
        raise InvalidError(f"can't read {path}: {error.strerror}") from None
    return reader.finish()


def _head(header: BackupHeader) -> bytes:
    body = msgspec.msgpack.encode(header)
    return MAGIC + _U32.pack(len(body)) + body
