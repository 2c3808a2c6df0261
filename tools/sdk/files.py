"""Files to upload: their hash and their bytes, with word on how far it is.

Used by `Client.upload_image`. Files are read in pieces and may be larger than the memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from core.errors import InvalidError

PIECE_BYTES = 1024 * 1024

OnBytes = Callable[[int, int], None]
"""Called with the bytes done so far and the size; starts over when an upload is tried again."""


def silent(done_bytes: int, size_bytes: int) -> None:
    """Say nothing of how far it is."""
    del done_bytes, size_bytes


def size_of(path: Path) -> int:
    """Return the size in bytes of a plain, readable file that is not empty.

    Raises:
        InvalidError: it is something else.
    """
    try:
        if not path.is_file():
            raise InvalidError(f"{path} is not a file: give the path of an image file")
        size_bytes = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise InvalidError(f"cannot read {path}: {error.strerror}") from error
    if size_bytes == 0:
        raise InvalidError(f"{path} is empty")
    return size_bytes


async def sha256_of(path: Path, on_bytes: OnBytes) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    done_bytes = 0
    size_bytes = size_of(path)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            done_bytes += len(piece)
            on_bytes(done_bytes, size_bytes)
            await asyncio.sleep(0)  # an interrupt is heard between pieces
    return digest.hexdigest()


async def pieces_of(file: BinaryIO, size_bytes: int, on_bytes: OnBytes) -> AsyncIterator[bytes]:
    """Yield the first `size_bytes` bytes of an open file, whatever its position is.

    Several may read one file: a try that was broken off can end after the next one has begun.

    Raises:
        InvalidError: the file has shrunk; the receiver sees a broken upload.
    """
    done_bytes = 0
    while done_bytes < size_bytes:
        piece = os.pread(file.fileno(), min(PIECE_BYTES, size_bytes - done_bytes), done_bytes)
        if not piece:
            raise InvalidError(
                f"{file.name} changed while it was read: try again when it is at rest"
            )
        yield piece
        done_bytes += len(piece)
        on_bytes(done_bytes, size_bytes)
