"""Write a small ISO 9660 image: a few files in the root directory, nothing else.

Called by `storage.seed`. A pure function of its input, unlike the usual tools, which stamp the time of the day
into a dozen places: two hosts that make the same seed get the same bytes. Long names are there twice, as Rock Ridge
(Linux) and as Joliet (Windows). Sources: ECMA-119; IEEE P1281 (SUSP) and P1282 (Rock Ridge); Microsoft's Joliet
specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

SECTOR_BYTES = 2048
FIRST_DESCRIPTOR = 16
# Sectors: 16 primary, 17 Joliet, 18 end of descriptors, then path tables and root directories of both.
_PATHS = {"primary": (19, 20), "joliet": (21, 22)}
_ROOTS = {"primary": 23, "joliet": 24}
_FIRST_FILE = 25
_NO_DATE = b"0" * 16 + b"\0"
_DAY_ONE = bytes((70, 1, 1, 0, 0, 0, 0))
FILES_MAX = 8
FILE_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Extent:
    name: str
    sector: int
    length: int


def write_iso(label: str, files: Mapping[str, bytes]) -> bytes:
    """Return an image with a volume label (at most 16 ASCII characters) and files in its root, in order of name.

    Bounds: 8 files of at most 1 MiB, names of at most 64 ASCII characters.
    """
    assert label.isascii() and 0 < len(label) <= 16, "Joliet holds 16 characters"
    assert 0 < len(files) <= FILES_MAX, "the root directory is one sector"
    extents, body, sector = [], bytearray(), _FIRST_FILE
    for name in sorted(files):
        content = files[name]
        assert name.isascii() and len(name) <= 64 and len(content) <= FILE_MAX_BYTES, (
            "see the bounds"
        )
        extents.append(_Extent(name, sector, len(content)))
        body += _padded(content)
        sector += -(-len(content) // SECTOR_BYTES)
    head = b"".join(
        (
            bytes(FIRST_DESCRIPTOR * SECTOR_BYTES),
            _volume_descriptor("primary", label, sector),
            _volume_descriptor("joliet", label, sector),
            _padded(b"\xffCD001\x01"),
            *(_path_table(_ROOTS[tree], order) for tree in ("primary", "joliet") for order in "<>"),
            _root_directory("primary", extents),
            _root_directory("joliet", extents),
        )
    )
    return head + bytes(body)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % SECTOR_BYTES)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _volume_descriptor(tree: str, label: str, sectors: int) -> bytes:
    joliet = tree == "joliet"

    def text(value: str, length: int) -> bytes:
        raw = value.encode("utf-16-be" if joliet else "ascii")
        blank = " ".encode("utf-16-be") if joliet else b" "
        return (raw + blank * length)[: length // len(blank) * len(blank)].ljust(length, b"\0")

    little, big = _PATHS[tree]
    parts = (
        b"\x02CD001\x01\0" if joliet else b"\x01CD001\x01\0",
        text("LINUX", 32),
        text(label, 32),
        bytes(8),
        _both32(sectors),
        (b"%/E" if joliet else b"").ljust(32, b"\0"),  # Joliet level 3: UCS-2
        _both16(1),
        _both16(1),
        _both16(SECTOR_BYTES),
        _both32(10),
        struct.pack("<II", little, 0),
        struct.pack(">II", big, 0),
        _record(b"\0", _ROOTS[tree], SECTOR_BYTES, directory=True),
        text("", 128 * 4 + 37 * 3),  # who made it: blank
        _NO_DATE * 4,
        b"\x01\0",
    )
    return _padded(b"".join(parts))


def _path_table(root_sector: int, order: str) -> bytes:
    return _padded(struct.pack(f"{order}BBIH", 1, 0, root_sector, 1) + b"\0\0")


def _record(
    name: bytes, sector: int, length: int, *, directory: bool = False, system_use: bytes = b""
) -> bytes:
    pad = b"\0" if len(name) % 2 == 0 else b""
    rest = b"".join(
        (
            b"\0",
            _both32(sector),
            _both32(length),
            _DAY_ONE,
            b"\x02" if directory else b"\0",
            b"\0\0",
            _both16(1),
            bytes((len(name),)),
            name,
            pad,
            system_use,
            bytes(len(system_use) % 2),
        )
    )
    return bytes((len(rest) + 1,)) + rest


def _root_directory(tree: str, extents: list[_Extent]) -> bytes:
    root, joliet = _ROOTS[tree], tree == "joliet"
    itself = parent = b""
    if not joliet:
        sharing = b"SP\x07\x01\xbe\xef\0"
        extension = b"ER" + bytes((8 + 10, 1, 10, 0, 0, 1)) + b"IEEE_P1282"
        parent = _posix(0o040555, links=2)
        itself = sharing + parent + extension
    records = [
        _record(b"\0", root, SECTOR_BYTES, directory=True, system_use=itself),
        _record(b"\x01", root, SECTOR_BYTES, directory=True, system_use=parent),
    ]
    for index, extent in enumerate(extents):
        if joliet:
            name, use = extent.name.encode("utf-16-be"), b""
        else:
            name = f"FILE{index}.;1".encode()
            long_name = extent.name.encode()
            use = _posix(0o100444, links=1) + b"NM" + bytes((5 + len(long_name), 1, 0)) + long_name
        records.append(_record(name, extent.sector, extent.length, system_use=use))
    directory = b"".join(records)
    assert len(directory) <= SECTOR_BYTES, "the root directory is one sector"
    return _padded(directory)


def _posix(mode: int, *, links: int) -> bytes:
    """Rock Ridge PX: mode, links, owner root."""
    return b"PX" + bytes((36, 1)) + _both32(mode) + _both32(links) + _both32(0) + _both32(0)
