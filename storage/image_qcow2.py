"""The header of a qcow2 file, read before QEMU reads it.

Called by `storage.image_check`. Layout and limits: QEMU's docs/interop/qcow2.txt. Refused is all that lets an
image name another file (backing file, external data file), and tables that only a bomb would have.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from core.errors import InvalidError
from storage.image_bytes import ImageBytes, refuse

MAGIC = b"QFI\xfb"
V2_HEADER_BYTES, V3_HEADER_BYTES = 72, 104
L1_MAX_BYTES = 32 << 20
REFCOUNT_TABLE_MAX_BYTES = 8 << 20
EXTENSIONS_MAX = 64
BACKING_NAME_MAX_BYTES = 1023

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
HARMLESS_FEATURES = DIRTY | COMPRESSION | EXTENDED_L2

EXTENSION_END = 0
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_DATA_FILE = 0x44415441
EXTENSION_ENCRYPTION = 0x0537BE77

FLATTEN = "convert it with 'qemu-img convert -O qcow2 OLD NEW' and upload the result"


def check(image: ImageBytes) -> int:
    """Return the virtual size in bytes of a qcow2 image that stands alone.

    Raises:
        InvalidError: it refers to other files, is encrypted, damaged, cut short or beyond the limits.
    """
    version, backing_offset, backing_length, cluster_bits, size, crypt = image.unpack(
        ">IQIIQI", 4, "header"
    )
    if version not in (2, 3):
        raise refuse(f"has qcow2 version {version}", FLATTEN)
    if backing_offset or backing_length:
        raise refuse("needs a backing file", FLATTEN)
    if crypt:
        raise refuse("is encrypted", "decrypt it before the upload")
    if not 9 <= cluster_bits <= 21:
        raise refuse("has a damaged header (cluster size)", "upload it again")
    image.require_virtual_size(size)
    features, header_bytes = (
        _check_v3(image, cluster_bits) if version == 3 else (0, V2_HEADER_BYTES)
    )
    _check_tables(image, cluster_bits, size, extended_l2=bool(features & EXTENDED_L2))
    _check_extensions(image, header_bytes, end=1 << cluster_bits)
    return size


def _check_v3(image: ImageBytes, cluster_bits: int) -> tuple[int, int]:
    """Return the incompatible features and the header's length."""
    features, _, _, refcount_order, header_bytes = image.unpack(">QQQII", 72, "header")
    if features & DATA_FILE:
        raise refuse("keeps its data in another file", FLATTEN)
    if features & CORRUPT:
        raise refuse(
            "is marked as corrupt", "repair it with 'qemu-img check -r all' before the upload"
        )
    if features & ~HARMLESS_FEATURES:
        raise refuse(f"uses features unknown here (bits {features:#x})", FLATTEN)
    if refcount_order > 6:
        raise refuse("has a damaged header (refcount width)", "upload it again")
    if not V3_HEADER_BYTES <= header_bytes <= 1 << cluster_bits or header_bytes % 8:
        raise refuse("has a damaged header (length)", "upload it again")
    compression = image.read(104, 1, "header")[0] if header_bytes > V3_HEADER_BYTES else 0
    if compression not in ((0, 1) if features & COMPRESSION else (0,)):
        raise refuse("uses a compression unknown here", FLATTEN)
    return features, header_bytes


def _check_tables(image: ImageBytes, cluster_bits: int, size: int, *, extended_l2: bool) -> None:
    l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots = image.unpack(
        ">IQQII", 36, "header"
    )
    cluster_bytes = 1 << cluster_bits
    bytes_per_l1_entry = cluster_bytes * (cluster_bytes // (16 if extended_l2 else 8))
    if l1_entries < -(-size // bytes_per_l1_entry) or l1_entries * 8 > L1_MAX_BYTES:
        raise refuse("has a damaged header (size of the L1 table)", "upload it again")
    refcount_bytes = refcount_clusters * cluster_bytes
    if not 0 < refcount_bytes <= REFCOUNT_TABLE_MAX_BYTES:
        raise refuse("has a damaged header (size of the refcount table)", "upload it again")
    if l1_offset % cluster_bytes or refcount_offset % cluster_bytes:
        raise refuse("has a damaged header (table not on a cluster)", "upload it again")
    image.require_inside(l1_offset, l1_entries * 8, "L1 table")
    image.require_inside(refcount_offset, refcount_bytes, "refcount table")
    if snapshots:
        raise refuse(f"has {snapshots} internal snapshots", FLATTEN)


def _check_extensions(image: ImageBytes, offset: int, end: int) -> None:
    for _ in range(EXTENSIONS_MAX):
        if offset + 8 > end:
            return
        kind, length = image.unpack(">II", offset, "header extensions")
        if kind == EXTENSION_END:
            return
        if kind == EXTENSION_BACKING_FORMAT:
            raise refuse("names a backing format", FLATTEN)
        if kind == EXTENSION_DATA_FILE:
            raise refuse("names an external data file", FLATTEN)
        if kind == EXTENSION_ENCRYPTION:
            raise refuse("is encrypted", "decrypt it before the upload")
        if length > end - offset - 8:
            raise refuse("has a damaged header (extension)", "upload it again")
        offset += 8 + (length + 7 & ~7)
    raise InvalidError("the image has too many header extensions: " + FLATTEN)


def linked_base(file: BinaryIO) -> str:
    """Return the backing file that a disk of ours names, empty if it names none or is no qcow2 file."""
    magic, _, offset, length = struct.unpack(">4sIQI", file.read(20).ljust(20, b"\0"))
    if magic != MAGIC or not offset or length > BACKING_NAME_MAX_BYTES:
        return ""
    file.seek(offset)
    return file.read(length).decode("utf-8", "replace")
