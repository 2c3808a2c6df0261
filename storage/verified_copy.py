"""Copies of images whose hash was checked, and the memory of that check.

Used by the image store (copies for other hosts) and the image cache (copies that disks are linked to). A copy
is hashed while it is written, so a wrong one never gets its name. Beside it lies `<sha256>.verified`, which says
for which size and modification time the hash was found right: using an image again costs two small reads
instead of reading it whole, and a file that was changed since, or that someone else put there, is read again.
All functions run their work on the given file thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec

from core.errors import TemporaryError
from storage.file_thread import FileThread
from storage.sizes import require_free
from storage.whole_files import (
    IMAGE_MODE,
    create_file,
    discard,
    publish,
    unfinished_name,
    write_whole,
)

log = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20
STALL_TIMEOUT_S = 60.0
MARKER_SUFFIX = ".verified"


class VerifiedMarker(msgspec.Struct, frozen=True, kw_only=True):
    """What a file was like when its hash was found right."""

    sha256: str
    size_bytes: int
    mtime_ns: int


def marker_path(image: Path) -> Path:
    """Return where the marker of `<sha256>.qcow2` is."""
    return image.with_suffix(MARKER_SUFFIX)


async def is_verified(
    image: Path,
    sha256: str,
    size_bytes: int,
    *,
    host_id: str,
    files: FileThread,
    fully: bool = False,
) -> bool:
    """Tell whether a file is the image. Reads it whole only if it changed since it was last found right.

    `fully` reads it whole in any case. A missing file is False.
    """
    if not fully and await files.call(
        "check the image", _matches_marker, image, sha256, size_bytes
    ):
        return True
    before = await files.call("check the image", _marker_for, image, sha256)
    if before is None or before.size_bytes != size_bytes:
        return False
    digest = hashlib.sha256()
    async for chunk in read_chunks(image, files=files):
        await files.call("check the image", digest.update, chunk)
    if digest.hexdigest() != sha256:
        log.error(
            "image is damaged", extra={"path": str(image), "found_sha256": digest.hexdigest()}
        )
        return False
    # A change while it was read shows as another time than this one, and is found at the next use.
    await files.call("check the image", _write_marker, image, before, host_id)
    return True


async def read_chunks(image: Path, *, files: FileThread) -> AsyncIterator[bytes]:
    """Yield a file's content in pieces of 4 MiB."""
    file = await files.call("read the image", open, image, "rb", 0)
    try:
        while chunk := await files.call("read the image", file.read, CHUNK_BYTES):
            yield chunk
    finally:
        await files.clean_up("close the image", file.close)


async def copy_verified(
    chunks: AsyncIterator[bytes],
    image: Path,
    sha256: str,
    size_bytes: int,
    *,
    host_id: str,
    files: FileThread,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> None:
    """Write an image from chunks of any size; it gets its name only if size and hash are right.

    Several hosts may do this at once in one directory: each writes its own file, the last name given wins, and
    all have the same content.

    Raises:
        TemporaryError: the source sent something else, too little, too much, or nothing for too long.
        NoSpaceError: the image does not fit.
    """
    unfinished = image.parent / unfinished_name(host_id)
    writer = _Writer(unfinished, size_bytes)
    try:
        await files.call("copy the image", writer.open)
        buffer = bytearray()
        received = 0
        while (chunk := await _next_chunk(chunks, stall_timeout_s)) is not None:
            received += len(chunk)
            if received > size_bytes:
                raise TemporaryError(
                    f"the source of image {sha256} sends more than its {size_bytes} bytes"
                )
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                full, buffer = bytes(buffer), bytearray()
                await files.call("copy the image", writer.write, full)
        await files.call("copy the image", writer.write, bytes(buffer))
        if received != size_bytes or writer.digest.hexdigest() != sha256:
            raise TemporaryError(
                f"the source of image {sha256} sent {received} bytes with SHA-256 {writer.digest.hexdigest()}: "
                "its copy is damaged, another host's is needed"
            )
        await files.call("copy the image", _finish, unfinished, image, sha256, host_id)
    finally:
        await files.clean_up("remove an unfinished copy", writer.close)
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _next_chunk(chunks: AsyncIterator[bytes], stall_timeout_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(stall_timeout_s):
            return await anext(chunks)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise TemporaryError(
            f"the source of an image has sent nothing for {stall_timeout_s:g} s"
        ) from None


class _Writer:
    """A file being written on the file thread."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._handle = -1
        self.digest = hashlib.sha256()

    def open(self) -> None:
        require_free(self._path.parent, self._size_bytes)
        self._handle = create_file(self._path)

    def write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        self.digest.update(content)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        discard(self._path)


def _finish(unfinished: Path, image: Path, sha256: str, host_id: str) -> None:
    publish(unfinished, image, IMAGE_MODE)
    marker = _marker_for(image, sha256)
    if marker is not None:
        _write_marker(image, marker, host_id)


def _marker_for(image: Path, sha256: str) -> VerifiedMarker | None:
    try:
        found = image.stat()
    except FileNotFoundError:
        return None
    return VerifiedMarker(sha256=sha256, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)


def _matches_marker(image: Path, sha256: str, size_bytes: int) -> bool:
    now = _marker_for(image, sha256)
    try:
        then = msgspec.json.decode(marker_path(image).read_bytes(), type=VerifiedMarker)
    except (FileNotFoundError, msgspec.MsgspecError):
        return False
    return then == now and then.size_bytes == size_bytes


def _write_marker(image: Path, marker: VerifiedMarker, host_id: str) -> None:
    write_whole(marker_path(image), msgspec.json.encode(marker), host_id=host_id, mode=IMAGE_MODE)
