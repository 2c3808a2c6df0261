"""The full guest: Debian with cloud-init, sshd and the QEMU guest agent, made to boot fast without KVM.

Called by `build`. Debian's packages are installed by mmdebstrap into a directory, settings are
written there, and `mke2fs -d` makes it a file system: nothing is mounted and nothing is booted. The
kernel is unpacked beside, since it and its initrd live in the boot partition. Wants 512 MiB or more.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from core.command import CommandError, run
from core.errors import UnavailableError
from tools.guests import image, initrd, packages

HERE = Path(__file__).parent
SUITE = "bookworm"
LABEL = "kvorum-root"
ROOT_SIZE_BYTES = 1536 * image.MIB
BUILD_TIMEOUT_S = 1200.0
PACKAGES = (
    "cloud-init", "dbus", "e2fsprogs", "iproute2", "iputils-ping", "kmod",
    "openssh-server", "procps", "qemu-guest-agent", "sudo", "systemd-sysv", "udev",
)  # fmt: skip
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
APPEND = (
    "console=tty0 console=ttyS0,115200 quiet panic=10 mitigations=off no_timer_check "
    "tsc=reliable random.trust_cpu=on net.ifnames=0 systemd.show_status=no"
)
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
KEPT = ("/usr/share/doc/*/copyright",)
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "man-db.timer", "motd-news.timer",
    "cloud-init-hotplugd.socket", "systemd-pstore.service",
)  # fmt: skip

NETWORK = """\
[Match]
Name=en* eth*

[Network]
DHCP=ipv4
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0

[DHCPv4]
ClientIdentifier=mac
UseMTU=yes
UseDomains=yes
"""
# A guest without a network must boot too, so nobody waits for one longer than this.
WAIT_ONLINE = """\
[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=15
"""
CLOUD = """\
datasource_list: [NoCloud, None]
network: {config: disabled}
ssh_genkeytypes: [ed25519, ecdsa]
no_ssh_fingerprints: true
manage_etc_hosts: localhost
apt_preserve_sources_list: true
output: {all: ">> /var/log/cloud-init-output.log"}
cloud_init_modules:
 - bootcmd
 - write-files
 - resizefs
 - set_hostname
 - update_etc_hosts
 - users-groups
 - ssh
cloud_config_modules:
 - set-passwords
 - timezone
 - runcmd
cloud_final_modules:
 - package-update-upgrade-install
 - scripts-user
 - final-message
 - power-state-change
"""
FSTAB = "# The root file system is mounted for writing before this is read.\n"


async def ingredients() -> tuple[str, ...]:
    """Return the packages this image is made from, with versions."""
    named = [await packages.kernel_package(), "busybox-static", "base-files", "libc6", "systemd"]
    return await packages.versions([*named, *PACKAGES])


async def _sources() -> list[str]:
    """Return the machine's own Debian sources, so that a mirror set there is used here too."""
    layout = "$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)"
    argv = ["apt-get", "indextargets", "--format", layout, "Created-By: Packages"]
    answer = await run(argv, timeout_s=packages.QUERY_TIMEOUT_S)
    found = set()
    for line in answer.stdout.decode().splitlines():
        origin, uri, codename, component = line.split("|")
        if origin == "Debian" and component == "main" and re.match(rf"{SUITE}\b", codename):
            found.add(f"deb {uri} {codename} main")
    if not found:
        raise UnavailableError(f"apt has no source of Debian {SUITE}: check /etc/apt/sources.list")
    return sorted(found)


async def _install(root: Path) -> None:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in KEPT]
    argv = [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--quiet",
        "--aptopt=Acquire::Languages \"none\"", f"--include={','.join(PACKAGES)}", *options,
        SUITE, str(root), *await _sources(),
    ]  # fmt: skip
    for last in (False, True):
        try:
            await run(argv, timeout_s=BUILD_TIMEOUT_S)
        except CommandError:
            # Two hundred downloads in a row: one that breaks off is not the end.
            if last:
                raise
            shutil.rmtree(root, ignore_errors=True)
        else:
            return


def _write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _configure(root: Path) -> None:
    """Write the settings of the installed system, and take out what must differ per guest."""
    _write(root, "etc/fstab", FSTAB)
    _write(root, "etc/hostname", "kvorum-full\n")
    _write(root, "etc/systemd/network/10-dhcp.network", NETWORK)
    unit = "etc/systemd/system/systemd-networkd-wait-online.service.d/kvorum.conf"
    _write(root, unit, WAIT_ONLINE)
    _write(root, "etc/cloud/cloud.cfg.d/90-kvorum.cfg", CLOUD)
    units = root / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    wanted = {
        "multi-user.target.wants": ("systemd-networkd.service", "ssh.service"),
        "network-online.target.wants": ("systemd-networkd-wait-online.service",),
    }
    for target, names in wanted.items():
        (units / target).mkdir(exist_ok=True)
        for name in names:
            link = units / target / name
            link.unlink(missing_ok=True)
            link.symlink_to(f"/lib/systemd/system/{name}")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    _write(root, "etc/machine-id", "")
    # Without it cloud-init skips checking the form of its settings, and each of its four processes
    # starts a quarter faster.
    shutil.rmtree(root / "usr/lib/python3/dist-packages/jsonschema")
    for place in ("var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(root / place, ignore_errors=True)
        (root / place).mkdir()


async def _make_file_system(root: Path, disk: Path) -> None:
    argv = [
        "mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-m", "0", "-d", str(root),
        "-E", f"offset={image.SECOND_OFFSET_BYTES},lazy_itable_init=1",
        str(disk), f"{ROOT_SIZE_BYTES // 1024}k",
    ]  # fmt: skip
    await run(argv, timeout_s=BUILD_TIMEOUT_S)


async def build(target: Path, *, scratch: Path) -> None:
    """Write the image to `target`, using the empty directory `scratch`."""
    tree, root, disk = scratch / "tree", scratch / "root", scratch / "disk.raw"
    await packages.unpack([await packages.kernel_package(), "busybox-static"], into=tree)
    kernel = packages.KernelTree(tree)
    modules = await kernel.modules(MODULES)
    await _install(root)
    _configure(root)
    shutil.copytree(tree / "lib/modules", root / "usr/lib/modules", symlinks=True)
    made = initrd.busybox_initrd(
        busybox=tree / "bin/busybox",
        init=(HERE / "full-init.sh").read_text(encoding="utf-8").replace("@LABEL@", LABEL),
        modules=modules,
    )
    (scratch / "initrd").write_bytes(made)
    image.write_partition_table(
        disk, second_kind=image.TYPE_LINUX, second_size_bytes=ROOT_SIZE_BYTES
    )
    boot = image.BootFiles(kernel=kernel.image, initrd=scratch / "initrd", append=APPEND)
    await image.fill_boot_partition(disk, boot, scratch=scratch)
    await _make_file_system(root, disk)
    shutil.rmtree(root)
    await image.to_qcow2(disk, target)
