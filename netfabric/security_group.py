"""Security groups before they reach any host: the default rules, and which rules are allowed at all.

Called by the network services of the API when groups and rules are written, and again by the plan, which
believes nothing it reads. Rendering is in `netfabric.ruleset`.
"""

from __future__ import annotations

import ipaddress
import random
import re

import msgspec

from core.clock import new_id
from core.errors import InvalidError
from core.model.network import Direction, Protocol, Rule

_GROUP_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def default_rules(rng: random.Random, group_id: str) -> tuple[Rule, ...]:
    """Return the four rules every group is born with: its members may talk to each other (NET-5)."""
    return tuple(
        Rule(
            id=new_id(rng),
            direction=direction,
            family=family,
            remote_group_id=group_id,
            default=True,
        )
        for direction in (Direction.INGRESS, Direction.EGRESS)
        for family in (4, 6)
    )


def checked_rule(rule: Rule) -> Rule:
    """Return the rule with its network in canonical form.

    Raises:
        InvalidError: the ports, the network, the remote group or the family make no sense.
    """
    if rule.family not in (4, 6):
        raise InvalidError(f"address family {rule.family} is neither 4 nor 6")
    _check_ports(rule)
    if rule.cidr and rule.remote_group_id:
        raise InvalidError(
            "a rule has either a network or a remote group on the other side: leave one empty"
        )
    if rule.remote_group_id and not _GROUP_ID.fullmatch(rule.remote_group_id):
        raise InvalidError(f"remote group id {rule.remote_group_id[:80]!r} is not an id")
    if not rule.cidr:
        return rule
    return msgspec.structs.replace(rule, cidr=_checked_network(rule.cidr, rule.family))


def _check_ports(rule: Rule) -> None:
    if rule.port_first == 0 and rule.port_last == 0:
        return
    if rule.protocol not in (Protocol.TCP, Protocol.UDP):
        raise InvalidError(f"ports need protocol tcp or udp, not {rule.protocol}")
    if not 1 <= rule.port_first <= rule.port_last <= 65_535:
        raise InvalidError(
            f"ports {rule.port_first}-{rule.port_last} are no range: use 1 <= first <= last <= 65535, "
            "or leave both out for all ports"
        )


def _checked_network(cidr: str, family: int) -> str:
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise InvalidError(
            f"network {cidr[:80]!r} is not one such as 10.0.0.0/24 or 2001:db8::/64"
        ) from None
    if network.version != family:
        raise InvalidError(
            f"network {network} is IPv{network.version}, but the rule is for IPv{family}"
        )
    return str(network)
