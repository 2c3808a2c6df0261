"""Bounded reading of an image file that nobody trusts yet.

Used by `storage.image_check` and the parsers of the formats. Every number in such a file is an attack, so reads
outside the file are refusals and no read is larger than a table may be.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from core.errors import InvalidError

READ_MAX_BYTES = 1 << 20
SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An open file, its size and the largest virtual size that is allowed, in bytes."""

    file: BinaryIO
    size_bytes: int
    virtual_size_limit_bytes: int

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly `length` bytes.

        Raises:
            InvalidError: they are not all inside the file.
        """
        assert 0 <= length <= READ_MAX_BYTES, (
            "tables are checked against their limits before they are read"
        )
        if offset < 0 or offset + length > self.size_bytes:
            raise InvalidError(
                f"the image is cut short: its {what} lies beyond the end of the file; upload it again"
            )
        self.file.seek(offset)
        found = self.file.read(length)
        if len(found) != length:
            raise InvalidError(f"the image is cut short in its {what}; upload it again")
        return found

    def peek(self, offset: int, length: int) -> bytes:
        """Return what there is of a range, possibly nothing."""
        if offset < 0 or offset >= self.size_bytes:
            return b""
        self.file.seek(offset)
        return self.file.read(min(length, READ_MAX_BYTES))

    def unpack(self, layout: str, offset: int, what: str) -> tuple[int, ...]:
        """Return the integers of a `struct` layout at an offset."""
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout), what))

    def require_inside(self, offset: int, length: int, what: str) -> None:
        """Refuse a table that does not lie inside the file."""
        if offset <= 0 or length < 0 or offset + length > self.size_bytes:
            raise InvalidError(
                f"the image is cut short: its {what} lies beyond the end of the file; upload it again"
            )

    def require_virtual_size(self, size_bytes: int) -> int:
        """Return a virtual size that is allowed."""
        if size_bytes <= 0:
            raise InvalidError("the image holds a disk of size 0: make it again from a real disk")
        if size_bytes > self.virtual_size_limit_bytes:
            raise InvalidError(
                f"the image's disk has {size_bytes} bytes, more than the {self.virtual_size_limit_bytes} allowed: "
                "shrink it before the upload"
            )
        return size_bytes


def refuse(reason: str, remedy: str) -> InvalidError:
    """Return the refusal of an image: what was found and what to do about it."""
    return InvalidError(f"the image {reason}: {remedy}")
