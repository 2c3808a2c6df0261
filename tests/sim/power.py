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

from raftstate.consensus import snapshot, wal


class Power:
    """Counts the I/O steps of nodes, told apart by their directories, and cuts at the one chosen."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._fuses: dict[Path, tuple[int, Callable[[], None]]] = {}
        self._burnt: set[Path] = set()
        self._synced: dict[Path, int] = {}

    def install(self) -> None:
        """Take the place of `os` for whoever writes the log and the snapshot."""
        for module in (wal, snapshot):
            module.os = self  # type: ignore[attr-defined]

    @staticmethod
    def remove() -> None:
        for module in (wal, snapshot):
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
        for path, synced in self._synced.items():
            if path.parent != directory or not path.exists():
                continue
            size = path.stat().st_size
            if size <= synced:
                continue
            keep = self._rng.randint(synced, size)
            content = bytearray(path.read_bytes()[:keep])
            if keep > synced and self._rng.random() < 0.5:
                content[self._rng.randrange(synced, keep)] ^= 0xFF
            path.write_bytes(content)

    # -- the steps

    def write(self, file: int, data: Any) -> int:
        if self._burns(self._path(file).parent):
            os.write(file, bytes(data)[: self._rng.randint(0, len(data))])
            self._fail()
        return os.write(file, data)

    def fdatasync(self, file: int) -> None:
        self._sync(file)

    def fsync(self, file: int) -> None:
        self._sync(file)

    def ftruncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)
        path = self._path(file)
        self._synced[path] = min(self._synced.get(path, 0), size)

    def replace(self, draft: Path, final: Path) -> None:
        burns = self._burns(Path(final).parent)
        if not burns or self._rng.random() < 0.5:
            os.replace(draft, final)
            self._synced[Path(final)] = self._synced.pop(Path(draft), 0)
        if burns:
            self._fail()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _sync(self, file: int) -> None:
        path = self._path(file)
        if self._burns(path if path.is_dir() else path.parent):
            self._fail()
        if path.is_file():
            self._synced[path] = path.stat().st_size

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
