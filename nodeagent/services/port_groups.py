"""What a new port group gets when its creator does not say: addresses and a network identifier."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from core.errors import ConflictError
from core.model import PortGroup

FIRST_VNI = 100
VNI_MAX = (1 << 24) - 1
RESERVED = 16


def default_addresses(network: ipaddress.IPv4Network) -> tuple[str, str, str]:
    """Return (service address, first and last address of the pool).

    The first addresses stay free for routers and other fixed things: 15 of a large network, 2 of a small one.
    """
    first = network.network_address
    skipped = RESERVED if network.num_addresses > 4 * RESERVED else 3
    return str(first + 2), str(first + skipped), str(network.broadcast_address - 1)


def free_vni(existing: Iterable[PortGroup]) -> int:
    """Return the lowest network identifier from 100 up that no port group has."""
    used = {group.vni for group in existing}
    for vni in range(FIRST_VNI, VNI_MAX + 1):
        if vni not in used:
            return vni
    raise ConflictError("no VXLAN network identifier is free")
