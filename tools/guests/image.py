"""Put a bootable disk together without mounting anything: MBR, a FAT boot partition, one more.

Called by the recipes `tiny` and `full`. SYSLINUX reads kernel and initrd from the FAT partition, which
mtools can fill as a plain file, so no loop device and no mount is needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from core.command import run

MIB = 1024 * 1024
SECTOR_BYTES = 512
BOOT_OFFSET_BYTES = MIB
BOOT_SIZE_BYTES = 40 * MIB
SECOND_OFFSET_BYTES = BOOT_OFFSET_BYTES + BOOT_SIZE_BYTES
MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
COMMAND_TIMEOUT_S = 300.0

TYPE_FAT16 = 0x0E
TYPE_LINUX = 0x83
TYPE_NO_FILE_SYSTEM = 0xDA


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What SYSLINUX loads: a kernel, an initrd, and the kernel's arguments."""

    kernel: Path
    initrd: Path
    append: str


def _partition(*, active: bool, kind: int, offset_bytes: int, size_bytes: int) -> bytes:
    """Return one 16-byte entry of an MBR; the cylinder fields say "use LBA"."""
    no_chs = b"\xfe\xff\xff"
    start, count = offset_bytes // SECTOR_BYTES, size_bytes // SECTOR_BYTES
    return struct.pack("<B3sB3sII", 0x80 if active else 0, no_chs, kind, no_chs, start, count)


def write_partition_table(disk: Path, *, second_kind: int, second_size_bytes: int) -> None:
    """Size the raw file `disk` and write MBR boot code and the two partitions' entries."""
    table = _partition(
        active=True, kind=TYPE_FAT16, offset_bytes=BOOT_OFFSET_BYTES, size_bytes=BOOT_SIZE_BYTES
    )
    table += _partition(
        active=False,
        kind=second_kind,
        offset_bytes=SECOND_OFFSET_BYTES,
        size_bytes=second_size_bytes,
    )
    with disk.open("wb") as file:
        file.truncate(SECOND_OFFSET_BYTES + second_size_bytes)
        file.write(MBR_CODE.read_bytes()[:440])
        file.seek(446)
        file.write(table.ljust(64, b"\0") + b"\x55\xaa")


async def fill_boot_partition(disk: Path, boot: BootFiles, *, scratch: Path) -> None:
    """Format the FAT partition of `disk`, copy the boot files into it and install SYSLINUX."""
    config = scratch / "syslinux.cfg"
    config.write_text(
        f"DEFAULT linux\nPROMPT 0\nLABEL linux\n LINUX vmlinuz\n INITRD initrd\n APPEND {boot.append}\n"
    )
    where = f"{disk}@@{BOOT_OFFSET_BYTES}"
    hidden_sectors = str(BOOT_OFFSET_BYTES // SECTOR_BYTES)
    sectors = str(BOOT_SIZE_BYTES // SECTOR_BYTES)
    steps = [
        ["mformat", "-i", where, "-T", sectors, "-h", "16", "-s", "63", "-H", hidden_sectors, "::"],
        ["mcopy", "-i", where, str(boot.kernel), "::vmlinuz"],
        ["mcopy", "-i", where, str(boot.initrd), "::initrd"],
        ["mcopy", "-i", where, str(config), "::syslinux.cfg"],
        ["syslinux", "--offset", str(BOOT_OFFSET_BYTES), "--install", str(disk)],
    ]
    for argv in steps:
        await run(argv, timeout_s=COMMAND_TIMEOUT_S)


async def to_qcow2(raw: Path, target: Path) -> None:
    """Convert a raw disk to a compressed qcow2 without backing file."""
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", str(raw), str(target)]
    await run(argv, timeout_s=COMMAND_TIMEOUT_S)
