"""The firewall of one host as nftables text, for `nft -f -`.

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.model.network import Direction, Protocol, Rule
from netfabric.names import (
    BRIDGE_PREFIX,
    SERVICE_PREFIX,
    TAP_PREFIX,
    VXLAN_PREFIX,
    bridge_name,
    conntrack_zones,
    link_local,
    nic_marks,
)
from netfabric.plan import GroupPlan, LocalPort, NetworkPlan

TABLE = "kvorum"
FAMILIES = ("bridge", "inet")

_TAPS, _TUNNELS, _SERVICES = f'"{TAP_PREFIX}*"', f'"{VXLAN_PREFIX}*"', f'"{SERVICE_PREFIX}*"'
# Neighbour and listener discovery without router advertisements and redirects.
_DISCOVERY = "{ 130, 131, 132, 133, 135, 136, 143 }"


@dataclass(frozen=True, slots=True)
class _Port:
    """A local port with what the text needs."""

    port: LocalPort
    vni: int
    mark: int
    combo: str

    @property
    def device(self) -> str:
        return f'"{self.port.device}"'

    @property
    def link_local(self) -> str:
        return link_local(self.port.mac)


def remove_text() -> str:
    """Return the text that removes our tables whether they exist or not."""
    return "".join(
        f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in FAMILIES
    )


def ruleset_text(plan: NetworkPlan) -> str:
    """Return the text that replaces our tables in one transaction."""
    ports = _ports(plan)
    return "\n".join(
        [
            remove_text() + f"table bridge {TABLE} {{",
            _source_sets(ports),
            _BRIDGE_CHAINS + "}",
            f"table inet {TABLE} {{",
            _group_sets(plan),
            _combo_chains(plan, ports),
            _inet_maps(plan, ports),
            _INET_CHAINS + "}",
            "",
        ]
    )


def _ports(plan: NetworkPlan) -> list[_Port]:
    local = [(port, group.vni) for group in plan.port_groups for port in group.ports]
    marks = nic_marks(port.device for port, _ in local)
    ports = [
        _Port(port, vni, marks[port.device], _combo_name(port.group_ids, vni))
        for port, vni in local
    ]
    return sorted(ports, key=lambda p: p.port.device)


def _combo_name(group_ids: Sequence[str], vni: int) -> str:
    """Return the name shared by all ports of one port group with the same groups."""
    digest = hashlib.sha256("\n".join(sorted(group_ids)).encode()).hexdigest()[:16]
    return f"{vni}_{digest if group_ids else 'none'}"


def _set_name(family: int, group_id: str, vni: int) -> str:
    return f"m{family}_{vni}_{hashlib.sha256(group_id.encode()).hexdigest()[:16]}"


def _named(kind: str, name: str, type_text: str, elements: Iterable[str]) -> str:
    """Return a set or map, one element a line."""
    lines = ",\n      ".join(elements)
    body = f"\n    elements = {{\n      {lines}\n    }}" if lines else ""
    return f"  {kind} {name} {{\n    {type_text}{body}\n  }}"


def _source_sets(ports: Sequence[_Port]) -> str:
    return "\n".join(
        [
            _named(
                "map",
                "source4",
                "type ifname . ether_addr . ipv4_addr : mark",
                (f"{p.device} . {p.port.mac} . {p.port.ip} : {p.mark}" for p in ports),
            ),
            _named(
                "map",
                "source6",
                "type ifname . ether_addr . ipv6_addr : mark",
                (f"{p.device} . {p.port.mac} . {p.link_local} : {p.mark}" for p in ports),
            ),
            _named(
                "map", "number", "type ifname : mark", (f"{p.device} : {p.mark}" for p in ports)
            ),
            _named(
                "set",
                "source_mac",
                "type ifname . ether_addr",
                (f"{p.device} . {p.port.mac}" for p in ports),
            ),
            _named(
                "set",
                "source_arp",
                "type ifname . ether_addr . ipv4_addr",
                (f"{p.device} . {p.port.mac} . {p.port.ip}" for p in ports),
            ),
        ]
    )


# `ether type`, not `meta protocol`: the latter looks through a VLAN tag, and br_netfilter lets tagged frames pass.
# 0x8035 is RARP, by which QEMU says after a migration where the guest is now: the bridge learns from it, and there it ends.
# The host itself is not to be reached through the bridges: without rule `to_host` it would answer ARP for its own addresses.
_BRIDGE_CHAINS = f"""\
  chain from_guest {{
    ether type ip meta mark set iifname . ether saddr . ip saddr map @source4 accept
    ether type ip6 meta mark set iifname . ether saddr . ip6 saddr map @source6 accept
    iifname . ether saddr != @source_mac drop
    ether type arp arp htype 1 arp ptype ip iifname . arp saddr ether . arp saddr ip @source_arp accept
    ether type arp arp operation request arp saddr ip 0.0.0.0 accept
    ether type 0x8035 accept
    ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 meta mark set iifname map @number accept
    ether type ip6 ip6 saddr :: icmpv6 type {{ 131, 133, 135, 143 }} meta mark set iifname map @number accept
    drop
  }}
  chain to_guest {{
    ether type != {{ ip, ip6, arp }} drop
    iifname {_SERVICES} udp sport 67 udp dport 68 accept
    meta mark set oifname map @number accept
    drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    meta mark set 0
    iifname {_TAPS} jump from_guest
  }}
  chain to_host {{
    type filter hook input priority -300; policy accept;
    iifname {_TAPS} drop
    iifname {_TUNNELS} drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    meta mark set 0
    ether type 0x8035 drop
    iifname {_SERVICES} oifname {_TUNNELS} drop
    iifname {_TUNNELS} oifname {_SERVICES} drop
    udp dport {{ 67, 547 }} oifname != {_SERVICES} drop
    udp sport {{ 67, 547 }} iifname != {_SERVICES} drop
    oifname {_TAPS} jump to_guest
  }}
"""

# Mark 0 is what does not come from, or go to, a guest.
_INET_CHAINS = f"""\
  chain zone {{
    type filter hook prerouting priority -300; policy accept;
    ct zone set iifname map @zones
  }}
  chain from_guest {{
    type filter hook prerouting priority 0; policy accept;
    iifname != "{BRIDGE_PREFIX}*" accept
    ct state {{ established, related }} accept
    meta mark 0 accept
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    icmpv6 type nd-neighbor-advert meta mark . @th,64,128 != @source_nd drop
    icmpv6 type {_DISCOVERY} accept
    udp sport {{ 67, 547 }} drop
    udp sport 68 udp dport 67 accept
    ct state invalid drop
    meta mark vmap @egress
  }}
  chain to_guest {{
    type filter hook forward priority 0; policy accept;
    iifname != "{BRIDGE_PREFIX}*" accept
    ct state {{ established, related }} accept
    meta mark 0 accept
    icmpv6 type {_DISCOVERY} accept
    ct state invalid drop
    meta mark vmap @ingress
    drop
  }}
"""


def _group_sets(plan: NetworkPlan) -> str:
    sets = []
    for members in plan.members:
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            addresses = (a for a in members.addresses if ipaddress.ip_address(a).version == family)
            name = _set_name(family, members.group_id, members.vni)
            sets.append(_named("set", name, f"type {kind}", addresses))
    return "\n".join(sets)


def _combo_chains(plan: NetworkPlan, ports: Iterable[_Port]) -> str:
    groups = {group.id: group for group in plan.groups}
    known = {(members.group_id, members.vni) for members in plan.members}
    chains = []
    for combo, vni, group_ids in sorted({(p.combo, p.vni, p.port.group_ids) for p in ports}):
        rules = [rule for g in group_ids if g in groups for rule in _rules(groups[g], vni, known)]
        ingress = _lines(rules, Direction.INGRESS, vni, enabled=True, verdict="accept")
        # Out is allowed by default. A disabled default rule keeps members from each other, unless another group
        # of the same port allows it.
        egress = [
            *_lines(rules, Direction.EGRESS, vni, enabled=True, verdict="accept"),
            *_lines(
                [rule for rule in rules if rule.default],
                Direction.EGRESS,
                vni,
                enabled=False,
                verdict="drop",
            ),
        ]
        chains += [_chain(f"in_{combo}", ingress, "drop"), _chain(f"out_{combo}", egress, "accept")]
    return "\n".join(chains)


def _rules(group: GroupPlan, vni: int, known: set[tuple[str, int]]) -> list[Rule]:
    """Return a group's rules whose other side is known here."""
    return [r for r in group.rules if not r.remote_group_id or (r.remote_group_id, vni) in known]


def _lines(
    rules: Iterable[Rule], direction: Direction, vni: int, *, enabled: bool, verdict: str
) -> list[str]:
    wanted = [r for r in rules if r.direction is direction and r.enabled is enabled]
    return list(dict.fromkeys(f"{_match(rule, vni)} {verdict}" for rule in wanted))


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


def _chain(name: str, lines: Iterable[str], last: str) -> str:
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in (*lines, last)), "  }"])


def _inet_maps(plan: NetworkPlan, ports: Sequence[_Port]) -> str:
    zones = conntrack_zones(group.vni for group in plan.port_groups)
    return "\n".join(
        [
            _named(
                "set",
                "source_nd",
                "typeof meta mark . @th,64,128",
                (f"{p.mark} . {_hex128(p.link_local)}" for p in ports),
            ),
            _named(
                "map",
                "egress",
                "type mark : verdict",
                (f"{p.mark} : jump out_{p.combo}" for p in ports),
            ),
            _named(
                "map",
                "ingress",
                "type mark : verdict",
                (f"{p.mark} : jump in_{p.combo}" for p in ports),
            ),
            _named(
                "map",
                "zones",
                "typeof iifname : ct zone",
                (f'"{bridge_name(vni)}" : {zone}' for vni, zone in sorted(zones.items())),
            ),
        ]
    )


def _hex128(address: str) -> str:
    return "0x" + ipaddress.IPv6Address(address).packed.hex()
