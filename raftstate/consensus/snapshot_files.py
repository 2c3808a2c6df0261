"""The snapshot on disk: a dump file and the manifest that names it. The manifest's rename is the moment it counts.

Recovery reads it, the engine writes it (in a thread) and adopts those that `snapshot_fetch` brought. Everything here
but `dump_path` blocks. A dump's name holds its checksum, so a new one never touches the one that still counts, and
after a crash at any step there is the old snapshot or the new, whole. A simulation puts its own disk in place of `os`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
from crc32c import crc32c

from core.errors import ConflictError, FatalError, InvalidError, TemporaryError
from raftstate.consensus.snapshot_header import (
    MAX_MANIFEST_BYTES,
    MAX_SNAPSHOT_BYTES,
    SnapshotHeader,
    encode_manifest,
    parse_manifest,
)
from raftstate.consensus.wal import sync_directory

log = logging.getLogger(__name__)

WAY_OUT = (
    "run `kvorum recover rejoin` on this host: it drops the state here and fetches it again "
    "from the cluster; replace the disk first if it is the cause"
)
_READ_BYTES = 1 << 20
_DUMP = re.compile(r"snapshot-[0-9]+-[0-9a-f]{8}\.db")
_PART = re.compile(r"incoming-([0-9]+)-[0-9a-f]{8}\.part")


class SnapshotStore:
    """The latest snapshot in a directory. Commits are one at a time; dumps may be written while another is adopted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifest = directory / "snapshot"
        self._commits = threading.Lock()
        self._latest: SnapshotHeader | None = None

    def dump_path(self, header: SnapshotHeader) -> Path:
        """Return where the dump of a snapshot lies."""
        return self.directory / f"snapshot-{header.index}-{header.dump_crc:08x}.db"

    def latest(self) -> SnapshotHeader | None:
        """Return the snapshot that counts, None if there is none. Reads the disk only until one is known.

        Raises:
            FatalError: its manifest is damaged.
        """
        if self._latest is None:
            self._latest = self._read_manifest()
        return self._latest

    def check(self) -> None:
        """Read the latest dump whole, once at the start. Raises FatalError if it isn't as it was written."""
        header = self.latest()
        if header is None:
            return
        path = self.dump_path(header)
        try:
            size_bytes, crc = _sum(path)
        except FileNotFoundError as error:
            raise FatalError(f"the snapshot's dump {path} is gone; {WAY_OUT}") from error
        except OSError as error:
            raise FatalError(f"can't read {path}: {error.strerror}; {WAY_OUT}") from error
        if size_bytes != header.dump_bytes:
            raise FatalError(
                f"the snapshot's dump {path} is damaged ({size_bytes} bytes instead of "
                f"{header.dump_bytes}); {WAY_OUT}"
            )
        if crc != header.dump_crc:
            raise FatalError(
                f"the snapshot's dump {path} is damaged (its checksum is wrong); {WAY_OUT}"
            )

    def write(self, header: SnapshotHeader, write_dump: Callable[[Path], None]) -> SnapshotHeader:
        """Make a new snapshot the latest, and return its header with size and checksum of the dump.

        `write_dump` may raise errors of its own; then, too, nothing has changed.

        Raises:
            ConflictError: a newer one came in the meantime.
            InvalidError: the dump is too big.
            TemporaryError: the disk didn't take it; the one before still counts.
            FatalError: it is unknown which of the two counts until the next start.
        """
        self._refuse_older(header)
        draft = self.directory / f"snapshot-{header.index}.draft"
        try:
            write_dump(draft)
            size_bytes, crc = _sum(draft, sync=True)
            if size_bytes > MAX_SNAPSHOT_BYTES:
                raise InvalidError(f"a state of {size_bytes} bytes is too big for a snapshot")
            header = msgspec.structs.replace(header, dump_bytes=size_bytes, dump_crc=crc)
            self._commit(header, draft)
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        finally:
            self._remove(draft)
        return header

    def adopt(self, header: SnapshotHeader, dump: Path) -> None:
        """Make a snapshot whose dump lies, checked and synced, in `dump` the latest; the file is renamed.

        Raises: as `write`.
        """
        try:
            self._commit(header, dump)
        except OSError as error:
            raise _unwritable(self.directory, error) from error

    def sweep(self) -> None:
        """Remove what crashes left behind, at the start. A transfer that can still be resumed stays.

        A killed process may have left names here that the disk lacks yet: first they are made durable, lest a power
        loss brings back the manifest whose dump is removed now.
        """
        try:
            sync_directory(self.directory)
        except OSError as error:
            raise FatalError(
                f"can't sync {self.directory}: {error.strerror}; check the disk, then restart the agent"
            ) from error
        header = self.latest()
        keep = self.dump_path(header).name if header is not None else ""
        covered = header.index if header is not None else -1
        for name in self._names():
            part = _PART.fullmatch(name)
            of_snapshots = name.startswith("snapshot-") or name == _draft_of(self._manifest).name
            if (of_snapshots and name != keep) or (
                name.startswith("incoming-") and (part is None or int(part[1]) <= covered)
            ):
                self._remove(self.directory / name)

    def _read_manifest(self) -> SnapshotHeader | None:
        try:
            return parse_manifest(_read(self._manifest))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FatalError(
                f"can't read the snapshot {self._manifest}: {error.strerror}; {WAY_OUT}"
            ) from error
        except InvalidError as error:
            raise FatalError(
                f"the snapshot {self._manifest} is damaged ({error.message}); {WAY_OUT}"
            ) from error

    def _refuse_older(self, header: SnapshotHeader) -> None:
        latest = self.latest()
        if latest is not None and (header.generation, header.index) < (
            latest.generation,
            latest.index,
        ):
            raise ConflictError(
                f"a snapshot of index {latest.index} is here, {header.index} would go back"
            )

    def _commit(self, header: SnapshotHeader, dump: Path) -> None:
        """Put dump and manifest into their places. Raises OSError while nothing has changed yet, later FatalError."""
        with self._commits:
            self._refuse_older(header)
            draft = _draft_of(self._manifest)
            try:
                _write(draft, encode_manifest(header))
                _rename(dump, self.dump_path(header))
                _rename(draft, self._manifest)
            finally:
                self._remove(draft)
            self._latest = header
            keep = self.dump_path(header).name
            for name in self._names():
                if _DUMP.fullmatch(name) and name != keep:
                    self._remove(self.directory / name)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.directory))
        except OSError as error:
            raise FatalError(f"can't list {self.directory}: {error.strerror}") from error

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning(
                "can't remove a file of an old snapshot; the next start will try again",
                extra={"path": str(path), "error": error.strerror},
            )


def sum_file(file: int, size_bytes: int) -> int:
    """Return the CRC32C of the first `size_bytes` of an open file. Raises InvalidError if it is shorter; blocks."""
    crc = position = 0
    while position < size_bytes:
        piece = os.pread(file, min(_READ_BYTES, size_bytes - position), position)
        if not piece:
            raise InvalidError(f"the file ends after {position} of {size_bytes} bytes")
        crc = crc32c(piece, crc)
        position += len(piece)
    return crc


def _sum(path: Path, *, sync: bool = False) -> tuple[int, int]:
    file = os.open(path, os.O_RDONLY)
    try:
        if sync:
            os.fsync(file)
        size_bytes = os.fstat(file).st_size
        return size_bytes, sum_file(file, size_bytes)
    finally:
        os.close(file)


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        content = bytearray()
        # One byte more than allowed is enough for the parser to refuse it.
        while len(content) <= MAX_MANIFEST_BYTES and (piece := os.read(file, _READ_BYTES)):
            content += piece
        return bytes(content)
    finally:
        os.close(file)


def _write(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)


def _rename(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
        sync_directory(target.parent)
    except OSError as error:
        raise FatalError(
            f"can't put {target} into its place: {error.strerror}; check the disk, then restart the agent"
        ) from error


def _draft_of(manifest: Path) -> Path:
    return manifest.with_suffix(".new")


def _unwritable(directory: Path, error: OSError) -> TemporaryError:
    return TemporaryError(f"can't write a snapshot in {directory}: {error.strerror}")
