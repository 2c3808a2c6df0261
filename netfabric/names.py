"""Names of kernel objects, and the few numbers derived from ids.

Used by plans and drivers of `netfabric`, and by whoever writes a domain's XML (`tap_name`, `bridge_name`).
Everything here is a pure function of ids, so that an agent that restarts finds again what it made before.
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from core.errors import InvalidError

TAP_PREFIX = "tap"
BRIDGE_PREFIX = "kbr"
VXLAN_PREFIX = "kvx"
SERVICE_PREFIX = "ksv"
NAMESPACE_PREFIX = "kdhcp"

VNI_MAX = 16_777_215

Key = TypeVar("Key", int, str)

# Locally administered and unicast (second bit of the first byte set, lowest clear); the rest is random, which keeps
# an accidental clash below one in a thousand up to about 3,000 NICs, and the store's claim refuses those that happen.
MAC_PREFIX = "52:4b"
# The DHCP service's card: this prefix and the VNI.
SERVICE_MAC_PREFIX = "02:6b:76"
# The bridges' own: never seen on any wire.
BRIDGE_MAC_PREFIX = "02:6b:62"

MAC_PATTERN = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_ID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OWN_LINK = re.compile(rf"({BRIDGE_PREFIX}|{VXLAN_PREFIX}|{SERVICE_PREFIX})([1-9][0-9]{{0,7}})")


def tap_name(nic_id: str) -> str:
    """Return the tap device of a NIC: `tap` and the first 11 hex digits of its id.

    Raises:
        InvalidError: the id is no UUID.
    """
    if not _ID_PATTERN.fullmatch(nic_id):
        raise InvalidError(f"NIC id {nic_id[:80]!r} is not a UUID in lower case")
    return TAP_PREFIX + nic_id.replace("-", "")[:11]


def bridge_name(vni: int) -> str:
    """Return the bridge of a port group on every host."""
    return f"{BRIDGE_PREFIX}{vni}"


def vxlan_name(vni: int) -> str:
    """Return the tunnel device of a port group."""
    return f"{VXLAN_PREFIX}{vni}"


def service_name(vni: int) -> str:
    """Return the bridge's port to the DHCP service."""
    return f"{SERVICE_PREFIX}{vni}"


def namespace_name(vni: int) -> str:
    """Return the network namespace of the DHCP service."""
    return f"{NAMESPACE_PREFIX}{vni}"


def vni_of_link(name: str) -> int | None:
    """Return the VNI of a bridge, tunnel or service port of ours, or None for anything else."""
    match = _OWN_LINK.fullmatch(name)
    return int(match.group(2)) if match else None


def vni_of_namespace(name: str) -> int | None:
    """Return the VNI of a DHCP namespace of ours, or None for anything else."""
    number = name.removeprefix(NAMESPACE_PREFIX)
    if number == name or not re.fullmatch(r"[1-9][0-9]{0,7}", number):
        return None
    return int(number)


def service_mac(vni: int) -> str:
    """Return the MAC of the DHCP service: the same on every host, so a moved guest keeps its ARP entry."""
    return _mac_of(SERVICE_MAC_PREFIX, vni)


def bridge_mac(vni: int) -> str:
    """Return the MAC of a bridge. A bridge without one of its own takes a port's, and when that changes the kernel
    forgets all neighbours it answers ARP for."""
    return _mac_of(BRIDGE_MAC_PREFIX, vni)


def _mac_of(prefix: str, vni: int) -> str:
    assert 0 < vni <= VNI_MAX, "checked when the port group was made"
    tail = f"{vni:06x}"
    return f"{prefix}:{tail[:2]}:{tail[2:4]}:{tail[4:]}"


def make_mac(rng: random.Random) -> str:
    """Return a random MAC for a NIC, `52:4b:` and 32 random bits. Clashes are the store's to refuse."""
    return ":".join([MAC_PREFIX, *(f"{rng.getrandbits(8):02x}" for _ in range(4))])


def checked_mac(mac: str) -> str:
    """Return a unicast MAC in lower case with colons.

    Raises:
        InvalidError: anything else.
    """
    lower = mac.lower()
    if not MAC_PATTERN.fullmatch(lower) or int(lower[:2], 16) & 1:
        raise InvalidError(
            f"MAC address {mac[:80]!r} is not one of a NIC: use a form such as 52:4b:12:34:56:78"
        )
    return lower


def checked_ip4(address: str, what: str) -> ipaddress.IPv4Address:
    """Return an IPv4 address.

    Raises:
        InvalidError: not an IPv4 address; `what` names the field.
    """
    try:
        return ipaddress.IPv4Address(address)
    except ValueError:
        raise InvalidError(
            f"{what} {address[:80]!r} is not an IPv4 address such as 10.0.0.5"
        ) from None


def link_local(mac: str) -> str:
    """Return the IPv6 link-local address a guest derives from its MAC (EUI-64, RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface))


def conntrack_zones(vnis: Iterable[int]) -> dict[int, int]:
    """Return a connection tracking zone (1..65535) per port group, so that tenants' addresses may overlap."""
    return _slots(sorted(set(vnis)), 65_535, lambda vni: vni)


def nic_marks(devices: Iterable[str]) -> dict[str, int]:
    """Return a number (1..65534) per tap device; it marks packets between two hooks of the firewall."""
    return _slots(sorted(set(devices)), 65_534, _digest_number)


def _digest_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _slots(keys: list[Key], size: int, start: Callable[[Key], int]) -> dict[Key, int]:
    """Place each key at its own number, or at the next free one. Almost always the same whoever else is there."""
    assert len(keys) <= size, "more ports than a host can have"
    taken: dict[int, Key] = {}
    for key in keys:
        slot = start(key) % size
        while slot in taken:
            slot = (slot + 1) % size
        taken[slot] = key
    return {key: slot + 1 for slot, key in taken.items()}
