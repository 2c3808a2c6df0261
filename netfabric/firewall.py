"""Loads the firewall and notices when somebody else changed it.

Called by `netfabric.linux` before anything else, so that no guest is ever plugged in without it. Every change is one
transaction of the kernel, and connections stay tracked.

Connection tracking comes from br_netfilter, which every kernel has; `bridge_ct_available` tells whether the kernel
could do without.
"""

from __future__ import annotations

import logging
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from core import command
from core.errors import PermanentError, PlatformError
from netfabric.nft_model import (
    FAMILIES,
    TABLE,
    Ruleset,
    delta_text,
    full_text,
    marker_name,
    remove_text,
)
from netfabric.plan import NetworkPlan
from netfabric.ruleset import ruleset_of

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


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the kernel holds, as long as its generation says that nobody changed anything since."""

    ruleset: Ruleset
    generation: int


class Firewall:
    """Keeps our two nftables tables in line with a plan. `memory` is a file that outlives the agent, not the boot:
    it holds the generation of the last load, so that a restarted agent need not load again."""

    def __init__(self, memory: Path, *, sysctl_dir: Path = Path("/proc/sys")) -> None:
        self._memory = memory
        self._sysctl_dir = sysctl_dir
        self._loaded: _Loaded | None = None

    async def apply(self, plan: NetworkPlan) -> int:
        """Bring about the ruleset of a plan; return the number of changes.

        Only the difference is loaded, unless somebody else changed any ruleset since: then all of it.

        Raises:
            PermanentError: the kernel lacks br_netfilter.
            PlatformError: `nft` refused the ruleset; what was loaded before stays.
        """
        changes = await self._apply_sysctls()
        wanted = ruleset_of(plan)
        generation = ruleset_generation()
        loaded, self._loaded = self._loaded, None
        if loaded is None and await self._is_remembered(wanted, generation):
            loaded = _Loaded(wanted, generation)
        if loaded is None or loaded.generation != generation:
            await _nft(full_text(wanted))
        elif loaded.ruleset == wanted:
            self._loaded = loaded
            return changes
        else:
            await self._load_difference(loaded.ruleset, wanted)
        # A change by others that slips in between load and question would not be noticed; container engines and
        # libvirt only touch tables of their own.
        self._loaded = _Loaded(wanted, ruleset_generation())
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        self._memory.write_text(f"{self._loaded.generation}\n")
        log.info("firewall loaded", extra={"ruleset": wanted.digest()})
        return changes + 1

    async def _load_difference(self, old: Ruleset, new: Ruleset) -> None:
        try:
            await _nft(delta_text(old, new))
        except command.CommandError as error:
            log.warning("firewall changes refused, loading all", extra={"error": error.message})
            await _nft(full_text(new))

    async def _is_remembered(self, wanted: Ruleset, generation: int) -> bool:
        """Tell whether a former agent loaded this very ruleset and nothing was changed since. The generation alone
        could be an old file's; the marker in the kernel proves that it is about this kernel's ruleset."""
        if not self._memory.exists() or self._memory.read_text() != f"{generation}\n":
            return False
        try:
            await command.run(
                ["nft", "list", "set", "bridge", TABLE, marker_name(wanted)],
                timeout_s=LOAD_TIMEOUT_S,
            )
        except command.CommandError:
            return False
        return True

    async def remove(self) -> int:
        """Remove our tables; return how many there were."""
        self._loaded = None
        self._memory.unlink(missing_ok=True)
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
