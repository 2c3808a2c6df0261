"""The tiny guest: kernel, busybox and four small scripts; boots in seconds without KVM.

It takes its address by DHCP, answers pings, powers off on the ACPI button, and writes who it is to
its disk ten times a second (`records`). Called by `build`; 128 MiB of memory is enough.
"""

from __future__ import annotations

from pathlib import Path

from tools.guests import image, initrd, packages, records

HERE = Path(__file__).parent
MODULES = (
    "virtio_pci", "virtio_net", "virtio_blk", "virtio_console", "virtio_rng", "evdev", "button",
)  # fmt: skip
APPEND = (
    "console=ttyS0 quiet panic=1 mitigations=off nokaslr no_timer_check tsc=reliable "
    "random.trust_cpu=on net.ifnames=0"
)
POWER_BUTTON = "etc/acpi/PWRF/00000080"


def _script(name: str) -> bytes:
    text = (HERE / name).read_text(encoding="utf-8")
    return text.replace("@SLOTS@", str(records.SLOTS)).replace("@TAG@", records.TAG).encode()


def _files() -> list[initrd.Entry]:
    return [
        initrd.plain("etc/inittab", _script("tiny-inittab")),
        initrd.executable("etc/writer", _script("tiny-writer.sh")),
        initrd.executable("etc/network", _script("tiny-network.sh")),
        initrd.executable("etc/udhcpc", _script("tiny-udhcpc.sh")),
        initrd.directory("etc/acpi"),
        initrd.directory("etc/acpi/PWRF"),
        initrd.executable(POWER_BUTTON, _script("tiny-power.sh")),
    ]


async def ingredients() -> tuple[str, ...]:
    """Return the packages this image is made from, with versions."""
    return await packages.versions([await packages.kernel_package(), "busybox-static"])


async def build(target: Path, *, scratch: Path) -> None:
    """Write the image to `target`, using the empty directory `scratch`."""
    tree = scratch / "tree"
    await packages.unpack([await packages.kernel_package(), "busybox-static"], into=tree)
    kernel = packages.KernelTree(tree)
    made = initrd.busybox_initrd(
        busybox=tree / "bin/busybox",
        init=_script("tiny-init.sh").decode(),
        modules=await kernel.modules(MODULES),
        extra=_files(),
    )
    boot_initrd, disk = scratch / "initrd", scratch / "disk.raw"
    boot_initrd.write_bytes(made)
    image.write_partition_table(
        disk, second_kind=image.TYPE_NO_FILE_SYSTEM, second_size_bytes=records.RING_BYTES
    )
    boot = image.BootFiles(kernel=kernel.image, initrd=boot_initrd, append=APPEND)
    await image.fill_boot_partition(disk, boot, scratch=scratch)
    await image.to_qcow2(disk, target)
