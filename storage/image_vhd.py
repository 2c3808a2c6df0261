"""The headers of VHD and VHDX files, read before QEMU reads them.

Called by `storage.image_check`. Differencing disks name a parent and are refused. Layouts: Microsoft's "Virtual
Hard Disk Image Format Specification" and [MS-VHDX].
"""

from __future__ import annotations

import uuid

from storage.image_bytes import SECTOR_BYTES, ImageBytes, refuse

VHD_COOKIE = b"conectix"
VHD_DYNAMIC_COOKIE = b"cxsparse"
VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING = 2, 3, 4
VHD_TABLE_ENTRIES_MAX = 1 << 22
VHD_BLOCK_MAX_BYTES = 256 << 20

VHDX_SIGNATURE = b"vhdxfile"
VHDX_HEADERS_AT = (64 << 10, 128 << 10)
VHDX_REGIONS_AT = (192 << 10, 256 << 10)
VHDX_TABLE_BYTES = 64 << 10
VHDX_REGIONS_MAX = 2047
VHDX_BLOCK_MIN_BYTES, VHDX_BLOCK_MAX_BYTES = 1 << 20, 256 << 20
VHDX_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
VHDX_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
VHDX_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VHDX_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
VHDX_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
VHDX_HAS_PARENT = 2

CONVERT = "convert it with 'qemu-img convert -O qcow2 OLD NEW' and upload the result"


def check_vhd(image: ImageBytes) -> int:
    """Return the virtual size in bytes of a fixed or dynamic VHD.

    Raises:
        InvalidError: it is a differencing disk, or damaged, cut short or beyond the limits.
    """
    footer_at = 0 if image.peek(0, 8) == VHD_COOKIE else image.size_bytes - SECTOR_BYTES
    data_at, size, cylinders, heads, sectors, kind = image.unpack(
        ">16xQ24xQHBBI", footer_at, "footer"
    )
    if kind == VHD_DIFFERENCING:
        raise refuse("is a differencing VHD that needs a parent", CONVERT)
    # QEMU takes one of the two sizes, depending on which program wrote the file.
    largest = max(image.require_virtual_size(size), cylinders * heads * sectors * SECTOR_BYTES)
    image.require_virtual_size(largest)
    if kind == VHD_FIXED and footer_at:
        if size > image.size_bytes:
            raise refuse("is cut short or damaged (smaller than its disk)", "upload it again")
        return size
    if kind != VHD_DYNAMIC or footer_at:
        raise refuse("is a VHD of an unknown kind", CONVERT)
    if image.read(image.size_bytes - SECTOR_BYTES, 8, "footer") != VHD_COOKIE:
        raise refuse("is a VHD that is cut short (no footer)", "upload it again")
    if image.read(data_at, 8, "dynamic header") != VHD_DYNAMIC_COOKIE:
        raise refuse("has a damaged VHD header", "upload it again")
    table_at, entries, block = image.unpack(">16xQ4xII", data_at, "dynamic header")
    if not SECTOR_BYTES <= block <= VHD_BLOCK_MAX_BYTES or block & (block - 1):
        raise refuse("has a damaged VHD header (block size)", "upload it again")
    if not -(-size // block) <= entries <= VHD_TABLE_ENTRIES_MAX:
        raise refuse("has a damaged VHD header (size of the block table)", "upload it again")
    image.require_inside(table_at, entries * 4, "block table")
    return largest


def check_vhdx(image: ImageBytes) -> int:
    """Return the virtual size in bytes of a VHDX that stands alone and was closed cleanly.

    Raises:
        InvalidError: it has a parent or an unreplayed log, or is damaged, cut short or beyond the limits.
    """
    _check_vhdx_headers(image)
    metadata_at, metadata_bytes = _find_vhdx_metadata(image)
    items = _read_vhdx_metadata(image, metadata_at, metadata_bytes)
    if VHDX_PARENT_LOCATOR in items:
        raise refuse("is a differencing VHDX that needs a parent", CONVERT)
    if VHDX_FILE_PARAMETERS not in items or VHDX_DISK_SIZE not in items:
        raise refuse("has damaged VHDX metadata", "upload it again")
    block, flags = image.unpack("<II", items[VHDX_FILE_PARAMETERS], "metadata")
    if flags & VHDX_HAS_PARENT:
        raise refuse("is a differencing VHDX that needs a parent", CONVERT)
    if not VHDX_BLOCK_MIN_BYTES <= block <= VHDX_BLOCK_MAX_BYTES or block & (block - 1):
        raise refuse("has damaged VHDX metadata (block size)", "upload it again")
    return image.require_virtual_size(image.unpack("<Q", items[VHDX_DISK_SIZE], "metadata")[0])


def _check_vhdx_headers(image: ImageBytes) -> None:
    """Refuse a log: replaying it may change all that is checked here."""
    found = 0
    for offset in VHDX_HEADERS_AT:
        header = image.read(offset, 80, "header")
        if header[:4] == b"head":
            found += 1
            if header[48:64] != bytes(16):
                raise refuse(
                    "was not closed cleanly (VHDX log)",
                    "open it once with the program that made it",
                )
    if not found:
        raise refuse("has no valid VHDX header", "upload it again")


def _find_vhdx_metadata(image: ImageBytes) -> tuple[int, int]:
    """Return offset and length of the metadata region, and check that all regions are known."""
    first, second = (
        image.read(offset, VHDX_TABLE_BYTES, "region table") for offset in VHDX_REGIONS_AT
    )
    if first[:4] != b"regi" or first != second:
        raise refuse("has a damaged VHDX region table", "upload it again")
    count = image.unpack("<I", VHDX_REGIONS_AT[0] + 8, "region table")[0]
    if count > VHDX_REGIONS_MAX:
        raise refuse("has a damaged VHDX region table", "upload it again")
    metadata: tuple[int, int] | None = None
    for index in range(count):
        at = VHDX_REGIONS_AT[0] + 16 + 32 * index
        kind = uuid.UUID(bytes_le=image.read(at, 16, "region table"))
        offset, length, required = image.unpack("<QII", at + 16, "region table")
        if kind in (VHDX_BAT, VHDX_METADATA):
            image.require_inside(offset, length, "region")
        elif required & 1:
            raise refuse("uses VHDX regions unknown here", CONVERT)
        if kind == VHDX_METADATA:
            if metadata is not None:
                raise refuse("has a damaged VHDX region table", "upload it again")
            metadata = (offset, length)
    if metadata is None or metadata[1] < VHDX_TABLE_BYTES:
        raise refuse("has a damaged VHDX region table", "upload it again")
    return metadata


def _read_vhdx_metadata(
    image: ImageBytes, region_at: int, region_bytes: int
) -> dict[uuid.UUID, int]:
    """Return the items' places in the file."""
    if image.read(region_at, 8, "metadata") != b"metadata":
        raise refuse("has damaged VHDX metadata", "upload it again")
    count = image.unpack("<H", region_at + 10, "metadata")[0]
    if count > VHDX_REGIONS_MAX:
        raise refuse("has damaged VHDX metadata", "upload it again")
    items: dict[uuid.UUID, int] = {}
    for index in range(count):
        at = region_at + 32 + 32 * index
        kind = uuid.UUID(bytes_le=image.read(at, 16, "metadata"))
        offset, length = image.unpack("<II", at + 16, "metadata")
        if kind in items or offset + length > region_bytes:
            raise refuse("has damaged VHDX metadata", "upload it again")
        items[kind] = region_at + offset
    return items
