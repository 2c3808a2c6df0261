"""The firewall of one host as an nftables ruleset.

Called by `netfabric.firewall`; pure, so that golden tests can show whole rulesets. Two tables do the work.
Table `bridge` proves where each frame from a guest comes from (port, MAC, IP, ARP) and marks it with the port's
number: coming from in prerouting, going to in forward. Table `inet`, called by br_netfilter, tracks connections
and asks the groups. Cost per packet does not depend on the number of NICs: every question is one look-up.

What reaches the text from outside is a device name, an address, a port or a number, each taken apart and
written anew by this module or by the plan; group ids appear as digests only.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.model.network import Direction, Protocol, Rule
from netfabric.names import (
    BRIDGE_PREFIX,
    SERVICE_PREFIX,
    TAP_PREFIX,
    VXLAN_PREFIX,
    bridge_name,
    checked_ip4,
    checked_mac,
    conntrack_zones,
    link_local,
    nic_marks,
    tap_name,
)
from netfabric.nft_model import Chain, NamedSet, Place, Ruleset
from netfabric.plan import GroupMembers, GroupPlan, LocalPort, NetworkPlan

_TAPS, _TUNNELS, _SERVICES = f'"{TAP_PREFIX}*"', f'"{VXLAN_PREFIX}*"', f'"{SERVICE_PREFIX}*"'
# Neighbour and listener discovery without router advertisements and redirects.
_DISCOVERY = "{ 130, 131, 132, 133, 135, 136, 143 }"


@dataclass(frozen=True, slots=True)
class _Port:
    """A local port with what the text needs, all in canonical form."""

    device: str
    mac: str
    ip: str
    link_local: str
    vni: int
    mark: int
    combo: str
    group_ids: tuple[str, ...]


def ruleset_of(plan: NetworkPlan) -> Ruleset:
    """Return the ruleset of a plan.

    Raises:
        InvalidError: an address of the plan is none.
    """
    ports = _ports(plan)
    combos = _combos(plan, ports)
    return Ruleset(
        sets={**_source_sets(ports), **_group_sets(plan), **_inet_maps(plan, ports, combos)},
        chains={**_BRIDGE_CHAINS, **_combo_chains(combos), **_INET_CHAINS},
    )


def _ports(plan: NetworkPlan) -> list[_Port]:
    local = [(port, group.vni) for group in plan.port_groups for port in group.ports]
    marks = nic_marks(port.device for port, _ in local)
    ports = [_port(port, vni, marks[port.device]) for port, vni in local]
    return sorted(ports, key=lambda p: p.device)


def _port(port: LocalPort, vni: int, mark: int) -> _Port:
    mac = checked_mac(port.mac)
    return _Port(
        device=f'"{tap_name(port.nic_id)}"',
        mac=mac,
        ip=str(checked_ip4(port.ip, "NIC address")),
        link_local=link_local(mac),
        vni=vni,
        mark=mark,
        combo=_combo_name(port.group_ids, vni),
        group_ids=port.group_ids,
    )


def _combo_name(group_ids: Sequence[str], vni: int) -> str:
    """Return the name shared by all ports of one port group with the same groups."""
    digest = hashlib.sha256("\n".join(sorted(group_ids)).encode()).hexdigest()[:16]
    return f"{vni}_{digest if group_ids else 'none'}"


def _set_name(family: int, group_id: str, vni: int) -> str:
    return f"m{family}_{vni}_{hashlib.sha256(group_id.encode()).hexdigest()[:16]}"


def _map(type_text: str, elements: Iterable[tuple[str, str]]) -> NamedSet:
    return NamedSet("map", type_text, dict(elements))


def _set(type_text: str, elements: Iterable[str]) -> NamedSet:
    return NamedSet("set", type_text, dict.fromkeys(elements, ""))


def _source_sets(ports: Sequence[_Port]) -> dict[Place, NamedSet]:
    three4, three6 = "type ifname . ether_addr . ipv4_addr", "type ifname . ether_addr . ipv6_addr"
    source4 = [f"{p.device} . {p.mac} . {p.ip}" for p in ports]
    source6 = [f"{p.device} . {p.mac} . {p.link_local}" for p in ports]
    marks = [str(p.mark) for p in ports]
    return {
        ("bridge", "source4"): _map(f"{three4} : mark", zip(source4, marks, strict=True)),
        ("bridge", "source6"): _map(f"{three6} : mark", zip(source6, marks, strict=True)),
        ("bridge", "number"): _map("type ifname : mark", ((p.device, str(p.mark)) for p in ports)),
        ("bridge", "source_mac"): _set(
            "type ifname . ether_addr", (f"{p.device} . {p.mac}" for p in ports)
        ),
        ("bridge", "source_arp"): _set(three4, source4),
    }


# `ether type`, not `meta protocol`: the latter looks through a VLAN tag, and br_netfilter lets tagged frames pass.
# 0x8035 is RARP, by which QEMU says after a migration where the guest is now: the bridge learns from it, and there it ends.
# The host itself is not to be reached through the bridges: without rule `to_host` it would answer ARP for its own addresses.
_BRIDGE_CHAINS: dict[Place, Chain] = {
    ("bridge", "from_guest"): Chain(
        (
            "ether type ip meta mark set iifname . ether saddr . ip saddr map @source4 accept",
            "ether type ip6 meta mark set iifname . ether saddr . ip6 saddr map @source6 accept",
            "iifname . ether saddr != @source_mac drop",
            "ether type arp arp htype 1 arp ptype ip iifname . arp saddr ether . arp saddr ip @source_arp accept",
            "ether type arp arp operation request arp saddr ip 0.0.0.0 accept",
            "ether type 0x8035 accept",
            "ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 meta mark set iifname map @number accept",
            "ether type ip6 ip6 saddr :: icmpv6 type { 131, 133, 135, 143 } meta mark set iifname map @number accept",
            "drop",
        ),
    ),
    ("bridge", "to_guest"): Chain(
        (
            "ether type != { ip, ip6, arp } drop",
            f"iifname {_SERVICES} udp sport 67 udp dport 68 accept",
            "meta mark set oifname map @number accept",
            "drop",
        ),
    ),
    ("bridge", "prerouting"): Chain(
        (
            "meta mark set 0",
            f"iifname {_TAPS} jump from_guest",
        ),
        "type filter hook prerouting priority -300; policy accept;",
    ),
    ("bridge", "to_host"): Chain(
        (
            f"iifname {_TAPS} drop",
            f"iifname {_TUNNELS} drop",
        ),
        "type filter hook input priority -300; policy accept;",
    ),
    ("bridge", "forward"): Chain(
        (
            "meta mark set 0",
            "ether type 0x8035 drop",
            f"iifname {_SERVICES} oifname {_TUNNELS} drop",
            f"iifname {_TUNNELS} oifname {_SERVICES} drop",
            f"udp dport {{ 67, 547 }} oifname != {_SERVICES} drop",
            f"udp sport {{ 67, 547 }} iifname != {_SERVICES} drop",
            f"oifname {_TAPS} jump to_guest",
        ),
        "type filter hook forward priority -10; policy accept;",
    ),
}

# Mark 0 is what does not come from, or go to, a guest. A connection into a guest carries the approval of the rules
# that let it in; when these change, its next packet meets the new ones. So a rule taken away ends connections at once.
_INET_CHAINS: dict[Place, Chain] = {
    ("inet", "zone"): Chain(
        ("ct zone set iifname map @zones",),
        "type filter hook prerouting priority -300; policy accept;",
    ),
    ("inet", "from_guest"): Chain(
        (
            f'iifname != "{BRIDGE_PREFIX}*" accept',
            "ct state related accept",
            "ct direction reply ct state established accept",
            "meta mark 0 accept",
            "icmpv6 type { nd-router-advert, nd-redirect } drop",
            "icmpv6 type nd-neighbor-advert meta mark . @th,64,128 != @source_nd drop",
            f"icmpv6 type {_DISCOVERY} accept",
            "udp sport { 67, 547 } drop",
            "udp sport 68 udp dport 67 accept",
            "ct state invalid drop",
            "meta mark vmap @egress",
        ),
        "type filter hook prerouting priority 0; policy accept;",
    ),
    ("inet", "to_guest"): Chain(
        (
            f'iifname != "{BRIDGE_PREFIX}*" accept',
            "ct state related accept",
            "ct direction reply ct state established accept",
            "ct state established meta mark . ct mark @approved accept",
            "meta mark 0 accept",
            f"icmpv6 type {_DISCOVERY} accept",
            "ct state invalid drop",
            "meta mark vmap @ingress",
            "drop",
        ),
        "type filter hook forward priority 0; policy accept;",
    ),
}


def _group_sets(plan: NetworkPlan) -> dict[Place, NamedSet]:
    sets = {}
    for members in plan.members:
        parsed = [ipaddress.ip_address(address) for address in members.addresses]
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            addresses = (str(a) for a in parsed if a.version == family)
            name = _set_name(family, members.group_id, members.vni)
            sets["inet", name] = _set(f"type {kind}", addresses)
    return sets


@dataclass(frozen=True, slots=True)
class _Combo:
    """The rules of all ports of one port group with the same groups. `approval` (1..2^32-1) follows from the ingress
    rules and from who the members of the groups in them are."""

    ingress: tuple[str, ...]
    egress: tuple[str, ...]
    approval: int


def _combos(plan: NetworkPlan, ports: Iterable[_Port]) -> dict[str, _Combo]:
    groups = {group.id: group for group in plan.groups}
    members = {(m.group_id, m.vni): m for m in plan.members}
    combos = {}
    for name, vni, group_ids in sorted({(p.combo, p.vni, p.group_ids) for p in ports}):
        rules = [rule for g in group_ids if g in groups for rule in _rules(groups[g], vni, members)]
        defaults = [rule for rule in rules if rule.default]
        ingress = _lines(rules, Direction.INGRESS, vni, enabled=True)
        referred = sorted({rule.remote_group_id for rule in rules if rule.remote_group_id})
        known = [",".join(members[group_id, vni].addresses) for group_id in referred]
        # Out is allowed by default. A disabled default rule keeps members from each other, unless another group
        # of the same port allows it.
        allowed = _lines(rules, Direction.EGRESS, vni, enabled=True)
        apart = _lines(defaults, Direction.EGRESS, vni, enabled=False)
        egress = (*(f"{line} accept" for line in allowed), *(f"{line} drop" for line in apart))
        combos[name] = _Combo(tuple(ingress), egress, _number("\n".join([*ingress, *known])))
    return combos


def _number(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big") or 1


def _combo_chains(combos: Mapping[str, _Combo]) -> dict[Place, Chain]:
    chains = {}
    for name, combo in combos.items():
        ingress = (f"{line} ct mark set {combo.approval} accept" for line in combo.ingress)
        chains["inet", f"in_{name}"] = Chain((*ingress, "drop"))
        chains["inet", f"out_{name}"] = Chain((*combo.egress, "accept"))
    return chains


def _rules(group: GroupPlan, vni: int, known: Mapping[tuple[str, int], GroupMembers]) -> list[Rule]:
    """Return a group's rules whose other side is known here."""
    return [r for r in group.rules if not r.remote_group_id or (r.remote_group_id, vni) in known]


def _lines(rules: Iterable[Rule], direction: Direction, vni: int, *, enabled: bool) -> list[str]:
    wanted = [r for r in rules if r.direction is direction and r.enabled is enabled]
    return list(dict.fromkeys(_match(rule, vni) for rule in wanted))


def _match(rule: Rule, vni: int) -> str:
    ip = "ip6" if rule.family == 6 else "ip"
    side = "daddr" if rule.direction is Direction.EGRESS else "saddr"
    parts = [f"meta nfproto ipv{rule.family}"]
    if rule.remote_group_id:
        parts.append(f"{ip} {side} @{_set_name(rule.family, rule.remote_group_id, vni)}")
    elif rule.cidr:
        network = ipaddress.ip_network(rule.cidr)
        if network.prefixlen:
            parts.append(f"{ip} {side} {network}")
    if rule.protocol is Protocol.ICMP:
        parts.append(f"meta l4proto {'ipv6-icmp' if rule.family == 6 else 'icmp'}")
    elif rule.port_first:
        first, last = int(rule.port_first), int(rule.port_last)
        ports = str(first) if first == last else f"{first}-{last}"
        parts.append(f"{rule.protocol.value} dport {ports}")
    elif rule.protocol is not Protocol.ALL:
        parts.append(f"meta l4proto {rule.protocol.value}")
    return " ".join(parts)


def _inet_maps(
    plan: NetworkPlan, ports: Sequence[_Port], combos: Mapping[str, _Combo]
) -> dict[Place, NamedSet]:
    zones = conntrack_zones(group.vni for group in plan.port_groups)
    return {
        ("inet", "source_nd"): _set(
            "typeof meta mark . @th,64,128",
            (f"{p.mark} . 0x{ipaddress.IPv6Address(p.link_local).packed.hex()}" for p in ports),
        ),
        ("inet", "approved"): _set(
            "type mark . mark", (f"{p.mark} . {combos[p.combo].approval}" for p in ports)
        ),
        ("inet", "egress"): _map(
            "type mark : verdict", ((str(p.mark), f"jump out_{p.combo}") for p in ports)
        ),
        ("inet", "ingress"): _map(
            "type mark : verdict", ((str(p.mark), f"jump in_{p.combo}") for p in ports)
        ),
        ("inet", "zones"): _map(
            "typeof iifname : ct zone",
            ((f'"{bridge_name(vni)}"', str(zone)) for vni, zone in sorted(zones.items())),
        ),
    }
