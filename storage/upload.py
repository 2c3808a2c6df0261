"""Receive an uploaded file into a spool directory, checked as it arrives.

Called by the upload handler of the API. What was announced (size, SHA-256) must be what arrives; a spool file
that is not finished, for whatever reason, is removed, at the latest when the agent starts again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import ConflictError, InvalidError, PlatformError
from storage.file_thread import FileThread
from storage.ids import check_sha256
from storage.sizes import format_size, require_free
from storage.whole_files import create_file, discard, unfinished_name

UPLOAD_LIMIT_BYTES = 2 << 40
BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A file that arrived whole. Whoever takes it removes it (`ImageImporter` does)."""

    path: Path
    size_bytes: int
    sha256: str


class SpoolWriter:
    """Writes one upload. Use as `async with await SpoolWriter.begin(...)`: leaving without `finish` removes it."""

    def __init__(
        self, path: Path, declared_size: int, expected_sha256: str, files: FileThread
    ) -> None:
        self._handle = -1
        self._path = path
        self._declared_size = declared_size
        self._expected_sha256 = expected_sha256
        self._files = files
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._received = 0
        self._open = True

    @classmethod
    async def begin(
        cls,
        spool_dir: Path,
        declared_size: int,
        expected_sha256: str = "",
        *,
        host_id: str,
        files: FileThread,
        limit_bytes: int = UPLOAD_LIMIT_BYTES,
    ) -> Self:
        """Open a new spool file for exactly `declared_size` bytes; an empty hash is not checked.

        Raises:
            InvalidError: declared empty or above the limit, or no SHA-256.
            NoSpaceError: the file would not fit.
        """
        if expected_sha256:
            check_sha256(expected_sha256)
        if declared_size <= 0:
            raise InvalidError("the upload is declared as empty: send the image's size with it")
        if declared_size > limit_bytes:
            raise InvalidError(
                f"the upload has {format_size(declared_size)}, more than the {format_size(limit_bytes)} allowed"
            )

        writer = cls(spool_dir / unfinished_name(host_id), declared_size, expected_sha256, files)
        try:
            await files.call("receive the upload", writer._create)
        except BaseException:
            await writer.abort()
            raise
        return writer

    @property
    def received_bytes(self) -> int:
        """How much has arrived."""
        return self._received

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes. After any error the upload is gone.

        Raises:
            InvalidError: more arrived than was declared.
            NoSpaceError: the disk is full.
            ConflictError: the upload ended before.
        """
        self._require_open()
        if self._received + len(chunk) > self._declared_size:
            await self.abort()
            raise InvalidError(
                f"the upload is longer than the {self._declared_size} bytes it declared: send it again with its right size"
            )
        self._received += len(chunk)
        self._buffer += chunk
        if len(self._buffer) >= BUFFER_BYTES:
            await self._flush()

    async def finish(self) -> SpooledFile:
        """Close the file and return it.

        Raises:
            InvalidError: less arrived than declared, or the content has another hash; the upload is gone.
        """
        self._require_open()
        await self._flush()
        if self._received < self._declared_size:
            await self.abort()
            raise InvalidError(
                f"the upload broke off after {self._received} of {self._declared_size} bytes: send it again"
            )
        sha256 = self._hash.hexdigest()
        if self._expected_sha256 and sha256 != self._expected_sha256:
            await self.abort()
            raise InvalidError(
                f"the upload was damaged on its way or is another file: SHA-256 is {sha256}, "
                f"declared was {self._expected_sha256}; compare it with the original and send it again"
            )
        await self._files.call("receive the upload", os.close, self._handle)
        self._open = False
        return SpooledFile(path=self._path, size_bytes=self._received, sha256=sha256)

    async def abort(self) -> None:
        """Remove what arrived. Idempotent; does nothing after `finish`."""
        if not self._open:
            return
        self._open = False
        await self._files.clean_up("remove the upload", self._remove)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.abort()

    def _require_open(self) -> None:
        if not self._open:
            raise ConflictError("this upload has ended: start a new one")

    async def _flush(self) -> None:
        content, self._buffer = bytes(self._buffer), bytearray()
        try:
            await self._files.call("receive the upload", self._write_all, content)
        except PlatformError:
            await self.abort()
            raise

    def _create(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        require_free(self._path.parent, self._declared_size)
        self._handle = create_file(self._path)

    def _write_all(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        self._hash.update(content)

    def _remove(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        discard(self._path)
