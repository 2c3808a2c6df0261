"""Ping: ask addresses for an ICMP echo, and say which of them answered.

Used by `nodeagent.services.arbitration`. Needs what `CAP_NET_RAW` or `net.ipv4.ping_group_range` permits.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Protocol

from core.errors import TemporaryError
from netfabric.icmp import PAYLOAD_BYTES, Echo, reply, request, without_ip_header

PACKET_BYTES_MAX = 512
PACKETS_PER_PING_MAX = 1024
"""A raw socket gets the answers to all pings of the host. A flood of them must not keep the agent busy: it ends the wait."""

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}


class Pinger(Protocol):
    """What is asked of a host's network."""

    async def ping(self, addresses: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        """Return which IP addresses answered an echo request. Takes `timeout_s` at most, less when all did.

        Raises:
            TemporaryError: this host can't ping any of them; with one that it can, the others are silent.
        """


class IcmpPinger:
    """`Pinger` by sockets of the kernel. Only an answer from the address itself that repeats chance of `rng` counts."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._sequence = 0

    async def ping(self, addresses: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        """See `Pinger.ping`."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        with ExitStack() as stack:
            sockets, fault = {}, None
            for address in set(addresses):
                try:
                    sockets[address] = stack.enter_context(_open(version_of(address)))
                except TemporaryError as error:
                    fault = error
            if fault is not None and not sockets:
                raise fault
            async with asyncio.TaskGroup() as group:
                asked = {
                    address: group.create_task(
                        self._answers(sock, address, timeout_s), name=f"ping-{address}"
                    )
                    for address, sock in sockets.items()
                }
        return frozenset(address for address, task in asked.items() if task.result())

    async def _answers(self, sock: socket.socket, address: str, timeout_s: float) -> bool:
        try:
            sock.connect((address, 0))
            echo = Echo(self._identifier(sock), self._sequence, self._rng.randbytes(PAYLOAD_BYTES))
            sock.send(request(version_of(address), echo))
            async with asyncio.timeout(timeout_s):
                return await is_answered(sock, address, echo)
        except OSError:  # no route, say, or the time is over: TimeoutError is one of them
            return False

    def _identifier(self, sock: socket.socket) -> int:
        """Return what tells this question from others': an unprivileged socket has one of the kernel's, as its port."""
        if sock.type == socket.SOCK_DGRAM:
            return int(sock.getsockname()[1])
        return self._rng.getrandbits(16)


def version_of(address: str) -> int:
    """Return the IP version of an address, 4 or 6."""
    return ipaddress.ip_address(address).version


def _open(version: int) -> socket.socket:
    """Return a socket for echoes: an unprivileged one where the host permits it, else a raw one.

    Raises:
        TemporaryError: neither is permitted, or this host has no such IP version.
    """
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(_FAMILY[version], kind, _PROTOCOL[version])
        except PermissionError:
            continue
        except OSError as error:
            raise TemporaryError(f"this host can't ping by IPv{version}: {error}") from None
        sock.setblocking(False)
        return sock
    raise TemporaryError("the agent may not ping: it needs CAP_NET_RAW")


async def is_answered(sock: socket.socket, address: str, echo: Echo) -> bool:
    """Wait for the answer; tell whether it came, rather than too many other packets."""
    version = version_of(address)
    has_ip_header = version == 4 and sock.type == socket.SOCK_RAW
    for _ in range(PACKETS_PER_PING_MAX):
        try:
            packet, source = sock.recvfrom(PACKET_BYTES_MAX)
        except BlockingIOError:
            await _readable(sock)
            continue
        message = without_ip_header(packet) if has_ip_header else packet
        if _same(source[0], address) and reply(version, message) == echo:
            return True
    return False


async def _readable(sock: socket.socket) -> None:
    """Wait until a packet is there. By hand, as uvloop has no `sock_recvfrom`."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _same(one: str, other: str) -> bool:
    """Tell whether two texts are one IP address; an IPv6 one may be written in several ways."""
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)
