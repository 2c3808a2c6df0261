"""Which port groups, rules and addresses are allowed, and what is said of the others."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConflictError, InvalidError
from core.model.network import Direction, PortGroup, Protocol, Rule
from netfabric.names import (
    checked_mac,
    conntrack_zones,
    link_local,
    make_mac,
    nic_marks,
    tap_name,
    vni_of_link,
    vni_of_namespace,
)
from netfabric.port_group import check_nic_address, check_port_group, free_ip
from netfabric.security_group import checked_rule, default_rules

GROUP = PortGroup(
    id="pg",
    name="net",
    switch_id="switch",
    vni=100,
    cidr="10.5.0.0/24",
    service_ip="10.5.0.2",
    pool_first="10.5.0.10",
    pool_last="10.5.0.12",
    gateway="10.5.0.1",
    dns=("9.9.9.9",),
)
RULE = Rule(id="r", direction=Direction.INGRESS)


def test_a_sound_port_group_is_accepted():
    check_port_group(GROUP, ())
    check_port_group(GROUP, (GROUP,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vni": 0}, "VNI 0 is out of range"),
        ({"vni": 16_777_216}, "out of range"),
        ({"cidr": "10.5.0.1/24"}, "no bits beyond the prefix"),
        ({"cidr": "10.5.0.0"}, "bad size"),
        ({"cidr": "10.5.0.0/30"}, "bad size"),
        ({"cidr": "10.0.0.0/7"}, "bad size"),
        ({"cidr": "fd00::/64"}, "not an IPv4 network"),
        ({"cidr": "224.0.0.0/24"}, "not for guests"),
        ({"cidr": "127.0.0.0/24"}, "not for guests"),
        ({"cidr": "0.0.0.0/24"}, "not for guests"),
        ({"cidr": "10.5.0.0/24\nx"}, "not an IPv4 network"),
        (
            {"service_ip": "10.6.0.2"},
            "service address 10.6.0.2 is not a host address of 10.5.0.0/24",
        ),
        ({"service_ip": "10.5.0.0"}, "not a host address"),
        ({"service_ip": "ten"}, "not an IPv4 address"),
        ({"gateway": "10.5.0.255"}, "gateway"),
        ({"gateway": "10.5.0.2"}, "also the service address"),
        ({"pool_first": "10.5.0.13"}, "the pool ends"),
        ({"pool_last": "10.5.1.1"}, "last address of the pool"),
        ({"dns": ("localhost",)}, "DNS server"),
        ({"dns": ("9.9.9.9",) * 5}, "too many"),
        ({"mtu": 1451}, "MTU 1451 does not fit: use 576 to 1450"),
        ({"mtu": 100}, "does not fit"),
        ({"domain": "Ex ample"}, "domain"),
        ({"domain": "a\nserver=/x/"}, "domain"),
        ({"domain": ""}, "domain"),
    ],
)
def test_a_port_group_that_cannot_work_is_refused_in_one_line(changes, said):
    with pytest.raises(InvalidError, match=said) as refused:
        check_port_group(msgspec.structs.replace(GROUP, **changes), ())
    assert "\n" not in refused.value.message


def test_a_vni_is_used_once():
    other = msgspec.structs.replace(GROUP, id="other", name="old")
    with pytest.raises(ConflictError, match="VNI 100 is used by port group old"):
        check_port_group(GROUP, (other,))


def test_a_larger_underlay_allows_a_larger_mtu():
    check_port_group(msgspec.structs.replace(GROUP, mtu=8950), (), underlay_mtu=9000)


def test_addresses_come_from_the_pool_until_it_is_empty():
    used = ["10.5.0.10"]
    used.append(free_ip(GROUP, used.__contains__))
    used.append(free_ip(GROUP, used.__contains__))
    assert used == ["10.5.0.10", "10.5.0.11", "10.5.0.12"]
    with pytest.raises(ConflictError, match="address pool of port group net is empty"):
        free_ip(GROUP, used.__contains__)


@pytest.mark.parametrize(
    ("skip", "found"), [(0, "10.5.0.10"), (2, "10.5.0.12"), (3, "10.5.0.10"), (1000, "10.5.0.11")]
)
def test_the_search_for_an_address_goes_around_the_pool(skip, found):
    assert free_ip(GROUP, lambda _: False, skip) == found
    taken = {found}
    others = {free_ip(GROUP, taken.__contains__, place) for place in range(3)}
    assert others == {"10.5.0.10", "10.5.0.11", "10.5.0.12"} - taken


def test_a_pool_never_gives_away_service_or_gateway():
    group = msgspec.structs.replace(GROUP, pool_first="10.5.0.1")
    assert free_ip(group, lambda _: False) == "10.5.0.3"


@pytest.mark.parametrize("ip", ["10.5.0.0", "10.5.0.255", "10.6.0.1", "10.5.0.1", "10.5.0.2", "x"])
def test_an_address_asked_for_must_be_free_for_guests(ip):
    with pytest.raises(InvalidError):
        check_nic_address(GROUP, ip)


def test_a_mac_is_local_unicast_and_carries_the_prefix():
    macs = {make_mac(random.Random(seed)) for seed in range(50)}
    assert len(macs) == 50
    for mac in macs:
        assert mac.startswith("52:4b:")
        assert checked_mac(mac) == mac
        assert int(mac[:2], 16) & 3 == 2


@pytest.mark.parametrize(
    "mac", ["01:00:5e:00:00:01", "52:4b:0:0:0:1", "52-4b-00-00-00-01", "", "x\n"]
)
def test_what_is_no_mac_of_a_nic_is_refused(mac):
    with pytest.raises(InvalidError):
        checked_mac(mac)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"port_first": 80, "port_last": 80}, "ports need protocol tcp or udp, not all"),
        ({"protocol": Protocol.ICMP, "port_first": 1, "port_last": 1}, "ports need protocol"),
        ({"protocol": Protocol.TCP, "port_first": 80}, "ports 80-0 are no range"),
        ({"protocol": Protocol.TCP, "port_first": 81, "port_last": 80}, "no range"),
        ({"protocol": Protocol.TCP, "port_first": 1, "port_last": 65_536}, "no range"),
        ({"protocol": Protocol.TCP, "port_first": -1, "port_last": 5}, "no range"),
        ({"cidr": "10.0.0.0/33"}, "network '10.0.0.0/33' is not one such as"),
        ({"cidr": "fd00::/8"}, "is IPv6, but the rule is for IPv4"),
        ({"cidr": "10.0.0.0/8", "family": 6}, "is IPv4, but the rule is for IPv6"),
        ({"cidr": "10.0.0.0/8", "remote_group_id": "g"}, "leave one empty"),
        ({"remote_group_id": "g; drop"}, "not an id"),
        ({"family": 5}, "neither 4 nor 6"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_one_line(changes, said):
    with pytest.raises(InvalidError, match=said) as refused:
        checked_rule(msgspec.structs.replace(RULE, **changes))
    assert "\n" not in refused.value.message


def test_a_rules_network_becomes_canonical():
    rule = msgspec.structs.replace(RULE, cidr="10.1.2.3/8")
    assert checked_rule(rule).cidr == "10.0.0.0/8"


def test_a_group_is_born_with_four_default_rules_about_itself():
    rules = default_rules(random.Random(1), "g")
    assert {(r.direction, r.family) for r in rules} == {
        (d, f) for d in (Direction.INGRESS, Direction.EGRESS) for f in (4, 6)
    }
    assert all(r.default and r.enabled and r.remote_group_id == "g" for r in rules)
    assert all(r.protocol is Protocol.ALL and checked_rule(r) == r for r in rules)
    assert len({r.id for r in rules}) == 4


def test_link_local_addresses_follow_from_the_mac():
    assert link_local("52:4b:00:12:34:56") == "fe80::504b:ff:fe12:3456"


def test_only_our_own_devices_have_a_vni():
    names = ["kbr7", "kvx16777215", "ksv1", "kbr", "kbr0", "kbr07", "br7", "xkbr7", "kbr7x", "tap1"]
    assert [vni_of_link(name) for name in names] == [7, 16_777_215, 1] + [None] * 7
    assert [vni_of_namespace(n) for n in ("kdhcp9", "kdhcp", "kdhcpx", "dhcp9")] == [
        9,
        None,
        None,
        None,
    ]


def test_a_tap_is_named_after_its_nic():
    assert tap_name("0123abcd-4567-4890-8abc-0123456789ab") == "tap0123abcd456"
    with pytest.raises(InvalidError):
        tap_name('0123abcd-4567-4890-8abc-0123456789a"')


@given(st.sets(st.integers(1, 16_777_215), max_size=40))
def test_zones_are_distinct_and_fit_in_16_bits(vnis):
    zones = conntrack_zones([*vnis, *(v + 65_535 for v in vnis)])
    assert len(set(zones.values())) == len(zones)
    assert all(1 <= zone <= 65_535 for zone in zones.values())


@given(st.sets(st.text("0123456789abcdef", min_size=11, max_size=11), max_size=40))
def test_marks_are_distinct_and_do_not_depend_on_order(ids):
    devices = [f"tap{i}" for i in ids]
    marks = nic_marks(devices)
    assert len(set(marks.values())) == len(devices)
    assert all(1 <= mark <= 65_534 for mark in marks.values())
    assert nic_marks(reversed(devices)) == marks
