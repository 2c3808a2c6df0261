"""Real frames between guests on real bridges, tunnels and rules."""

import random
from collections.abc import Iterator

import msgspec
import pytest

from core.model.network import Direction, Protocol, Rule, SecurityGroup
from netfabric.security_group import default_rules
from tests.integration.netfabric_hosts import Lab, lab_of

pytestmark = pytest.mark.integration

FRIENDS = SecurityGroup(
    id="friends",
    name="friends",
    data_center_id="dc",
    rules=default_rules(random.Random(1), "friends"),
)
PING = Rule(id="ping", direction=Direction.INGRESS, protocol=Protocol.ICMP, cidr="10.5.0.0/24")
OPEN = SecurityGroup(
    id="open",
    name="open",
    data_center_id="dc",
    rules=(Rule(id="all", direction=Direction.INGRESS),),
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with lab_of(2) as lab:
        lab.set_groups(FRIENDS, OPEN)
        yield lab


def test_members_of_a_group_talk_across_hosts_and_outsiders_do_not(lab: Lab):
    one, two = lab.hosts
    a, b, c, near = lab.add_guests(
        a=(one, "friends"), b=(two, "friends"), c=(two, ""), near=(one, "friends")
    )
    assert a.pings(b) == 2
    assert b.pings(a) == 2
    assert a.pings(near) == 2
    assert c.pings(a) == 0
    assert c.pings(b) == 0
    assert a.pings(c) == 0
    ping_rule = msgspec.structs.replace(FRIENDS, rules=(*FRIENDS.rules, PING))
    lab.set_groups(ping_rule, OPEN)
    lab.apply()
    assert c.pings(a) == 2, "an allow rule opens at once"
    assert c.pings(b) == 2
