"""Disks that misbehave: power cuts in the middle of a write, unsynced data that tears, full disks, slow disks.

Stands in for the `os` module of whatever writes the log and the snapshot while a simulation runs. Each node has one
directory. A dead process can't touch the disk any more. Names (made, replaced, removed) are as fragile as contents:
they may be back to what they were until the directory is synced.
"""

from __future__ import annotations

import enum
import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftstate.consensus import snapshot_files, snapshot_part, wal
from tests.sim.loop import CURRENT

MODULES = (*wal.IO_MODULES, snapshot_files, snapshot_part)
SECTOR_BYTES = 512

STALLS_OF_A_SLOW_DISK = 0.3  # the share of its syncs that take long


class _State(enum.Enum):
    ON = enum.auto()
    BURNS = enum.auto()  # the power fails in this very step
    DEAD = enum.auto()


@dataclass(frozen=True, slots=True)
class _Write:
    """An unsynced write, and what was there before."""

    position: int
    length: int
    before: bytes
    size_before: int


class Power:
    """Counts the I/O steps of nodes, told apart by their directories, and cuts at the one chosen."""

    def __init__(self, rng: random.Random, report: Counter[str] | None = None) -> None:
        self._rng, self._report = rng, Counter[str]() if report is None else report
        self._homes: set[Path] = set()
        self._burnt: set[Path] = set()
        self._fuses: dict[Path, tuple[int, Callable[[], None]]] = {}
        self._dirty: dict[Path, list[_Write]] = {}
        self._names: dict[Path, bytes | None] = {}  # what was there when the directory was synced
        self.full: set[Path] = set()
        self.slow: dict[Path, Callable[[], None]] = {}

    def install(self) -> None:
        """Take the place of `os` for whoever writes the log and the snapshot."""
        for module in MODULES:
            module.os = self  # type: ignore[attr-defined]  # that is the trick

    @staticmethod
    def remove() -> None:
        for module in MODULES:
            module.os = os  # type: ignore[attr-defined]  # and this its end

    def add(self, home: Path) -> None:
        """Learn of a node's directory; all else is named by it."""
        self._homes.add(home)

    def arm(self, home: Path, steps: int, on_burn: Callable[[], None]) -> None:
        """Cut the power of a node in one of its next I/O steps."""
        self._homes.add(home)
        self._fuses[home] = (steps, on_burn)

    def disarm(self, home: Path) -> None:
        self._fuses.pop(home, None)

    def restore(self, home: Path) -> None:
        """Switch the node on again: nothing is armed, and the disk is what it is."""
        self._fuses.pop(home, None)
        self._burnt.discard(home)

    def tear(self, home: Path) -> None:
        """Lose or damage what was written but not synced; what is left is on the disk for good."""
        self._homes.add(home)
        for path, before in list(self._names.items()):
            if self._home(path) != home:
                continue
            del self._names[path]
            if self._rng.random() < 0.5:
                self._report["unsynced names lost"] += 1
                self._dirty.pop(path, None)
                if before is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_bytes(before)
        for path in [path for path in self._dirty if self._home(path) == home]:
            writes = self._dirty.pop(path)
            if writes and path.exists():
                self._report["unsynced tails torn"] += 1
                self._undo(path, writes)

    def _undo(self, path: Path, writes: list[_Write]) -> None:
        """Keep a random part of unsynced writes, perhaps not in their order, perhaps with a wrong byte."""
        left = sum(write.length for write in writes)
        keep = self._rng.randint(0, left)
        content = bytearray(path.read_bytes())
        before = bytearray(content)
        for write in reversed(writes):
            _take_back(before, write, 0)
            left -= write.length
            kept = min(max(keep - left, 0), write.length)
            _take_back(content, write, kept)
            if kept > 0 and self._rng.random() < 0.3:
                content[self._rng.randrange(write.position, write.position + kept)] ^= 0xFF
        if self._rng.random() < 0.3:  # the disk may have written sectors in any order
            for start in range(0, len(before), SECTOR_BYTES):
                end = min(start + SECTOR_BYTES, len(before))
                if before[start:end] != content[start:end] and self._rng.random() < 0.5:
                    content[start:end] = before[start:end]
        path.write_bytes(content)

    # -- the steps

    def open(self, path: Path | str, flags: int, mode: int = 0o777) -> int:
        path = Path(path)
        if flags & os.O_CREAT and not path.exists():
            self._step(path)
            self._names.setdefault(path, None)
        file = os.open(path, flags, mode)
        if flags & os.O_TRUNC:
            self._dirty.pop(path, None)
        return file

    def write(self, file: int, data: Any) -> int:
        position = os.lseek(file, 0, os.SEEK_CUR)
        count = self.pwrite(file, data, position)
        os.lseek(file, position + count, os.SEEK_SET)
        return count

    def pwrite(self, file: int, data: Any, position: int) -> int:
        path = self._path(file)
        state, length = self._state(path), len(data)
        if state is _State.DEAD:
            self._fail(errno.EIO)
        grows = position + length > os.fstat(file).st_size  # room that is allocated stays there
        is_full = grows and self._home(path) in self.full
        fails = is_full or state is _State.BURNS
        if fails and (is_full or self._rng.random() < 0.5):
            length = self._rng.randint(0, length)
        with open(path, "rb") as now:
            now.seek(position)
            before, size_before = now.read(length), os.fstat(file).st_size
        self._dirty.setdefault(path, []).append(_Write(position, length, before, size_before))
        count = os.pwrite(file, bytes(data)[:length], position)
        if fails:
            self._fail(errno.EIO if state is _State.BURNS else errno.ENOSPC)
        return count

    def posix_fallocate(self, file: int, offset: int, length: int) -> None:
        path = self._path(file)
        self._step(path)
        if self._home(path) in self.full:
            self._fail(errno.ENOSPC)
        os.posix_fallocate(file, offset, length)

    def statvfs(self, path: Path | str) -> os.statvfs_result:
        found = os.statvfs(path)
        if self._home(Path(path)) not in self.full:
            return found
        fields = list(found)
        fields[3] = fields[4] = 0  # f_bfree, f_bavail
        return os.statvfs_result(fields)

    def fdatasync(self, file: int) -> None:
        self._sync(file)

    def fsync(self, file: int) -> None:
        self._sync(file)

    def ftruncate(self, file: int, size: int) -> None:
        path = self._path(file)
        self._step(path)
        os.ftruncate(file, size)
        self._dirty[path] = [w for w in self._dirty.get(path, ()) if w.position + w.length <= size]

    def replace(self, draft: Path | str, final: Path | str) -> None:
        draft, final = Path(draft), Path(final)
        state = self._state(final)
        if state is _State.ON or (state is _State.BURNS and self._rng.random() < 0.5):
            self._names.setdefault(final, final.read_bytes() if final.exists() else None)
            self._names.pop(draft, None)
            os.replace(draft, final)
            self._dirty[final] = self._dirty.pop(draft, [])
        if state is not _State.ON:
            self._fail(errno.EIO)

    rename = replace

    def unlink(self, path: Path | str) -> None:
        path = Path(path)
        self._step(path)
        if path.exists():
            self._names.setdefault(path, path.read_bytes())
        os.unlink(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _sync(self, file: int) -> None:
        path = self._path(file)
        self._step(path)
        if path.is_dir():
            for name in [name for name in self._names if name.parent == path]:
                del self._names[name]
            return
        home = self._home(path)
        self._dirty.pop(path, None)
        if home in self.slow and self._rng.random() < STALLS_OF_A_SLOW_DISK:
            self.slow[home]()

    def _step(self, path: Path) -> None:
        if self._state(path) is not _State.ON:
            self._fail(errno.EIO)

    def _state(self, path: Path) -> _State:
        process = CURRENT.get()
        if process is not None and process.dead:
            return _State.DEAD
        home = self._home(path)
        if home in self._burnt:
            return _State.DEAD
        if home not in self._fuses:
            return _State.ON
        steps, on_burn = self._fuses.pop(home)
        if steps > 0:
            self._fuses[home] = (steps - 1, on_burn)
            return _State.ON
        self._burnt.add(home)
        on_burn()
        return _State.BURNS

    def _home(self, path: Path) -> Path:
        while path not in self._homes and path != path.parent:
            path = path.parent
        return path

    @staticmethod
    def _fail(number: int) -> None:
        raise OSError(number, os.strerror(number))

    @staticmethod
    def _path(file: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{file}"))


def _take_back(content: bytearray, write: _Write, kept: int) -> None:
    """Undo a write but for its first bytes."""
    start, end = write.position + kept, write.position + write.length
    content[start:end] = write.before[kept:].ljust(end - start, b"\0")
    if write.size_before < end:
        del content[max(write.size_before, start) :]
