"""Distributed switches, port groups, NICs and security groups.

Written by the network services of `nodeagent`; `netfabric` turns them into bridges, tunnels and rules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, attribute
from core.model.resource import OnDelete, Relation, Tagged

ATTACHED_MAX = 1000
NIC_GROUPS_MAX = 16
SECURITY_RULES_MAX = 500


class DistributedSwitch(Tagged, tag="distributed-switch.v1", frozen=True, kw_only=True):
    """A switch that spans the hosts of the clusters that it is attached to: only their VMs can be in its port groups."""

    PLURAL: ClassVar[str] = "distributed-switches"
    BY_DECLARATION: ClassVar[bool] = True
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "cluster_ids",
            target="cluster",
            name="clusters",
            reverse="distributed_switches",
            many=True,
            on_delete=OnDelete.DETACH,
            maximum=ATTACHED_MAX,
        ),
    )

    cluster_ids: Annotated[
        tuple[str, ...], attribute("The clusters whose hosts it spans.", count_max=ATTACHED_MAX)
    ] = ()


class PortGroup(Tagged, tag="port-group.v1", frozen=True, kw_only=True):
    """Uniform configuration of the ports of one VXLAN network.

    `vni` 1..16777215, unique in the mesh. `cidr` is IPv4. `service_ip` answers DHCP and DNS on every host and
    is never given to a NIC; `gateway` and `dns` are handed out by DHCP when set. `mtu` is the guests' MTU.
    `pool_first`..`pool_last` is where NIC addresses come from.
    """

    PLURAL: ClassVar[str] = "port-groups"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "switch_id",
            target="distributed-switch",
            name="switch",
            reverse="port_groups",
            required=True,
        ),
    )

    switch_id: Annotated[str, attribute("The switch that it is on.")]
    vni: Annotated[
        int, attribute("VXLAN network identifier, unique in the mesh.", least=1, most=16_777_215)
    ]
    cidr: Annotated[str, attribute("Its IPv4 network, e.g. `10.20.0.0/24`.")]
    service_ip: Annotated[
        str, attribute("Address that answers DHCP and DNS on every host; never given to a NIC.")
    ]
    pool_first: Annotated[str, attribute("First address that NICs get.")]
    pool_last: Annotated[str, attribute("Last address that NICs get.")]
    gateway: Annotated[str, attribute("Default route that DHCP hands out; empty: none.")] = ""
    dns: Annotated[
        tuple[str, ...], attribute("Name servers that DHCP hands out.", count_max=4)
    ] = ()
    mtu: Annotated[int, attribute("MTU of the guests.", unit="bytes", least=576, most=65_535)] = (
        1450
    )
    domain: Annotated[str, attribute("Domain of the guests' names.")] = "internal"

    def claims(self) -> tuple[str, ...]:
        return (f"port-group.name/{self.name}", f"port-group.vni/{self.vni}")


class Nic(Tagged, tag="nic.v1", frozen=True, kw_only=True):
    """A VM's network card; name = `<vm name>.<index>`."""

    PLURAL: ClassVar[str] = "nics"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "vm_id", target="vm", name="vm", reverse="nics", on_delete=OnDelete.ALONG, required=True
        ),
        Relation(
            "port_group_id", target="port-group", name="port_group", reverse="nics", required=True
        ),
        Relation(
            "security_group_ids",
            target="security-group",
            name="security_groups",
            reverse="nics",
            many=True,
            maximum=NIC_GROUPS_MAX,
        ),
    )

    vm_id: Annotated[str, attribute("The VM that it belongs to.")]
    port_group_id: Annotated[str, attribute("The network that it is in.")]
    mac: Annotated[str, attribute("Its MAC address, unique in the mesh.", by=CLUSTER)]
    ip: Annotated[str, attribute("Its IPv4 address, unique in its port group.", by=CLUSTER)]
    security_group_ids: Annotated[
        tuple[str, ...],
        attribute("Firewalls that let traffic through to it.", count_max=NIC_GROUPS_MAX),
    ] = ()
    index: Annotated[int, attribute("Its place among the VM's NICs.", by=CLUSTER, least=0)] = 0

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

    id: Annotated[str, attribute("Its id within the group.", by=CLUSTER)]
    direction: Annotated[Direction, attribute("Seen from the VM: in to it, or out of it.")]
    protocol: Annotated[Protocol, attribute("What it matches above IP.")] = Protocol.ALL
    port_first: Annotated[
        int, attribute("First port of TCP or UDP; 0: all.", least=0, most=65_535)
    ] = 0
    port_last: Annotated[int, attribute("Last port; 0: all.", least=0, most=65_535)] = 0
    cidr: Annotated[str, attribute("Network of the other side; empty: any.")] = ""
    remote_group_id: Annotated[str, attribute("Security group of the other side; empty: any.")] = ""
    family: Annotated[int, attribute("4 or 6, the version of IP.", least=4, most=6)] = 4
    enabled: Annotated[bool, attribute("Whether it is in force.")] = True
    default: Annotated[
        bool,
        attribute(
            "Whether the group was made with it; such a rule can be switched off, not removed.",
            by=CLUSTER,
        ),
    ] = False


class SecurityGroup(Tagged, tag="security-group.v1", frozen=True, kw_only=True):
    """A stateful firewall shared by NICs."""

    PLURAL: ClassVar[str] = "security-groups"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "data_center_id",
            target="data-center",
            name="data_center",
            reverse="security_groups",
            required=True,
        ),
        Relation(
            "rules.remote_group_id",
            target="security-group",
            name="remote_groups",
            reverse="allowed_by_groups",
            many=True,
            maximum=SECURITY_RULES_MAX,
        ),
    )

    data_center_id: Annotated[str, attribute("The data center that it belongs to.")]
    rules: Annotated[
        tuple[Rule, ...], attribute("What is let through.", count_max=SECURITY_RULES_MAX)
    ] = ()
