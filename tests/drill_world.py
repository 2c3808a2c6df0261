"""Three hosts with boards and guests in virtual time, for tests of drills: store, failover, fencing and drills are the product's.

What is modelled: hosts that renew while they have power and a network, boot anew when they get power back, and run what
they are given; the mesh between agents; and what a host does to itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from contextlib import asynccontextmanager

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError
from core.model import (
    VM,
    Bmc,
    BmcState,
    DataStorage,
    Drill,
    DrillState,
    Event,
    Host,
    Lease,
    VMPhase,
)
from ha.drills.obstacles import Wish
from ha.health_facts import ClusterFacts, GuardSeen, HostFacts, HostReport, PeerSeen, StorageSeen
from ha.lease import LeaseJudge, Renewal
from ha.profile import PROFILES
from nodeagent.drills.drills import Drills
from nodeagent.drills.memory_faults import MemoryFaults
from nodeagent.drills.power_loss import PowerLossWatch
from nodeagent.drills.runner import DrillRunner
from nodeagent.drills.target import BEGIN_PATH, READY_PATH, DrillTarget
from nodeagent.node import Node
from nodeagent.power.driver import Board
from nodeagent.power.memory import MemoryPower
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.event_log import EventLog
from nodeagent.services.fencing import Fencing
from nodeagent.services.ha_controller import HaController
from nodeagent.services.lease_relay import LeaseRelay
from nodeagent.services.self_look import HEALTH_PATH, PING_PATH, Pong
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    THIRD_ID,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)

IDS = {"h1": HOST_ID, "h2": OTHER_ID, "h3": THIRD_ID}
ADDRESSES = {HOST_ID: "10.9.0.1", OTHER_ID: "10.9.0.2", THIRD_ID: "10.9.0.3"}
RUNS = {"phase": VMPhase.RUNNING, "boot_id": "boot", "generation": 4}
AGENT_RESTARTS_S = 2.0


class Mesh:
    """The agents' mesh: reaches hosts that have power, a network, and an agent."""

    def __init__(self, world: DrillWorld, caller: str) -> None:
        self._world, self._caller = world, caller

    async def call(self, host, path, body, answer, *, timeout_s=0.0):
        del answer
        await asyncio.sleep(0.002)
        if not self._world.answers(host.id):
            await asyncio.sleep(timeout_s)
            raise UnavailableError(f"host {host.name} does not answer")
        if host.id in self._world.without_drills and path != PING_PATH:
            raise PlatformError("404: Not Found")
        target = self._world.targets[host.id]
        match path:
            case _ if path == PING_PATH:
                return Pong(wall_ms=0)
            case _ if path == HEALTH_PATH:
                return self._world.report_of(host.id)
            case _ if path == READY_PATH:
                return await target.ready(body)
            case _ if path == BEGIN_PATH:
                begun = await target.begin(self._caller, body)
                if self._world.lose_answers:
                    raise UnavailableError("the answer was lost")
                return begun
        raise AssertionError(f"nobody calls {path} here")


class HostFaults(MemoryFaults):
    """What a host's faults do to it in this world."""

    def __init__(self, world: DrillWorld, host_id: str) -> None:
        super().__init__()
        self._world, self._host_id = world, host_id

    def kill_agent(self) -> None:
        super().kill_agent()
        self._world.agent_back_s[self._host_id] = self._world.now_s() + AGENT_RESTARTS_S

    def kill_guard(self) -> None:
        super().kill_guard()
        self._world.power.on[ADDRESSES[self._host_id]] = False  # what its watchdog does

    async def cut(self, addresses, duration_s: int) -> None:
        await super().cut(addresses, duration_s)
        end_s = self._world.now_s() + duration_s
        if set(addresses) <= set(self.servers.values()):
            self._world.cut_from_server_until_s = end_s
        else:
            self._world.cut_until_s[self._host_id] = end_s

    async def heal(self) -> None:
        await super().heal()
        if self._world.answers(self._host_id):
            self._world.cut_until_s.pop(self._host_id, None)


class DrillWorld:
    """h1 leads and observes unless it is the target; its agent can crash and start again."""

    def __init__(self, member: OneMember) -> None:
        self.member, self.store = member, member.store
        self.judge = LeaseJudge(member.clock)
        self.leases = LeaseRelay(member.node, self.judge)
        self.power = MemoryPower(on=dict.fromkeys(ADDRESSES.values(), True))
        self.events = EventLog(member.node)
        self.profile = PROFILES["default"]
        self.boots = dict.fromkeys(ADDRESSES, "boot")
        self.seq = itertools.count(1)
        self.cut_until_s: dict[str, float] = {}
        self.agent_back_s: dict[str, float] = {}
        self.silent: set[str] = set()
        self.without_drills: set[str] = set()
        self.cut_from_server_until_s = 0.0
        self.lose_answers = False
        self.starts_s = 0.3
        self.in_maintenance_after_looks = 1_000_000
        self.nodes = {id_: self._node(id_, name) for name, id_ in IDS.items()}
        self.faults = {id_: HostFaults(self, id_) for id_ in ADDRESSES}
        self.targets = {id_: DrillTarget(self.nodes[id_], self.faults[id_]) for id_ in ADDRESSES}
        self.bmcs = Bmcs(member.node, self.leases, self.power, lambda: member.secrets_key)
        self.drills = Drills(self.nodes[HOST_ID], self)
        member.machine.on_applied(self._note)

    def _node(self, host_id: str, name: str) -> Node:
        return replace_mesh(self.member.node_of(host_id, name), Mesh(self, host_id))

    def runner(self, host_id: str = HOST_ID) -> DrillRunner:
        """Return a drill runner as a freshly started agent of a host has it."""
        node = self.nodes[host_id]
        return DrillRunner(node, Drills(node, self), self.leases, self.bmcs, self.events)

    def power_loss_watch(self) -> PowerLossWatch:
        """Return the leader's watch of full power losses, as a freshly started agent has it."""
        return PowerLossWatch(self.nodes[HOST_ID], self.drills, self.events)

    def now_s(self) -> float:
        return self.member.clock.monotonic_s()

    def has_network(self, host_id: str) -> bool:
        cut = self.now_s() < self.cut_until_s.get(host_id, 0.0)
        return self.power.on[ADDRESSES[host_id]] and not cut and host_id not in self.silent

    def answers(self, host_id: str) -> bool:
        return self.has_network(host_id) and self.now_s() >= self.agent_back_s.get(host_id, 0.0)

    def report_of(self, host_id: str) -> HostReport:
        """What a host says of itself over the mesh: whether the server of its storage can be reached."""
        usable = self.now_s() >= self.cut_from_server_until_s
        storages = tuple(
            StorageSeen(storage_id=s.id, name=s.name, usable=usable)
            for s in self.store.all(DataStorage)
        )
        assert host_id == OTHER_ID, "only the target is asked"
        return HostReport(
            applied=9, committed=9, term=1, generation=1, leads=False, storages=storages
        )

    async def facts(self) -> ClusterFacts:
        """Gather what the health service would."""
        hosts = []
        self.in_maintenance_after_looks -= 1
        for host in sorted(self.store.all(Host), key=lambda host: host.name):
            peers = tuple(
                PeerSeen(host_id=id_, round_trip_ms=1.0, clock_offset_ms=0.0, gossip="alive")
                for id_ in ADDRESSES
                if id_ != host.id and self.answers(id_)
            )
            guard = GuardSeen(
                answers=True, phase="held", lease_valid=True, watchdog="device", armed=True
            )
            report = HostReport(
                applied=9,
                committed=9,
                term=1,
                generation=1,
                leads=host.id == HOST_ID,
                peers=peers,
                guard=guard,
            )
            age_s = self.leases.age_s(host.id)
            hosts.append(
                HostFacts(
                    id=host.id,
                    name=host.name,
                    votes=True,
                    lease_age_s=age_s,
                    lease_fresh=age_s < 6,
                    maintenance=host.name == "h3" and self.in_maintenance_after_looks < 0,
                    report=report if self.answers(host.id) else None,
                    silent_why="" if self.answers(host.id) else "no answer",
                )
            )
        return ClusterFacts(
            cluster_name="test",
            asked_id=HOST_ID,
            index=9,
            leader_id=HOST_ID,
            voter_ids=tuple(ADDRESSES),
            hosts=tuple(hosts),
        )

    @asynccontextmanager
    async def living(self):
        """Let the world go on for the length of the context, without anybody who conducts drills."""
        loops = (
            HaController(self.member.node, self.judge, self.events).run,
            Fencing(self.member.node, self.bmcs, self.events).run,
            self.leases.run,
            self._keep_renewing,
            self._keep_running_guests,
            self._boot,
            *(target.run for target in self.targets.values()),
        )
        async with running(*loops):
            await asyncio.sleep(6)  # a leader younger than that takes no power away
            yield

    async def begin(
        self, kind, host: str = "h2", duration_s: int = 0, data_storage_id: str = ""
    ) -> Drill:
        """Ask for a drill, as the API does."""
        wish = Wish(kind, IDS[host] if host else "", duration_s, data_storage_id)
        confirm = host or self.member.mesh().name
        return await self.drills.start(
            wish, confirm=confirm, id_=self.drills.new_id(), request_id=f"r{next(self.seq)}"
        )

    async def ended(self, drill: Drill, deadline_s: float = 400.0) -> Drill:
        """Wait for the end of a drill and return it."""
        await until(lambda: self.drill(drill).state is DrillState.ENDED, deadline_s)
        return self.drill(drill)

    def drill(self, drill: Drill) -> Drill:
        return self.store.need(Drill, drill.id)

    def codes(self, drill: Drill) -> list[str]:
        """Return what is in a drill's timeline, without ids."""
        return [event.code.partition("/")[0] for event in self.drill(drill).events]

    def nothing_is_broken(self) -> bool:
        """Tell whether every host has power and no cut."""
        return all(self.has_network(id_) for id_ in ADDRESSES)

    def alarms(self) -> list[str]:
        return [
            event.message for event in self.store.since(Event, 0) if event.code == "drill-ended"
        ]

    def _note(self, index, keys) -> None:
        del index
        for key in keys:
            kind, _, host_id = key.partition("/")
            if kind == "lease":
                self.judge.applied(self.store.need(Lease, host_id))

    async def _keep_renewing(self) -> None:
        while True:
            for host_id in ADDRESSES:
                if not self.has_network(host_id):
                    continue
                renewal = Renewal(
                    host_id=host_id,
                    boot_id=self.boots[host_id],
                    seq=next(self.seq),
                    watchdog_armed=True,
                    guests=1,
                )
                try:
                    await self.leases.renew(renewal)
                except (ConflictError, UnavailableError):
                    continue  # refused
            await asyncio.sleep(0.2)

    async def _keep_running_guests(self) -> None:
        """Start what was given to a host, and what it ran before it booted."""
        while True:
            await asyncio.sleep(self.starts_s)
            for vm in self.store.all(VM):
                lease = self.store.get(Lease, vm.host_id)
                if lease is None or not self.has_network(vm.host_id):
                    continue
                given = vm.phase is VMPhase.STARTING
                if given or vm.boot_id != lease.boot_id:
                    generation = vm.generation if given else vm.generation + 1
                    runs = replace(
                        vm, phase=VMPhase.RUNNING, boot_id=lease.boot_id, generation=generation
                    )
                    await self.store.apply(puts=(runs,))

    async def _boot(self) -> None:
        """Give hosts that were off another boot when they have power again."""
        off: set[str] = set()
        while True:
            await asyncio.sleep(0.05)
            for host_id, address in ADDRESSES.items():
                if not self.power.on[address]:
                    off.add(host_id)
                elif host_id in off:
                    off.discard(host_id)
                    self.boots[host_id] = f"boot-{next(self.seq)}"
                    await asyncio.sleep(3.5)


def replace_mesh(node: Node, mesh: Mesh) -> Node:
    """Return the node with another mesh."""
    return dataclasses.replace(node, mesh=mesh)


def drill_test(test):
    """Run a test in a world of three hosts with boards that are relied on, in virtual time."""

    def wrapper() -> None:
        async def main() -> None:
            world = DrillWorld(await founded(clock=LoopClock()))
            for name, id_ in list(IDS.items())[1:]:
                await world.member.add_host(id_, name, f"192.0.2.{name[1]}")
            async with world.living():
                for id_, address in ADDRESSES.items():
                    board = Board(address, 623, "kvorum", "secret", 17)
                    await world.bmcs.put(world.store.need(Host, id_), board)
                assert all(b.state is BmcState.OK for b in world.store.all(Bmc))
                await test(world)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper
