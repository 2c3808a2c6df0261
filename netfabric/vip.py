"""The kernel's part of the management address: have it for a few seconds, look whether another machine has it, say who has it.

`LinuxVip` is used by `nodeagent.services.vip`, which decides; needs root. The address lies as a /32 on the interface that
carries the host's own management address, with a lifetime after which the kernel itself takes it away. Everything runs
in one thread, one piece after the other: a socket of the kernel must never hold up the agent's loop.
"""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pyroute2 import AsyncIPRoute

from core.clock import Clock
from core.errors import PermanentError, TemporaryError
from netfabric.links import GONE, checked, link_thread, run_on_socket
from netfabric.vip_frames import ETH_P_ARP, announcements, mac_text, parse, probe, taken_by

log = logging.getLogger(__name__)

PROBES = 3
PROBE_WAIT_S = 0.15
FOREVER = 0xFFFFFFFF
CALL_TIMEOUT_S = 2.0
FRAME_BYTES_MAX = 128
FRAMES_PER_PROBE_MAX = 64
SET_WITHIN_S = 0.1
"""So much longer than meant the kernel may have been told to wait; part of `ha.vip.KERNEL_LATE_S`."""

Result = TypeVar("Result")
Lifetime = Callable[[float, float], int]


class VipDriver(Protocol):
    """What the rules of the VIP ask of a host. `near` is the host's own management address.

    All may raise `TemporaryError` and `PermanentError`; `probe` and `hold` raise the latter for a VIP of another network.
    """

    async def network(self, near: str) -> str:
        """Return the network of the interface that carries `near`, such as `10.77.0.0/24`."""

    async def probe(self, vip: str, *, near: str) -> str:
        """Return the MAC of a machine that has the address, empty if nobody answers. Takes about half a second.

        This host counts as one if it has the address for good: then it is the host's own.
        """

    async def hold(self, vip: str, *, near: str, until_s: float) -> bool:
        """Have the address, until the kernel takes it away at `until_s` of the monotonic clock at the latest, plus its
        rounding; False when too little time is left, and then nothing is held longer than before."""

    async def announce(self, vip: str, *, near: str) -> None:
        """Tell everybody in the network that this host has the address."""

    async def release(self, vip: str) -> bool:
        """Have the address no more; tell whether it was there. One without an end of its lifetime isn't ours, and stays."""


@dataclass(frozen=True, slots=True)
class _Carrier:
    """The interface that carries an address, and how."""

    index: int
    prefix: int
    valid_s: int


class LinuxVip:
    """`VipDriver` on this host's kernel. `lifetime` says how many seconds are left until a time (`ha.vip.lifetime_s`)."""

    def __init__(
        self, clock: Clock, lifetime: Lifetime, *, thread: ThreadPoolExecutor | None = None
    ) -> None:
        self._clock, self._lifetime = clock, lifetime
        self._thread = thread or link_thread()

    async def network(self, near: str) -> str:
        """See `VipDriver.network`."""

        async def look(ipr: AsyncIPRoute) -> str:
            carrier = await _need(ipr, near)
            return str(ipaddress.ip_network(f"{near}/{carrier.prefix}", strict=False))

        return await self._run(look)

    async def probe(self, vip: str, *, near: str) -> str:
        """See `VipDriver.probe`."""

        async def look(ipr: AsyncIPRoute) -> str:
            name, mac = await _link_of(ipr, (await _need_for(ipr, vip, near)).index)
            if any(it.valid_s == FOREVER for it in await _carriers(ipr, vip)):
                return mac_text(mac)
            return _probe(name, mac, vip)

        return await self._run(look)

    async def hold(self, vip: str, *, near: str, until_s: float) -> bool:
        """See `VipDriver.hold`."""

        async def extend(ipr: AsyncIPRoute) -> bool:
            index = (await _need_for(ipr, vip, near)).index
            if any(it.valid_s == FOREVER for it in await _carriers(ipr, vip)):
                raise PermanentError(f"{vip} is an address of this host itself")
            # Measured at the last moment: this thread may have waited.
            left_s = self._lifetime(until_s, self._clock.monotonic_s())
            if not left_s:
                return False
            await checked(
                f"cannot have the address {vip}",
                ipr.addr(
                    "replace",
                    index=index,
                    address=vip,
                    prefixlen=32,
                    preferred_lft=left_s,
                    valid_lft=left_s,
                ),
            )
            # The process may have stood still between the two: what the kernel was told is then too long.
            if self._clock.monotonic_s() + left_s > until_s + SET_WITHIN_S:
                await _remove(ipr, vip)
                return False
            return True

        return await self._run(extend)

    async def announce(self, vip: str, *, near: str) -> None:
        """See `VipDriver.announce`."""

        async def tell(ipr: AsyncIPRoute) -> None:
            name, mac = await _link_of(ipr, (await _need(ipr, near)).index)
            with _wire(name) as wire:
                for frame in announcements(mac, vip):
                    wire.send(frame)

        await self._run(tell)

    async def release(self, vip: str) -> bool:
        """See `VipDriver.release`."""

        async def remove(ipr: AsyncIPRoute) -> bool:
            return await _remove(ipr, vip)

        return await self._run(remove)

    async def _run(self, work: Callable[[AsyncIPRoute], Awaitable[Result]]) -> Result:
        async def with_errors(ipr: AsyncIPRoute) -> Result:
            try:
                return await work(ipr)
            except OSError as error:
                raise TemporaryError(f"the network can't be spoken to: {error}") from None

        return await run_on_socket(self._thread, with_errors, timeout_s=CALL_TIMEOUT_S)


async def _carriers(ipr: AsyncIPRoute, address: str) -> list[_Carrier]:
    """Return where this host has an address."""
    found = []
    async for message in await ipr.addr("dump", family=socket.AF_INET):
        if message.get("local") == address:
            lifetime: Any = message.get("cacheinfo") or {}
            valid_s = int(lifetime.get("ifa_valid", FOREVER))
            found.append(_Carrier(message["index"], message["prefixlen"], valid_s))
    return found


async def _need(ipr: AsyncIPRoute, near: str) -> _Carrier:
    carriers = await _carriers(ipr, near)
    if not carriers:
        raise TemporaryError(f"no interface of this host has its management address {near}")
    return carriers[0]


async def _need_for(ipr: AsyncIPRoute, vip: str, near: str) -> _Carrier:
    """Return the interface that carries `near`, if the VIP is of its network: elsewhere nobody would find it."""
    carrier = await _need(ipr, near)
    network = ipaddress.ip_network(f"{near}/{carrier.prefix}", strict=False)
    if ipaddress.ip_address(vip) not in network:
        raise PermanentError(f"{vip} is not in {network}, the network of this host's address")
    return carrier


async def _link_of(ipr: AsyncIPRoute, index: int) -> tuple[str, bytes]:
    """Return name and MAC of an interface."""
    found: Any = await ipr.link("get", index=index)  # a list, other than of "dump"
    for message in found:
        mac = bytes.fromhex((message.get("address") or "").replace(":", ""))
        if len(mac) != 6:
            raise PermanentError(f"{message.get('ifname')} is no Ethernet: it can't have a VIP")
        return str(message.get("ifname")), mac
    raise TemporaryError(f"network device {index} vanished")


async def _remove(ipr: AsyncIPRoute, vip: str) -> bool:
    ours = [it for it in await _carriers(ipr, vip) if it.valid_s != FOREVER and it.prefix == 32]
    for carrier in ours:
        await checked(
            f"cannot remove the address {vip}",
            ipr.addr("del", index=carrier.index, address=vip, prefixlen=32),
            GONE,
        )
    return bool(ours)


def _wire(name: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    try:
        wire.bind((name, ETH_P_ARP))
    except OSError:
        wire.close()
        raise
    return wire


def _probe(name: str, mac: bytes, vip: str) -> str:
    """Ask some times who has the address; the answers of others have `PROBE_WAIT_S` each."""
    with _wire(name) as wire:
        for _ in range(PROBES):
            wire.send(probe(mac, vip))
            # Each frame that comes shortens nothing: a busy network ends the wait by its count, not by its silence.
            for _ in range(FRAMES_PER_PROBE_MAX):
                if not select.select([wire], [], [], PROBE_WAIT_S)[0]:
                    break
                said = parse(wire.recv(FRAME_BYTES_MAX))
                if said is not None and taken_by(said, vip, own_mac=mac):
                    return mac_text(said.sender_mac)
    return ""
