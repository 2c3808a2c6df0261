"""The file that a snapshot is received into. Used by `snapshot_fetch`, which decides; here are only the disk's steps.

Its name holds index and checksum of the stream, its length says where to go on: also after a restart, and with
another peer that has the same. All of it blocks, appending only as long as the page cache takes.
"""

from __future__ import annotations

import os
from pathlib import Path

from crc32c import crc32c

from core.errors import InvalidError
from raftstate.consensus.snapshot_files import sum_file
from raftstate.consensus.snapshot_header import (
    SnapshotHeader,
    SnapshotInfo,
    manifest_bytes,
    parse_manifest,
)

_LENGTH_BYTES = 4


class PartFile:
    """What has come of one stream, from its begin without gaps. Opening it removes those of other streams."""

    def __init__(self, directory: Path, info: SnapshotInfo) -> None:
        """Open or make the file. Raises OSError."""
        self.path = directory / f"incoming-{info.index}-{info.crc:08x}.part"
        self._info = info
        for name in os.listdir(directory):
            if name.startswith("incoming-") and name != self.path.name:
                os.unlink(directory / name)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self.size_bytes = os.fstat(self._file).st_size
        if self.size_bytes > info.size_bytes:
            os.ftruncate(self._file, 0)
            self.size_bytes = 0
        os.lseek(self._file, self.size_bytes, os.SEEK_SET)

    def append(self, data: bytes) -> None:
        """Write what follows. Raises OSError; `size_bytes` then counts what the disk still took."""
        view = memoryview(data)
        while view:
            written = os.write(self._file, view)
            self.size_bytes += written
            view = view[written:]

    def verify(self) -> SnapshotHeader:
        """Check the whole stream, and cut the file down to the dump, durably. May be called again after a crash.

        Raises:
            InvalidError: it isn't what was offered.
            OSError: the disk failed; what the file holds is not to be trusted any more.
        """
        header = self._check()
        os.ftruncate(self._file, header.dump_bytes)
        os.fsync(self._file)  # the first since it was opened
        return header

    def _check(self) -> SnapshotHeader:
        info = self._info
        if os.fstat(self._file).st_size != info.size_bytes:
            raise InvalidError("the snapshot that came has another size than was offered")
        tail = info.size_bytes - _LENGTH_BYTES
        length = manifest_bytes(os.pread(self._file, _LENGTH_BYTES, tail), info.size_bytes)
        dump_bytes = tail - length
        end = os.pread(self._file, length + _LENGTH_BYTES, dump_bytes)
        header = parse_manifest(end[:-_LENGTH_BYTES])
        if (header.index, header.term, header.dump_bytes) != (info.index, info.term, dump_bytes):
            raise InvalidError("the snapshot that came is not the one that was offered")
        if sum_file(self._file, dump_bytes) != header.dump_crc:
            raise InvalidError("the dump's checksum is wrong")
        if crc32c(end, header.dump_crc) != info.crc:
            raise InvalidError("the snapshot's checksum is wrong")
        return header

    def close(self) -> None:
        """Close the file and leave it for later."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Close and forget it; a file that can't be removed is left to the next start."""
        self.close()
        try:
            os.unlink(self.path)
        except OSError:
            return
