"""What a host's network shall look like, as a function of the store."""

import dataclasses
import random
from enum import Enum

import msgspec
import pytest

from core.errors import InvalidError
from core.model.compute import VM, CloudInit
from core.model.mesh import Host
from core.model.network import Direction, DistributedSwitch, Nic, PortGroup, Rule, SecurityGroup
from netfabric.names import link_local
from netfabric.plan import (
    NetworkView,
    desired_network,
    host_label,
    read_of_host,
    read_of_vm,
)
from netfabric.security_group import default_rules
from netfabric.switch import FLOOD_MAC, Forwarding, forwarding_changes, wanted_forwarding

HOSTS = tuple(
    Host(id=f"h{n}", name=f"host{n}", cluster_id="c1" if n < 4 else "c2", address=f"10.77.0.{n}")
    for n in (1, 2, 3, 4)
)
PG = PortGroup(
    id="pg",
    name="net",
    switch_id="s1",
    vni=100,
    cidr="10.5.0.0/24",
    service_ip="10.5.0.2",
    pool_first="10.5.0.10",
    pool_last="10.5.0.99",
)
SWITCH = DistributedSwitch(id="s1", name="s", cluster_ids=("c1",))


def vm(number: int, host: str, migrating_to: str = "", name: str = "") -> VM:
    return VM(
        id=f"vm{number}",
        name=name or f"vm{number}",
        cluster_id="c1",
        host_id=host,
        migrating_to_host_id=migrating_to,
        cpus=1,
        memory_mib=64,
    )


def nic(number: int, *groups: str, port_group: str = "pg", ip: str = "") -> Nic:
    return Nic(
        id=f"{number:08x}-0000-4000-8000-000000000000",
        name=f"vm{number}.0",
        vm_id=f"vm{number}",
        port_group_id=port_group,
        mac=f"52:4b:00:00:00:{number:02x}",
        ip=ip or f"10.5.0.{number}",
        security_group_ids=groups,
    )


def view(vms, nics, **more) -> NetworkView:
    fields = {"hosts": HOSTS, "switches": (SWITCH,), "port_groups": (PG,)}
    return NetworkView(**(fields | {"vms": tuple(vms), "nics": tuple(nics)} | more))


def only_group(view: NetworkView, host_id: str):
    (group,) = desired_network(view, host_id).port_groups
    return group


def test_every_host_knows_where_every_nic_is():
    v = view([vm(10, "h1"), vm(11, "h2")], [nic(10), nic(11)])
    plan = only_group(v, "h1")
    assert [(p.device, p.ip) for p in plan.ports] == [("tap0000000a000", "10.5.0.10")]
    assert [(r.mac, r.ip, r.tunnel_to) for r in plan.remotes] == [
        ("52:4b:00:00:00:0b", "10.5.0.11", "10.77.0.2")
    ]
    assert [(e.ip, e.name) for e in plan.endpoints] == [
        ("10.5.0.10", "vm10"),
        ("10.5.0.11", "vm11"),
    ]


def test_a_port_group_is_on_all_hosts_of_the_cluster_and_wherever_a_nic_is():
    v = view([vm(10, "h1")], [nic(10)])
    assert only_group(v, "h3").flood_to == ("10.77.0.1", "10.77.0.2")
    assert desired_network(v, "h4").port_groups == ()
    v = view([vm(10, "h4")], [nic(10)])
    assert only_group(v, "h4").flood_to == ("10.77.0.1", "10.77.0.2", "10.77.0.3")
    assert "10.77.0.4" in only_group(v, "h1").flood_to


def test_a_nic_on_the_move_is_local_on_both_hosts_and_flooded_by_others():
    v = view([vm(10, "h1", "h2")], [nic(10)])
    for host in ("h1", "h2"):
        plan = only_group(v, host)
        assert [p.ip for p in plan.ports] == ["10.5.0.10"]
        assert plan.remotes == (), "the tunnel must not claim it"
        assert wanted_forwarding(plan).static == frozenset()
    third = wanted_forwarding(only_group(v, "h3"))
    assert third.static == {"52:4b:00:00:00:0a"}
    assert third.tunnel == {(FLOOD_MAC, "10.77.0.1"), (FLOOD_MAC, "10.77.0.2")}
    after = wanted_forwarding(only_group(view([vm(10, "h2")], [nic(10)]), "h3"))
    changes = forwarding_changes(third, after)
    assert changes.set_ends == (("52:4b:00:00:00:0a", "10.77.0.2"),)
    assert changes.count == 1


def other_value(value):
    """Return another value of the same type, or the same where this test knows none."""
    if isinstance(value, Enum):
        return next((one for one in type(value) if one is not value), value)
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x" if value else "h3"
        case tuple():
            return (*value, "h3")
        case CloudInit():
            return CloudInit(hostname="other")
    return value


@pytest.mark.parametrize("type_", [VM, Host])
def test_a_plan_reads_no_more_of_vms_and_hosts_than_is_said(type_):
    """Changes of anything else are passed over, so nothing else may make another plan."""
    read = {VM: read_of_vm, Host: read_of_host}[type_]
    before = view([vm(10, "h1"), vm(11, "h2")], [nic(10), nic(11)])
    plan = desired_network(before, "h1")
    passed_over = []
    for field in msgspec.structs.fields(type_):
        if field.name == "id":
            continue
        changed = {VM: before.vms, Host: before.hosts}[type_][1]
        after = msgspec.structs.replace(
            changed, **{field.name: other_value(getattr(changed, field.name))}
        )
        assert after != changed, field.name
        if read(after) == read(changed):
            passed_over.append(field.name)
            part = "vms" if type_ is VM else "hosts"
            all_of_it = tuple(after if one is changed else one for one in getattr(before, part))
            assert desired_network(dataclasses.replace(before, **{part: all_of_it}), "h1") == plan
    assert {VM: "phase", Host: "memory_mib"}[type_] in passed_over


def test_vms_that_are_nowhere_and_nics_without_vm_are_left_out():
    v = view([vm(10, "")], [nic(10), nic(11)])
    plan = only_group(v, "h1")
    assert (plan.ports, plan.remotes, plan.endpoints) == ((), (), ())


def test_a_vm_on_a_host_that_left_is_not_sent_to():
    assert only_group(view([vm(10, "gone")], [nic(10)]), "h1").remotes == ()


def test_the_plan_does_not_depend_on_the_order_of_the_store():
    rng = random.Random(7)
    groups = tuple(
        SecurityGroup(
            id=f"g{n}", name=f"g{n}", data_center_id="dc", rules=default_rules(rng, f"g{n}")
        )
        for n in range(3)
    )
    vms = [vm(n, f"h{n % 3 + 1}") for n in range(10, 30)]
    nics = [nic(n, "g0", f"g{n % 3}") for n in range(10, 30)]
    first = desired_network(view(vms, nics, security_groups=groups), "h1")
    for _ in range(5):
        rng.shuffle(vms)
        rng.shuffle(nics)
        again = view(vms, nics, security_groups=groups[::-1], hosts=HOSTS[::-1])
        assert desired_network(again, "h1") == first


def test_members_of_a_group_are_those_whose_address_can_only_be_theirs():
    same = msgspec.structs.replace(PG, id="same", name="same", vni=101)
    far = msgspec.structs.replace(
        PG,
        id="far",
        name="far",
        vni=102,
        cidr="10.9.0.0/24",
        service_ip="10.9.0.2",
        pool_first="10.9.0.10",
        pool_last="10.9.0.20",
    )
    group = SecurityGroup(
        id="g", name="g", data_center_id="dc", rules=default_rules(random.Random(1), "g")
    )
    v = view(
        [vm(10, "h1"), vm(11, "h2"), vm(12, "h2"), vm(13, "h2")],
        [
            nic(10, "g"),
            nic(11, "g"),
            nic(12, "g", port_group="same"),
            nic(13, "g", port_group="far", ip="10.9.0.13"),
        ],
        port_groups=(PG, same, far),
        security_groups=(group,),
    )
    (members,) = desired_network(v, "h1").members
    assert (members.group_id, members.vni) == ("g", 100)
    assert members.addresses == (
        "10.5.0.10",
        "10.5.0.11",
        "10.9.0.13",
        link_local("52:4b:00:00:00:0a"),
        link_local("52:4b:00:00:00:0b"),
    )


def test_only_groups_of_local_ports_are_on_a_host():
    groups = tuple(SecurityGroup(id=g, name=g, data_center_id="dc") for g in ("a", "b"))
    v = view([vm(10, "h1"), vm(11, "h2")], [nic(10, "a"), nic(11, "b")], security_groups=groups)
    assert [g.id for g in desired_network(v, "h1").groups] == ["a"]


def test_what_makes_no_sense_is_left_out_and_named():
    bad_rule = Rule(id="r", direction=Direction.INGRESS, cidr="10.0.0.0/99")
    groups = (SecurityGroup(id="g", name="g", data_center_id="dc", rules=(bad_rule,)),)
    bad_mac = msgspec.structs.replace(nic(11), mac='"; flush ruleset')
    clash = msgspec.structs.replace(PG, id="zz", name="clash")
    v = view(
        [vm(10, "h1"), vm(11, "h1")],
        [nic(10, "g"), bad_mac],
        security_groups=groups,
        port_groups=(PG, clash),
    )
    plan = desired_network(v, "h1")
    assert len(plan.refused) == 3
    assert [p.ip for p in plan.port_groups[0].ports] == ["10.5.0.10"]
    assert plan.groups[0].rules == ()
    assert all("\n" not in line for line in plan.refused)


def test_a_host_outside_the_mesh_has_no_plan():
    with pytest.raises(InvalidError, match="not a member"):
        desired_network(view([], []), "h9")


@pytest.mark.parametrize(
    ("name", "index", "label"),
    [
        ("web1", 0, "web1"),
        ("web.one", 0, "web-one"),
        ("web", 2, "web-2"),
        ("a" * 63, 1, "a" * 61 + "-1"),
    ],
)
def test_guests_are_called_by_one_label(name, index, label):
    assert host_label(name, index) == label


def test_a_repointed_neighbour_is_replaced_not_removed():
    old = Forwarding(neighbours=frozenset({("10.5.0.9", "52:4b:00:00:00:01")}))
    new = Forwarding(neighbours=frozenset({("10.5.0.9", "52:4b:00:00:00:02")}))
    changes = forwarding_changes(old, new)
    assert changes.set_neighbours == (("10.5.0.9", "52:4b:00:00:00:02"),)
    assert changes.remove_neighbours == ()
    assert changes.count == 1
