"""The distributed switch of one host: a bridge and a tunnel per port group, and the entries that make it one.

Called by `netfabric.linux`. Reads what is, changes only the difference; guests' tap devices are plugged in by
libvirt and never touched here. Broadcasts and frames to unknown MACs (routers and other ports that an
operator plugs in by hand) are copied to every other host; nothing is learned from the tunnel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import PlatformError
from netfabric.driver import NetworkProblem, Part
from netfabric.links import (
    FLOOD_MAC,
    VXLAN_PORT,
    Forwarding,
    Link,
    LinkTable,
    link_thread,
    run_apart,
)
from netfabric.names import (
    TAP_PREFIX,
    bridge_mac,
    bridge_name,
    service_name,
    vni_of_link,
    vxlan_name,
)
from netfabric.plan import NetworkPlan, PortGroupPlan

log = logging.getLogger(__name__)

RESYNC_S = 60.0


@dataclass(frozen=True, slots=True)
class SwitchState:
    """What the switch looks like after a reconciliation. `kept`: port groups no longer planned, but in use."""

    links: Mapping[str, Link]
    kept: tuple[int, ...]
    changes: int
    problems: tuple[NetworkProblem, ...]


@dataclass(frozen=True, slots=True)
class ForwardingChanges:
    """How to come from one `Forwarding` to another."""

    set_ends: tuple[tuple[str, str], ...]
    add_floods: tuple[str, ...]
    remove_ends: tuple[tuple[str, str], ...]
    set_static: tuple[str, ...]
    remove_static: tuple[str, ...]
    set_neighbours: tuple[tuple[str, str], ...]
    remove_neighbours: tuple[str, ...]

    @property
    def count(self) -> int:
        """Return how many entries change."""
        return sum(len(getattr(self, name)) for name in self.__slots__)


def wanted_forwarding(plan: PortGroupPlan) -> Forwarding:
    """Return the entries of a port group's bridge and tunnel.

    A NIC between two hosts has no end of its own in the tunnel, so that its frames are flooded to both; on
    those two hosts the bridge does not send it into the tunnel either, because it is a local port there.
    """
    ends = {(remote.mac, remote.tunnel_to) for remote in plan.remotes if remote.tunnel_to}
    floods = {(FLOOD_MAC, address) for address in plan.flood_to}
    return Forwarding(
        tunnel=frozenset(ends | floods),
        static=frozenset(remote.mac for remote in plan.remotes),
        neighbours=frozenset((remote.ip, remote.mac) for remote in plan.remotes),
    )


def forwarding_changes(have: Forwarding, want: Forwarding) -> ForwardingChanges:
    """Return the difference. A MAC that moved is replaced in one step, so no frame finds it missing."""
    kept_macs = {mac for mac, _ in want.tunnel if mac != FLOOD_MAC}
    added, gone = want.tunnel - have.tunnel, have.tunnel - want.tunnel
    known_ips = {ip for ip, _ in want.neighbours}
    return ForwardingChanges(
        set_ends=tuple(sorted(end for end in added if end[0] != FLOOD_MAC)),
        add_floods=tuple(sorted(remote for mac, remote in added if mac == FLOOD_MAC)),
        remove_ends=tuple(sorted(end for end in gone if end[0] not in kept_macs)),
        set_static=tuple(sorted(want.static - have.static)),
        remove_static=tuple(sorted(have.static - want.static)),
        set_neighbours=tuple(sorted(want.neighbours - have.neighbours)),
        remove_neighbours=tuple(
            sorted(ip for ip, _ in have.neighbours - want.neighbours if ip not in known_ips)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Synced:
    """What the kernel is taken to hold for a port group, until it is read again."""

    plan: PortGroupPlan
    bridge: int
    tunnel: int
    until_s: float


class Switch:
    """Keeps bridges, tunnels and their entries in line with a plan.

    What was written for a port group is trusted for `RESYNC_S` as long as its devices are the same; after that
    it is read again from the kernel.
    """

    def __init__(self, *, sysctl_dir: Path = Path("/proc/sys")) -> None:
        self._thread = link_thread()
        self._sysctl_dir = sysctl_dir
        self._synced: dict[int, _Synced] = {}

    async def apply(self, plan: NetworkPlan) -> SwitchState:
        """Bring about the switch of a plan. Problems are part of what is returned.

        Raises:
            PlatformError: the kernel could not even be asked.
        """
        now_s = asyncio.get_running_loop().time()
        return await run_apart(self._thread, lambda table: self._apply(table, plan, now_s))

    async def links(self) -> dict[str, Link]:
        """Return all devices of this network namespace by name."""
        return await run_apart(self._thread, lambda table: table.links())

    async def _apply(self, table: LinkTable, plan: NetworkPlan, now_s: float) -> SwitchState:
        links = await table.links()
        changes = 0
        problems = []
        for group in plan.port_groups:
            try:
                changes += await self._apply_group(table, plan.address, group, links, now_s)
            except PlatformError as error:
                problems.append(NetworkProblem(Part.SWITCH, group.vni, error.message))
        wanted = {group.vni for group in plan.port_groups}
        kept = set()
        for vni in sorted({v for name in links if (v := vni_of_link(name))} - wanted):
            if _guests_on(vni, links):
                kept.add(vni)
                continue
            try:
                changes += await self._remove_group(table, vni, links)
            except PlatformError as error:
                problems.append(NetworkProblem(Part.SWITCH, vni, error.message))
        if changes:
            links = await table.links()
            log.info("switch changed", extra={"changes": changes})
        return SwitchState(links, tuple(sorted(kept)), changes, tuple(problems))

    async def _apply_group(
        self,
        table: LinkTable,
        local: str,
        group: PortGroupPlan,
        links: Mapping[str, Link],
        now_s: float,
    ) -> int:
        bridge, bridge_changes = await self._ensure_bridge(table, group, links)
        tunnel, tunnel_changes = await self._ensure_tunnel(table, local, group, links, bridge)
        changes = bridge_changes + tunnel_changes
        synced = self._synced.pop(group.vni, None)
        if (
            synced
            and synced.bridge == bridge
            and synced.tunnel == tunnel
            and now_s < synced.until_s
        ):
            have, until_s = wanted_forwarding(synced.plan), synced.until_s
        else:
            have, until_s = await table.forwarding(bridge, tunnel), now_s + RESYNC_S
        difference = forwarding_changes(have, wanted_forwarding(group))
        await _write_forwarding(table, bridge, tunnel, difference)
        self._synced[group.vni] = _Synced(group, bridge, tunnel, until_s)
        return changes + difference.count

    async def _ensure_bridge(
        self, table: LinkTable, group: PortGroupPlan, links: Mapping[str, Link]
    ) -> tuple[int, int]:
        """Return the bridge's index and the number of changes."""
        name = bridge_name(group.vni)
        link = links.get(name)
        mac = bridge_mac(group.vni)
        if link is not None and (link.mac, link.mtu, link.up) == (mac, group.mtu, True):
            return link.index, 0
        index = link.index if link else await table.add_bridge(name, mac=mac, mtu=group.mtu)
        self._forbid_ipv6(name)
        await table.set_link(index, address=mac, mtu=group.mtu, state="up")
        return index, 1

    async def _ensure_tunnel(
        self,
        table: LinkTable,
        local: str,
        group: PortGroupPlan,
        links: Mapping[str, Link],
        bridge: int,
    ) -> tuple[int, int]:
        """Return the tunnel's index and the number of changes. One with another VNI or address is made anew."""
        name = vxlan_name(group.vni)
        link = links.get(name)
        identity = (group.vni, local, VXLAN_PORT)
        if link is not None and (link.vni, link.local, link.udp_port) != identity:
            await table.delete(link)
            link = None
        if link is not None and _is_set_up(link, bridge, group.mtu):
            return link.index, 0
        index = (
            link.index
            if link
            else await table.add_vxlan(name, vni=group.vni, local=local, mtu=group.mtu)
        )
        self._forbid_ipv6(name)
        await table.set_link(index, mtu=group.mtu, master=bridge)
        await table.set_tunnel_port(index)
        await table.set_link(index, state="up")
        return index, 1

    async def _remove_group(self, table: LinkTable, vni: int, links: Mapping[str, Link]) -> int:
        self._synced.pop(vni, None)
        names = (service_name(vni), vxlan_name(vni), bridge_name(vni))
        ours = [links[name] for name in names if name in links]
        for link in ours:
            await table.delete(link)
        return len(ours)

    def _forbid_ipv6(self, name: str) -> None:
        """Keep the host itself from having an address, hence ears, on a guests' network."""
        setting = self._sysctl_dir / "net/ipv6/conf" / name / "disable_ipv6"
        if setting.exists():
            setting.write_text("1\n")


def _is_set_up(link: Link, bridge: int, mtu: int) -> bool:
    return (
        link.master == bridge
        and link.mtu == mtu
        and link.up
        and link.neigh_suppress
        and not link.learning
    )


def _guests_on(vni: int, links: Mapping[str, Link]) -> bool:
    bridge = links.get(bridge_name(vni))
    return bridge is not None and any(
        link.master == bridge.index and link.name.startswith(TAP_PREFIX) for link in links.values()
    )


async def _write_forwarding(
    table: LinkTable, bridge: int, tunnel: int, changes: ForwardingChanges
) -> None:
    """Write first what lets frames through, then take away."""
    for mac, remote in changes.set_ends:
        await table.set_tunnel_end(tunnel, mac, remote)
    for remote in changes.add_floods:
        await table.add_flood_end(tunnel, remote)
    for mac in changes.set_static:
        await table.set_static(tunnel, mac)
    for ip, mac in changes.set_neighbours:
        await table.set_neighbour(bridge, ip, mac)
    for mac in changes.remove_static:
        await table.remove_static(tunnel, mac)
    for ip in changes.remove_neighbours:
        await table.remove_neighbour(bridge, ip)
    for mac, remote in changes.remove_ends:
        await table.remove_tunnel_end(tunnel, mac, remote)
