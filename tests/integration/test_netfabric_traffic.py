"""Real frames between guests on real bridges, tunnels and rules."""

import random
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import msgspec
import pytest

from core.model.network import Direction, Protocol, Rule, SecurityGroup
from netfabric.names import link_local
from netfabric.security_group import default_rules
from tests.integration.netfabric_hosts import PREFIX, Guest, Lab, lab_of, open_socket, poll, sh

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

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
    rules=(
        Rule(id="all4", direction=Direction.INGRESS),
        Rule(id="all6", direction=Direction.INGRESS, family=6),
    ),
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    with lab_of(2) as lab:
        yield lab


@pytest.fixture
def lab(hosts: Lab) -> Iterator[Lab]:
    hosts.set_groups(FRIENDS, OPEN)
    yield hosts
    hosts.clear()


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


def frame(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    def octets(mac: str) -> bytes:
        return bytes.fromhex(mac.replace(":", ""))

    return octets(destination) + octets(source) + struct.pack("!H", kind) + payload


def ip4(source: str, destination: str, text: bytes, ports: tuple[int, int] = (9, 9)) -> bytes:
    """An IPv4 UDP packet; a zero UDP checksum means there is none."""
    udp = struct.pack("!HHHH", *ports, 8 + len(text), 0) + text
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", total ^ 0xFFFF) + header[12:] + udp


def ip6(source: str, destination: str, text: bytes) -> bytes:
    udp = struct.pack("!HHHH", 9, 9, 8 + len(text), 0) + text
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(
        socket.AF_INET6, destination
    )
    return struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + addresses + udp


def arp(mac: str, ip: str, asked: str, operation: int = 1) -> bytes:
    sender = bytes.fromhex(mac.replace(":", "")) + socket.inet_aton(ip)
    return (
        struct.pack("!HHBBH", 1, 0x800, 6, 4, operation)
        + sender
        + bytes(6)
        + socket.inet_aton(asked)
    )


class Ear:
    """Hears all frames that come in to a guest."""

    def __init__(self, guest: Guest) -> None:
        self._socket = open_socket(guest.ns, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind(("eth0", 3))

    def until(self, sentinel: bytes, deadline_s: float = 5.0) -> list[bytes]:
        """Return all that came in before a frame with the given text."""
        heard = []
        end_s = time.monotonic() + deadline_s
        while time.monotonic() < end_s:
            data, address = self._socket.recvfrom(4096)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if sentinel in data:
                return heard
            heard.append(data)
        raise AssertionError("the sentinel did not come")

    def now(self) -> list[bytes]:
        """Return what came in until now."""
        self._socket.setblocking(False)
        heard = []
        try:
            while True:
                data, address = self._socket.recvfrom(4096)
                if address[2] != socket.PACKET_OUTGOING:
                    heard.append(data)
        except BlockingIOError:
            return heard

    def close(self) -> None:
        self._socket.close()


def send(guest: Guest, *frames: bytes) -> None:
    with open_socket(guest.ns, socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind(("eth0", 0))
        for one in frames:
            out.send(one)


def test_spoofed_frames_of_every_kind_stay_where_they_are(lab: Lab):
    one, two = lab.hosts
    bad, far, near = lab.add_guests(bad=(one, "open"), far=(two, "open"), near=(one, "open"))
    assert bad.pings(far) == 2
    assert bad.pings(near) == 2
    mine, other = bad.nic.mac, "52:4b:00:00:00:99"
    other_ll = "fe80::1234"
    for victim in (far, near):
        to, ip = victim.nic.mac, victim.nic.ip
        mark = b"kvorum-spoofed"
        spoofed = {
            "mac": frame(other, to, 0x800, ip4(bad.nic.ip, ip, mark)),
            "ip": frame(mine, to, 0x800, ip4("10.5.0.77", ip, mark)),
            "ip of the service": frame(mine, to, 0x800, ip4("10.5.0.2", ip, mark)),
            "ip of another guest": frame(mine, to, 0x800, ip4(victim.nic.ip, ip, mark)),
            "ipv6": frame(mine, to, 0x86DD, ip6(other_ll, link_local(to), mark)),
            "arp of another ip": frame(
                mine, "ff:ff:ff:ff:ff:ff", 0x806, arp(mine, "10.5.0.77", ip) + mark
            ),
            "arp with another mac": frame(mine, to, 0x806, arp(other, bad.nic.ip, ip, 2) + mark),
            "vlan tag": frame(
                mine, to, 0x8100, struct.pack("!HH", 5, 0x800) + ip4(bad.nic.ip, ip, mark)
            ),
            "odd ethertype": frame(mine, to, 0x88CC, mark * 4),
            "dhcp server": frame(mine, to, 0x800, ip4(bad.nic.ip, ip, mark, (67, 68))),
            "dhcp request to a guest": frame(mine, to, 0x800, ip4(bad.nic.ip, ip, mark, (68, 67))),
        }
        ear = Ear(victim)
        send(
            bad, *spoofed.values(), frame(mine, to, 0x800, ip4(bad.nic.ip, ip, b"kvorum-sentinel"))
        )
        leaked = [f for f in ear.until(b"kvorum-sentinel") if mark in f]
        ear.close()
        names = {name for name, f in spoofed.items() if any(f[:60] == g[:60] for g in leaked)}
        assert not leaked, names


def test_honest_frames_pass_the_source_checks(lab: Lab):
    one, two = lab.hosts
    a, b = lab.add_guests(a=(one, "open"), b=(two, "open"))
    mac, to = a.nic.mac, b.nic.mac
    ear = Ear(b)
    honest = [
        frame(mac, to, 0x800, ip4(a.nic.ip, b.nic.ip, b"kvorum-v4")),
        frame(mac, to, 0x806, arp(mac, a.nic.ip, b.nic.ip, 2)),
    ]
    send(a, *honest, frame(mac, to, 0x800, ip4(a.nic.ip, b.nic.ip, b"kvorum-sentinel")))
    heard = ear.until(b"kvorum-sentinel")
    ear.close()
    assert [f for f in heard if f in honest] == honest
    ping = ["ping", "-6", "-n", "-q", "-c", "1", "-W", "1", f"{link_local(to)}%eth0"]
    poll(lambda: "1 received" in sh(*ping, ns=a.ns, check=False))


def test_a_port_the_store_does_not_know_hears_and_says_nothing(lab: Lab):
    one, _ = lab.hosts
    known, other, stranger = lab.add_guests(
        known=(one, "open"), other=(one, "open"), stranger=(one, "open")
    )
    assert stranger.pings(known) == 2
    lab.change(nics=tuple(n for n in lab.view.nics if n.id != stranger.nic.id))
    lab.apply()
    assert stranger.pings(known) == 0
    strange_ear, other_ear = Ear(stranger), Ear(other)
    everyone = "ff:ff:ff:ff:ff:ff"
    call = ip4(known.nic.ip, "10.5.0.255", b"kvorum-call")
    sentinel = ip4(known.nic.ip, "10.5.0.255", b"kvorum-sentinel")
    send(known, frame(known.nic.mac, everyone, 0x800, call))
    send(known, frame(known.nic.mac, everyone, 0x800, sentinel))
    heard, strange = other_ear.until(b"kvorum-sentinel"), strange_ear.now()
    other_ear.close()
    strange_ear.close()
    assert any(b"kvorum-call" in f for f in heard)
    own_end = bytes.fromhex("fe" + stranger.nic.mac.replace(":", "")[2:])
    assert [f for f in strange if f[6:12] != own_end] == []  # its wire's other end may speak IPv6


def test_guests_cannot_reach_the_host_itself(lab: Lab):
    one, _ = lab.hosts
    (guest,) = lab.add_guests(guest=(one, "open"))
    sh("ip", "-n", guest.ns, "route", "add", "10.77.0.0/24", "dev", "eth0")
    # The way back exists, so only the rules are in between.
    sh("ip", "-n", one.ns, "route", "replace", "10.5.0.0/24", "dev", "kbr100")
    assert guest.pings(one.address) == 0
    bridge = (
        sh("ip", "-o", "-n", one.ns, "link", "show", "kbr100").split("link/ether ")[1].split()[0]
    )
    sh(*f"ip -n {guest.ns} neigh replace {one.address} lladdr {bridge} dev eth0".split())
    assert guest.pings(one.address) == 0, "even by its bridge's MAC"


def test_members_are_kept_apart_by_disabling_the_default_rules(lab: Lab):
    one, two = lab.hosts
    a, b = lab.add_guests(a=(one, "friends"), b=(two, "friends"))
    assert a.pings(b) == 2
    off = tuple(msgspec.structs.replace(rule, enabled=False) for rule in FRIENDS.rules)
    for rules in (off, (*off, PING)):
        sh("ip", "netns", "exec", one.ns, "conntrack", "-F", check=False)
        sh("ip", "netns", "exec", two.ns, "conntrack", "-F", check=False)
        lab.set_groups(msgspec.structs.replace(FRIENDS, rules=rules))
        lab.apply()
        assert a.pings(b) == 0
    egress_on = tuple(
        msgspec.structs.replace(rule, enabled=rule.direction is Direction.EGRESS) for rule in off
    )
    lab.set_groups(msgspec.structs.replace(FRIENDS, rules=(*egress_on, PING)))
    lab.apply()
    assert a.pings(b) == 2


@pytest.mark.parametrize("what", ["rule", "member"])
def test_what_is_no_longer_allowed_ends_open_connections(lab: Lab, what: str):
    one, two = lab.hosts
    server, client = lab.add_guests(server=(one, "friends"), client=(two, "friends"))
    with (
        open_socket(server.ns, socket.AF_INET, socket.SOCK_STREAM) as listening,
        open_socket(client.ns, socket.AF_INET, socket.SOCK_STREAM) as calling,
    ):
        listening.bind((server.nic.ip, 80))
        listening.listen()
        calling.connect((server.nic.ip, 80))
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(3.0)

            def hears(text: bytes) -> bool:
                calling.sendall(text)
                try:
                    return accepted.recv(99) == text
                except TimeoutError:
                    return False

            assert hears(b"one")
            lab.add_vm("another", two, "friends")
            lab.apply()
            assert hears(b"two"), "changes that still allow it do not harm"
            if what == "rule":
                lab.set_groups(msgspec.structs.replace(FRIENDS, rules=()))
            else:
                nics = (
                    msgspec.structs.replace(n, security_group_ids=()) for n in lab.view.nics[1:]
                )
                lab.change(nics=(lab.view.nics[0], *nics))
            lab.apply()
            accepted.settimeout(0.5)
            assert not hears(b"three")


def test_ports_of_a_rule_decide_who_may_connect(lab: Lab):
    one, two = lab.hosts
    web = SecurityGroup(
        id="web",
        name="web",
        data_center_id="dc",
        rules=(
            Rule(
                id="r",
                direction=Direction.INGRESS,
                protocol=Protocol.TCP,
                port_first=80,
                port_last=81,
            ),
        ),
    )
    lab.set_groups(web)
    server, client = lab.add_guests(server=(one, "web"), client=(two, ""))

    def connects(port: int) -> bool:
        with (
            open_socket(server.ns, socket.AF_INET, socket.SOCK_STREAM) as listening,
            open_socket(client.ns, socket.AF_INET, socket.SOCK_STREAM) as calling,
        ):
            listening.bind((server.nic.ip, port))
            listening.listen()
            calling.settimeout(0.5)
            try:
                calling.connect((server.nic.ip, port))
            except TimeoutError:
                return False
            accepted, _ = listening.accept()
            with accepted:
                accepted.sendall(b"hello")
                return calling.recv(5) == b"hello"

    assert [port for port in (79, 80, 81, 82) if connects(port)] == [80, 81]


@pytest.fixture
def operator_port(lab: Lab) -> Iterator[str]:
    """A namespace at 10.5.0.200 that an operator plugged into the second host's bridge by hand."""
    lab.apply()
    ns, host = f"{PREFIX}-op", lab.hosts[1]
    sh("ip", "netns", "add", ns)
    sh(*f"ip link add op0 netns {host.ns} type veth peer name eth0 netns {ns}".split())
    sh(*f"ip -n {host.ns} link set op0 mtu 1450 master kbr100 up".split())
    sh(*f"ip -n {ns} addr add 10.5.0.200/24 dev eth0".split())
    sh(*f"ip -n {ns} link set eth0 mtu 1450 up".split())
    yield ns
    sh("ip", "netns", "del", ns)


def test_an_operator_can_plug_a_namespace_into_the_bridge(lab: Lab, operator_port: str):
    one, _ = lab.hosts
    (guest,) = lab.add_guests(guest=(one, ""))
    ping = ["ping", "-n", "-q", "-c", "2", "-i", "0.02", "-W", "0.5", guest.nic.ip]
    poll(lambda: guest.pings("10.5.0.200") == 2)  # out is allowed
    assert "0 received" in sh(*ping, ns=operator_port, check=False)
    lab.set_groups(SecurityGroup(id="ping", name="ping", data_center_id="dc", rules=(PING,)))
    lab.change(nics=(msgspec.structs.replace(guest.nic, security_group_ids=("ping",)),))
    lab.apply()
    assert "2 received" in sh(*ping, ns=operator_port, check=False)


def test_tagged_frames_do_not_get_around_the_groups(lab: Lab, operator_port: str):
    one, two = lab.hosts
    far, near = lab.add_guests(far=(one, "open"), near=(two, "open"))
    poll(lambda: far.pings("10.5.0.200") == near.pings("10.5.0.200") == 2)
    own = "52:4b:ff:00:00:01"
    for guest in (far, near):
        inner = ip4("10.5.0.200", guest.nic.ip, b"kvorum-tagged")
        sentinel = ip4("10.5.0.200", guest.nic.ip, b"kvorum-sentinel")
        ear = Ear(guest)
        with open_socket(operator_port, socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            out.bind(("eth0", 0))
            out.send(frame(own, guest.nic.mac, 0x8100, struct.pack("!HH", 5, 0x800) + inner))
            out.send(frame(own, guest.nic.mac, 0x800, sentinel))
        assert not any(b"kvorum-tagged" in f for f in ear.until(b"kvorum-sentinel"))
        ear.close()


def test_a_vm_moves_between_hosts_and_at_most_two_pings_are_lost(lab: Lab):
    one, two = lab.hosts
    mover, friend = lab.add_guests(mover=(one, "friends"), friend=(two, "friends"))
    neighbour = lab.add_guests(neighbour=(one, "friends"))[0]
    assert friend.pings(mover) == 2
    assert neighbour.pings(mover) == 2
    pings = [
        subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                g.ns,
                "ping",
                "-n",
                "-q",
                "-i",
                "0.1",
                "-c",
                "25",
                "-W",
                "1",
                mover.nic.ip,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for g in (friend, neighbour)
    ]
    lab.place(mover, one, two)
    lab.apply()
    assert mover.pings(friend) == 2, "still reachable at the source"
    assert mover.pings(neighbour) == 2
    mover.unplug(one)
    mover.plug(two)
    mover.set_address()
    rarp = struct.pack("!HHBBH", 1, 0x800, 6, 4, 3) + bytes(20)
    send(mover, frame(mover.nic.mac, "ff:ff:ff:ff:ff:ff", 0x8035, rarp))
    assert mover.pings(neighbour, 3) >= 2, "reachable at the target before the store knows"
    lab.place(mover, two)
    lab.apply()
    assert mover.pings(neighbour) == 2
    for ping in pings:
        out, _ = ping.communicate(timeout=10)
        assert int(out.split(" received")[0].split()[-1]) >= 23, out
