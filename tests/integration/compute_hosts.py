"""Throw-away hosts for the compute tests: a set of namespaces with a libvirtd of its own each.

Used by `test_compute*.py` in this directory. The lab (tools/lab) builds whole hosts with agents; this is
the least that shows what libvirt and QEMU really do. A host's directories are bind-mounted from below one
short path (unix sockets allow 107 characters), so the test, which stays outside, reaches its sockets by path.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

# /dev/kvm gets the rights that Debian gives it: where it is root's alone, a libvirt whose QEMU is not root finds
# its cache of QEMU's abilities stale at every look, and probes QEMU again each time.
SETUP = """
set -eu
mount --make-rprivate /
mount -t sysfs sysfs /sys
for dir in run var/lib/libvirt var/cache/libvirt var/log/libvirt etc/libvirt; do
    mount --bind "$1/$dir" "/$dir"
done
if [ -c /dev/kvm ]; then
    mknod "$1/kvm" c 10 232
    chown root:kvm "$1/kvm" || true
    chmod 660 "$1/kvm"
    mount --bind "$1/kvm" /dev/kvm
fi
hostname "$2"
ip link set lo up
ip link add kbr7 type bridge
ip link set kbr7 up
touch /run/ready
exec sleep infinity
"""

LIBVIRTD_CONF = """
host_uuid = "{host_uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
"""

QEMU_CONF = """
user = "{user}"
group = "{user}"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""


def wait_until(ready: Callable[[], bool], what: str, *, deadline_s: float = 15.0) -> None:
    """Poll until something holds; fail with its name after the deadline."""
    end = time.monotonic() + deadline_s
    while not ready():
        assert time.monotonic() < end, f"after {deadline_s:g} s still not: {what}"
        time.sleep(0.02)


class ComputeHost:
    """One host. `stop` ends everything in it, guests too; nothing of it is left but its directory."""

    def __init__(self, base: Path, name: str, *, qemu_user: str = "root") -> None:
        self.root = base / name
        self.name = name
        for part in (
            "run/lock",
            "run/kvorum/migrate",
            "var/lib/libvirt",
            "var/cache/libvirt",
            "var/log/libvirt/qemu",
        ):
            (self.root / part).mkdir(parents=True)
        etc = self.root / "etc/libvirt"
        etc.mkdir(parents=True)
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(host_uuid=uuid.uuid4()))
        (etc / "qemu.conf").write_text(QEMU_CONF.format(user=qemu_user))
        (etc / "libvirt.conf").write_text("")
        # Debian's tini reaps orphans as process 1: without it libvirt's probe of QEMU hangs on zombies.
        self._process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--net",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "tini",
                "--",
                "sh",
                "-c",
                SETUP,
                "setup",
                str(self.root),
                name,
            ],
            stdin=subprocess.DEVNULL,
        )
        wait_until((self.root / "run/ready").exists, f"namespaces of {name} are set up")
        children = (
            Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        )
        self._init_pid = int(children[0])
        self.start_libvirtd()

    @property
    def socket(self) -> Path:
        return self.root / "run/libvirt/libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def migrate_dir(self) -> Path:
        """Where the host sees /run/kvorum/migrate, as a path outside."""
        return self.root / "run/kvorum/migrate"

    def run(self, *argv: str) -> str:
        """Run a program inside the host."""
        done = subprocess.run(
            [
                "nsenter",
                "--target",
                str(self._init_pid),
                "--mount",
                "--net",
                "--uts",
                "--ipc",
                "--pid",
                *argv,
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.stdout

    def start_libvirtd(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.run("libvirtd", "--daemon", "--pid-file", "/run/libvirtd.pid")
        wait_until(self.socket.exists, f"libvirtd of {self.name} listens")

    def signal_libvirtd(self, number: signal.Signals) -> None:
        pid = (self.root / "run/libvirtd.pid").read_text().strip()
        self.run("kill", f"-{int(number)}", pid)

    def qemu_pids(self) -> tuple[str, ...]:
        """Process ids inside the host of its QEMUs."""
        pids = self.run("sh", "-c", "pidof qemu-system-x86_64 || true")
        return tuple(pids.split())

    def stop(self) -> None:
        if self._process.poll() is None:
            os.kill(self._init_pid, signal.SIGKILL)
            self._process.wait(timeout=10)
        shutil.rmtree(self.root, ignore_errors=True)
