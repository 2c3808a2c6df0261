"""What the network of one host shall look like, computed from the store's resources.

Called by the network controller of `nodeagent` after every change of what it reads; the drivers of `netfabric`
bring it about. Pure: the same view and host give the same plan. Nothing is learned from traffic, since the
store knows every NIC: where it is (tunnel entries), which address it has (DHCP, anti-spoofing) and which
groups it is in (firewall).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from core.errors import InvalidError, PlatformError
from core.model.compute import VM
from core.model.mesh import Host
from core.model.network import DistributedSwitch, Nic, PortGroup, Rule, SecurityGroup
from netfabric.names import checked_ip4, checked_mac, link_local, tap_name
from netfabric.port_group import check_nic_address, check_port_group, checked_network
from netfabric.security_group import checked_rule

_UNDERLAY_MTU_MAX = 65_535
_LABEL_MAX = 63


@dataclass(frozen=True, slots=True)
class NetworkView:
    """The part of the store that decides about networks; order does not matter."""

    hosts: tuple[Host, ...] = ()
    vms: tuple[VM, ...] = ()
    nics: tuple[Nic, ...] = ()
    switches: tuple[DistributedSwitch, ...] = ()
    port_groups: tuple[PortGroup, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()


def read_of_vm(vm: VM | None) -> tuple[str, ...] | None:
    """Return all of a VM that a plan is made of: when it is the same as before, so is the plan."""
    return None if vm is None else (vm.name, vm.host_id, vm.migrating_to_host_id)


def read_of_host(host: Host | None) -> tuple[str, ...] | None:
    """Return all of a host that a plan is made of."""
    return None if host is None else (host.address, host.cluster_id)


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A NIC that is, or may any moment be, plugged in on this host."""

    nic_id: str
    device: str
    mac: str
    ip: str
    group_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemotePort:
    """A NIC on another host. `tunnel_to` is that host's address, or empty while the NIC is between two hosts:
    then its frames go to all hosts, so that they reach it on both sides of the move."""

    mac: str
    ip: str
    tunnel_to: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What DHCP and DNS know of a NIC. `name` is a single DNS label."""

    mac: str
    ip: str
    name: str


@dataclass(frozen=True, slots=True)
class PortGroupPlan:
    """A port group on this host. `flood_to`: addresses of the other hosts where it exists."""

    vni: int
    mtu: int
    cidr: str
    service_ip: str
    gateway: str
    dns: tuple[str, ...]
    domain: str
    flood_to: tuple[str, ...] = ()
    ports: tuple[LocalPort, ...] = ()
    remotes: tuple[RemotePort, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The rules of a security group that some local port is in."""

    id: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """The addresses that mean "member of this group" to the ports of one port group."""

    group_id: str
    vni: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """All of it. `address` is this host's end of every tunnel; `refused` says which resources were left out
    because they make no sense, one line each."""

    host_id: str
    address: str
    port_groups: tuple[PortGroupPlan, ...] = ()
    groups: tuple[GroupPlan, ...] = ()
    members: tuple[GroupMembers, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Placed:
    """A NIC with all that is known of its place."""

    nic: Nic
    port_group: PortGroup
    host_id: str
    migrating_to: str
    name: str

    def is_on(self, host_id: str) -> bool:
        return host_id in (self.host_id, self.migrating_to)


def desired_network(view: NetworkView, host_id: str) -> NetworkPlan:
    """Return the network this host shall have. A NIC is here if its VM is placed here or on its way here,
    running or not; a port group is here if such a NIC is, or if the host is in a cluster of the switch.

    Raises:
        InvalidError: the host is not in the view, or its address is no IPv4 address.
    """
    addresses = {host.id: host.address for host in view.hosts}
    if host_id not in addresses:
        raise InvalidError(f"host {host_id} is not a member of the mesh: join it first")
    refused: list[str] = []
    port_groups = _sound_port_groups(view.port_groups, refused)
    placed = _placed_nics(view, port_groups, refused)
    groups = _used_groups(view.security_groups, placed, host_id, refused)
    plans = []
    for port_group in port_groups:
        here = [nic for nic in placed if nic.port_group is port_group]
        spread = _spread(port_group, here, view)
        if host_id in spread:
            flood_to = sorted({addresses[other] for other in spread if other != host_id})
            plans.append(_port_group_plan(port_group, here, host_id, addresses, flood_to))
    return NetworkPlan(
        host_id=host_id,
        address=str(checked_ip4(addresses[host_id], "host address")),
        port_groups=tuple(plans),
        groups=groups,
        members=_members(groups, placed, host_id),
        refused=tuple(refused),
    )


def host_label(vm_name: str, index: int) -> str:
    """Return the DNS label of a VM's NIC: the VM's name, dots turned to dashes; `-1` and so on for further NICs."""
    tail = f"-{index}" if index else ""
    label = re.sub(r"[^a-z0-9-]", "-", vm_name.lower())[: _LABEL_MAX - len(tail)].strip("-")
    return (label or "vm") + tail


def _sound_port_groups(port_groups: Iterable[PortGroup], refused: list[str]) -> list[PortGroup]:
    """Return those that can be built, by VNI. The API checked them before; a wrong one must not stop the others."""
    sound: dict[int, PortGroup] = {}
    for port_group in sorted(port_groups, key=lambda p: (p.vni, p.created_ms, p.id)):
        try:
            check_port_group(port_group, sound.values(), underlay_mtu=_UNDERLAY_MTU_MAX)
        except PlatformError as error:
            refused.append(f"port group {port_group.id}: {error.message}")
        else:
            sound[port_group.vni] = port_group
    return list(sound.values())


def _placed_nics(
    view: NetworkView, port_groups: Iterable[PortGroup], refused: list[str]
) -> list[_Placed]:
    """Return all NICs that are somewhere, with canonical addresses, by id."""
    vms = {vm.id: vm for vm in view.vms}
    known = {port_group.id: port_group for port_group in port_groups}
    placed = []
    for nic in sorted(view.nics, key=lambda n: n.id):
        vm, port_group = vms.get(nic.vm_id), known.get(nic.port_group_id)
        if vm is None or port_group is None or not (vm.host_id or vm.migrating_to_host_id):
            continue
        try:
            tap_name(nic.id)
            sound = msgspec.structs.replace(
                nic, mac=checked_mac(nic.mac), ip=check_nic_address(port_group, nic.ip)
            )
        except InvalidError as error:
            refused.append(f"nic {nic.id}: {error.message}")
            continue
        migrating_to = vm.migrating_to_host_id if vm.migrating_to_host_id != vm.host_id else ""
        name = host_label(vm.name, nic.index)
        placed.append(_Placed(sound, port_group, vm.host_id, migrating_to, name))
    return placed


def _spread(port_group: PortGroup, placed: Iterable[_Placed], view: NetworkView) -> set[str]:
    """Return the hosts where a port group exists."""
    clusters = {id_ for s in view.switches if s.id == port_group.switch_id for id_ in s.cluster_ids}
    known = {host.id for host in view.hosts}
    members = {host.id for host in view.hosts if host.cluster_id in clusters}
    with_nics = {host for nic in placed for host in (nic.host_id, nic.migrating_to)}
    return members | (with_nics & known)


def _port_group_plan(
    port_group: PortGroup,
    placed: Iterable[_Placed],
    host_id: str,
    addresses: dict[str, str],
    flood_to: Iterable[str],
) -> PortGroupPlan:
    ports, remotes, endpoints = [], [], []
    for p in placed:
        endpoints.append(Endpoint(p.nic.mac, p.nic.ip, p.name))
        if p.is_on(host_id):
            groups = tuple(sorted(set(p.nic.security_group_ids)))
            ports.append(LocalPort(p.nic.id, tap_name(p.nic.id), p.nic.mac, p.nic.ip, groups))
        elif p.migrating_to or p.host_id in addresses:
            tunnel_to = "" if p.migrating_to else addresses[p.host_id]
            remotes.append(RemotePort(p.nic.mac, p.nic.ip, tunnel_to))
    return PortGroupPlan(
        vni=port_group.vni,
        mtu=port_group.mtu,
        cidr=port_group.cidr,
        service_ip=port_group.service_ip,
        gateway=port_group.gateway,
        dns=port_group.dns,
        domain=port_group.domain,
        flood_to=tuple(flood_to),
        ports=tuple(ports),
        remotes=tuple(remotes),
        endpoints=tuple(endpoints),
    )


def _used_groups(
    groups: Iterable[SecurityGroup], placed: Iterable[_Placed], host_id: str, refused: list[str]
) -> tuple[GroupPlan, ...]:
    used = {g for nic in placed if nic.is_on(host_id) for g in nic.nic.security_group_ids}
    return tuple(
        GroupPlan(group.id, _sound_rules(group, refused))
        for group in sorted(groups, key=lambda g: g.id)
        if group.id in used
    )


def _sound_rules(group: SecurityGroup, refused: list[str]) -> tuple[Rule, ...]:
    sound = []
    for rule in group.rules:
        try:
            sound.append(checked_rule(rule))
        except InvalidError as error:
            refused.append(f"rule {rule.id} of security group {group.id}: {error.message}")
    return tuple(sound)


def _members(
    groups: Iterable[GroupPlan], placed: Iterable[_Placed], host_id: str
) -> tuple[GroupMembers, ...]:
    """Return the members of all groups that rules of local groups refer to, for each local port group.

    An address means a member only where it can come from: in the NIC's own port group, or by a router from a
    port group whose network does not overlap. IPv6 is link-local only, so it counts in the own port group.
    """
    referred = sorted(
        {rule.remote_group_id for g in groups for rule in g.rules if rule.remote_group_id}
    )
    local = {nic.port_group.vni: nic.port_group for nic in placed if nic.is_on(host_id)}
    found: dict[tuple[str, int], set[str]] = {(g, vni): set() for g in referred for vni in local}
    reachable = {
        (vni, other.vni): vni == other.vni or not _overlap(port_group, other)
        for vni, port_group in local.items()
        for other in {id(nic.port_group): nic.port_group for nic in placed}.values()
    }
    for nic in placed:
        for group_id in set(nic.nic.security_group_ids) & set(referred):
            for vni in local:
                if reachable[vni, nic.port_group.vni]:
                    found[group_id, vni].add(nic.nic.ip)
                if vni == nic.port_group.vni:
                    found[group_id, vni].add(link_local(nic.nic.mac))
    return tuple(
        GroupMembers(group_id, vni, tuple(sorted(found[group_id, vni])))
        for group_id, vni in sorted(found)
    )


def _overlap(one: PortGroup, other: PortGroup) -> bool:
    return checked_network(one.cidr).overlaps(checked_network(other.cidr))
