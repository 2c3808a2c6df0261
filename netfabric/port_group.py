"""Port groups before they reach any host: which are allowed, and which addresses their NICs get.

Called by the network services of the API. All pure: what is in use is handed in, and the store's claims
decide when two writers choose the same.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from core.errors import ConflictError, InvalidError
from core.model.network import PortGroup
from netfabric.names import VNI_MAX, checked_ip4

VXLAN_OVERHEAD_BYTES = 50
GUEST_MTU_MIN = 576
PREFIX_SHORTEST, PREFIX_LONGEST = 8, 29
DNS_SERVERS_MAX = 4

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def check_port_group(
    port_group: PortGroup, others: Iterable[PortGroup], *, underlay_mtu: int = 1500
) -> None:
    """Say why a port group cannot be made; `others` are those that exist, itself is skipped.

    `underlay_mtu` is the smallest MTU between hosts, in bytes.

    Raises:
        InvalidError: something of it can never work.
        ConflictError: its VNI is in use.
    """
    if not 1 <= port_group.vni <= VNI_MAX:
        raise InvalidError(f"VNI {port_group.vni} is out of range: use 1 to {VNI_MAX}")
    check_addresses(port_group)
    check_domain(port_group.domain)
    room = underlay_mtu - VXLAN_OVERHEAD_BYTES
    if not GUEST_MTU_MIN <= port_group.mtu <= room:
        raise InvalidError(
            f"MTU {port_group.mtu} does not fit: use {GUEST_MTU_MIN} to {room} "
            f"(the hosts' network has {underlay_mtu}, VXLAN takes {VXLAN_OVERHEAD_BYTES})"
        )
    for other in others:
        if other.id != port_group.id and other.vni == port_group.vni:
            raise ConflictError(
                f"VNI {port_group.vni} is used by port group {other.name}: choose another"
            )


def check_addresses(port_group: PortGroup) -> None:
    """Check that all addresses of a port group lie in its network and do not clash.

    Raises:
        InvalidError: naming the first field that is wrong.
    """
    network = checked_network(port_group.cidr)
    service = _inside(port_group.service_ip, "service address", network)
    first = _inside(port_group.pool_first, "first address of the pool", network)
    last = _inside(port_group.pool_last, "last address of the pool", network)
    if first > last:
        raise InvalidError(f"the pool ends ({last}) before it begins ({first}): swap them")
    if port_group.gateway:
        gateway = _inside(port_group.gateway, "gateway", network)
        if gateway == service:
            raise InvalidError(
                f"gateway {gateway} is also the service address, which routes nothing: choose another"
            )
    if len(port_group.dns) > DNS_SERVERS_MAX:
        raise InvalidError(
            f"{len(port_group.dns)} DNS servers are too many: give at most {DNS_SERVERS_MAX}"
        )
    for server in port_group.dns:
        checked_ip4(server, "DNS server")


@lru_cache(maxsize=1024)
def checked_network(cidr: str) -> ipaddress.IPv4Network:
    """Return the network of a port group.

    Raises:
        InvalidError: not IPv4, host bits set, or not between /8 and /29.
    """
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError:
        raise InvalidError(
            f"network {cidr[:80]!r} is not an IPv4 network such as 10.0.0.0/24 (no bits beyond the prefix)"
        ) from None
    if "/" not in cidr or not PREFIX_SHORTEST <= network.prefixlen <= PREFIX_LONGEST:
        raise InvalidError(
            f"network {network} has a bad size: use /{PREFIX_SHORTEST} to /{PREFIX_LONGEST}, e.g. 10.0.0.0/24"
        )
    if (
        network.is_multicast
        or network.is_loopback
        or network.is_link_local
        or int(network[0]) >> 24 == 0
    ):
        raise InvalidError(
            f"network {network} is not for guests: use a private one, e.g. 10.0.0.0/24"
        )
    return network


def check_domain(domain: str) -> None:
    """Check the DNS domain of a port group.

    Raises:
        InvalidError: not lower-case labels separated by dots.
    """
    if len(domain) > 200 or not _DOMAIN.fullmatch(domain):
        raise InvalidError(
            f"domain {domain[:80]!r} is not allowed: use labels of a-z, 0-9 and '-' joined by dots, e.g. internal"
        )


def free_ip(port_group: PortGroup, is_taken: Callable[[str], bool], skip: int = 0) -> str:
    """Return the first free address of the pool, `skip` places from its beginning, then around its end.

    Never the service address or the gateway. With as many skipped as are in use, few places have to be looked at.

    Raises:
        ConflictError: the pool is empty.
    """
    first = int(checked_ip4(port_group.pool_first, "first address of the pool"))
    last = int(checked_ip4(port_group.pool_last, "last address of the pool"))
    size = last - first + 1
    for place in range(skip, skip + size):
        address = str(ipaddress.IPv4Address(first + place % size))
        if address not in {port_group.service_ip, port_group.gateway} and not is_taken(address):
            return address
    raise ConflictError(
        f"address pool of port group {port_group.name} is empty "
        f"({port_group.pool_first} to {port_group.pool_last}): delete a NIC or use another port group"
    )


def check_nic_address(port_group: PortGroup, ip: str) -> str:
    """Return an address a user asked for in canonical form.

    Raises:
        InvalidError: outside the network, or the service's or gateway's own.
    """
    network = checked_network(port_group.cidr)
    address = _inside(ip, "address", network)
    if str(address) in (port_group.service_ip, port_group.gateway):
        raise InvalidError(
            f"address {address} belongs to port group {port_group.name} itself: choose another"
        )
    return str(address)


def _inside(address: str, what: str, network: ipaddress.IPv4Network) -> ipaddress.IPv4Address:
    parsed = checked_ip4(address, what)
    if not network.network_address < parsed < network.broadcast_address:
        raise InvalidError(
            f"{what} {parsed} is not a host address of {network}: use {network[1]} to {network[-2]}"
        )
    return parsed
