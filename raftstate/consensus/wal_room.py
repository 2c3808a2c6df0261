"""Whether the disk has room for more promises: asked by the log before anything new is accepted.

A full disk must be noticed while there is still room to write down votes, and for SQLite and the next snapshot to do
their work, so a reserve is kept. It clears by itself when space is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

MAX_RESERVE_BYTES = 512 << 20
RESERVE_PERCENT = 2
LOOK_PAUSE_S = 1.0


def free_bytes(path: Path) -> int:
    """Return what is free on the file system of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def default_reserve_bytes(path: Path) -> int:
    """Return the part of the file system of `path` that the log leaves free."""
    found = os.statvfs(path)
    return min(MAX_RESERVE_BYTES, found.f_blocks * found.f_frsize * RESERVE_PERCENT // 100)


class DiskRoom:
    """Looks at the disk at most once a second. `reserve_bytes` None: the default for the file system."""

    def __init__(
        self,
        *,
        reserve_bytes: int | None = None,
        free_bytes: Callable[[Path], int] = free_bytes,
        now: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        self._reserve_bytes, self._free_bytes, self._now = reserve_bytes, free_bytes, now
        self._looked_s: float | None = None
        self.reason = ""

    def look(self, directory: Path, allocate: Callable[[], str]) -> str:
        """Return why nothing may be accepted, empty if all is well.

        `allocate` tries to get the log's next segment, and returns why that can't be had.
        """
        now_s = self._now()
        if self._looked_s is None or now_s - self._looked_s >= LOOK_PAUSE_S:
            self._looked_s = now_s
            if why := allocate():
                self.refuse(directory, why)
            else:
                self._judge(directory)
        return self.reason

    def refuse(self, directory: Path, why: str) -> None:
        """The next segment can't be had: accept nothing from now on."""
        self._set(f"the disk is full: no room in {directory} for the next part of the log ({why})")

    def _judge(self, directory: Path) -> None:
        try:
            if self._reserve_bytes is None:
                self._reserve_bytes = default_reserve_bytes(directory)
            free = self._free_bytes(directory)
        except OSError as error:
            self.refuse(directory, error.strerror or repr(error))
            return
        wanted = self._reserve_bytes
        if self.reason:  # a little more than before, so that it doesn't go to and fro
            wanted += wanted // 8
        self._set(
            f"the disk is full: {free >> 20} MiB are free in {directory}, {wanted >> 20} MiB must be"
            if free < wanted
            else ""
        )

    def _set(self, reason: str) -> None:
        if reason and not self.reason:
            log.error("the disk is full, no change is accepted", extra={"reason": reason})
        elif self.reason and not reason:
            log.info("the disk has room again, changes are accepted")
        self.reason = reason
