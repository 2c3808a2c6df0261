"""DHCP and DNS of a host's port groups: one dnsmasq each, in a namespace of its own behind a port of the bridge.

Called by `netfabric.linux` after the switch. Each host serves its own guests with the same service address and
MAC, so a moved guest notices nothing; the firewall keeps DHCP from leaving the host. dnsmasq outlives the agent:
a new agent finds it by its pid file, and starts it again only if it is dead or its configuration changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from core import command
from core.errors import PlatformError, TemporaryError
from netfabric.dhcp_config import (
    INTERFACE,
    DhcpFiles,
    DhcpPaths,
    dhcp_files,
    namespace_commands,
    stale_leases,
    without_stale,
)
from netfabric.driver import NetworkProblem, Part
from netfabric.links import Link
from netfabric.names import (
    bridge_name,
    namespace_name,
    service_mac,
    service_name,
    vni_of_namespace,
)
from netfabric.plan import NetworkPlan, PortGroupPlan

log = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0
_POLL_S = 0.02
_NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class DhcpState:
    """What came of one `apply`."""

    changes: int
    problems: tuple[NetworkProblem, ...]


class DhcpServices:
    """Keeps one dnsmasq per port group. `directory` holds a subdirectory per VNI and survives the agent."""

    def __init__(self, directory: Path = Path("/run/kvorum/dnsmasq")) -> None:
        self._directory = directory
        self._user = _service_user()

    async def apply(
        self, plan: NetworkPlan, links: Mapping[str, Link], kept: Collection[int]
    ) -> DhcpState:
        """Bring about the services of a plan. `links` are the devices after the switch's work; port groups in
        `kept` are left as they are."""
        changes, problems = 0, []
        for group in plan.port_groups:
            try:
                changes += await self._apply_group(group, links)
            except (PlatformError, OSError) as error:
                problems.append(NetworkProblem(Part.DHCP, group.vni, str(error)))
        wanted = {group.vni for group in plan.port_groups} | set(kept)
        for vni in sorted(self._present() - wanted):
            try:
                await self._remove(vni)
                changes += 1
            except (PlatformError, OSError) as error:
                problems.append(NetworkProblem(Part.DHCP, vni, str(error)))
        return DhcpState(changes, tuple(problems))

    def _present(self) -> set[int]:
        """Return the VNIs of which anything is left."""
        files = {p.name for p in self._directory.iterdir()} if self._directory.is_dir() else set()
        numbers = {int(name) for name in files if name.isdecimal()}
        spaces = _NAMESPACES.iterdir() if _NAMESPACES.is_dir() else ()
        return numbers | {vni for p in spaces if (vni := vni_of_namespace(p.name)) is not None}

    async def _apply_group(self, group: PortGroupPlan, links: Mapping[str, Link]) -> int:
        paths = self._paths(group.vni)
        files = dhcp_files(group, paths, self._user)
        self._make_directory(paths.directory)
        pid = _running_pid(paths)
        changes = await self._ensure_namespace(group.vni, pid)
        changes += await self._ensure_port(group, links, paths)
        if pid and not _same_namespace(pid, group.vni):
            await _stop(pid)
            pid = 0
        if not pid or _read(paths.config) != files.config:
            await self._restart(group, paths, files, pid)
            return changes + 1
        if _read(paths.leases) == files.leases and _read(paths.names) == files.names:
            return changes
        if stale_leases(_read(paths.given), group.endpoints):
            await self._restart(group, paths, files, pid)
        else:
            _write(paths, files)
            os.kill(pid, signal.SIGHUP)
        return changes + 1

    async def _ensure_namespace(self, vni: int, pid: int) -> int:
        """Have the namespace under its name. The name is a mount, which a restarted agent may not see any more
        (a service manager gives it mounts of its own): then it is found again through dnsmasq."""
        name = namespace_name(vni)
        if _is_namespace(_NAMESPACES / name):
            return 0
        (_NAMESPACES / name).unlink(missing_ok=True)
        await _ip("netns", "attach", name, str(pid)) if pid else await _ip("netns", "add", name)
        return 1

    async def _ensure_port(
        self, group: PortGroupPlan, links: Mapping[str, Link], paths: DhcpPaths
    ) -> int:
        """Have a cable between the bridge and the namespace. What is inside is set up when that is new or changed."""
        name, inside = service_name(group.vni), namespace_commands(group)
        bridge, port = links.get(bridge_name(group.vni)), links.get(name)
        if bridge is None:
            raise TemporaryError(
                f"bridge {bridge_name(group.vni)} is missing: see the switch's problem"
            )
        changes = 0
        if port is None:
            await _ip(
                *("link", "add", name, "mtu", str(group.mtu), "type", "veth"),
                *("peer", "name", INTERFACE, "address", service_mac(group.vni)),
                *("netns", namespace_name(group.vni)),
            )
            changes = 1
        if port is None or port.master != bridge.index or not port.up or port.mtu != group.mtu:
            await _ip("link", "set", name, "master", bridge.name, "mtu", str(group.mtu), "up")
            changes = 1
        done = paths.directory / "inside"
        if port is None or _read(done) != inside:
            done.unlink(missing_ok=True)
            await _ip("-n", namespace_name(group.vni), "-batch", "-", text=inside)
            done.write_text(inside)
            changes = 1
        return changes

    async def _restart(
        self, group: PortGroupPlan, paths: DhcpPaths, files: DhcpFiles, pid: int
    ) -> None:
        if pid:
            await _stop(pid)
        _write(paths, files)
        given = _read(paths.given)
        if stale_leases(given, group.endpoints):
            paths.given.write_text(without_stale(given, group.endpoints))
        await command.run(
            [
                "nsenter",
                f"--net={_NAMESPACES / namespace_name(group.vni)}",
                "--",
                "dnsmasq",
                f"--conf-file={paths.config}",
            ],
            timeout_s=COMMAND_TIMEOUT_S,
        )
        log.info("dhcp service started", extra={"vni": group.vni})

    async def _remove(self, vni: int) -> None:
        paths = self._paths(vni)
        pid = _running_pid(paths)
        if pid:
            await _stop(pid)
        if (_NAMESPACES / namespace_name(vni)).exists():
            await _ip("netns", "delete", namespace_name(vni))
        if paths.directory.is_dir():
            for file in paths.directory.iterdir():
                file.unlink()
            paths.directory.rmdir()
        log.info("dhcp service removed", extra={"vni": vni})

    def _paths(self, vni: int) -> DhcpPaths:
        return DhcpPaths(self._directory / str(vni))

    def _make_directory(self, directory: Path) -> None:
        """Let dnsmasq's user find its files: it reads them again after it gave up root's rights. Search permission
        shows nobody what else is in a directory."""
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
        for path in (directory, self._directory, self._directory.parent):
            mode = path.stat().st_mode & 0o7777
            if not mode & 0o001:
                path.chmod(mode | 0o011)


def _service_user() -> str:
    """Return the user dnsmasq runs as: its own if the package made one."""
    try:
        return pwd.getpwnam("dnsmasq").pw_name
    except KeyError:
        return "nobody"


async def _ip(*args: str, text: str = "") -> None:
    await command.run(
        ["ip", *args], timeout_s=COMMAND_TIMEOUT_S, input=text.encode() if text else None
    )


def _is_namespace(path: Path) -> bool:
    """Tell whether a file is a mounted namespace: all of them are on one device of the kernel's."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def _same_namespace(pid: int, vni: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").samefile(_NAMESPACES / namespace_name(vni))
    except FileNotFoundError:
        return False


def _running_pid(paths: DhcpPaths) -> int:
    """Return the pid of our dnsmasq or 0; the command line proves that the number is still its own."""
    try:
        pid = int(_read(paths.pid))
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (ValueError, FileNotFoundError, ProcessLookupError):
        return 0
    return pid if f"--conf-file={paths.config}".encode() in arguments else 0


async def _stop(pid: int) -> None:
    """End a process, by force if it takes longer than `STOP_TIMEOUT_S`."""
    try:
        os.kill(pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                while _lives(pid):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write(paths: DhcpPaths, files: DhcpFiles) -> None:
    """Write all files, each in one step: dnsmasq may read at any moment."""
    for path, text in (
        (paths.config, files.config),
        (paths.leases, files.leases),
        (paths.names, files.names),
    ):
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.replace(path)
