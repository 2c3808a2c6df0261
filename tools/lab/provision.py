"""Lay out the files of a lab host: its directories, its libvirt settings, what it boots with.

Called by `Lab.up` before the host is first switched on. All of it survives a power-off.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.clock import new_id
from tools.lab.layout import PREFIX_LENGTH, REPOSITORY, Layout, host_address
from tools.lab.services import Service

HOOK_SOURCES = {
    "qemu": REPOSITORY / "ha/guard/qemu_hook.sh",
    "qemu_hook_ask.py": REPOSITORY / "ha/guard/qemu_hook_ask.py",
}
QEMU = "/usr/bin/qemu-system-x86_64"
HOLLOW_QEMU = REPOSITORY / "tools/lab/hollow_qemu.py"
# Directory of the machine -> private directory of the host shown there.
PRIVATE = {
    "/etc/kvorum": "etc-kvorum",
    "/var/lib/kvorum": "var-lib-kvorum",
    "/etc/libvirt": "etc-libvirt",
    "/var/lib/libvirt": "var-lib-libvirt",
    "/var/cache/libvirt": "var-cache-libvirt",
    "/var/log/libvirt": "var-log-libvirt",
}
SHARED_MOUNT = "/srv/shared"

LIBVIRTD_CONF = """\
host_uuid = "{host_uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:stderr"
"""
# The shared directory is one directory for all hosts, which libvirt can't know.
# Benchmarks ask as fast as they can, from one address.
AGENT_TOML = """\
trust_shared_storage = true

[api]
requests_per_s = 1_000_000
requests_burst = 1_000_000
"""
# Root user and no security driver: the lab's files have no owners to protect. No cgroups and no
# device namespaces: they would reach outside the host's namespaces. Without the capability that is left out, libvirt reads
# which processor features a new guest got with two questions to QEMU instead of one for each, over 150, and a start costs
# half (0.4 s of a core instead of 0.9). Features kept in MSRs are not among the answers, which is nothing to a translated
# processor of a named model; a real host keeps the capability, as `host-model` wants them.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
capability_filters = ["cpu-unavailable-features"]
"""


def mount_points() -> tuple[Path, ...]:
    """Return the directories that must exist on the machine for a host to have its own there."""
    return tuple(Path(place) for place in (*PRIVATE, SHARED_MOUNT))


def _write_libvirt(directory: Path, host_uuid: str) -> None:
    (directory / "hooks").mkdir(parents=True)
    (directory / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(host_uuid=host_uuid))
    (directory / "qemu.conf").write_text(QEMU_CONF)
    for name, source in HOOK_SOURCES.items():
        shutil.copyfile(source, directory / "hooks" / name)
        (directory / "hooks" / name).chmod(0o755)


def _identity_files(state: Path, host: str, hosts: Sequence[str], host_uuid: str) -> dict[str, str]:
    """Write the small files of /etc that name a host; return where each is shown."""
    names = "".join(f"{host_address(other)} {other}\n" for other in hosts)
    content = {
        "/etc/hostname": f"{host}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n{names}",
        "/etc/machine-id": host_uuid.replace("-", "") + "\n",
    }
    binds = {}
    for place, text in content.items():
        if Path(place).exists():
            file = state / Path(place).name
            file.write_text(text)
            binds[place] = str(file)
    return binds


def provision(
    layout: Layout,
    host: str,
    *,
    hosts: Sequence[str],
    services: Sequence[Service],
    mtu: int,
    rng: random.Random,
    hollow: bool = False,
) -> None:
    """Write everything `host` boots with. The host must not exist yet. With `hollow` it may have guests that nothing runs in."""
    state = layout.host_state(host)
    host_uuid = new_id(rng)
    for name in (*PRIVATE.values(), "log"):
        (state / name).mkdir(parents=True)
    (state / "var-log-libvirt" / "qemu").mkdir()  # comes with libvirt's package
    (state / "etc-kvorum" / "agent.toml").write_text(AGENT_TOML)
    layout.host_run(host).mkdir(parents=True, exist_ok=True)
    _write_libvirt(state / "etc-libvirt", host_uuid)
    binds = {place: str(state / name) for place, name in PRIVATE.items()}
    binds[SHARED_MOUNT] = str(layout.shared)
    binds |= _identity_files(state, host, hosts, host_uuid)
    if hollow:
        binds[QEMU] = str(HOLLOW_QEMU)
    boot = {
        "host": host,
        "wire": layout.wire,
        "address": f"{host_address(host)}/{PREFIX_LENGTH}",
        "mtu": mtu,
        "boot_id_file": str(layout.host_run(host) / "boot_id"),
        "scratch": str(layout.host_run(host) / "run"),
        "binds": binds,
        "sockets": {
            "/run/kvorum/watchdog.sock": str(layout.watchdog_socket(host)),
            "/run/kvorum-lab/bmc.sock": str(layout.bmc_socket),
        },
        "log_directory": str(state / "log"),
        "services": [msgspec.to_builtins(service) for service in services],
    }
    layout.host_boot_file(host).write_text(json.dumps(boot, indent=1))
