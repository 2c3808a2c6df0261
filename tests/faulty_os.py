"""A stand-in for the `os` module of the write-ahead log, for tests that want the disk full or broken."""

import errno
import os
from typing import Any

import pytest

from raftstate.consensus import wal


class FaultyOs:
    """The real `os`, but for what a test has switched on."""

    def __init__(self) -> None:
        self.disk_full = False
        self.broken = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in wal.IO_MODULES:
            monkeypatch.setattr(module, "os", self)

    def posix_fallocate(self, file: int, start: int, count: int) -> None:
        if self.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.posix_fallocate(file, start, count)

    def fdatasync(self, file: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(file)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)
