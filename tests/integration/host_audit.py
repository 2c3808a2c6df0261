"""An audit of lab hosts from outside: whatever libvirt, QEMU, the kernel and the directories hold and no record asks for.

Used after work that was disturbed. It asks the API only for the records; all else is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netfabric.names import tap_name
from tools.lab import processes
from tools.lab.lab import Lab
from tools.sdk.client import Client
from tools.sdk.items import Item

LOOK = """
virsh list --all --name | sed -n 's/^kvorum-/domain /p'
virsh list --name | sed -n 's/^kvorum-/active /p'
ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\).*/link \\1/p'
ip netns | sed -n 's/^\\([^ ]*\\).*/netns \\1/p'
nft list ruleset | grep -o 'tap[0-9a-f]*' | sort -u | sed -n 's/^\\(tap[0-9a-f].*\\)/rule \\1/p'
"""
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LIBVIRT_STATE = ("var/lib/libvirt/qemu", "run/libvirt/qemu")


@dataclass(frozen=True, slots=True)
class Records:
    """What the API says there is."""

    vms: dict[str, Item]
    disks: dict[str, Item]
    nics: dict[str, Item]
    snapshots: dict[str, Item]
    hosts: dict[str, str]

    @classmethod
    async def read(cls, client: Client) -> Records:
        plurals = ("vms", "disks", "nics", "snapshots", "hosts")
        kinds = [(await client.list_all(plural)).items for plural in plurals]
        vms, disks, nics, snapshots, hosts = ({i.text("id"): i for i in items} for items in kinds)
        names = {id_: host.text("name") for id_, host in hosts.items()}
        return cls(vms, disks, nics, snapshots, names)

    def on(self, host: str, phase: str = "") -> set[str]:
        """Return the ids of a host's VMs, all or those in a phase."""
        return {
            id_
            for id_, vm in self.vms.items()
            if self.hosts.get(vm.text("host_id")) == host and phase in ("", vm.text("phase"))
        }

    def nics_of(self, vms: Iterable[str]) -> list[Item]:
        wanted = set(vms)
        return [nic for nic in self.nics.values() if nic.text("vm_id") in wanted]

    def unsteady(self) -> list[str]:
        """Return records that belong to nothing, and VMs that are not as they are wanted."""
        lines = [
            f"record {item.text('name')} of no VM"
            for item in (*self.disks.values(), *self.nics.values())
            if item.text("vm_id") not in self.vms
        ]
        lines += [
            f"snapshot {one.text('name')} is {one.text('state')} of {one.text('disk_id')}"
            for one in self.snapshots.values()
            if one.text("state") != "ready" or one.text("disk_id") not in self.disks
        ]
        for vm in self.vms.values():
            phase, moving = vm.text("phase"), vm.text("migrating_to_host_id")
            if phase != vm.text("power") or moving or vm.text("blocked_reason"):
                lines.append(f"VM {vm.text('name')} is {phase}, wanted {vm.text('power')} {moving}")
        return lines


async def garbage(lab: Lab, client: Client) -> list[str]:
    """Return what is there and belongs to nothing, and what belongs there and is missing; one line each."""
    records = await Records.read(client)
    lines = records.unsteady()
    lines += _files("shared", lab.shared, records, "")
    for host in lab.hosts:
        lines += await _on_host(lab, host, records)
    return lines


async def _on_host(lab: Lab, host: str, records: Records) -> list[str]:
    seen: dict[str, set[str]] = {
        kind: set() for kind in ("domain", "active", "link", "netns", "rule")
    }
    for line in (await lab.text(host, "sh", "-c", LOOK)).splitlines():
        kind, _, name = line.partition(" ")
        seen[kind].add(name)
    running, here = records.on(host, "running"), records.on(host)
    taps = {tap_name(nic.text("id")) for nic in records.nics_of(running)}
    own_taps = {tap_name(nic.text("id")) for nic in records.nics_of(here)}
    found = {
        "libvirt domain": (seen["domain"], running),
        "active domain": (seen["active"], running),
        "QEMU process": (_qemus(lab, host), running),
        "guard's grant": (_grants(lab, host), running),
        "tap": ({link for link in seen["link"] if link.startswith("tap")}, taps),
        "tap in nftables": (seen["rule"], own_taps),
        "address in dnsmasq": (
            _reservations(lab, host),
            {n.text("mac") for n in records.nics.values()},
        ),
        "network device": (_own(seen["link"]), {"kbr100", "kvx100", "ksv100"}),
        "network namespace": (seen["netns"], {"kdhcp100"}),
        "libvirt's state": (_left_by_libvirt(lab, host), running),
        "migration's socket": (_names(lab.inside(host, "/run/kvorum/migrate")), set()),
    }
    lines = [
        f"{host}: {what} {name} {'too much' if name in real else 'missing'}"
        for what, (real, wanted) in found.items()
        for name in sorted(real ^ wanted)
    ]
    count = sum(process.name == "dnsmasq" for process in lab.processes(host))
    if count != 1:
        lines.append(f"{host}: {count} dnsmasq")
    return lines + _files(host, lab.inside(host, "/var/lib/kvorum/local"), records, host)


def _files(place: str, root: Path, records: Records, host: str) -> list[str]:
    """Compare the files of a data storage with the records of disks; `host` owns it, none if it is shared."""
    disks = {
        id_: disk
        for id_, disk in records.disks.items()
        if records.hosts.get(disk.text("host_id"), "") == host
    }
    layers = {disk.text("layer_id") or id_ for id_, disk in disks.items()}
    layers |= {s.text("layer_id") for s in records.snapshots.values() if s.text("disk_id") in disks}
    wanted = {f"disks/{layer}.qcow2" for layer in layers}
    wanted |= {f"seeds/{disk.text('vm_id')}.iso" for disk in disks.values()}
    real = {f"{part}/{name}" for part in ("disks", "seeds") for name in _names(root / part)} | {
        f"images/{name}" for name in _names(root / "images") if name.startswith(".")
    }
    return [
        f"{place}: file {name} {'too much' if name in real else 'missing'}"
        for name in sorted(real ^ wanted)
    ]


def _qemus(lab: Lab, host: str) -> set[str]:
    found = set()
    for qemu in lab.qemus(host):
        argv = processes.command_line(qemu.pid)
        found.add(argv[argv.index("-uuid") + 1] if "-uuid" in argv else f"process {qemu.pid}")
    return found


def _grants(lab: Lab, host: str) -> set[str]:
    file = lab.inside(host, "/run/kvorum/guard-state.json")  # a guard that just began has none yet
    return set(json.loads(file.read_text())["grants"]) if file.exists() else set()


def _reservations(lab: Lab, host: str) -> set[str]:
    """Return the MACs that a host's DHCP service knows: those of the whole port group, for guests move."""
    file = lab.inside(host, "/run/kvorum/dnsmasq/100/reservations")
    lines = file.read_text().splitlines() if file.exists() else []
    return {line.partition(",")[0] for line in lines}


def _own(links: set[str]) -> set[str]:
    return {link for link in links if link.startswith(("kbr", "kvx", "ksv"))}


def _left_by_libvirt(lab: Lab, host: str) -> set[str]:
    """Return the VMs that libvirt keeps a definition, socket or process file for, by what its files are named."""
    found = set()
    for root in LIBVIRT_STATE:
        for path in lab.inside(host, root).rglob("*kvorum-*"):
            if full := UUID.search(path.name):
                found.add(full[0])
    return found


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()
