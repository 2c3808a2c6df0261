"""Whether a disk has room for what a command is about to write."""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import FatalError

SPARE_BYTES = 64 << 20


def require_room(directory: Path, size_bytes: int) -> None:
    """Raise FatalError if there isn't room for so much, and a little more."""
    disk = os.statvfs(directory)
    free, wanted = disk.f_bavail * disk.f_frsize, size_bytes + SPARE_BYTES
    if free < wanted:
        raise FatalError(
            f"{directory} has {free >> 20} MiB free, {wanted >> 20} MiB are needed; nothing was changed"
        )
