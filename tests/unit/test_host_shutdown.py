"""An orderly shutdown of a host: who goes, who waits, for how long, and that only a shutdown does it."""

import asyncio
import dataclasses
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import InvalidError, UnavailableError
from core.model import (
    VM,
    Cluster,
    Event,
    Host,
    Lease,
    PowerState,
    ShutdownPolicy,
    Task,
    TaskState,
    VMPhase,
)
from ha.lease import LeaseJudge
from ha.shutdown import Going, policy_for
from nodeagent.api.app import serve_unix
from nodeagent.services.evacuation import Evacuation
from nodeagent.services.event_log import EventLog
from nodeagent.services.ha_controller import HaController
from nodeagent.services.host_shutdown import GIVEN_UP_S, MIGRATE_S_MAX, HostShutdown, Outcome
from nodeagent.services.placing import Placing
from nodeagent.services.vm_service import VmService
from nodeagent.shutdown_hook import going_by, tell_agent
from tests.api import ADMIN, FakeAgent, app_of
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

SAFE_S = 19.0


class Power:
    """Guests of h2, the host that goes down; `stubborn` ones don't obey. Writes down what is done."""

    def __init__(self, store) -> None:
        self.store = store
        self.closing = False
        self.told: list[str] = []
        self.stubborn: set[str] = set()
        self.owner_at_destroy: dict[str, str] = {}

    def is_starting(self) -> bool:
        return False

    async def shut_down(self, vm_id: str, *, timeout_s: float) -> bool:
        name = self.store.need(VM, vm_id).name
        self.told.append(f"shut down {name}")
        if name in self.stubborn:
            await asyncio.sleep(timeout_s)
            return False
        return True

    async def destroy(self, vm_id: str) -> None:
        vm = self.store.need(VM, vm_id)
        self.owner_at_destroy[vm.name] = vm.host_id
        self.told.append(f"destroy {vm.name}")


class World:
    """Three hosts; h1 leads, h2 goes down. All renew but those in `off`."""

    def __init__(self, member: OneMember) -> None:
        self.member, self.store = member, member.store
        self.judge = LeaseJudge(member.clock)
        self.off: set[str] = set()
        self.boots = dict.fromkeys((HOST_ID, OTHER_ID, THIRD_ID), "boot-1")
        member.machine.on_applied(self._note)
        self.node = member.node_of(OTHER_ID, "h2")
        self.power = Power(member.store)
        self.events = EventLog(self.node)
        self.placing = Placing(self.node, self.judge)
        self.shutdown = self.agent()

    def _note(self, index, keys) -> None:
        del index
        for key in keys:
            kind, _, host_id = key.partition("/")
            if kind == "lease":
                self.judge.applied(self.store.need(Lease, host_id))

    def agent(self) -> HostShutdown:
        self.shutdown = HostShutdown(self.node, self.power, self.placing, self.judge, self.events)
        return self.shutdown

    async def begin(self, policy: ShutdownPolicy = ShutdownPolicy.CONDITIONAL) -> None:
        await self.member.add_host(OTHER_ID, "h2", "192.0.2.2")
        await self.member.add_host(THIRD_ID, "h3", "192.0.2.3")
        (cluster,) = self.store.all(Cluster)
        await self.store.apply(puts=(replace(cluster, shutdown_policy=policy),))
        for host_id in self.boots:
            await self.member.renew(host_id)

    async def keep_renewing(self) -> None:
        while True:
            for host_id in sorted(self.boots.keys() - self.off):
                await self.member.renew(host_id, boot_id=self.boots[host_id])
            await asyncio.sleep(1)

    async def failover(self) -> None:
        await HaController(self.member.node, self.judge, EventLog(self.member.node)).run()

    async def evacuation(self) -> None:
        vms = VmService(self.member.node, self.placing)
        await Evacuation(self.member.node, self.judge, vms, self.events).run()

    async def add(self, name: str, **fields) -> VM:
        wanted = {
            "host_id": OTHER_ID,
            "phase": VMPhase.RUNNING,
            "generation": 3,
            "boot_id": "boot-1",
        }
        return await self.member.add_vm(name, **(wanted | fields))

    def vm(self, name: str) -> VM:
        return self.store.find(VM, name)

    @property
    def host(self) -> Host:
        return self.store.need(Host, OTHER_ID)

    def codes(self) -> list[str]:
        return [event.code for event in self.store.all(Event)]


def in_world(policy: ShutdownPolicy = ShutdownPolicy.CONDITIONAL):
    """Make a test of a coroutine that takes a world, played in virtual time with renewals and failover."""

    def wrap(story):
        def test() -> None:
            async def main() -> None:
                world = World(await founded(clock=LoopClock()))
                await world.begin(policy)
                async with running(world.keep_renewing, world.failover, world.evacuation):
                    await asyncio.sleep(6)
                    await story(world)

            in_virtual_time(main)

        test.__doc__, test.__name__ = story.__doc__, story.__name__
        return test

    return wrap


@pytest.mark.parametrize(
    ("cluster", "host", "going", "policy"),
    [
        ("conditional", "cluster", Going.REBOOT, "freeze"),
        ("conditional", "cluster", Going.POWER_OFF, "failover"),
        ("migrate", "cluster", Going.REBOOT, "migrate"),
        ("migrate", "freeze", Going.POWER_OFF, "freeze"),
        ("freeze", "conditional", Going.POWER_OFF, "failover"),
        ("failover", "conditional", Going.REBOOT, "freeze"),
    ],
)
def test_the_host_goes_before_its_cluster(cluster, host, going, policy):
    of_cluster = Cluster(
        id="c", name="c", data_center_id="d", shutdown_policy=ShutdownPolicy(cluster)
    )
    of_host = Host(
        id="h", name="h", cluster_id="c", address="h", shutdown_policy=ShutdownPolicy(host)
    )
    assert policy_for(of_cluster, of_host, going) == policy


def test_a_cluster_can_not_say_as_its_cluster_says():
    with pytest.raises(InvalidError):
        Cluster(
            id="c", name="c", data_center_id="d", shutdown_policy=ShutdownPolicy.CLUSTER
        ).check()


@pytest.mark.parametrize(
    ("jobs", "going"),
    [
        ("12 reboot.target start waiting\n13 kvorum-agent.service stop waiting\n", Going.REBOOT),
        ("12 kexec.target start waiting\n", Going.REBOOT),
        ("4 poweroff.target start waiting\n5 shutdown.target start waiting\n", Going.POWER_OFF),
        ("4 halt.target start waiting\n", Going.POWER_OFF),
        ("7 kvorum-host-shutdown.service stop running\n", None),
        ("7 kvorum-agent.service restart running\n", None),
        ("8 reboot.target stop waiting\n", None),
        ("No jobs running.\n", None),
        ("", None),
    ],
)
def test_only_a_reboot_or_a_power_off_is_a_shutdown(jobs, going):
    assert going_by(jobs) == going


@in_world()
async def test_a_power_off_hands_vms_over_at_once(world):
    """Nobody waits for T_safe: the host says itself that nothing runs."""
    await world.add("web")
    await world.add("db")
    done = await world.shutdown.shut_down(Going.POWER_OFF)
    assert (done.policy, done.given, done.waiting, done.left) == (
        "failover",
        ("db", "web"),
        (),
        (),
    )
    for name in ("web", "db"):
        vm = world.vm(name)
        assert vm.host_id != OTHER_ID
        assert (vm.phase, vm.generation, vm.boot_id) == (VMPhase.STARTING, 4, "")
        assert world.power.owner_at_destroy[name] == OTHER_ID, "first gone, then given"
        assert world.power.told.index(f"shut down {name}") < world.power.told.index(
            f"destroy {name}"
        )
    assert world.power.closing
    world.off.add(OTHER_ID)
    await asyncio.sleep(SAFE_S + 5)
    assert "host-lost" not in world.codes()
    assert "host-down" in world.codes()


@in_world()
async def test_a_reboot_lets_vms_wait_for_the_host(world):
    await world.add("web")
    done = await world.shutdown.shut_down(Going.REBOOT)
    assert (done.policy, done.waiting) == ("freeze", ("web",))
    waiting = world.vm("web")
    assert (waiting.host_id, waiting.power, waiting.phase) == (
        OTHER_ID,
        PowerState.RUNNING,
        VMPhase.STOPPED,
    )
    assert waiting.blocked_reason == "h2 is down: it starts when it is back"
    world.off.add(OTHER_ID)
    await asyncio.sleep(300)
    assert world.vm("web").host_id == OTHER_ID, "no failover meanwhile"
    world.off.clear()
    world.boots[OTHER_ID] = "boot-2"
    world.power = Power(world.store)
    world.node.guard.boot_id = "boot-2"
    async with running(world.agent().run):
        await until(lambda: not world.host.frozen, 30)
    assert world.host.down_boot_id == ""
    assert world.vm("web").host_id == OTHER_ID


@in_world()
async def test_a_host_that_is_not_back_in_time_loses_them_with_an_alarm(world):
    await world.add("web")
    await world.shutdown.shut_down(Going.REBOOT)
    world.off.add(OTHER_ID)
    await asyncio.sleep(890)
    assert world.vm("web").host_id == OTHER_ID
    assert "host-not-back" not in world.codes()
    await asyncio.sleep(30)
    assert world.vm("web").host_id != OTHER_ID
    assert world.codes().count("host-not-back") == 1


@in_world(ShutdownPolicy.FREEZE)
async def test_a_host_that_froze_and_came_back_is_recovered_as_any_when_it_dies_then(world):
    await world.add("web")
    await world.shutdown.shut_down(Going.REBOOT)
    world.off.add(OTHER_ID)
    await asyncio.sleep(60)
    world.boots[OTHER_ID] = "boot-2"
    world.off.clear()
    await asyncio.sleep(10)
    assert world.host.frozen, "its agent isn't up yet"
    world.off.add(OTHER_ID)
    await asyncio.sleep(SAFE_S + 5)
    assert world.vm("web").host_id != OTHER_ID


@in_world(ShutdownPolicy.FAILOVER)
async def test_what_nobody_else_can_run_waits_for_the_host(world):
    await world.add("local", shared=False)
    await world.add("huge", memory_mib=15_500)
    await world.add("plain", ha=False)
    await world.add("full", host_id=HOST_ID)
    await world.add("full3", host_id=THIRD_ID)
    done = await world.shutdown.shut_down(Going.REBOOT)
    assert done.waiting == ("huge", "local", "plain")
    for name in done.waiting:
        assert (world.vm(name).host_id, world.vm(name).power) == (OTHER_ID, PowerState.RUNNING)


@in_world(ShutdownPolicy.FAILOVER)
async def test_a_guest_that_does_not_obey_is_ended_all_the_same(world):
    await world.add("stubborn")
    world.power.stubborn.add("stubborn")
    done = await world.shutdown.shut_down(Going.REBOOT)
    assert done.given == ("stubborn",)
    assert world.power.told == ["shut down stubborn", "destroy stubborn"]


@in_world(ShutdownPolicy.FAILOVER)
async def test_what_its_user_stopped_stays_as_it_is(world):
    await world.add("off", power=PowerState.STOPPED, phase=VMPhase.STOPPED)
    await world.add("new", phase=VMPhase.CREATING)
    done = await world.shutdown.shut_down(Going.REBOOT)
    assert done.given == ()
    assert world.vm("off").phase is VMPhase.STOPPED
    assert world.vm("new").phase is VMPhase.CREATING


@in_world(ShutdownPolicy.MIGRATE)
async def test_migrate_empties_the_host_live_and_brings_vms_back(world):
    await world.add("web")
    await world.add("local", shared=False)

    async def moves() -> None:
        """Let migrations succeed."""
        while True:
            await asyncio.sleep(0.5)
            holder = world.store.claim_holder(f"task.subject/vm/{world.vm('web').id}")
            if holder:
                task = world.store.need(Task, holder.removeprefix("task/"))
                moved = replace(world.vm("web"), host_id=task.arguments["target_host_id"])
                ended = replace(task, state=TaskState.SUCCEEDED)
                await world.store.apply(puts=(moved, ended))

    async with running(moves):
        done = await world.shutdown.shut_down(Going.REBOOT)
        assert (done.policy, done.waiting) == ("migrate", ("local",))
        assert "shut down web" not in world.power.told, "it was moved alive"
        assert world.vm("web").host_id != OTHER_ID
        world.off.add(OTHER_ID)
        await asyncio.sleep(60)
        assert world.host.maintenance
        world.off.clear()
        world.boots[OTHER_ID] = world.node.guard.boot_id = "boot-2"
        async with running(world.agent().run):
            await until(lambda: world.vm("web").host_id == OTHER_ID, 60)
    assert not world.host.maintenance


@in_world(ShutdownPolicy.MIGRATE)
async def test_a_maintenance_that_an_operator_began_outlives_the_reboot(world):
    await world.store.apply(puts=(replace(world.host, maintenance=True),))
    await asyncio.sleep(3)
    await world.shutdown.shut_down(Going.REBOOT)
    world.boots[OTHER_ID] = world.node.guard.boot_id = "boot-2"
    await asyncio.sleep(2)
    async with running(world.agent().run):
        await until(lambda: not world.host.down_boot_id, 30)
    assert world.host.maintenance


@in_world(ShutdownPolicy.MIGRATE)
async def test_moves_that_take_too_long_do_not_hold_up_the_shutdown_for_ever(world):
    await world.add("web")
    begun_s = asyncio.get_running_loop().time()
    done = await world.shutdown.shut_down(Going.POWER_OFF)
    assert asyncio.get_running_loop().time() - begun_s < MIGRATE_S_MAX + 60
    assert done.given == ("web",), "its move had not begun"
    (task,) = world.store.all(Task)
    assert (task.state, task.error_code) == (TaskState.FAILED, "host-shutting-down")


@in_world(ShutdownPolicy.FAILOVER)
async def test_a_vm_that_is_being_moved_is_left_to_its_move(world):
    await world.add("web", migrating_to_host_id=THIRD_ID, phase=VMPhase.MIGRATING)
    done = await world.shutdown.shut_down(Going.POWER_OFF)
    assert done.given == ()
    assert world.power.told == []
    assert world.vm("web").host_id == OTHER_ID


@in_world(ShutdownPolicy.FAILOVER)
async def test_without_a_quorum_guests_end_and_nobody_is_given_away(world):
    await world.add("web")
    propose = world.member.engine.propose

    async def fails(payload: bytes, *, timeout_s: float) -> bytes:
        raise UnavailableError("no quorum")

    world.member.engine.propose = fails
    done = await world.shutdown.shut_down(Going.REBOOT)
    world.member.engine.propose = propose
    assert done.left == ("web",)
    assert "destroy web" in world.power.told
    assert world.vm("web").host_id == OTHER_ID


@in_world(ShutdownPolicy.FREEZE)
async def test_a_host_that_is_told_to_go_and_does_not_takes_vms_again(world):
    async with running(world.shutdown.run):
        await world.shutdown.shut_down(Going.REBOOT)
        assert world.power.closing
        await asyncio.sleep(GIVEN_UP_S / 2)
        assert world.power.closing
        await until(lambda: not world.power.closing and not world.host.down_boot_id, GIVEN_UP_S)


@in_world(ShutdownPolicy.FAILOVER)
async def test_it_gets_no_vms_from_the_first_moment(world):
    await world.shutdown.shut_down(Going.REBOOT)
    vm = await world.add("web", host_id=HOST_ID)
    assert world.placing.choose(vm, (), never=HOST_ID) == THIRD_ID


@in_world()
async def test_an_agent_that_restarts_changes_nothing(world):
    await world.add("web")
    before = world.vm("web")
    async with running(world.shutdown.run):
        await asyncio.sleep(5)
    async with running(world.agent().run):
        await asyncio.sleep(5)
    assert world.vm("web") == before
    assert world.power.told == []


@in_world()
async def test_an_agent_that_is_up_before_its_lease_keeps_the_vms_waiting(world):
    """The record is what keeps them here, until the cluster has seen the new boot."""
    await world.add("web")
    await world.shutdown.shut_down(Going.REBOOT)
    world.off.add(OTHER_ID)
    await asyncio.sleep(60)
    world.node.guard.boot_id = "boot-2"
    async with running(world.agent().run):
        await asyncio.sleep(60)
        assert world.host.frozen
        assert world.vm("web").host_id == OTHER_ID
        world.boots[OTHER_ID] = "boot-2"
        world.off.clear()
        await until(lambda: not world.host.frozen, 30)
    assert world.vm("web").host_id == OTHER_ID


async def test_the_hook_tells_the_agent_of_this_host_and_nobody_else_can(tmp_path):
    member = await founded()
    agent = FakeAgent(member)
    asked: list[Going] = []

    class Shutdown:
        async def shut_down(self, going: Going) -> Outcome:
            asked.append(going)
            return Outcome(policy="failover", given=("web",))

    agent.services = dataclasses.replace(agent.services, shutdown=Shutdown())
    runner = web.AppRunner(app_of(member, agent), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await serve_unix(runner, tmp_path / "api.sock")
        said = await tell_agent(str(tmp_path / "api.sock"), Going.POWER_OFF)
    finally:
        await runner.cleanup()
    assert json.loads(said) == {"policy": "failover", "given": ["web"], "waiting": [], "left": []}
    assert asked == [Going.POWER_OFF]
    async with TestClient(TestServer(app_of(member, agent)), headers=ADMIN) as client:
        answer = await client.post("/v1/local/shutdown", json={"going": "reboot"})
        assert answer.status == 403
    assert asked == [Going.POWER_OFF]


async def test_hosts_and_clusters_can_be_told_their_policy():
    member = await founded()
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as client:
        refused = await client.patch("/v1/clusters/test", json={"shutdown_policy": "cluster"})
        assert refused.status == 400
        changed = await client.patch("/v1/clusters/test", json={"shutdown_policy": "migrate"})
        assert (await changed.json())["shutdown_policy"] == "migrate"
        changed = await client.patch("/v1/hosts/h1", json={"shutdown_policy": "freeze"})
        assert (await changed.json())["shutdown_policy"] == "freeze"
