"""The texts given to nft, ip and dnsmasq: whole ones as golden files, changes, and that nobody can write in them."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from core.model.compute import VM
from core.model.mesh import Host
from core.model.network import (
    Direction,
    DistributedSwitch,
    Nic,
    PortGroup,
    Protocol,
    Rule,
    SecurityGroup,
)
from netfabric.dhcp_config import (
    DhcpPaths,
    dhcp_files,
    namespace_commands,
    stale_leases,
    without_stale,
)
from netfabric.nft_model import delta_text, full_text, marker_name
from netfabric.plan import Endpoint, NetworkView, PortGroupPlan, desired_network
from netfabric.ruleset import ruleset_of

GOLDEN = Path(__file__).parents[1] / "golden" / "netfabric"
PATHS = DhcpPaths(Path("/run/kvorum/dnsmasq/100"))


def rule(name: str, direction: Direction = Direction.INGRESS, **fields: object) -> Rule:
    return Rule(id=name, direction=direction, **fields)


def about(group: str) -> tuple[Rule, ...]:
    return tuple(
        rule(f"{d}{f}", d, family=f, remote_group_id=group, default=True)
        for d in (Direction.INGRESS, Direction.EGRESS)
        for f in (4, 6)
    )


WEB = (
    rule("ssh", protocol=Protocol.TCP, port_first=22, port_last=22, cidr="192.0.2.0/24"),
    rule("http", protocol=Protocol.TCP, port_first=80, port_last=81),
    rule(
        "dns6", protocol=Protocol.UDP, port_first=53, port_last=53, family=6, cidr="2001:db8::/64"
    ),
    rule("ping", protocol=Protocol.ICMP, cidr="0.0.0.0/0"),
    rule("ping6", protocol=Protocol.ICMP, family=6),
    rule("off", protocol=Protocol.UDP, enabled=False),
)
APART = tuple(msgspec.structs.replace(r, enabled=False) for r in about("apart"))


def world(*, web: tuple[Rule, ...] = WEB, guests: int = 4) -> NetworkView:
    """Three hosts: a web server and a database here, one of each group elsewhere, one between two hosts."""
    groups = {"web": (*about("web"), *web), "db": about("db"), "apart": APART}
    member = [("web", "db"), ("db",), (), ("web",), ("apart",), ("apart", "db")][:guests]
    place = [("h1", ""), ("h1", ""), ("h1", ""), ("h2", ""), ("h3", "h1"), ("h2", "h3")]
    return NetworkView(
        hosts=tuple(
            Host(id=f"h{n}", name=f"host{n}", cluster_id="c", address=f"10.77.0.{n}")
            for n in (1, 2, 3)
        ),
        switches=(DistributedSwitch(id="s", name="s", cluster_ids=("c",)),),
        port_groups=(
            PortGroup(
                id="pg",
                name="net",
                switch_id="s",
                vni=100,
                cidr="10.5.0.0/24",
                service_ip="10.5.0.2",
                gateway="10.5.0.1",
                dns=("9.9.9.9", "10.5.0.2"),
                pool_first="10.5.0.10",
                pool_last="10.5.0.99",
            ),
        ),
        security_groups=tuple(
            SecurityGroup(id=name, name=name, data_center_id="dc", rules=rules)
            for name, rules in groups.items()
        ),
        vms=tuple(
            VM(
                id=f"vm{n}",
                name=f"guest{n}",
                cluster_id="c",
                host_id=place[n][0],
                migrating_to_host_id=place[n][1],
                cpus=1,
                memory_mib=64,
            )
            for n in range(guests)
        ),
        nics=tuple(
            Nic(
                id=f"0000000{n}-0000-4000-8000-000000000000",
                name=f"guest{n}.0",
                vm_id=f"vm{n}",
                port_group_id="pg",
                mac=f"52:4b:00:00:00:0{n}",
                ip=f"10.5.0.{n + 10}",
                security_group_ids=groups,
            )
            for n, groups in enumerate(member)
        ),
    )


def check(name: str, text: str, rewrite: bool) -> None:
    path = GOLDEN / f"{name}.txt"
    if rewrite:
        path.write_text(text)
    assert text == path.read_text()


def plan_text(view: NetworkView, host: str) -> str:
    plan = desired_network(view, host)
    lines = [f"host {plan.host_id} at {plan.address}"]
    for group in plan.port_groups:
        lines.append(f"port group {group.vni}, copies of floods to {', '.join(group.flood_to)}")
        lines += [f"  local  {p.ip} {p.mac} {p.device} in {p.group_ids}" for p in group.ports]
        lines += [f"  remote {r.ip} {r.mac} at {r.tunnel_to or 'all hosts'}" for r in group.remotes]
    lines += [f"members of {m.group_id} in {m.vni}: {', '.join(m.addresses)}" for m in plan.members]
    return "".join(f"{line}\n" for line in lines)


def test_plans_of_three_hosts_with_two_moves(rewrite: bool):
    view = world(guests=6)
    check(
        "plans_of_three_hosts_with_two_moves",
        "\n".join(plan_text(view, f"h{n}") for n in (1, 2, 3)),
        rewrite,
    )


def test_whole_firewall_of_a_host(rewrite: bool):
    check(
        "firewall_of_a_host", full_text(ruleset_of(desired_network(world(guests=6), "h1"))), rewrite
    )


def test_firewall_without_guests(rewrite: bool):
    check(
        "firewall_without_guests",
        full_text(ruleset_of(desired_network(world(guests=0), "h1"))),
        rewrite,
    )


@pytest.mark.parametrize(
    ("story", "old", "new"),
    [
        ("a_rule_is_added", world(web=WEB[:1]), world(web=WEB[:2])),
        ("a_guest_is_added", world(guests=2), world(guests=3)),
        ("a_member_elsewhere_is_removed", world(guests=4), world(guests=3)),
        ("the_last_guest_goes", world(guests=1), world(guests=0)),
    ],
)
def test_only_changes_are_loaded(story: str, old: NetworkView, new: NetworkView, rewrite: bool):
    before, after = (ruleset_of(desired_network(view, "h1")) for view in (old, new))
    check(f"firewall_change_{story}", delta_text(before, after), rewrite)


def test_the_marker_names_one_ruleset():
    one = ruleset_of(desired_network(world(), "h1"))
    two = ruleset_of(desired_network(world(web=WEB[:1]), "h1"))
    assert marker_name(one) == marker_name(ruleset_of(desired_network(world(), "h1")))
    assert marker_name(one) != marker_name(two)
    assert re.fullmatch(r"loaded_[0-9a-f]{32}", marker_name(one))


def test_dhcp_files_of_a_port_group(rewrite: bool):
    (group,) = desired_network(world(), "h1").port_groups
    files = dhcp_files(group, PATHS, "dnsmasq")
    text = "\n".join([files.config, files.leases, files.names, namespace_commands(group)])
    check("dhcp_files_of_a_port_group", text, rewrite)


def test_leases_of_former_owners_are_found_and_dropped():
    given = "1764 52:4b:00:00:00:01 10.5.0.10 a 01:x\n1764 52:4b:00:00:00:02 10.5.0.11 b 01:y\n"
    keep = [Endpoint("52:4b:00:00:00:01", "10.5.0.10", "a")]
    assert not stale_leases(given, keep)
    assert not stale_leases("", keep)
    taken = [*keep, Endpoint("52:4b:00:00:00:03", "10.5.0.11", "c")]
    assert stale_leases(given, taken)
    assert without_stale(given, taken) == given.splitlines(keepends=True)[0]


# ---- nobody writes configuration through a name, an address or a rule

MARK = "xqz"
evil = st.text(st.sampled_from('";{}#\n\t $()\\,/=:.-%*@!19a'), max_size=12).map(
    lambda t: t + MARK + t
)
maybe = st.one_of(st.just(None), evil)

DIRECTIVES = {
    *(
        "user",
        "pid-file",
        "interface",
        "except-interface",
        "bind-interfaces",
        "no-resolv",
        "no-poll",
    ),
    *("no-hosts", "addn-hosts", "domain", "local", "domain-needed", "bogus-priv", "dhcp-range"),
    *("dhcp-hostsfile", "dhcp-leasefile", "dhcp-lease-max", "dhcp-authoritative", "no-ping"),
    *("quiet-dhcp", "dhcp-option", "dhcp-option-force"),
}


def poisoned(struct, **fields):
    return msgspec.structs.replace(struct, **{k: v for k, v in fields.items() if v is not None})


@given(*[maybe] * 10)
def test_nothing_a_user_writes_reaches_nft_or_dnsmasq_unchecked(
    cidr, service, gateway, dns, domain, network, remote, mac, ip, name
):
    view = world(guests=6)
    group = poisoned(
        view.port_groups[0], cidr=cidr, service_ip=service, gateway=gateway, domain=domain
    )
    group = poisoned(group, dns=None if dns is None else (dns,))
    rules = (poisoned(WEB[0], cidr=network), poisoned(about("web")[0], remote_group_id=remote))
    evil_view = NetworkView(
        hosts=view.hosts,
        switches=view.switches,
        port_groups=(group,),
        vms=tuple(poisoned(v, name=name) for v in view.vms),
        nics=tuple(
            poisoned(n, mac=mac, ip=ip, security_group_ids=("web", *([name] if name else [])))
            for n in view.nics
        ),
        security_groups=(
            SecurityGroup(id="web", name=name or "web", data_center_id="dc", rules=rules),
        ),
    )
    plan = desired_network(evil_view, "h1")
    assert MARK not in full_text(ruleset_of(plan))
    for group_plan in plan.port_groups:
        files = dhcp_files(group_plan, PATHS, "dnsmasq")
        for line in files.config.splitlines()[1:]:
            assert line.partition("=")[0] in DIRECTIVES
            assert re.fullmatch(r"[a-z0-9=/.,:-]*", line), line
        assert all(
            re.fullmatch(r"[0-9a-f:]{17},[0-9.]+", line) for line in files.leases.splitlines()
        )
        assert all(
            re.fullmatch(r"[0-9.]+ [a-z0-9.-]+ [a-z0-9-]+", x) for x in files.names.splitlines()
        )
        assert MARK not in files.leases + namespace_commands(group_plan)


PLAIN = PortGroupPlan(
    vni=100,
    mtu=1450,
    cidr="10.5.0.0/24",
    service_ip="10.5.0.2",
    gateway="",
    dns=(),
    domain="internal",
)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("52:4b:00:00:00:01", "10.5.0.10\n10.5.0.11", "a"),
        Endpoint("52:4b:00:00:00:01,ignore", "10.5.0.10", "a"),
        Endpoint("52:4b:00:00:00:01", "10.5.0.10", "a b"),
    ],
)
def test_dhcp_files_take_no_plan_on_trust(endpoint: Endpoint):
    fields = {name: getattr(PLAIN, name) for name in PortGroupPlan.__slots__}
    plan = PortGroupPlan(**(fields | {"endpoints": (endpoint,)}))
    with pytest.raises(InvalidError):
        dhcp_files(plan, PATHS, "dnsmasq")
