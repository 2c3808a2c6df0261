"""Distributed switches, port groups, NICs and security groups.

Written by the network services of `nodeagent`; `netfabric` turns them into bridges, tunnels and rules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from core.model.resource import OnDelete, Relation, Tagged


class DistributedSwitch(Tagged, tag="distributed-switch.v1", frozen=True, kw_only=True):
    """A switch that spans the hosts of a cluster."""

    PLURAL: ClassVar[str] = "distributed-switches"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("cluster_id", target="cluster", name="cluster", reverse="distributed_switches"),
    )

    cluster_id: str


class PortGroup(Tagged, tag="port-group.v1", frozen=True, kw_only=True):
    """Uniform configuration of the ports of one VXLAN network.

    `vni` 1..16777215, unique in the mesh. `cidr` is IPv4. `service_ip` answers DHCP and DNS on every host and
    is never given to a NIC; `gateway` and `dns` are handed out by DHCP when set. `mtu` is the guests' MTU.
    `pool_first`..`pool_last` is where NIC addresses come from.
    """

    PLURAL: ClassVar[str] = "port-groups"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("switch_id", target="distributed-switch", name="switch", reverse="port_groups"),
    )

    switch_id: str
    vni: int
    cidr: str
    service_ip: str
    pool_first: str
    pool_last: str
    gateway: str = ""
    dns: tuple[str, ...] = ()
    mtu: int = 1450
    domain: str = "internal"

    def claims(self) -> tuple[str, ...]:
        return (f"port-group.name/{self.name}", f"port-group.vni/{self.vni}")


class Nic(Tagged, tag="nic.v1", frozen=True, kw_only=True):
    """A VM's network card; name = `<vm name>.<index>`."""

    PLURAL: ClassVar[str] = "nics"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation("vm_id", target="vm", name="vm", reverse="nics", on_delete=OnDelete.ALONG),
        Relation("port_group_id", target="port-group", name="port_group", reverse="nics"),
        Relation(
            "security_group_ids",
            target="security-group",
            name="security_groups",
            reverse="nics",
            many=True,
        ),
    )

    vm_id: str
    port_group_id: str
    mac: str
    ip: str
    security_group_ids: tuple[str, ...] = ()
    index: int = 0

    def claims(self) -> tuple[str, ...]:
        return (
            f"nic.name/{self.name}",
            f"nic.mac/{self.mac}",
            f"nic.ip/{self.port_group_id}/{self.ip}",
        )


class Direction(StrEnum):
    """Seen from the VM: ingress comes in to it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Protocol(StrEnum):
    """What a rule matches above IP."""

    ALL = "all"
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a security group: an exception to "everything in is denied, everything out is allowed".

    Allows ingress that matches; an egress rule with `remote_group_id` belongs to the default rules. `cidr` or
    `remote_group_id` name the other side (both empty: anyone). `port_first`..`port_last` 0: all ports.
    `family` is 4 or 6. Default rules (NET-5) can be disabled, not deleted.
    """

    id: str
    direction: Direction
    protocol: Protocol = Protocol.ALL
    port_first: int = 0
    port_last: int = 0
    cidr: str = ""
    remote_group_id: str = ""
    family: int = 4
    enabled: bool = True
    default: bool = False


class SecurityGroup(Tagged, tag="security-group.v1", frozen=True, kw_only=True):
    """A stateful firewall shared by NICs."""

    PLURAL: ClassVar[str] = "security-groups"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_id", target="data-center", name="data_center", reverse="security_groups"
        ),
        Relation(
            "rules.remote_group_id",
            target="security-group",
            name="remote_groups",
            reverse="allowed_by_groups",
            many=True,
        ),
    )

    data_center_id: str
    rules: tuple[Rule, ...] = ()
