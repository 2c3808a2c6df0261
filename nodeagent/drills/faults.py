"""How a host breaks itself for a drill: its agent killed, its guard killed, or cut off from addresses for a time.

The only place that does so. A cut is a table of nftables whose addresses time out in the kernel: it ends at its time whatever
becomes of this process, and needs no network for it. By hand: `nft delete table inet kvorum_drill`.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from core.command import run
from core.errors import ConflictError, UnavailableError
from ha.drills.promises import CUT_S_MAX

TABLE = "kvorum_drill"
NFT_TIMEOUT_S = 5.0
GUARD_TIMEOUT_S = 1.0

ADDRESSES_MAX = 1024
NFS = frozenset({"nfs", "nfs4"})
HEAL = f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"


class Faults(Protocol):
    """What a host can do to itself.

    Raises (all): ConflictError, UnavailableError: it can't be done here; the message says why.
    """

    def kill_agent(self) -> None:
        """Kill this process as a crash would."""
        ...

    def guard_pid(self) -> int:
        """Return the process that would be killed."""
        ...

    def kill_guard(self) -> None:
        """Kill the guard as a crash would: nobody feeds the watchdog then."""
        ...

    async def cut(self, addresses: Sequence[str], duration_s: int) -> None:
        """Lose all packets from and to addresses for some seconds, 120 at most. In place of a cut before."""
        ...

    async def heal(self) -> None:
        """End a cut now. Nothing happens when there is none."""
        ...

    def storage_server(self, path: str) -> str:
        """Return the address of the server that a data storage's directory is mounted from."""
        ...


class LinuxFaults:
    """The real ones."""

    def __init__(self, guard_socket: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
        self._guard_socket, self._mounts = guard_socket, mounts

    def kill_agent(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def guard_pid(self) -> int:
        """Return who listens on the guard's socket, as the kernel says (SO_PEERCRED, unix(7))."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(GUARD_TIMEOUT_S)
            try:
                line.connect(str(self._guard_socket))
                said = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            except OSError as error:
                raise UnavailableError(f"its guard does not answer: {error}") from None
        pid: int = struct.unpack("3i", said)[0]
        if pid <= 1 or pid == os.getpid():
            raise ConflictError("the process of its guard can't be found")
        return pid

    def kill_guard(self) -> None:
        os.kill(self.guard_pid(), signal.SIGKILL)

    async def cut(self, addresses: Sequence[str], duration_s: int) -> None:
        await _nft(cut_rules(addresses, duration_s))

    async def heal(self) -> None:
        await _nft(HEAL)

    def storage_server(self, path: str) -> str:
        try:
            return server_of(self._mounts.read_text(encoding="utf-8"), path)
        except OSError as error:
            raise UnavailableError(f"its mounts can't be read: {error}") from None


def cut_rules(addresses: Sequence[str], duration_s: int) -> str:
    """Return the rules of a cut, as `nft -f` reads them, replacing a cut before in one go.

    Raises:
        ConflictError: no IP addresses, too many, or a time out of bounds.
    """
    if not 1 <= duration_s <= CUT_S_MAX:
        raise ConflictError(f"a cut lasts 1 to {CUT_S_MAX} s")
    if not 1 <= len(addresses) <= ADDRESSES_MAX:
        raise ConflictError(f"a cut is from 1 to {ADDRESSES_MAX} addresses")
    try:
        found = sorted({ipaddress.ip_address(address) for address in addresses}, key=str)
    except ValueError as error:
        raise ConflictError(f"a cut is from IP addresses: {error}") from None
    if any(one.is_loopback or one.is_unspecified for one in found):
        raise ConflictError("a host isn't cut off from itself")
    lines = [HEAL.rstrip(), f"table inet {TABLE} {{"]
    for version, type_ in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        those = ", ".join(f"{one} timeout {duration_s}s" for one in found if one.version == version)
        elements = f" elements = {{ {those} }};" if those else ""
        lines.append(f"  set peers{version} {{ type {type_}; flags timeout;{elements} }}")
    for chain, side in (("input", "saddr"), ("output", "daddr")):
        lines += [
            f"  chain {chain} {{",
            f"    type filter hook {chain} priority -310; policy accept;",
            f"    ip {side} @peers4 drop",
            f"    ip6 {side} @peers6 drop",
            "  }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def server_of(mountinfo: str, path: str) -> str:
    """Return the address of the NFS server that a directory lies on, by `/proc/self/mountinfo` (proc(5)).

    Raises:
        ConflictError: it isn't mounted from one.
    """
    best, found = "", ("", "")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        words, type_and_options = left.split(), right.split()
        if len(words) < 5 or len(type_and_options) < 3:
            continue
        point = words[4].replace("\\040", " ")
        holds = path == point or path.startswith(point.rstrip("/") + "/")
        if holds and len(point) >= len(best):
            best, found = point, (type_and_options[0], type_and_options[2])
    kind, options = found
    if kind not in NFS:
        raise ConflictError(
            f"{path} is not mounted by NFS ({kind or 'no mount'}): only a network path can be lost "
            "and come back by itself"
        )
    for option in options.split(","):
        if option.startswith("addr="):
            return option.removeprefix("addr=")
    raise ConflictError(f"the address of the server of {path} is not known")


async def _nft(rules: str) -> None:
    await run(["nft", "-f", "-"], timeout_s=NFT_TIMEOUT_S, input=rules.encode())
