"""Turn fresh namespaces into a lab host, then become its PID 1. Standard library only.

The power controller runs `unshare … /usr/bin/python3 -I -S hostboot.py boot.json`; this process
is the first of the new PID namespace. It plugs the host's cable into the wire, gives the host
private directories, a fresh /run, /proc, /sys and boot id, and executes tini, which reaps orphans
(without that libvirt hangs on zombies) and runs `hostinit`.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import uuid

MS_BIND, MS_MOVE = 0x1000, 0x2000
MNT_DETACH = 2
INIT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "hostinit.py")
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2).

    Raises:
        OSError: with the target, as mount(2) refused.
    """
    arguments = [text.encode() or None for text in (source, target, kind, options)]
    if _libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[3]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def bind(source: str, target: str) -> None:
    """Show `source` at `target`, which must exist."""
    mount(source, target, flags=MS_BIND)


def ip(*words: str, check: bool = True) -> None:
    """Run ip(8)."""
    quiet = None if check else subprocess.DEVNULL
    subprocess.run(["ip", *words], check=check, stderr=quiet, timeout=20)


def plug_in(host: str, wire: str, address: str, mtu: int) -> None:
    """Make the host's only network card and the other end of its cable in the wire."""
    ip("-n", wire, "link", "del", host, check=False)  # of an earlier boot: vanishes by itself, late
    ip(
        "link",
        "add",
        "eth0",
        "mtu",
        str(mtu),
        "type",
        "veth",
        "peer",
        "name",
        host,
        "mtu",
        str(mtu),
        "netns",
        wire,
    )
    ip("-n", wire, "link", "set", host, "master", "br0", "up")
    ip("link", "set", "lo", "up")
    ip("address", "add", address, "dev", "eth0")
    ip("link", "set", "eth0", "up")


def forget_foreign_mounts() -> None:
    """Drop the mounts below /run that were copied from the machine: they would keep namespaces alive."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        places = [line.split()[4] for line in file]
    for place in reversed(places):
        if place.startswith("/run/"):
            _libc.umount2(place.encode(), MNT_DETACH)


def fresh_run(scratch: str, sockets: dict[str, str]) -> None:
    """Replace /run by an empty one that holds the given sockets of the outside."""
    os.makedirs(scratch, exist_ok=True)
    mount("run", scratch, "tmpfs", options="mode=755")
    for name in ("kvorum", "kvorum-lab", "libvirt", "lock", "netns"):
        os.mkdir(f"{scratch}/{name}")
    for place, source in sockets.items():
        target = f"{scratch}/{place.removeprefix('/run/')}"
        with open(target, "w", encoding="utf-8"):
            pass
        bind(source, target)
    mount(scratch, "/run", flags=MS_MOVE)


def main() -> None:
    """Build the host described by the JSON file in argv[1] around this process."""
    with open(sys.argv[1], encoding="utf-8") as file:
        boot = json.load(file)
    socket.sethostname(boot["host"])
    plug_in(boot["host"], boot["wire"], boot["address"], boot["mtu"])
    forget_foreign_mounts()
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    mount("shm", "/dev/shm", "tmpfs", options="mode=1777")  # noqa: S108 - a mount point
    with open(boot["boot_id_file"], "w", encoding="ascii") as file:
        file.write(f"{uuid.uuid4()}\n")
    bind(boot["boot_id_file"], "/proc/sys/kernel/random/boot_id")
    for target, source in boot["binds"].items():
        bind(source, target)
    fresh_run(boot["scratch"], boot["sockets"])
    os.chdir("/")
    argv = ["tini", "--", sys.executable, "-I", "-S", INIT, sys.argv[1]]
    os.execv("/usr/bin/tini", argv)  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
