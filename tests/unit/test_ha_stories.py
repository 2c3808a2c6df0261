"""Stories of failover as text: what happens, and what the HA manager decides at which second.

A story (tests/golden/ha/*.txt) is a comment, commands, a line `----` and the decisions. Living hosts renew all the time.
Commands: `host NAME key=value…`, `vm NAME on HOST key=value…`, `leader` (this node begins to lead now, all stamps begin now),
`follower` and `elected` (it leads no more, leads again; its stamps are its own all the time),
`fencing STORAGE…` (these storages can refuse a host), `refused HOST by=STORAGE,…` (they say that they do),
`bmc HOST state=…`, `off HOST` (its board says so), `silent HOST`, `returns HOST`, `reboots HOST`, `fence HOST`, `change VM key=value…`, `recovery off|on`, `run SECONDS`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from core.model import (
    VM,
    Bmc,
    BmcState,
    DataStorage,
    DataStorageKind,
    Disk,
    Host,
    HostState,
    Lease,
    PowerState,
    VMPhase,
    VMPriority,
)
from ha.fencing import Fence
from ha.manager import (
    Block,
    Decision,
    EndMigration,
    HAView,
    HostLost,
    HostReturned,
    Recover,
    Suspect,
    Unblock,
    decide,
    remember,
)
from ha.profile import PROFILES

STORIES = sorted((Path(__file__).parents[1] / "golden" / "ha").glob("*.txt"))
STEP_S = 0.5


class Story:
    """The world of one story; decisions are applied to it as the agent would commit them."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.view = HAView(
            profile=PROFILES["default"],
            leader_since_s=0.0,
            hosts={},
            vms={},
            disks={},
            storages={
                kind.value: DataStorage(
                    id=kind.value, name=kind.value, data_center_id="d", kind=kind, path="/s"
                )
                for kind in DataStorageKind
            },
            leases={},
            stamps_s={},
        )
        self.silent: set[str] = set()
        self.witnesses: frozenset[str] = frozenset()
        self.lines: list[str] = []

    def replace(self, **changes: object) -> None:
        self.view = HAView(
            **({name: getattr(self.view, name) for name in HAView.__slots__} | changes)
        )

    def play(self, commands: str) -> list[str]:
        for line in commands.splitlines():
            if line and not line.startswith("#"):
                words = line.split()
                pairs = dict(word.split("=", 1) for word in words if "=" in word)
                names = [word for word in words[1:] if "=" not in word]
                getattr(self, f"do_{words[0]}")(names, pairs)
        return self.lines

    # ---- commands

    def do_profile(self, names: list[str], pairs: dict[str, str]) -> None:
        self.replace(profile=PROFILES[names[0]])

    def do_host(self, names: list[str], pairs: dict[str, str]) -> None:
        for name in names:
            host = Host(
                id=name,
                name=name,
                cluster_id="c",
                address=name,
                cpus=4,
                memory_mib=int(pairs.get("memory", "8192")),
                maintenance=pairs.get("maintenance") == "yes",
                unreachable_storage_ids=tuple(pairs["without"].split(","))
                if "without" in pairs
                else (),
            )
            self.replace(hosts=self.view.hosts | {name: host})
            self.renew(name, boot_id=f"{name}-boot1", armed=pairs.get("watchdog") != "no")

    def do_vm(self, names: list[str], pairs: dict[str, str]) -> None:
        name, _, host = names[:3]
        vm = VM(
            id=name,
            name=name,
            cluster_id="c",
            host_id=host,
            cpus=1,
            memory_mib=int(pairs.get("memory", "1024")),
            power=PowerState(pairs.get("power", "running")),
            phase=VMPhase(pairs.get("phase", "running")),
            generation=1,
            boot_id=pairs.get("boot", f"{host}-boot1"),
            migrating_to_host_id=pairs.get("to", ""),
            ha=pairs.get("ha") != "no",
            priority=VMPriority(pairs.get("priority", "medium")),
            revision=1,
        )
        disks = {
            f"{name}-disk{number}": Disk(
                id=f"{name}-disk{number}",
                name=f"{name}-disk{number}",
                vm_id=name,
                data_storage_id=storage,
                size_bytes=1,
                host_id=host if storage == "local" else "",
            )
            for number, storage in enumerate(pairs.get("disk", "shared").split(","))
            if storage
        }
        self.replace(vms=self.view.vms | {name: vm}, disks={**self.view.disks, **disks})

    def do_fencing(self, names: list[str], pairs: dict[str, str]) -> None:
        shared = {
            name: DataStorage(
                id=name, name=name, data_center_id="d", kind=DataStorageKind.SHARED, path="/s"
            )
            for name in names
        }
        self.replace(storages={**self.view.storages, **shared}, fencing_storages=frozenset(names))

    def do_refused(self, names: list[str], pairs: dict[str, str]) -> None:
        """Storages say that they take nothing more that the host writes."""
        host = self.view.hosts[names[0]]
        assert host.state is HostState.FENCING, "storages are asked while their host is fenced"
        assert set(pairs["by"].split(",")) <= set(host.refusing_storage_ids)
        refused = msgspec.structs.replace(
            host,
            fenced_storage_ids=tuple(pairs["by"].split(",")),
            storage_lease_revision=self.view.leases[host.id].revision,
        )
        self.replace(hosts={**self.view.hosts, host.id: refused})

    def do_bmc(self, names: list[str], pairs: dict[str, str]) -> None:
        state = BmcState(pairs.get("state", "ok"))
        boards = {
            name: Bmc(
                id=name,
                name=name,
                host_id=name,
                address=name,
                user="u",
                sealed_password=b"",
                state=state,
            )
            for name in names
        }
        self.replace(bmcs={**self.view.bmcs, **boards})

    def do_witness(self, names: list[str], pairs: dict[str, str]) -> None:
        """A voter without guests, always up."""
        self.witnesses = frozenset(names)

    def do_off(self, names: list[str], pairs: dict[str, str]) -> None:
        """The management boards of these hosts say that they are off."""
        for name in names:
            host = self.view.hosts[name]
            assert host.state is HostState.FENCING, "boards are asked while their host is fenced"
            revision = self.view.leases[name].revision
            off = msgspec.structs.replace(host, state=HostState.FENCED, off_lease_revision=revision)
            self.replace(hosts={**self.view.hosts, name: off})

    def do_leader(self, names: list[str], pairs: dict[str, str]) -> None:
        stamps_s = dict.fromkeys(self.view.stamps_s, self.now_s)
        told: frozenset[str] = frozenset()
        self.replace(leader_since_s=self.now_s, stamps_s=stamps_s, suspected=told, lost=told)

    def do_follower(self, names: list[str], pairs: dict[str, str]) -> None:
        self.replace(leader_since_s=None)

    def do_elected(self, names: list[str], pairs: dict[str, str]) -> None:
        self.replace(leader_since_s=self.now_s)

    def do_silent(self, names: list[str], pairs: dict[str, str]) -> None:
        self.silent.update(names)

    def do_returns(self, names: list[str], pairs: dict[str, str]) -> None:
        self.silent.difference_update(names)

    def do_reboots(self, names: list[str], pairs: dict[str, str]) -> None:
        for name in names:
            self.renew(name, boot_id=f"{name}-boot2")
            self.replace(booted_s={**self.view.booted_s, name: self.now_s})
        self.silent.difference_update(names)

    def do_fence(self, names: list[str], pairs: dict[str, str]) -> None:
        fenced = {
            name: msgspec.structs.replace(self.view.hosts[name], state=HostState.FENCED)
            for name in names
        }
        self.replace(hosts=self.view.hosts | fenced)

    def do_recovery(self, names: list[str], pairs: dict[str, str]) -> None:
        self.replace(recovery_enabled=names[0] == "on")

    def do_limit(self, names: list[str], pairs: dict[str, str]) -> None:
        self.replace(recoveries_max=int(names[0]))

    def do_run(self, names: list[str], pairs: dict[str, str]) -> None:
        until_s = self.now_s + float(names[0])
        while self.now_s < until_s:
            self.now_s += STEP_S
            for name in self.view.hosts.keys() - self.silent:
                self.renew(name)
            hosts = frozenset(self.view.hosts)
            self.replace(voters=hosts | self.witnesses, up=(hosts - self.silent) | self.witnesses)
            decisions = decide(self.view, self.now_s)
            suspected, lost = remember(self.view, decisions)
            self.replace(suspected=suspected, lost=lost)
            for decision in decisions:
                self.lines.append(f"{self.now_s - 100:5.1f} {self.perform(decision)}")

    # ---- what the agent would commit

    def renew(self, host_id: str, *, boot_id: str | None = None, armed: bool = True) -> None:
        old, host = self.view.leases.get(host_id), self.view.hosts[host_id]
        if host.state is not HostState.MEMBER:
            if boot_id is None:
                return  # refused: its guests are not known to be gone
            host = msgspec.structs.replace(
                host,
                state=HostState.MEMBER,
                off_lease_revision=0,
                fenced_storage_ids=(),
                storage_lease_revision=0,
            )
            self.replace(hosts={**self.view.hosts, host_id: host})
        lease = Lease(
            id=host_id,
            name=host_id,
            boot_id=boot_id or (old.boot_id if old else ""),
            seq=old.seq + 1 if old else 1,
            watchdog_armed=old.watchdog_armed if old else armed,
            revision=old.revision + 1 if old else 1,
        )
        self.replace(
            leases=self.view.leases | {host_id: lease},
            stamps_s=self.view.stamps_s | {host_id: self.now_s},
        )

    def write(self, vm_id: str, **changes: object) -> None:
        vm = self.view.vms[vm_id]
        changed = msgspec.structs.replace(vm, revision=vm.revision + 1, **changes)
        self.replace(vms=self.view.vms | {vm_id: changed})

    def perform(self, decision: Decision) -> str:
        match decision:
            case Fence(host_id=host, lease_revision=revision, storage_ids=storages):
                assert self.view.leases[host].revision == revision
                fencing = msgspec.structs.replace(
                    self.view.hosts[host],
                    state=HostState.FENCING,
                    refusing_storage_ids=storages,
                    fenced_boot_id=self.view.leases[host].boot_id,
                )
                self.replace(hosts={**self.view.hosts, host: fencing})
                return f"fence {host}" + (f" by {', '.join(storages)}" if storages else "")
            case Suspect(host_id=host):
                return f"suspect {host}"
            case HostLost(host_id=host):
                return f"lost {host}"
            case HostReturned(host_id=host):
                return f"returned {host}"
            case Block(vm_id=vm, reason=reason):
                self.write(vm, blocked_reason=reason)
                return f"block {vm}: {reason}"
            case Unblock(vm_id=vm):
                self.write(vm, blocked_reason="")
                return f"unblock {vm}"
            case EndMigration(vm_id=vm, lost_host=host, proof=proof):
                self.write(vm, migrating_to_host_id="")
                return f"end migration of {vm} to {host} ({proof})"
            case Recover() as found:
                generation = self.view.vms[found.vm_id].generation + 1
                self.write(
                    found.vm_id,
                    host_id=found.to_host,
                    generation=generation,
                    boot_id="",
                    blocked_reason="",
                    migrating_to_host_id="",
                )
                other = f", guarding {found.other_lease.host_id} too" if found.other_lease else ""
                return f"recover {found.vm_id} from {found.from_host} to {found.to_host} ({found.proof}{other})"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, rewrite: bool) -> None:
    commands, _, expected = path.read_text().partition("----\n")
    found = "".join(line + "\n" for line in Story().play(commands))
    if rewrite:
        path.write_text(f"{commands}----\n{found}")
        return
    assert found == expected
