"""Sizes as people write them, and the free space of a directory.

Used by the services and the command line for disk sizes, and by uploads and drivers before they write.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from core.errors import InvalidError
from storage.errors import NoSpaceError

UNITS = {
    "": 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_UNITS_BY_LOWER = {unit.lower(): factor for unit, factor in UNITS.items()} | {
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "t": 1 << 40,
}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})", re.ASCII)
SIZE_MAX = 1 << 60

# Kept free on every storage, so that running guests can go on writing while someone fills it with images.
RESERVE_BYTES = 64 << 20


def parse_size(text: str) -> int:
    """Return the bytes of e.g. `20GiB`, `1.5T`, `512`, `10 GB`; K, M, G, T alone are powers of 1024.

    Raises:
        InvalidError: not a size, not a whole number of bytes, or above 1 EiB.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _UNITS_BY_LOWER.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise InvalidError(
            f"size {text[:40]!r} is not understood: write e.g. 20GiB, 512MiB or 1.5TiB"
        )
    value = Fraction(match[1]) * factor
    if value.denominator != 1 or value > SIZE_MAX:
        raise InvalidError(f"size {text[:40]!r} must be a whole number of bytes and at most 1 EiB")
    return int(value)


def format_size(size_bytes: int) -> str:
    """Return a size for people, in the largest unit that leaves at least 1, e.g. `1.5 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= UNITS[unit]:
            return f"{size_bytes / UNITS[unit]:.4g} {unit}"
    return f"{size_bytes} bytes"


@dataclass(frozen=True, slots=True)
class Capacity:
    """A file system's size and what is left for us, in bytes."""

    total_bytes: int
    free_bytes: int


def capacity_of(directory: Path) -> Capacity:
    """Measure the file system that holds a directory. Blocks; raises `OSError`."""
    found = os.statvfs(directory)
    return Capacity(
        total_bytes=found.f_blocks * found.f_frsize, free_bytes=found.f_bavail * found.f_frsize
    )


def require_free(directory: Path, wanted_bytes: int, *, reserve_bytes: int = RESERVE_BYTES) -> None:
    """Refuse when a directory has less than `wanted_bytes` beside the reserve. Blocks.

    Raises:
        NoSpaceError: too little space, with both numbers.
    """
    free_bytes = max(0, capacity_of(directory).free_bytes - reserve_bytes)
    if free_bytes < wanted_bytes:
        raise NoSpaceError(
            f"{directory} has {format_size(free_bytes)} free, {format_size(wanted_bytes)} are needed: "
            "free some space or use another storage"
        )
