"""DHCP and DNS of real dnsmasq processes, and a driver that is restarted, meddled with and torn down."""

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.model.network import Direction, Rule, SecurityGroup
from netfabric.firewall import bridge_ct_available
from tests.integration.netfabric_hosts import PREFIX, Guest, Lab, lab_of, open_socket, poll, sh

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

OPEN = SecurityGroup(
    id="open",
    name="open",
    data_center_id="dc",
    rules=(Rule(id="all", direction=Direction.INGRESS),),
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    with lab_of(2) as lab:
        yield lab


@pytest.fixture
def lab(hosts: Lab) -> Iterator[Lab]:
    hosts.set_groups(OPEN)
    yield hosts
    hosts.clear()


def look_up(guest: Guest, name: str, server: str = "10.5.0.2") -> str:
    """Ask a DNS server for an address; return it, or the response code."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    with open_socket(guest.ns, socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question + b"\0\1\0\1", (server, 53))
        answer = out.recv(512)
    if not struct.unpack_from("!H", answer, 6)[0]:
        return f"code {answer[3] & 15}"
    return socket.inet_ntoa(answer[-4:])


def lives(pid: int) -> bool:
    """Zombies have no command line; whether they are gone is up to the machine's init."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and path.read_bytes() != b""


def test_guests_get_address_mtu_dns_and_name_from_their_own_host(lab: Lab):
    one, two = lab.hosts
    a, b = lab.add_vm("web.one", one), lab.add_vm("12h", two)
    lab.apply()
    a.plug(one)
    b.plug(two)
    for guest, name in ((a, "web-one"), (b, "12h")):
        lease = guest.lease()
        assert lease["ip"] == guest.nic.ip
        assert lease["mask"] == "24"
        assert lease["mtu"] == "1450"
        assert lease["dns"] == lease["serverid"] == "10.5.0.2"
        assert lease["hostname"] == name
        assert "router" not in lease
        guest.set_address()
    assert look_up(a, "12h.internal") == b.nic.ip
    assert look_up(b, "web-one.internal") == a.nic.ip
    assert look_up(b, "nobody.internal") == "code 3"
    assert b.pings("10.5.0.2") == 2
    assert sh("ip", "-n", one.ns, "-4", "-br", "addr").count("10.5.") == 0


def test_gateway_and_dns_servers_are_handed_out_when_set(lab: Lab):
    one, _ = lab.hosts
    (group,) = lab.view.port_groups
    lab.change(
        port_groups=(
            msgspec.structs.replace(group, gateway="10.5.0.1", dns=("10.5.0.7", "9.9.9.9")),
        )
    )
    guest = lab.add_vm("guest", one)
    lab.apply()
    guest.plug(one)
    lease = guest.lease()
    assert (lease["router"], lease["dns"]) == ("10.5.0.1", "10.5.0.7 9.9.9.9")


def test_dhcp_never_leaves_the_host(lab: Lab):
    one, two = lab.hosts
    guest = lab.add_vm("guest", one)
    lab.apply()
    guest.plug(one)
    pid = one.dnsmasq_pid(100)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert guest.lease(tries=2) == {}, "no answer from the other host"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert two.dnsmasq_pid(100) != pid
    assert guest.lease()["ip"] == guest.nic.ip


def test_the_service_of_another_host_is_out_of_reach(lab: Lab):
    one, _ = lab.hosts
    (guest,) = lab.add_guests(guest=(one, "open"))
    assert guest.pings("10.5.0.2") == 2
    sh("ip", "-n", one.ns, "link", "set", "ksv100", "down")
    sh("ip", "-n", guest.ns, "neigh", "flush", "dev", "eth0")
    assert guest.pings("10.5.0.2") == 0


def test_an_address_given_to_another_guest_is_leased_to_it(lab: Lab):
    one, _ = lab.hosts
    first = lab.add_vm("first", one)
    lab.apply()
    first.plug(one)
    assert first.lease()["ip"] == first.nic.ip
    first.unplug(one)
    lab.change(vms=(), nics=())
    lab.apply()
    second = lab.add_vm("second", one)
    second.nic = msgspec.structs.replace(
        second.nic, mac="52:4b:00:00:01:00", id="0000000b-3333-4000-8000-000000000000"
    )
    second.device = "tap0000000b333"
    lab.change(nics=(second.nic,))
    assert second.nic.ip == first.nic.ip
    lab.apply()
    second.plug(one)
    assert second.lease()["ip"] == first.nic.ip


def test_new_guests_are_served_without_restarting_the_service(lab: Lab):
    one, _ = lab.hosts
    lab.add_vm("early", one)
    lab.apply()
    pid = one.dnsmasq_pid(100)
    one.run_dir.chmod(0o700)  # whoever made it may close it again
    guest = lab.add_vm("late", one)
    lab.apply()
    guest.plug(one)
    assert guest.lease()["ip"] == guest.nic.ip
    assert one.dnsmasq_pid(100) == pid


@pytest.mark.parametrize("restart", ["restart_driver", "restart_worker"])
def test_a_restarted_agent_touches_neither_traffic_nor_services(lab: Lab, restart: str):
    one, two = lab.hosts
    a, b = lab.add_guests(a=(one, "open"), b=(two, "open"))
    assert a.pings(b) == 2
    before = (one.dnsmasq_pid(100), one.links(), sh("bridge", "-n", one.ns, "fdb"))
    ping = subprocess.Popen(
        ["ip", "netns", "exec", a.ns, "ping", "-n", "-q", "-i", "0.01", "-c", "120", b.nic.ip],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        getattr(one, restart)()
        # A restarted process has new mounts and must find the DHCP service's namespace again.
        assert one.apply(lab.view).changes == (restart == "restart_worker")
    out, _ = ping.communicate(timeout=10)
    assert "120 received" in out
    assert (one.dnsmasq_pid(100), one.links(), sh("bridge", "-n", one.ns, "fdb")) == before
    assert one.apply(lab.view).changes == 0
    c = lab.add_vm("c", one)
    lab.apply()
    c.plug(one)
    assert c.lease()["ip"] == c.nic.ip


def test_a_dead_service_is_started_again(lab: Lab):
    one, _ = lab.hosts
    guest = lab.add_vm("guest", one)
    lab.apply()
    guest.plug(one)
    pid = one.dnsmasq_pid(100)
    os.kill(pid, signal.SIGKILL)
    poll(lambda: not lives(pid))
    assert one.apply(lab.view).changes == 1
    assert one.dnsmasq_pid(100) != pid
    assert guest.lease()["ip"] == guest.nic.ip


def test_meddling_is_mended_by_the_next_apply(lab: Lab):
    one, two = lab.hosts
    a, b = lab.add_guests(a=(one, ""), b=(two, ""))
    assert [host.apply(lab.view).changes for host in lab.hosts] == [0, 0]
    sh("nft", "flush", "ruleset", ns=one.ns)
    assert b.pings(a) == 2, "unprotected until the next apply"
    sh("conntrack", "-F", ns=one.ns, check=False)
    assert one.apply(lab.view).changes == 1
    assert b.pings(a) == 0
    sh("sh", "-c", "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables", ns=one.ns)
    assert one.apply(lab.view).changes == 1
    sh("ip", "-n", one.ns, "link", "del", "kvx100")
    assert one.apply(lab.view).changes > 1
    assert a.pings(b) == 0
    assert "kvx100" in one.links()


def test_a_port_group_in_use_survives_until_its_last_guest_is_gone(lab: Lab):
    one, two = lab.hosts
    (guest,) = lab.add_guests(guest=(one, ""))
    lab.change(vms=(), nics=(), port_groups=())
    lab.apply()
    assert one.port_groups() == [100]
    assert two.port_groups() == []
    assert one.dnsmasq_pid(100)
    one.teardown()
    assert one.port_groups() == [100]
    assert "table bridge kvorum" in sh("nft", "list", "tables", ns=one.ns)
    guest.unplug(one)
    one.apply(lab.view)
    assert one.port_groups() == []


def test_teardown_leaves_nothing(lab: Lab):
    one, _ = lab.hosts
    lab.apply()
    pid = one.dnsmasq_pid(100)
    assert {"kbr100", "kvx100", "ksv100"} <= one.links()
    assert not one.teardown().problems
    assert one.links() == {"lo", "u0"}
    assert sh("nft", "list", "ruleset", ns=one.ns) == ""
    assert not list((one.run_dir / "dnsmasq").iterdir())
    assert not lives(pid)


async def test_asking_for_bridge_conntrack_changes_nothing():
    before = sh("nft", "list", "tables")
    assert await bridge_ct_available() in (True, False)
    assert sh("nft", "list", "tables") == before
    assert PREFIX not in before


def test_plugging_guests_in_keeps_what_the_switch_knows(lab: Lab):
    """A bridge takes over the lowest MAC of its ports unless it has one of its own, and then forgets neighbours."""
    one, two = lab.hosts
    lab.add_vm("far", two)
    guests = [lab.add_vm(f"g{n}", one) for n in range(3)]
    lab.apply()
    before = sh("ip", "-n", one.ns, "neigh", "show", "dev", "kbr100")
    assert "lladdr" in before
    for guest in guests:
        guest.plug(one)
    assert sh("ip", "-n", one.ns, "neigh", "show", "dev", "kbr100") == before
    one.restart_driver()
    assert one.apply(lab.view).changes == 0
