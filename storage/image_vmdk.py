"""The header and the descriptor of a VMDK file, read before QEMU reads it.

Called by `storage.image_check`. Allowed is one self-contained sparse file (monolithicSparse, streamOptimized).
Its descriptor is a text that may name other files as extents or as a parent, so it is parsed strictly.
Layout: VMware's "Virtual Disk Format 5.0"; what QEMU makes of it: block/vmdk.c.
"""

from __future__ import annotations

import re
import struct

from storage.image_bytes import SECTOR_BYTES, ImageBytes, refuse

MAGIC = b"KDMV"
MAGIC_ESX = b"COWD"
DESCRIPTOR_MAGIC = b"# disk descriptorfile"
CREATE_TYPES = frozenset({"monolithicsparse", "streamoptimized"})
DESCRIPTOR_MAX_BYTES = 20 * 1024
# QEMU looks here for a parent, whatever the header says.
DESCRIPTOR_USUAL_OFFSET = SECTOR_BYTES
GRAIN_MAX_SECTORS = 4096
TABLE_ENTRIES_MAX = 512
DIRECTORY_MAX_BYTES = 32 << 20
FOOTER_FROM_END = 2 * SECTOR_BYTES
AT_END = 0xFFFFFFFFFFFFFFFF

CONVERT = "convert it with 'qemu-img convert -O qcow2 OLD NEW' and upload the result"
_EXTENT = re.compile(
    r"(RW|RDONLY|NOACCESS)\s+(\d{1,18})\s+(\w+)(?:\s+\"[^\"]*\")?\s*", re.IGNORECASE
)
_SETTING = re.compile(r"\s*([\w.]+)\s*=\s*\"?([^\"]*)\"?\s*")
# Every line that QEMU could take for an extent, however it is written.
_EXTENT_LIKE = re.compile(r"\s*(RW|RDONLY|NOACCESS)\b", re.IGNORECASE)


def check(image: ImageBytes) -> int:
    """Return the virtual size in bytes of a VMDK that stands alone.

    Raises:
        InvalidError: it needs other files, or is damaged, cut short or beyond the limits.
    """
    size, descriptor_at, descriptor_bytes, directory_at = _check_header(image, 0)
    if directory_at == AT_END:
        end_size, _, _, directory_at = _check_header(image, image.size_bytes - FOOTER_FROM_END)
        if end_size != size:
            raise refuse("has a footer that contradicts its header", CONVERT)
    _check_directory(image, size, directory_at)
    if not 0 < descriptor_bytes <= DESCRIPTOR_MAX_BYTES:
        raise refuse("is one part of a disk that is split over several files", CONVERT)
    _check_descriptor(image.read(descriptor_at, descriptor_bytes, "descriptor"))
    if descriptor_at != DESCRIPTOR_USUAL_OFFSET:
        raise refuse("keeps its descriptor in an unusual place", CONVERT)
    beyond = image.peek(DESCRIPTOR_USUAL_OFFSET, DESCRIPTOR_MAX_BYTES)
    if b"parentfilenamehint" in beyond.lower():
        raise refuse("needs a parent file", CONVERT)
    return size


def _check_header(image: ImageBytes, offset: int) -> tuple[int, int, int, int]:
    """Return virtual size, descriptor offset and length (bytes), and the grain directory's sector."""
    raw = image.read(offset, 80, "header")
    if raw[:4] != MAGIC:
        raise refuse("is cut short or damaged (no VMDK footer)", "upload it again")
    version, _, capacity, grain, descriptor, descriptor_sectors, entries, _, directory = (
        struct.unpack("<IIQQQQIQQ", raw[4:64])
    )
    if version not in (1, 2, 3):
        raise refuse(f"has VMDK version {version}", CONVERT)
    size = image.require_virtual_size(capacity * SECTOR_BYTES)
    if not 1 <= grain <= GRAIN_MAX_SECTORS or grain & (grain - 1):
        raise refuse("has a damaged header (grain size)", "upload it again")
    if not 1 <= entries <= TABLE_ENTRIES_MAX:
        raise refuse("has a damaged header (grain table)", "upload it again")
    if size // (grain * SECTOR_BYTES * entries) * 4 > DIRECTORY_MAX_BYTES:
        raise refuse("has a grain directory beyond all limits", CONVERT)
    return size, descriptor * SECTOR_BYTES, descriptor_sectors * SECTOR_BYTES, directory


def _check_directory(image: ImageBytes, size: int, directory_at: int) -> None:
    grain, entries = image.unpack("<Q", 20, "header")[0], image.unpack("<I", 44, "header")[0]
    count = -(-size // (grain * SECTOR_BYTES * entries))
    image.require_inside(directory_at * SECTOR_BYTES, count * 4, "grain directory")


def _check_descriptor(raw: bytes) -> None:
    try:
        text = raw.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError:
        raise refuse("has a damaged descriptor", CONVERT) from None
    if not text.lstrip().lower().startswith(DESCRIPTOR_MAGIC.decode()):
        raise refuse("has a damaged descriptor", CONVERT)
    create_type, extents = "", 0
    for line in re.split(r"[\r\n]+", text):
        if _EXTENT_LIKE.match(line):
            extent = _EXTENT.fullmatch(line.strip())
            if extent is None or extent[3].upper() != "SPARSE":
                raise refuse("names other files as its extents", CONVERT)
            extents += 1
        elif setting := _SETTING.fullmatch(line):
            name, value = setting[1].lower(), setting[2].strip().lower()
            if name == "parentfilenamehint" or (name == "parentcid" and value != "ffffffff"):
                raise refuse("needs a parent file", CONVERT)
            if name == "createtype":
                create_type = value
    if create_type not in CREATE_TYPES:
        raise refuse(f"is a VMDK of type {create_type[:40]!r}", CONVERT)
    if extents != 1:
        raise refuse("is one part of a disk that is split over several files", CONVERT)
