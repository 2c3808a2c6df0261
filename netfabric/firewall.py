"""Loads the firewall and notices when somebody else changed it.

Called by `netfabric.linux` before anything else, so that no guest is ever plugged in without it. The whole ruleset is
replaced in one transaction of the kernel: a packet sees the old or the new one, never a mix, and connections
stay tracked.

Connection tracking comes from br_netfilter, which every kernel has; `bridge_ct_available` tells whether the kernel
could do without.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import struct
from pathlib import Path

from core import command
from core.errors import PermanentError, PlatformError
from netfabric.plan import NetworkPlan
from netfabric.ruleset import FAMILIES, TABLE, remove_text, ruleset_text

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 30.0

# What br_netfilter must do in this network namespace; others (container engines, libvirt) change it too.
_SYSCTLS = {
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
    "net/bridge/bridge-nf-call-arptables": "0",
    "net/bridge/bridge-nf-filter-vlan-tagged": "0",
}

# From linux/netfilter/nfnetlink.h and nf_tables.h.
_NETLINK_NETFILTER = 12
_NFT_GETGEN = (10 << 8) | 16
_NFT_NEWGEN = (10 << 8) | 15
_NFTA_GEN_ID = 1

_TRIAL = """table bridge kvorum_trial {
  chain trial {
    type filter hook forward priority 0; policy accept;
    ct state established accept
  }
}
"""


class Firewall:
    """Keeps our two nftables tables in line with a plan."""

    def __init__(self, *, sysctl_dir: Path = Path("/proc/sys")) -> None:
        self._sysctl_dir = sysctl_dir
        self._digest = ""
        self._generation = 0

    async def apply(self, plan: NetworkPlan) -> int:
        """Load the ruleset unless it is loaded and nobody touched any ruleset since; return the changes.

        Raises:
            PermanentError: the kernel lacks br_netfilter.
            PlatformError: `nft` refused the ruleset; what was loaded before stays.
        """
        changes = await self._apply_sysctls()
        text = ruleset_text(plan)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest == self._digest and ruleset_generation() == self._generation:
            return changes
        self._digest = ""
        await _nft(text)
        # A change that slips in right after ours is not seen until the next change of the plan; the drivers of
        # container engines and libvirt only touch tables of their own.
        self._generation = ruleset_generation()
        self._digest = digest
        log.info("firewall loaded", extra={"bytes": len(text)})
        return changes + 1

    async def remove(self) -> int:
        """Remove our tables; return how many there were."""
        self._digest = ""
        listed = await command.run(["nft", "list", "tables"], timeout_s=LOAD_TIMEOUT_S)
        ours = {f"table {family} {TABLE}" for family in FAMILIES} & set(
            listed.stdout.decode().splitlines()
        )
        if ours:
            await _nft(remove_text())
        return len(ours)

    async def _apply_sysctls(self) -> int:
        if not (self._sysctl_dir / "net/bridge").is_dir():
            await _load_br_netfilter()
        changes = 0
        for name, value in _SYSCTLS.items():
            path = self._sysctl_dir / name
            try:
                if path.read_text().strip() != value:
                    path.write_text(f"{value}\n")
                    changes += 1
            except OSError as error:
                raise PermanentError(
                    f"cannot set {name.replace('/', '.')} to {value}: {error.strerror}; "
                    "guests would not be filtered"
                ) from None
        return changes


async def bridge_ct_available() -> bool:
    """Tell whether the kernel tracks connections in bridges without br_netfilter. Changes nothing."""
    try:
        await command.run(
            ["nft", "--check", "--file", "-"], timeout_s=LOAD_TIMEOUT_S, input=_TRIAL.encode()
        )
    except command.CommandError:
        return False
    return True


def ruleset_generation() -> int:
    """Return the number of the ruleset of this network namespace: it grows with every change by anybody.

    Raises:
        PermanentError: the kernel has no nftables.
    """
    request = struct.pack("=IHHIIBBH", 20, _NFT_GETGEN, 1, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(1.0)
        netlink.send(request)
        answer = netlink.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    at = 20
    while kind == _NFT_NEWGEN and at + 4 <= len(answer):
        length, attribute = struct.unpack_from("=HH", answer, at)
        if attribute == _NFTA_GEN_ID:
            return int.from_bytes(answer[at + 4 : at + 8], "big")
        at += max(4, (length + 3) & ~3)
    raise PermanentError("the kernel does not tell the state of nftables: is nf_tables available?")


async def _nft(text: str) -> None:
    await command.run(["nft", "--file", "-"], timeout_s=LOAD_TIMEOUT_S, input=text.encode())


async def _load_br_netfilter() -> None:
    try:
        await command.run(["modprobe", "br_netfilter"], timeout_s=LOAD_TIMEOUT_S)
    except PlatformError as error:
        raise PermanentError(
            f"the kernel has no br_netfilter, so guests cannot be filtered ({error.message})"
        ) from None
