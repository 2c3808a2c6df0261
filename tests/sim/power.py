"""Power cuts in the middle of disk writes: a node's fuse burns after some steps of its I/O, and what wasn't synced tears.

Stands in for the `os` module of the write-ahead log and the snapshot while a simulation runs.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftstate.consensus import snapshot_files, snapshot_part, wal
from raftstate.consensus.recovery import wal_path

MODULES = (*wal.IO_MODULES, snapshot_files, snapshot_part)
SECTOR_BYTES = 512


def tear(path: Path, start: int, end: int, rng: random.Random) -> None:
    """Damage what was written but not synced: sectors are lost, and a byte may be wrong. What is behind stays."""
    with path.open("r+b") as file:
        file.seek(start)
        content = bytearray(file.read(end - start))
        written = rng.randint(0, len(content))
        content[written:] = bytes(len(content) - written)
        if rng.random() < 0.3:  # the disk may have written sectors in any order
            first = start - start % SECTOR_BYTES
            for sector in range(first, end, SECTOR_BYTES):
                if rng.random() < 0.5:
                    a, b = max(0, sector - start), min(len(content), sector + SECTOR_BYTES - start)
                    content[a:b] = bytes(b - a)
        if written and rng.random() < 0.5:
            content[rng.randrange(written)] ^= 0xFF
        file.seek(start)
        file.write(content)


class Power:
    """Counts the I/O steps of nodes, told apart by their directories, and cuts at the one chosen."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._fuses: dict[Path, tuple[int, Callable[[], None]]] = {}
        self._burnt: set[Path] = set()
        self._unsynced: dict[Path, tuple[int, int]] = {}  # where, of files written by `pwrite`

    def install(self) -> None:
        """Take the place of `os` for whoever writes the log and the snapshot."""
        for module in MODULES:
            module.os = self  # type: ignore[attr-defined]

    @staticmethod
    def remove() -> None:
        for module in MODULES:
            module.os = os  # type: ignore[attr-defined]

    def arm(self, directory: Path, steps: int, on_burn: Callable[[], None]) -> None:
        self._fuses[directory] = (steps, on_burn)

    def disarm(self, directory: Path) -> None:
        self._fuses.pop(directory, None)

    def restore(self, directory: Path) -> None:
        """Switch the node on again: nothing is armed, and the disk is what it is."""
        self._fuses.pop(directory, None)
        self._burnt.discard(directory)

    def tear(self, directory: Path) -> None:
        """Lose or damage what was written but not synced."""
        for path, (start, end) in list(self._unsynced.items()):
            if _node_of(path) == directory:
                del self._unsynced[path]
                if path.exists():
                    tear(path, start, end, self._rng)

    # -- the steps

    def pwrite(self, file: int, data: Any, position: int) -> int:
        path, burns = self._path(file), self._burns(_node_of(self._path(file)))
        if burns:
            data = bytes(data)[: self._rng.randint(0, len(data))]
        start, end = self._unsynced.get(path, (position, position))
        self._unsynced[path] = (min(start, position), max(end, position + len(data)))
        count = os.pwrite(file, data, position)
        if burns:
            self._fail()
        return count

    def fdatasync(self, file: int) -> None:
        self._sync(file)

    def fsync(self, file: int) -> None:
        self._sync(file)

    def posix_fallocate(self, file: int, start: int, count: int) -> None:
        self._step(_node_of(self._path(file)))
        os.posix_fallocate(file, start, count)

    def unlink(self, path: Path) -> None:
        self._step(_node_of(Path(path).resolve()))
        os.unlink(path)
        self._unsynced.pop(Path(path).resolve(), None)

    def replace(self, draft: Path, final: Path) -> None:
        draft, final = Path(draft).resolve(), Path(final).resolve()
        burns = self._burns(_node_of(final))
        if not burns or self._rng.random() < 0.5:
            os.replace(draft, final)
            self._unsynced.pop(final, None)
            if draft in self._unsynced:
                self._unsynced[final] = self._unsynced.pop(draft)
        if burns:
            self._fail()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _sync(self, file: int) -> None:
        path = self._path(file)
        self._step(_node_of(path))
        self._unsynced.pop(path, None)

    def _step(self, node: Path) -> None:
        if self._burns(node):
            self._fail()

    def _burns(self, directory: Path) -> bool:
        if directory in self._burnt:
            return True
        if directory not in self._fuses:
            return False
        steps, on_burn = self._fuses.pop(directory)
        if steps > 0:
            self._fuses[directory] = (steps - 1, on_burn)
            return False
        self._burnt.add(directory)
        on_burn()
        return True

    @staticmethod
    def _fail() -> None:
        raise OSError(errno.EIO, "the power is gone")

    @staticmethod
    def _path(file: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{file}"))


def _node_of(path: Path) -> Path:
    """Return the raft directory that a path of it, or in its log, belongs to."""
    for directory in (path, *path.parents[:2]):
        if directory.name == wal_path(Path()).name:
            return directory.parent
    return path if path.is_dir() else path.parent
