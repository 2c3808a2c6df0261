"""Two hosts with in-memory drivers on which workflows run, agents that can be killed at any point, and an audit.

What outlives an agent (store, hypervisors, storages, guards, networks) is here; an agent is a task runner with its
services. Everything an agent does to the outside goes through `Faults`, before and after which it may die or be told
of a failure.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from core.clock import new_id
from core.errors import ConflictError, PermanentError, UnavailableError
from core.model import (
    VM,
    DataStorage,
    Disk,
    DistributedSwitch,
    Host,
    Nic,
    PortGroup,
    SecurityGroup,
    Snapshot,
    SnapshotState,
    Task,
    TaskState,
    VMPhase,
)
from netfabric.memory import InMemoryNetwork
from netfabric.plan import NetworkView, desired_network
from nodeagent.api.requests import Ids
from nodeagent.compute.domain_spec import Accelerator, DiskCache
from nodeagent.compute.hypervisor import DomainStatus, MigrationOrder
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor
from nodeagent.services.event_log import EventLog
from nodeagent.services.moving_on import MovingOn
from nodeagent.services.network_controller import NetworkController
from nodeagent.services.snapshots import SnapshotService
from nodeagent.services.storage_checks import StorageChecks
from nodeagent.services.storage_loss import StorageLoss
from nodeagent.services.storage_watch import StorageWatch
from nodeagent.services.task_runner import TaskRunner
from nodeagent.services.vm_controller import VmController
from nodeagent.services.vm_parts import layers_of, snapshots_of
from nodeagent.services.vm_power import VmPower
from nodeagent.services.vm_requests import CreateVM
from nodeagent.services.vm_service import VmService
from nodeagent.workflows.registry import Registry, StepMaker
from nodeagent.workflows.work import Workshop
from raftstate.txn import encode_txn
from storage.memory_driver import MemoryDriver, MemoryLayers
from tests.one_member import HOST_ID, OTHER_ID, FakeGuard, OneMember, running, until

ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
KILL, FAIL, CANCEL = "kill", "fail", "cancel"


class Faults:
    """Counts the points before and after each effect, and strikes at one of them."""

    def __init__(self) -> None:
        self.points = 0
        self.at: int | None = None
        self.kind = KILL
        self.dead = False
        self.where = ""
        self.ask: Callable = asyncio.Event().wait

    async def point(self, where: str, error: type[Exception]) -> None:
        """Pass a point. A dead agent does nothing any more, not even clean up."""
        if self.dead:
            raise asyncio.CancelledError
        self.points += 1
        if self.points != self.at:
            return None
        self.where = where
        if self.kind == CANCEL:
            return await self.ask()
        if self.kind == FAIL:
            raise error(f"fault {where}")
        self.dead = True
        raise asyncio.CancelledError

    async def around(self, name: str, error: type[Exception], call: Callable, *args, **kwargs):
        """Have an effect between two points."""
        await self.point(f"before {name}", error)
        result = await call(*args, **kwargs)
        await self.point(f"after {name}", error)
        return result


READS = frozenset(
    {"get", "list_domains", "status", "check", "runs_here", "settle", "layers_on", "stored_bytes"}
)


class Faulty:
    """Anything whose async methods are effects. What only reads can't leave anything behind."""

    def __init__(self, inner: object, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str):
        method = getattr(self._inner, name)
        if name in READS or not asyncio.iscoroutinefunction(method):
            return method
        label = f"{type(self._inner).__name__}.{name}"

        async def call(*args, **kwargs):
            return await self._faults.around(label, PermanentError, method, *args, **kwargs)

        return call


class MemoryStorages:
    """The part of `Storages` that steps use, on in-memory drivers; shared ones are the same on both hosts."""

    def __init__(
        self,
        driver_of: Callable[[Disk], MemoryDriver],
        seeds: set[tuple[str, str]],
        faults: Faults,
    ) -> None:
        self._driver_of = driver_of
        self._seeds = seeds
        self._faults = faults

    async def ensure_image(self, disk: Disk) -> None:
        self._driver_of(disk).add_image(disk.image_sha256, 1 << 30)

    async def create_disk(self, disk: Disk) -> None:
        driver = self._driver_of(disk)
        await driver.create_disk(disk.id, disk.size_bytes, disk.image_sha256 or None)

    async def delete_disk(self, disk: Disk, layers) -> None:
        for layer_id in layers:
            await self._driver_of(disk).delete_disk(layer_id)

    def layers(self, disk: Disk) -> Faulty:
        return Faulty(self._driver_of(disk).layers, self._faults)

    async def stored_bytes(self, disk: Disk, layer_id: str) -> int:
        return (await self._driver_of(disk).disk_facts(layer_id)).allocated_bytes

    async def write_seed(self, disk: Disk, vm: VM) -> None:
        self._seeds.add((str(self._driver_of(disk).path), vm.id))

    async def delete_seed(self, disk: Disk) -> None:
        self._seeds.discard((str(self._driver_of(disk).path), disk.vm_id))

    def disk_path(self, disk: Disk) -> Path:
        return self._driver_of(disk).disk_path(disk.top_layer_id)

    def seed_path(self, disk: Disk) -> Path:
        return self._driver_of(disk).seed_path(disk.vm_id)


class MemoryMigration:
    """`MigrationService` and the target's side of it, without a mesh between them."""

    def __init__(self, hypervisor: InMemoryHypervisor, target: HostWorld) -> None:
        self._hypervisor, self._target = hypervisor, target

    async def prepare(self, vm: VM, target: Host) -> None:
        del target
        await self._target.hypervisor.destroy(vm.id)
        await self._target.guard.grant(
            vm.id, generation=vm.generation, lease_bound=True, applied_index=vm.revision
        )

    async def release(self, vm_id: str, target: Host) -> None:
        del target
        await self._target.hypervisor.destroy(vm_id)
        await self._target.guard.revoke(vm_id)

    async def move(self, vm: VM, target: Host) -> None:
        if await self._hypervisor.get(vm.id) is None:
            if await self.settle(vm, target):
                return
            raise ConflictError(f"VM {vm.name!r} runs neither here nor there")
        order = MigrationOrder(target_uri="h2", migrate_uri="h2", timeout_s=1800.0)
        await self._hypervisor.migrate(vm.id, order)

    async def abort(self, vm_id: str) -> None:
        await self._hypervisor.abort_migration(vm_id)

    async def end(self, vm_id: str) -> None:
        while await self._hypervisor.abort_migration(vm_id):
            await asyncio.sleep(0.2)

    async def settle(self, vm: VM, target: Host) -> bool:
        del target
        there = await self._target.hypervisor.get(vm.id)
        here = await self._hypervisor.get(vm.id)
        return here is None and there is not None and there.status is DomainStatus.RUNNING


class HostWorld:
    """One host: what its agent works with."""

    def __init__(self, world: World, host_id: str, name: str, targets) -> None:
        self.world, self.host_id, self.name = world, host_id, name
        self.hypervisor = InMemoryHypervisor(
            host_name=name, targets=targets, migration_s=world.migration_s
        )
        self.guard = FakeGuard()
        self.driver = InMemoryNetwork()
        member = world.member
        self.network = NetworkController(member.store, host_id, self.driver, member.clock)
        self.disks: dict[str, MemoryDriver] = {}

    def node(self, faults: Faults):
        """Return the node of an agent of this host that goes by these faults."""
        return dataclasses.replace(
            self.world.member.node_of(self.host_id, self.name),
            hypervisor=Faulty(self.hypervisor, faults),
            guard=Faulty(self.guard, faults),
        )

    def storages(self, faults: Faults) -> MemoryStorages:
        return MemoryStorages(self.driver_of, self.world.seeds, faults)

    def driver_of(self, disk: Disk) -> MemoryDriver:
        drivers = self.disks if disk.host_id else self.world.shared_disks
        path = f"/{self.name if disk.host_id else 'shared'}"
        return drivers.setdefault(disk.data_storage_id, MemoryDriver(disk.data_storage_id, path))

    def power(self, faults: Faults) -> VmPower:
        return VmPower(
            self.node(faults),
            self.storages(faults),
            self.network,
            accelerator=Accelerator.TCG,
            cache=DiskCache.NONE,
        )

    def runner(self, registry: Registry, faults: Faults, spoil=lambda steps: steps) -> TaskRunner:
        """Return the task runner of a fresh agent; `spoil` may change the steps it runs."""
        node = self.node(faults)
        shop = Workshop(
            node=node,
            power=self.power(faults),
            storages=Faulty(self.storages(faults), faults),
            migration=Faulty(
                MemoryMigration(Faulty(self.hypervisor, faults), self.world.other_than(self)),
                faults,
            ),
        )
        make = StepMaker(shop, registry.steps)

        async def prepare() -> None:
            return

        return TaskRunner(
            node,
            registry.definitions,
            lambda task, names: spoil(make(task, names)),
            prepare=prepare,
        )

    def controller(self) -> VmController:
        faults = Faults()
        node = self.node(faults)
        power, events = self.power(faults), EventLog(node)
        moving_on = MovingOn(node, power, NoOther(), events)
        storage_loss = StorageLoss(node, StorageWatch(node, StorageChecks(_no_driver)), moving_on)
        return VmController(node, power, events, moving_on, storage_loss)


def _no_driver(storage: DataStorage) -> MemoryDriver:
    """Have no way to look at a storage: none of these guests waits for one."""
    raise UnavailableError(f"nobody looks at {storage.name}")


class NoOther:
    """A placer for which no other host has room."""

    def choose(self, vm: VM, disks, **about: object) -> str:
        raise ConflictError(f"no other host can take {vm.name}")


class OnlyHost:
    """A placer that has one host."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id

    def choose(self, vm: VM, disks, *, only: str = "", never: str = "", joined=()) -> str:
        del vm, disks, only, never
        return self.host_id


class World:
    """Both hosts, one store. `faults` belongs to the agent that is alive now."""

    def __init__(self, member: OneMember, *, migration_s: float = 0.0) -> None:
        self.member, self.store = member, member.store
        self.migration_s = migration_s
        self.faults = Faults()
        self.seeds: set[tuple[str, str]] = set()
        self.shown_then: dict[str, frozenset[str]] = {}
        self.shared_disks: dict[str, MemoryDriver] = {}
        targets: dict[str, InMemoryHypervisor] = {}
        self.h1 = HostWorld(self, HOST_ID, "h1", targets)
        self.h2 = HostWorld(self, OTHER_ID, "h2", targets)
        targets["h2"] = self.h2.hypervisor
        self._commit = member.engine.propose

    async def begin(self) -> None:
        """Record what workflows need: two hosts with leases, a shared storage and an image."""
        await self.member.add_host(OTHER_ID, "h2", "192.0.2.2")
        await self.member.renew(OTHER_ID)
        await self.member.add_shared_storage()
        await self.member.add_image()

    def outside(self):
        """Run what is no agent: hypervisors and networks."""
        return running(
            self.h1.hypervisor.run,
            self.h2.hypervisor.run,
            self.h1.network.run,
            self.h2.network.run,
        )

    def other_than(self, host: HostWorld) -> HostWorld:
        return self.h2 if host is self.h1 else self.h1

    def agent(self, host: HostWorld, registry: Registry, spoil=lambda steps: steps):
        """Run an agent's task runner; leaving the context kills it. Its commits go by its faults."""
        faults, commit = self.faults, self._commit

        async def propose(payload: bytes, *, timeout_s: float) -> bytes:
            return await faults.around(
                "a commit", UnavailableError, commit, payload, timeout_s=timeout_s
            )

        self.member.engine.propose = propose
        return running(host.runner(registry, faults, spoil).run)

    def new_agent(self) -> None:
        """Forget the faults: the next agent meets none. What the test itself commits meets none either."""
        self.faults = Faults()
        self.member.engine.propose = self._commit

    def ids(self) -> Ids:
        return Ids(new_id(self.member.rng))

    def write(self, word: str) -> None:
        """Write a word to the VM's disk."""
        self._layers().write(self.disk().top_layer_id, word)

    def shown(self, layer_id: str = "") -> frozenset[str]:
        """Return what a layer of the VM's disk shows, by default what the disk does."""
        return self._layers().shown(layer_id or self.disk().top_layer_id)

    def disk(self) -> Disk:
        """Return the one disk."""
        (disk,) = self.store.all(Disk)
        return disk

    def _layers(self) -> MemoryLayers:
        return self.h1.driver_of(self.disk()).layers

    def snapshots(self) -> SnapshotService:
        return SnapshotService(self.member.node)

    def service(self, target: str = HOST_ID) -> VmService:
        return VmService(self.member.node, OnlyHost(target))

    async def made(self, registry: Registry, *, start: bool, shared: bool) -> VM:
        """Return a whole VM, made by an agent that nothing happens to."""
        task = await self.create(start=start, shared=shared)
        async with self.agent(self.h1, registry):
            await until(lambda: self.task(task.id).state in ENDED)
        assert self.task(task.id).state is TaskState.SUCCEEDED, self.task(task.id).error
        self.new_agent()
        return self.vm()

    async def create(self, *, start: bool, shared: bool) -> Task:
        storage = "shared" if shared else "local"
        body = CreateVM(name="web1", image="debian", start=start, data_storage=storage)
        opened = await self.service().create(body, self.ids())
        return opened.task

    async def cancel(self, task_id: str) -> None:
        """Ask to cancel, as the API does; what the agent does meanwhile does not matter to it."""
        task = self.task(task_id)
        if task.state in ENDED:
            return
        put = replace(task, cancel_requested=True)
        txn = self.store.change(puts=(put,), request_id=new_id(self.member.rng))
        await self._commit(encode_txn(txn), timeout_s=5)

    async def clear(self) -> None:
        """Remove what this story left in the records, and stop listening to them."""
        left = (r for kind in (VM, Disk, Nic, Snapshot, Task) for r in self.store.all(kind))
        await self.store.apply(deletes=left)
        self.member.machine._listeners.clear()
        self.member.machine._change_listeners.clear()

    def task(self, id_: str) -> Task:
        return self.store.need(Task, id_)

    def vm(self) -> VM | None:
        """Return the one VM, if there is one."""
        vms = self.store.all(VM)
        assert len(vms) <= 1
        return vms[0] if vms else None

    async def take_over(self, task_id: str) -> None:
        """Let h1 lose its power for good, and give VM and task to h2 as the rescue of tasks does."""
        self.h1.hypervisor.lose_power()
        self.h1.guard.grants.clear()
        task, vm = self.task(task_id), self.vm()
        puts = [replace(task, runner_host_id=OTHER_ID)]
        if vm is not None:
            puts.append(replace(vm, host_id=OTHER_ID, boot_id="", blocked_reason=""))
        await self.store.apply(puts=puts)

    async def settle(self) -> None:
        """Let the controllers of guests bring what is left to what is wanted, as they do all the time."""
        async with running(self.h1.controller().run, self.h2.controller().run):
            await asyncio.sleep(20)

    # -- the audit

    async def garbage(self) -> list[str]:
        """Return whatever is anywhere and belongs to nothing, one line each; and what is in no steady state."""
        vms = {vm.id: vm for vm in self.store.all(VM)}
        disks = {disk.id: disk for disk in self.store.all(Disk)}
        lines = [
            f"{type(r).__name__} {r.name} of no VM"
            for r in (*disks.values(), *self.store.all(Nic))
            if r.vm_id not in vms
        ]
        for vm in vms.values():
            steady = (VMPhase.RUNNING, VMPhase.STOPPED)
            if vm.phase not in steady or vm.migrating_to_host_id or vm.blocked_reason:
                lines.append(f"VM {vm.name} is {vm.phase}, on its way to {vm.migrating_to_host_id}")
            if vm.power != vm.phase:
                lines.append(f"VM {vm.name} is wanted {vm.power} and is {vm.phase}")
        for host in (self.h1, self.h2):
            lines += await self._garbage_on(host, vms)
        lines += await self._stray_files(disks, vms)
        lines += await self._bad_trees(disks)
        lines += self._stray_claims()
        return lines

    async def _garbage_on(self, host: HostWorld, vms: dict[str, VM]) -> list[str]:
        expected = {
            (vm.id, vm.generation, DomainStatus.RUNNING)
            for vm in vms.values()
            if vm.host_id == host.host_id and vm.phase is VMPhase.RUNNING
        }
        domains = {(d.vm_id, d.generation, d.status) for d in await host.hypervisor.list_domains()}
        grants = {(vm_id, grant.generation) for vm_id, grant in host.guard.grants.items()}
        lines = [f"domain {d} on {host.name}" for d in domains ^ expected]
        lines += [f"grant {g} on {host.name}" for g in grants ^ {e[:2] for e in expected}]
        view = NetworkView(
            hosts=tuple(self.store.all(Host)),
            vms=tuple(self.store.all(VM)),
            nics=tuple(self.store.all(Nic)),
            switches=tuple(self.store.all(DistributedSwitch)),
            port_groups=tuple(self.store.all(PortGroup)),
            security_groups=tuple(self.store.all(SecurityGroup)),
        )
        if host.driver.plans[-1] != desired_network(view, host.host_id):
            lines.append(f"the network of {host.name} is not as the state wants it")
        return lines

    async def _stray_files(self, disks: dict[str, Disk], vms: dict[str, VM]) -> list[str]:
        found, wanted, seeds = set(), set(), set()
        places = {"/shared": self.shared_disks, "/h1": self.h1.disks, "/h2": self.h2.disks}
        for place, drivers in places.items():
            for driver in drivers.values():
                found |= {(place, disk_id) for disk_id in await driver.list_disks()}
        for disk in disks.values():
            host = self.h1 if disk.host_id == HOST_ID else self.h2
            place = str(host.driver_of(disk).path)
            wanted |= {(place, layer) for layer in layers_of(self.store, disk)}
            seeds.add((place, disk.vm_id))
        return [f"disk file {f}" for f in found ^ wanted] + [
            f"seed {s}" for s in self.seeds ^ {s for s in seeds if s[1] in vms}
        ]

    async def _bad_trees(self, disks: dict[str, Disk]) -> list[str]:
        """Return what of the snapshots isn't ready, or lies on something else than the records say."""
        lines = [
            f"snapshot {s.name} is {s.state} of disk {s.disk_id}"
            for s in self.store.all(Snapshot)
            if s.state is not SnapshotState.READY or s.disk_id not in disks
        ]
        for disk in disks.values():
            host = self.h1 if disk.host_id == HOST_ID else self.h2
            driver = host.driver_of(disk)
            layer_of = {s.id: s.layer_id for s in snapshots_of(self.store, disk.id)}
            parent_of = {s.id: s.parent_id for s in snapshots_of(self.store, disk.id)}
            links = [(disk.top_layer_id, disk.current_snapshot_id)]
            links += [(layer_of[id_], parent) for id_, parent in parent_of.items()]
            for layer, parent in links:
                # What was merged before a deletion was undone lies on one further down, and shows the same.
                below = {driver.image_path(disk.image_sha256)}
                at = parent
                while at:
                    below.add(driver.disk_path(layer_of[at]))
                    at = parent_of[at]
                facts = await driver.disk_facts(layer)
                if facts.base_path not in below:
                    lines.append(f"layer {layer} lies on {facts.base_path}, none of {below}")
        return lines

    def _stray_claims(self) -> list[str]:
        rows = self.member.machine._db.execute("SELECT claim, holder FROM claim").fetchall()
        kinds = {"vm": VM, "disk": Disk, "nic": Nic, "snapshot": Snapshot, "task": Task}
        return [
            f"claim {claim} of {holder}"
            for claim, holder in rows
            if (kind := kinds.get(holder.partition("/")[0])) is not None
            and (
                claim.startswith("task.subject/")
                or self.store.get(kind, holder.partition("/")[2]) is None
            )
        ]
