"""A cluster of one agent in memory, for tests of the services above the store.

Real store, machine, workflows and services; hypervisor, network, guard, consensus and time are the in-memory ones.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from core.clock import Clock, new_id
from core.errors import ConflictError, UnavailableError
from core.identity.certificates import KeyPair, make_authority
from core.identity.sealing import make_key
from core.model import (
    VM,
    DataStorage,
    DataStorageKind,
    Disk,
    Host,
    Image,
    ImageState,
    ImageStorage,
    Lease,
    Mesh,
    Nic,
    PortGroup,
    PowerState,
    SecurityGroup,
    VMPhase,
)
from core.paths import Paths
from core.work_queue import WorkQueues
from ha.guard_client import GuardGrant, GuardStatus, GuardWatchdog
from netfabric.names import make_mac
from nodeagent.compute.memory_hypervisor import InMemoryHypervisor
from nodeagent.joining.founding import founding_resources
from nodeagent.node import Node
from nodeagent.services.work_kinds import Limits
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.single import SingleNodeEngine
from raftstate.state.machine import Machine
from raftstate.store import Store
from tests.sim.loop import SimLoop

HOST_ID = "11111111-1111-4111-8111-111111111111"
OTHER_ID = "22222222-2222-4222-8222-222222222222"
THIRD_ID = "33333333-3333-4333-8333-333333333333"
ADMIN_TOKEN = "kvt_admin-secret-of-tests"
NOW_MS = 1_790_000_000_000

_authority: list[KeyPair] = []


def authority() -> KeyPair:
    """Return one certificate authority for all tests of a run: making keys takes time."""
    if not _authority:
        _authority.append(make_authority("test", now_ms=NOW_MS))
    return _authority[0]


@dataclass
class ManualClock:
    """Time that passes when a test says so."""

    now_s: float = 1000.0
    wall: int = NOW_MS

    def monotonic_s(self) -> float:
        return self.now_s

    def boottime_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return self.wall

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        self.wall += int(seconds * 1000)


class LoopClock:
    """The event loop's time, for tests in virtual time."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def boottime_s(self) -> float:
        return self.monotonic_s()

    def wall_ms(self) -> int:
        return NOW_MS + int(self.monotonic_s() * 1000)


def in_virtual_time(main: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run a test's coroutine on a loop whose time jumps: hours take milliseconds."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


async def until(condition: Callable[[], object], deadline_s: float = 60.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*runs: Callable[[], Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """Run services for the length of the context; leaving it is their crash."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(), name="service-of-a-test") for run in runs]
        await asyncio.sleep(0.001)  # let them begin
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@dataclass
class FakeGuard:
    """A guard that writes into `told` what it is asked, and refuses what a test wants refused."""

    told: list[str] = field(default_factory=list)
    grants: dict[str, GuardGrant] = field(default_factory=dict)
    boot_id: str = "boot-1"
    refuse_grant: str = ""
    refuse_check: str = ""
    on_grant: Callable[[], None] = lambda: None

    async def status(self) -> GuardStatus:
        return GuardStatus(
            host_id=HOST_ID,
            boot_id=self.boot_id,
            phase="held",
            lease_valid=True,
            remaining_s=10.0,
            first_index=1,
            renewed_index=1,
            seq=1,
            watchdog=GuardWatchdog(kind="socket", armed=True),
            grants=self.grants,
            running=(),
            kills=0,
            last_kill_boottime_s=None,
            stopping=False,
        )

    async def grant(
        self, vm_id: str, *, generation: int, lease_bound: bool, applied_index: int
    ) -> None:
        self.told.append(f"grant {generation} at {applied_index}")
        self.on_grant()
        if self.refuse_grant:
            raise ConflictError("the guard refuses: no lease", code=self.refuse_grant)
        self.grants[vm_id] = GuardGrant(generation=generation, lease_bound=lease_bound)

    async def revoke(self, vm_id: str) -> None:
        self.told.append("revoke")
        self.grants.pop(vm_id, None)

    async def check(self, vm_id: str, *, generation: int | None = None) -> GuardGrant:
        self.told.append(f"check {generation}")
        grant = self.grants.get(vm_id)
        if self.refuse_check or grant is None or grant.generation != generation:
            raise ConflictError("the guard refuses", code=self.refuse_check or "guard-not-granted")
        return grant


class NoGossip:
    """A membership that knows nobody."""

    members: dict[str, object] = {}
    version = 0


class NoMesh:
    """A mesh on which nobody answers."""

    async def call(self, host: Host, path: str, body, answer, *, timeout_s: float = 0) -> None:
        del path, body, answer, timeout_s
        raise UnavailableError(f"host {host.name} does not answer: no test has a mesh")


class OneMember:
    """Machine, engine, store and node of host `h1`, founded; further hosts are records only."""

    def __init__(
        self, *, seed: int = 1, machine: Machine | None = None, clock: Clock | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = clock or ManualClock()
        self.machine = machine or Machine(":memory:")
        self.engine = SingleNodeEngine(self.machine, peer=Peer(NodeId(HOST_ID), "192.0.2.1:7444"))
        self.store = Store(self.machine, self.engine, clock=self.clock, rng=self.rng)
        self.hypervisor = InMemoryHypervisor(host_name="h1")
        self.guard = FakeGuard()
        self.secrets_key = make_key()
        self.node = self.node_of(HOST_ID, "h1")

    def node_of(self, host_id: str, host_name: str) -> Node:
        """Return a node of any host on this same store."""
        return Node(
            host_id=host_id,
            host_name=host_name,
            paths=Paths(etc=Path("/nowhere"), state=Path("/nowhere"), run=Path("/nowhere")),
            clock=self.clock,
            rng=self.rng,
            store=self.store,
            engine=self.engine,
            mesh=NoMesh(),
            guard=self.guard,
            hypervisor=self.hypervisor,
            membership=NoGossip(),
            queues=WorkQueues(Limits().by_kind(), self.clock),
        )

    async def found(self) -> None:
        """Commit what a new cluster consists of, and this host's lease."""
        host = Host(
            id=HOST_ID,
            name="h1",
            cluster_id=new_id(self.rng),
            address="192.0.2.1",
            cpus=8,
            memory_mib=16384,
        )
        await self.store.apply(
            puts=founding_resources(
                cluster_name="test",
                host=host,
                authority=authority(),
                gossip_key=bytes(32),
                secrets_key=self.secrets_key,
                admin_token=ADMIN_TOKEN,
                now_ms=self.clock.wall_ms(),
                rng=self.rng,
            )
        )
        await self.renew(HOST_ID)

    async def add_host(self, host_id: str, name: str, address: str, **fields) -> Host:
        """Record another host."""
        cluster_id = self.store.need(Host, HOST_ID).cluster_id
        host = Host(
            id=host_id,
            name=name,
            cluster_id=cluster_id,
            address=address,
            cpus=8,
            memory_mib=16384,
            **fields,
        )
        await self.store.apply(puts=(host,))
        return self.store.need(Host, host_id)

    async def renew(self, host_id: str, *, boot_id: str = "boot-1", armed: bool = True) -> Lease:
        """Commit a renewal of a host's lease."""
        before = self.store.get(Lease, host_id)
        lease = Lease(
            id=host_id,
            name=host_id,
            boot_id=boot_id,
            seq=before.seq + 1 if before else 1,
            watchdog_armed=armed,
            revision=before.revision if before else 0,
        )
        await self.store.apply(puts=(lease,))
        return self.store.need(Lease, host_id)

    async def add_shared_storage(self, name: str = "shared") -> DataStorage:
        """Record a shared data storage."""
        center = self.store.all(DataStorage)[0].data_center_id
        storage = DataStorage(
            id=new_id(self.rng),
            name=name,
            data_center_id=center,
            kind=DataStorageKind.SHARED,
            path="/srv/shared",
        )
        await self.store.apply(puts=(storage,))
        return self.store.need(DataStorage, storage.id)

    async def add_image(self, name: str = "debian", **fields) -> Image:
        """Record an image, ready unless told otherwise."""
        ready = {
            "state": ImageState.READY,
            "sha256": "ab" * 32,
            "size_bytes": 1 << 20,
            "virtual_size_bytes": 1 << 30,
            "host_ids": (HOST_ID,),
        }
        image = Image(
            id=new_id(self.rng),
            name=name,
            image_storage_id=self.store.all(ImageStorage)[0].id,
            **(ready | fields),
        )
        await self.store.apply(puts=(image,))
        return self.store.need(Image, image.id)

    async def add_vm(
        self, name: str = "web1", *, shared: bool = True, host_id: str = HOST_ID, **fields
    ) -> VM:
        """Record a VM with one disk and one NIC, wanted running and stopped until now unless told otherwise."""
        storages = self.store.all(DataStorage)
        kind = DataStorageKind.SHARED if shared else DataStorageKind.LOCAL
        storage = next((s for s in storages if s.kind is kind), None)
        storage = storage or await self.add_shared_storage()
        group = self.store.find(PortGroup, "default")
        wanted = {
            "power": PowerState.RUNNING,
            "phase": VMPhase.STOPPED,
            "cpus": 1,
            "memory_mib": 512,
        }
        vm = VM(
            id=new_id(self.rng),
            name=name,
            cluster_id=self.store.need(Host, HOST_ID).cluster_id,
            host_id=host_id,
            **(wanted | fields),
        )
        disk = Disk(
            id=new_id(self.rng),
            name=f"{name}.0",
            vm_id=vm.id,
            data_storage_id=storage.id,
            size_bytes=1 << 30,
            host_id="" if shared else host_id,
        )
        number = len(self.store.all(Nic)) + 1
        nic = Nic(
            id=new_id(self.rng),
            name=f"{name}.0",
            vm_id=vm.id,
            port_group_id=group.id,
            mac=make_mac(self.rng),
            ip=f"10.100.1.{number}",
            security_group_ids=(self.store.find(SecurityGroup, "default").id,),
        )
        await self.store.apply(puts=(vm, disk, nic))
        return self.vm(vm.id)

    async def change_vm(self, vm_id: str, **fields) -> VM:
        """Commit a change of a VM."""
        await self.store.apply(puts=(replace(self.vm(vm_id), **fields),))
        return self.vm(vm_id)

    def vm(self, vm_id: str) -> VM:
        """Return a VM as it stands."""
        return self.store.need(VM, vm_id)

    def mesh(self) -> Mesh:
        """Return the mesh's record."""
        return self.store.all(Mesh)[0]


async def founded(**options) -> OneMember:
    """Return a founded cluster of one."""
    member = OneMember(**options)
    await member.found()
    return member
