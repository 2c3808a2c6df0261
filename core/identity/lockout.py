"""How long log-ins are held back after wrong ones: for an account, and for an address. Pure.

The account's count is replicated, the address's is each agent's own. A stranger who types wrong passwords on purpose can
hold an account back only from addresses at which it never logged in; sessions, tokens, keys and root aren't touched.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

FREE_OF_ACCOUNT = 5
FREE_OF_ADDRESS = 10
FIRST_DELAY_MS = 30_000
DELAY_MS_MAX = 900_000
ADDRESSES_MAX = 10_000
KNOWN_ADDRESSES_MAX = 8
NETWORKS_KEPT = 4096
V6_PREFIX = 64  # what one subscriber has to himself


def delay_ms(failures: int, free: int) -> int:
    """Return how long to wait after so many failures in a row: nothing at first, then 30 s doubled up to 15 minutes."""
    if failures < free:
        return 0
    return min(DELAY_MS_MAX, FIRST_DELAY_MS << min(failures - free, 10))


@lru_cache(NETWORKS_KEPT)
def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 of an IPv6 one. Asked for each request."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, V6_PREFIX), strict=False))
    return str(ip)


def with_known(known: tuple[str, ...], network: str) -> tuple[str, ...]:
    """Return the addresses that an account logged in from, the newest first."""
    return (network, *(one for one in known if one != network))[:KNOWN_ADDRESSES_MAX]


@dataclass(slots=True)
class _Count:
    failures: int
    until_ms: int


class AddressBook:
    """Failures of addresses, as many as fit; those that were quiet for longest are forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def waits_ms(self, network: str, now_ms: int) -> int:
        """Return how long an address has to wait still, 0 when it may try."""
        count = self._counts.get(network)
        return max(0, count.until_ms - now_ms) if count else 0

    def failed(self, network: str, now_ms: int) -> None:
        """Count a failure."""
        count = self._counts.setdefault(network, _Count(0, 0))
        if count.failures and now_ms - count.until_ms > DELAY_MS_MAX:
            count.failures = 0
        count.failures += 1
        count.until_ms = now_ms + delay_ms(count.failures, FREE_OF_ADDRESS)
        self._counts.move_to_end(network)
        while len(self._counts) > ADDRESSES_MAX:
            self._counts.popitem(last=False)

    def succeeded(self, network: str) -> None:
        """Take one failure off: whoever knows one password may not wash away guesses at others."""
        count = self._counts.get(network)
        if count is not None:
            count.failures = max(0, count.failures - 1)
