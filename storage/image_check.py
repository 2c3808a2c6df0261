"""Decide from its bytes what an uploaded file is, and refuse it unless it stands alone.

Called by `storage.image_import` before any QEMU tool sees the file. A plain `qemu-img convert` follows backing
files, external data files and VMDK extents that an image names, and so copies any file of the host into an
image that its uploader can read. Only the image itself is opened here; its numbers are checked against the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from core.errors import InvalidError
from storage import image_qcow2, image_vhd, image_vmdk
from storage.image_bytes import SECTOR_BYTES, ImageBytes, refuse

VIRTUAL_SIZE_LIMIT_BYTES = 16 << 40
ISO_SECTOR_BYTES = 2048


class ImageFormat(StrEnum):
    """What may be uploaded. `VHD` is Microsoft's older format, called vpc by QEMU."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    ISO = "iso"

    @property
    def qemu_driver(self) -> str:
        """QEMU's name of the format; never let QEMU guess it."""
        return _QEMU_DRIVERS.get(self, self.value)


_QEMU_DRIVERS = {ImageFormat.VHD: "vpc", ImageFormat.ISO: "raw"}


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """What a file turned out to be. `virtual_size_bytes` is what a guest would see."""

    format: ImageFormat
    virtual_size_bytes: int
    file_size_bytes: int


# (offset, bytes there, what it is, what to do)
_UNSUPPORTED: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "is compressed (gzip)", "unpack it before the upload"),
    (0, b"\xfd7zXZ\0", "is compressed (xz)", "unpack it before the upload"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed (zstd)", "unpack it before the upload"),
    (0, b"BZh", "is compressed (bzip2)", "unpack it before the upload"),
    (0, b"PK\x03\x04", "is a zip archive", "unpack it and upload the disk inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it and upload the disk inside"),
    (257, b"ustar", "is a tar or OVA archive", "unpack it and upload the disk inside"),
    (0, b"LUKS\xba\xbe", "is encrypted (LUKS)", "decrypt it before the upload"),
    (0, b"QED\0", "is in the QED format", image_vmdk.CONVERT),
    (0, b"WithoutFreeSpace", "is in the Parallels format", image_vmdk.CONVERT),
    (0, b"WithouFreSpacExt", "is in the Parallels format", image_vmdk.CONVERT),
    (0, b"Bochs Virtual HD Image", "is in the Bochs format", image_vmdk.CONVERT),
    (0, b"#!/bin/sh\n#V2.0 Format", "is in the cloop format", image_vmdk.CONVERT),
    (64, b"\x7f\x10\xda\xbe", "is in the VDI format", image_vmdk.CONVERT),
    (0, image_vmdk.MAGIC_ESX, "is a VMDK that needs other files", image_vmdk.CONVERT),
    (0, b"<!DOCTYPE", "is a web page, not a disk", "download the image itself"),
    (0, b"<html", "is a web page, not a disk", "download the image itself"),
)

# (offset, bytes there) of what a whole disk or a file system without partitions has
_DISK_SIGNS: tuple[tuple[int, bytes], ...] = (
    (510, b"\x55\xaa"),  # MBR, also the protective one of GPT; FAT, NTFS
    (512, b"EFI PART"),
    (0, b"XFSB"),
    (1080, b"\x53\xef"),  # ext2, ext3, ext4
    (0x10040, b"_BHRfS_M"),  # btrfs
)


def check_image(
    path: Path,
    *,
    expected: ImageFormat | None = None,
    virtual_size_limit_bytes: int = VIRTUAL_SIZE_LIMIT_BYTES,
) -> CheckedImage:
    """Return what an untrusted file is, if it is safe to convert. Blocks, for a few small reads.

    `expected` RAW accepts content without any sign of a disk; any other mismatch is refused.

    Raises:
        InvalidError: with the reason and what to do.
        OSError: the file cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidError("the image is not a plain file: upload a disk image file")
        return check_bytes(ImageBytes(file, found.st_size, virtual_size_limit_bytes), expected)


def check_bytes(image: ImageBytes, expected: ImageFormat | None = None) -> CheckedImage:
    """Return what the bytes are; see `check_image`."""
    if image.size_bytes == 0:
        raise InvalidError("the image is empty: upload it again")
    found = detect_format(image, expected)
    if expected is not None and found != expected:
        raise refuse(f"is {found}, not {expected}", f"say {found}, or upload the right file")
    size = _CHECKS[found](image)
    return CheckedImage(format=found, virtual_size_bytes=size, file_size_bytes=image.size_bytes)


def detect_format(image: ImageBytes, expected: ImageFormat | None = None) -> ImageFormat:
    """Return the format that the bytes show.

    Raises:
        InvalidError: a format that is not supported, or no sign of a disk at all.
    """
    head = image.peek(0, 512)
    for offset, sign, what, remedy in _UNSUPPORTED:
        if head[offset : offset + len(sign)].lower() == sign.lower():
            raise refuse(what, remedy)
    if head.lstrip().lower().startswith(image_vmdk.DESCRIPTOR_MAGIC):
        raise refuse(
            "is only the description of a VMDK, its data is in other files", image_vmdk.CONVERT
        )
    if head.startswith(image_qcow2.MAGIC):
        return ImageFormat.QCOW2
    if head.startswith(image_vmdk.MAGIC):
        return ImageFormat.VMDK
    if head.startswith(image_vhd.VHDX_SIGNATURE):
        return ImageFormat.VHDX
    if head.startswith(image_vhd.VHD_COOKIE):
        return ImageFormat.VHD
    if image.peek(image.size_bytes - SECTOR_BYTES, 8) == image_vhd.VHD_COOKIE:
        return ImageFormat.VHD
    if image.peek(16 * ISO_SECTOR_BYTES + 1, 5) == b"CD001":
        return ImageFormat.ISO
    if expected == ImageFormat.RAW:
        return ImageFormat.RAW
    if any(image.peek(offset, len(sign)) == sign for offset, sign in _DISK_SIGNS):
        return ImageFormat.RAW
    raise refuse(
        "is in no format known here",
        "upload qcow2, vmdk, vhd, vhdx, iso or a raw disk; for a raw disk without partitions say format raw",
    )


def _check_raw(image: ImageBytes) -> int:
    if image.size_bytes % SECTOR_BYTES:
        raise refuse(
            "is a raw disk that is not a whole number of 512-byte sectors",
            "upload it again, it seems cut short",
        )
    return image.require_virtual_size(image.size_bytes)


def _check_iso(image: ImageBytes) -> int:
    blocks, block_bytes = image.unpack("<I44xH", 16 * ISO_SECTOR_BYTES + 80, "volume descriptor")
    if block_bytes != ISO_SECTOR_BYTES or blocks == 0:
        raise refuse("has a damaged ISO volume descriptor", "upload it again")
    if blocks * block_bytes > image.size_bytes:
        raise refuse("is an ISO that is cut short", "upload it again")
    return image.require_virtual_size(-(-image.size_bytes // SECTOR_BYTES) * SECTOR_BYTES)


_CHECKS: dict[ImageFormat, Callable[[ImageBytes], int]] = {
    ImageFormat.QCOW2: image_qcow2.check,
    ImageFormat.RAW: _check_raw,
    ImageFormat.VMDK: image_vmdk.check,
    ImageFormat.VHD: image_vhd.check_vhd,
    ImageFormat.VHDX: image_vhd.check_vhdx,
    ImageFormat.ISO: _check_iso,
}
