"""Hosts and guests as network namespaces, for tests of the real network driver.

A host is a namespace on a common wire (a bridge in a namespace of its own) with a worker process inside that
applies plans. A guest is a namespace whose cable to the host is named and plugged in like a tap.
"""

import ctypes
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from core.model.compute import VM
from core.model.mesh import Host
from core.model.network import DistributedSwitch, Nic, PortGroup, SecurityGroup
from netfabric.names import bridge_name, tap_name
from netfabric.plan import NetworkView
from tests.integration.netfabric_worker import Answer, Command

ROOT = Path(__file__).parents[2]
PREFIX = f"kvt-net-{os.getpid()}"
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def sh(*argv: str, ns: str = "", check: bool = True) -> str:
    """Run a program, in a namespace when given, and return what it wrote."""
    full = ["ip", "netns", "exec", ns, *argv] if ns else list(argv)
    done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=20)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(full)}: {done.stderr}{done.stdout}")
    return done.stdout


def poll(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    """Wait until a condition holds, or fail."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "did not come true in time"
        time.sleep(0.02)


def open_socket(ns: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Return a socket that lives in another namespace."""
    made: list[socket.socket] = []

    def inside() -> None:
        fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
        assert _libc.setns(fd, 0x40000000) == 0, "setns"
        os.close(fd)
        made.append(socket.socket(family, kind, protocol))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    made[0].settimeout(5.0)
    return made[0]


class LabHost:
    """A namespace with an agent's network part inside."""

    def __init__(self, number: int, wire: str) -> None:
        self.id = f"{number:08x}-0000-4000-8000-000000000000"
        self.address = f"10.77.0.{number}"
        self.ns = f"{PREFIX}-h{number}"
        self.run_dir = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        sh("ip", "netns", "add", self.ns)
        peer = ["peer", "name", f"p{number}", "netns", wire]
        sh("ip", "-n", self.ns, "link", "add", "u0", "mtu", "1600", "type", "veth", *peer)
        sh("ip", "-n", wire, "link", "set", f"p{number}", "mtu", "1600", "master", "wire", "up")
        sh("ip", "-n", self.ns, "addr", "add", f"{self.address}/24", "dev", "u0")
        for device in ("lo", "u0"):
            sh("ip", "-n", self.ns, "link", "set", device, "up")
        self.worker = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        """Start the worker with a /run/netns of its own, as each real host has one."""
        script = (
            'mount -t tmpfs none /run/netns && exec "$0" -m tests.integration.netfabric_worker "$1"'
        )
        return subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                self.ns,
                "unshare",
                "--mount",
                "sh",
                "-c",
                script,
                sys.executable,
                self.run_dir,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def _ask(self, command: Command) -> Answer:
        self.worker.stdin.write(msgspec.json.encode(command) + b"\n")
        self.worker.stdin.flush()
        line = self.worker.stdout.readline()
        assert line, "the worker died"
        return msgspec.json.decode(line, type=Answer)

    def apply(self, view: NetworkView) -> Answer:
        answer = self.try_apply(view)
        assert not answer.problems, answer.problems
        return answer

    def try_apply(self, view: NetworkView) -> Answer:
        return self._ask(Command("apply", view, self.id))

    def restart_driver(self) -> None:
        self._ask(Command("restart"))

    def teardown(self) -> Answer:
        return self._ask(Command("teardown"))

    def port_groups(self) -> list[int]:
        return self._ask(Command("port_groups")).port_groups

    def stop_worker(self) -> None:
        self.worker.stdin.close()
        self.worker.wait(10)
        self.worker.stdout.close()

    def restart_worker(self) -> None:
        """A new process in a new mount namespace: what a service manager does to an agent."""
        self.stop_worker()
        self.worker = self._start()

    def dnsmasq_pid(self, vni: int) -> int:
        return int((self.run_dir / "dnsmasq" / str(vni) / "pid").read_text())

    def links(self) -> set[str]:
        return set(re.findall(r"^\d+: ([^:@]+)", sh("ip", "-o", "-n", self.ns, "link"), re.M))

    def close(self) -> None:
        """Remove all of it, also when the driver under test failed to."""
        with ExitStack() as last:
            last.callback(shutil.rmtree, self.run_dir)
            last.callback(sh, "ip", "netns", "del", self.ns)
            last.callback(self._kill_services)
            last.callback(self.stop_worker)
            for link in self.links():
                if link.startswith("tap"):
                    sh("ip", "-n", self.ns, "link", "del", link, check=False)
            self.teardown()

    def _kill_services(self) -> None:
        for file in self.run_dir.glob("dnsmasq/*/pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)


class Guest:
    """A namespace that stands for a VM with one NIC."""

    def __init__(self, lab: "Lab", nic: Nic, vm: VM) -> None:
        self.lab, self.nic, self.vm_id = lab, nic, vm.id
        self.ns = f"{PREFIX}-g{next(_numbers)}"
        self.device = tap_name(nic.id)
        sh("ip", "netns", "add", self.ns)
        sh("ip", "-n", self.ns, "link", "set", "lo", "up")

    def plug(self, host: LabHost, vni: int = 100, device: str = "") -> None:
        """Plug the guest in, as libvirt does: the device appears on the bridge and comes up."""
        device = device or self.device
        sh(
            *("ip", "link", "add", device, "netns", host.ns, "address", "fe" + self.nic.mac[2:]),
            *("type", "veth", "peer", "name", "eth0", "address", self.nic.mac, "netns", self.ns),
        )
        sh("ip", "-n", self.ns, "link", "set", "eth0", "mtu", "1450", "up")
        sh(*f"ip -n {host.ns} link set {device} mtu 1450 master {bridge_name(vni)} up".split())
        port = ["bridge", "-n", host.ns, "link", "show", "dev", device]
        poll(lambda: "state forwarding" in sh(*port) and "LOWER_UP" in sh(*port))

    def unplug(self, host: LabHost) -> None:
        sh("ip", "-n", host.ns, "link", "del", self.device)

    def set_address(self) -> None:
        sh("ip", "-n", self.ns, "addr", "replace", f"{self.nic.ip}/24", "dev", "eth0")

    def pings(self, target: "Guest | str", count: int = 2) -> int:
        """Return how many of so many pings (50 a second) were answered."""
        ip = target if isinstance(target, str) else target.nic.ip
        ping = ["ping", "-n", "-q", "-c", str(count), "-i", "0.02", "-W", "0.4", ip]
        out = sh(*ping, ns=self.ns, check=False)
        return int(re.search(r"(\d+) received", out).group(1))

    def lease(self, tries: int = 3) -> dict[str, str]:
        """Ask by DHCP; return what was offered, empty when nothing was."""
        with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-") as directory:
            script, out = Path(directory) / "script", Path(directory) / "env"
            script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && env > {out}\nexit 0\n')
            script.chmod(0o755)
            sh(
                *(
                    "busybox",
                    "udhcpc",
                    "-i",
                    "eth0",
                    "-f",
                    "-q",
                    "-n",
                    "-t",
                    str(tries),
                    "-T",
                    "1",
                    "-s",
                    str(script),
                ),
                *("-O", "mtu", "-O", "hostname"),
                ns=self.ns,
                check=False,
            )
            lines = out.read_text().splitlines() if out.exists() else []
        return dict(line.split("=", 1) for line in lines if "=" in line)


class Lab:
    """Some hosts, some guests, and the store's view of them."""

    def __init__(self, hosts: int) -> None:
        self.wire = f"{PREFIX}-wire"
        sh("ip", "netns", "add", self.wire)
        sh(*f"ip -n {self.wire} link add wire mtu 1600 type bridge".split())
        sh(*f"ip -n {self.wire} link set wire up".split())
        self.hosts = [LabHost(number, self.wire) for number in range(1, hosts + 1)]
        self.guests: list[Guest] = []
        self.view = self.empty = NetworkView(
            hosts=tuple(
                Host(id=h.id, name=h.ns, cluster_id="cluster", address=h.address)
                for h in self.hosts
            ),
            switches=(DistributedSwitch(id="switch", name="switch", cluster_ids=("cluster",)),),
            port_groups=(
                PortGroup(
                    id="pg",
                    name="net",
                    switch_id="switch",
                    vni=100,
                    cidr="10.5.0.0/24",
                    service_ip="10.5.0.2",
                    pool_first="10.5.0.10",
                    pool_last="10.5.0.99",
                ),
            ),
        )

    def change(self, **changes: object) -> None:
        """Replace parts of the view."""
        kept = {name: getattr(self.view, name) for name in NetworkView.__slots__}
        self.view = NetworkView(**(kept | changes))

    def apply(self) -> list[Answer]:
        return [host.apply(self.view) for host in self.hosts]

    def set_groups(self, *groups: SecurityGroup) -> None:
        self.change(security_groups=groups)

    def add_vm(self, name: str, host: LabHost, *groups: str) -> Guest:
        """Add a VM with one NIC to the view; apply and plug are the test's."""
        number = len(self.view.vms) + 10
        vm = VM(
            id=f"{number:08x}-1111-4000-8000-000000000000",
            name=name,
            cluster_id="cluster",
            host_id=host.id,
            cpus=1,
            memory_mib=64,
        )
        nic = Nic(
            id=f"{number:08x}-2222-4000-8000-000000000000",
            name=f"{name}.0",
            vm_id=vm.id,
            port_group_id="pg",
            mac=f"52:4b:00:00:00:{number:02x}",
            ip=f"10.5.0.{number}",
            security_group_ids=groups,
        )
        self.change(vms=(*self.view.vms, vm), nics=(*self.view.nics, nic))
        guest = Guest(self, nic, vm)
        self.guests.append(guest)
        return guest

    def add_guests(self, **where: tuple[LabHost, str]) -> list[Guest]:
        """Add, apply, plug in and address one guest a keyword: name=(host, group or "")."""
        guests = [
            self.add_vm(n, host, *filter(None, [group])) for n, (host, group) in where.items()
        ]
        self.apply()
        for guest, (host, _) in zip(guests, where.values(), strict=True):
            guest.plug(host)
            guest.set_address()
        return guests

    def place(self, guest: Guest, host: LabHost, migrating_to: LabHost | None = None) -> None:
        """Say where a VM is, or between which hosts it is."""
        self.change(
            vms=tuple(
                msgspec.structs.replace(
                    vm,
                    host_id=host.id,
                    migrating_to_host_id=migrating_to.id if migrating_to else "",
                )
                if vm.id == guest.vm_id
                else vm
                for vm in self.view.vms
            )
        )

    def clear(self) -> None:
        """Remove the guests; the next test finds hosts that have a past."""
        for host in self.hosts:  # open connections keep a namespace, hence its cable, for a while
            for link in host.links():
                if link.startswith("tap"):
                    sh("ip", "-n", host.ns, "link", "del", link)
        for guest in self.guests:
            sh("ip", "netns", "del", guest.ns)
        self.guests.clear()
        self.view = self.empty

    def close(self) -> None:
        with ExitStack() as last:
            last.callback(sh, "ip", "netns", "del", self.wire)
            for host in self.hosts:
                last.callback(host.close)
            self.clear()


@contextmanager
def lab_of(hosts: int) -> Iterator[Lab]:
    """Give a lab and remove it again."""
    lab = Lab(hosts)
    try:
        yield lab
    finally:
        lab.close()
