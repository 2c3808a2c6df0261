"""Where callbacks may go: what is a URL for one, and which addresses an agent must not be made to talk to.

Whoever may start a VM may name a URL, and agents sit where such people often can't reach: on the management network, and
beside services that trust this host. So a URL is checked when it is named, and the addresses that its name stands for when
it is used; what is then connected to are these addresses, so that a name that changes its mind meanwhile gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import msgspec

from core.errors import ForbiddenError, InvalidError
from core.member_file import bracketed

URL_LENGTH_MAX = 2000
PORTS = {"http": 80, "https": 443}
PORT_MIN = 1024  # below are services of systems, which none but these two expect requests like ours

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
V4_COMPATIBLE = ipaddress.IPv6Network("::/96")


class CallbackPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[callbacks]` of the settings: networks such as `192.0.2.0/24` that may, or must not, be called back.

    `allow` outweighs everything else, `deny` comes on top of what is never called.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for network in (*self.allow, *self.deny):
            ipaddress.ip_network(network)  # a ValueError names it


@dataclass(frozen=True, slots=True)
class Target:
    """A URL for callbacks. `receiver` may be shown, the URL not."""

    url: str
    host: str
    port: int
    receiver: str

    def __repr__(self) -> str:
        return f"Target({self.receiver})"


def parse_target(url: str) -> Target:
    """Return what a URL names, without looking the name up.

    Raises:
        InvalidError: it is none that could be called; never repeats it.
    """
    if not url or len(url) > URL_LENGTH_MAX:
        raise InvalidError(f"Callback-URL must have 1 to {URL_LENGTH_MAX} characters")
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise InvalidError("Callback-URL must be a URL in ASCII: percent-encode everything else")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", _port_of(parts)
    except ValueError:
        raise InvalidError("Callback-URL is not a URL") from None
    if parts.scheme not in PORTS:
        raise InvalidError("Callback-URL must begin with https:// or http://")
    if "@" in parts.netloc:
        raise InvalidError(
            "Callback-URL must not hold a user name or password: put a token into the path or query"
        )
    if not host or parts.fragment:
        raise InvalidError("Callback-URL needs a host, and can't have a fragment")
    if port not in PORTS.values() and port < PORT_MIN:
        raise InvalidError(f"Callback-URL must have port 80, 443, or one from {PORT_MIN} on")
    return Target(url, host, port, f"{parts.scheme}://{bracketed(host)}:{port}")


def literal(host: str) -> Address | None:
    """Return the address that a host is written as; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


class CallbackTargets:
    """Judges addresses. `hosts` gives the addresses of the cluster's hosts, `is_own` tells which are this host's."""

    def __init__(
        self,
        policy: CallbackPolicy,
        *,
        hosts: Callable[[], Iterable[str]],
        is_own: Callable[[Address], bool],
    ) -> None:
        self._allow = [ipaddress.ip_network(network) for network in policy.allow]
        self._deny = [ipaddress.ip_network(network) for network in policy.deny]
        self._hosts, self._is_own = hosts, is_own

    def checked(self, url: str) -> Target:
        """Return a URL's target; one that is written as an address is judged at once.

        Raises:
            InvalidError, ForbiddenError: it can't be called back.
        """
        target = parse_target(url)
        if (address := literal(target.host)) is not None:
            self.check(address)
        return target

    def check(self, address: Address) -> None:
        """Let an address pass that may be called.

        Raises:
            ForbiddenError: it may not.
        """
        if any(address in network for network in self._allow):
            return
        for one in (address, *_inside(address)):
            if self._is_refused(one):
                raise ForbiddenError(
                    "callbacks don't go to this host, hosts of the cluster, link-local addresses, or what "
                    "[callbacks] of the settings denies: name another receiver, or let an administrator allow it there",
                    code="callback-refused",
                )

    def _is_refused(self, address: Address) -> bool:
        hosts = {literal(host) for host in self._hosts()}
        return (
            not _is_ordinary(address)
            or address in hosts
            or any(address in network for network in self._deny)
            or self._is_own(address)
        )


def is_own_address(address: Address) -> bool:
    """Tell whether an address is one of this host's: then what is sent there comes from there. Sends nothing."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
            return literal(str(probe.getsockname()[0])) == address
        except OSError:  # no way there, so it can't be called either
            return False


def _port_of(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else PORTS.get(parts.scheme, 0)


def _is_ordinary(address: Address) -> bool:
    """Tell whether an address belongs to one machine of a network, near or far."""
    special = (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
    )
    if isinstance(address, ipaddress.IPv6Address):
        return not (special or address.is_site_local) or address in NAT64
    return not special and not str(address).startswith("0.")


def _inside(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address carries: something on the way may unwrap them."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or (address in V4_COMPATIBLE and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
