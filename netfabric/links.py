"""Kernel links and forwarding entries, read and written over netlink. The only module that speaks pyroute2.

Called by `netfabric.switch`. pyroute2's sockets do not work on uvloop, and reading thousands of entries takes
tens of microseconds each, so all of it runs in a thread of its own with a plain asyncio loop (`run_apart`);
the agent's loop, which renews the host's lease, never waits for it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from core.errors import PermanentError, TemporaryError

VXLAN_PORT = 4789
FLOOD_MAC = "00:00:00:00:00:00"
APART_TIMEOUT_S = 60.0

# From linux/neighbour.h. In a bridge's table PERMANENT would mean "an address of the host itself" and swallow all
# frames to it; NOARP means static.
_NOARP, _PERMANENT = 0x40, 0x80
_SELF, _MASTER = 0x02, 0x04

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Link:
    """A network device; `master` is the index of its bridge or 0."""

    index: int
    name: str
    kind: str
    master: int
    mtu: int
    up: bool
    mac: str = ""
    vni: int = 0
    local: str = ""
    udp_port: int = 0
    learning: bool = True
    neigh_suppress: bool = False


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What a bridge and its tunnel know of remote NICs.

    `tunnel`: (mac, remote address) of the tunnel's table, `static`: MACs the bridge sends into the tunnel,
    `neighbours`: (ip, mac) the bridge answers ARP for.
    """

    tunnel: frozenset[tuple[str, str]] = frozenset()
    static: frozenset[str] = frozenset()
    neighbours: frozenset[tuple[str, str]] = frozenset()


class LinkTable:
    """One netlink socket's worth of reading and writing. Errors are `TemporaryError` or `PermanentError`."""

    def __init__(self, ipr: AsyncIPRoute) -> None:
        self._ipr = ipr

    async def links(self) -> dict[str, Link]:
        """Return all devices of this network namespace by name."""
        found = {}
        async for message in await self._ipr.link("dump"):
            link = _link(message)
            found[link.name] = link
        return found

    async def index_of(self, name: str) -> int:
        """Return a device's index.

        Raises:
            TemporaryError: it is gone.
        """
        found: list[int] = await self._ipr.link_lookup(ifname=name)
        if not found:
            raise TemporaryError(f"network device {name} vanished while it was set up")
        return found[0]

    async def add_bridge(self, name: str, *, mac: str, mtu: int) -> int:
        """Make a bridge without spanning tree and multicast snooping; return its index."""
        await self._do(
            f"cannot make bridge {name}",
            self._ipr.link(
                "add",
                ifname=name,
                kind="bridge",
                address=mac,
                mtu=mtu,
                br_stp_state=0,
                br_mcast_snooping=0,
            ),
        )
        return await self.index_of(name)

    async def add_vxlan(self, name: str, *, vni: int, local: str, mtu: int) -> int:
        """Make a tunnel device that learns nothing; return its index."""
        await self._do(
            f"cannot make tunnel {name}",
            self._ipr.link(
                "add",
                ifname=name,
                kind="vxlan",
                mtu=mtu,
                vxlan_id=vni,
                vxlan_local=local,
                vxlan_port=VXLAN_PORT,
                vxlan_learning=0,
                vxlan_ttl=64,
            ),
        )
        return await self.index_of(name)

    async def set_link(self, link: int, **attributes: int | str) -> None:
        """Change a device, e.g. `mtu=1450, master=7, state="up"`."""
        await self._do(
            f"cannot change device {link}", self._ipr.link("set", index=link, **attributes)
        )

    async def set_tunnel_port(self, link: int) -> None:
        """Make a bridge port learn nothing and have the bridge answer ARP for what is behind it."""
        await self._do(
            f"cannot set up bridge port {link}",
            self._ipr.brport("set", index=link, learning=0, neigh_suppress=1),
        )

    async def delete(self, link: Link) -> None:
        """Remove a device; gone already is fine."""
        await self._do(f"cannot remove {link.name}", self._ipr.link("del", index=link.index), GONE)

    async def forwarding(self, bridge: int, tunnel: int) -> Forwarding:
        """Return the entries that we could have written."""
        to_tunnel, static, neighbours = set(), set(), set()
        async for entry in await self._ipr.fdb("dump", ifindex=tunnel):
            mac, state = entry.get("lladdr"), entry["state"]
            if entry["ifindex"] != tunnel or mac is None:
                continue
            if entry["flags"] & _SELF:
                if entry.get("dst") is not None:
                    to_tunnel.add((mac, entry.get("dst")))
            elif state == _NOARP:
                static.add(mac)
        async for entry in await self._ipr.neigh("dump", family=socket.AF_INET, ifindex=bridge):
            if entry["ifindex"] == bridge and entry["state"] & _PERMANENT:
                neighbours.add((entry.get("dst"), entry.get("lladdr")))
        return Forwarding(frozenset(to_tunnel), frozenset(static), frozenset(neighbours))

    async def set_tunnel_end(self, tunnel: int, mac: str, remote: str) -> None:
        """Send frames to a MAC to one remote host, whatever was before. Not for `FLOOD_MAC`."""
        await self._tunnel_entry("replace", tunnel, mac, remote)

    async def add_flood_end(self, tunnel: int, remote: str) -> None:
        """Send a copy of all frames to unknown MACs to a remote host too."""
        await self._tunnel_entry("append", tunnel, FLOOD_MAC, remote, _EXISTS)

    async def remove_tunnel_end(self, tunnel: int, mac: str, remote: str) -> None:
        """Forget one remote end of a MAC."""
        await self._tunnel_entry("del", tunnel, mac, remote, GONE)

    async def _tunnel_entry(
        self, verb: str, tunnel: int, mac: str, remote: str, fine: frozenset[int] = frozenset()
    ) -> None:
        await self._do(
            f"cannot {verb} the tunnel entry of {mac}",
            self._ipr.fdb(
                verb, ifindex=tunnel, lladdr=mac, dst=remote, state=_PERMANENT | _NOARP, flags=_SELF
            ),
            fine,
        )

    async def set_static(self, tunnel: int, mac: str) -> None:
        """Have the bridge send a MAC into the tunnel."""
        await self._do(
            f"cannot add the bridge entry of {mac}",
            self._ipr.fdb("replace", ifindex=tunnel, lladdr=mac, state=_NOARP, flags=_MASTER),
        )

    async def remove_static(self, tunnel: int, mac: str) -> None:
        """Have the bridge no longer send a MAC into the tunnel."""
        await self._do(
            f"cannot remove the bridge entry of {mac}",
            self._ipr.fdb("del", ifindex=tunnel, lladdr=mac, flags=_MASTER),
            GONE,
        )

    async def set_neighbour(self, bridge: int, ip: str, mac: str) -> None:
        """Have the bridge answer ARP for an address."""
        await self._do(
            f"cannot add the neighbour {ip}",
            self._ipr.neigh(
                "replace",
                dst=ip,
                lladdr=mac,
                ifindex=bridge,
                state=_PERMANENT,
                family=socket.AF_INET,
            ),
        )

    async def remove_neighbour(self, bridge: int, ip: str) -> None:
        """Have the bridge no longer answer ARP for an address."""
        await self._do(
            f"cannot remove the neighbour {ip}",
            self._ipr.neigh("del", dst=ip, ifindex=bridge, family=socket.AF_INET),
            GONE,
        )

    async def _do(
        self, failure: str, call: Awaitable[Any], fine: frozenset[int] = frozenset()
    ) -> None:
        await checked(failure, call, fine)


GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.ESRCH, errno.EADDRNOTAVAIL})
_EXISTS = frozenset({errno.EEXIST})


async def checked(failure: str, call: Awaitable[Any], fine: frozenset[int] = frozenset()) -> None:
    """Await a call of netlink; errors of the kinds in `fine` don't matter.

    Raises:
        TemporaryError, PermanentError: what else was refused; begins with `failure`.
    """
    try:
        await call
    except NetlinkError as error:
        if error.code in fine:
            return
        reason = f"{failure}: {errno.errorcode.get(error.code, str(error.code))}"
        if error.code in (errno.EOPNOTSUPP, errno.EPERM, errno.EAFNOSUPPORT):
            raise PermanentError(f"{reason}; the kernel or our rights do not allow it") from None
        raise TemporaryError(reason) from None


_READ = frozenset({"IFLA_IFNAME", "IFLA_MASTER", "IFLA_MTU", "IFLA_ADDRESS", "IFLA_LINKINFO"})


def _link(message: Any) -> Link:
    # An attribute is decoded when it is asked for, and each `get` goes through all of them, over forty.
    read = {slot[0]: slot[1] for slot in message["attrs"] if slot[0] in _READ}
    info = read.get("IFLA_LINKINFO") or {}
    kind = info.get("kind") or ""
    tunnel = (info.get("data") or {}) if kind == "vxlan" else {}
    # A bridge says forty things more of each of its ports: guests' taps do without.
    is_port = kind == "vxlan" and info.get("slave_kind") == "bridge"
    port = (info.get("slave_data") or {}) if is_port else {}
    return Link(
        index=message["index"],
        name=read["IFLA_IFNAME"],
        kind=kind,
        master=read.get("IFLA_MASTER") or 0,
        mtu=read.get("IFLA_MTU") or 0,
        up=bool(message["flags"] & 1),
        mac=read.get("IFLA_ADDRESS") or "",
        vni=tunnel.get("vxlan_id") or 0,
        local=tunnel.get("vxlan_local") or "",
        udp_port=tunnel.get("vxlan_port") or 0,
        learning=bool(port.get("learning", 1)),
        neigh_suppress=bool(port.get("neigh_suppress", 0)),
    )


def link_thread() -> ThreadPoolExecutor:
    """Return the single thread that all netlink work of one driver runs in, one piece after the other."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="kvorum-netlink")


async def run_apart(
    thread: ThreadPoolExecutor, work: Callable[[LinkTable], Awaitable[Result]]
) -> Result:
    """Run work on the kernel's links in the given thread, on a loop of its own; see `run_on_socket`."""

    async def on_links(ipr: AsyncIPRoute) -> Result:
        return await work(LinkTable(ipr))

    return await run_on_socket(thread, on_links, timeout_s=APART_TIMEOUT_S)


async def run_on_socket(
    thread: ThreadPoolExecutor,
    work: Callable[[AsyncIPRoute], Awaitable[Result]],
    *,
    timeout_s: float,
) -> Result:
    """Run work on a netlink socket in the given thread, on a loop of its own.

    When the caller is cancelled the piece of work still comes to its end, before any that follows.

    Raises:
        TemporaryError: it took more than `timeout_s`.
    """

    async def with_socket() -> Result:
        try:
            async with asyncio.timeout(timeout_s), AsyncIPRoute() as ipr:
                return await work(ipr)
        except TimeoutError:
            raise TemporaryError(
                f"the kernel's network did not answer in {timeout_s:g} s"
            ) from None

    def in_thread() -> Result:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(with_socket())

    return await asyncio.get_running_loop().run_in_executor(thread, in_thread)
