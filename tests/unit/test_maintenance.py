"""Emptying a host for maintenance and filling it again: what moves, what is asked first, what survives."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import ConflictError
from core.model import (
    VM,
    Event,
    Host,
    PowerState,
    Task,
    TaskState,
    Unmovable,
    VMPhase,
    VMPriority,
)
from ha.evacuation import NO_ROOM
from nodeagent.api.requests import Ids
from nodeagent.compute.hypervisor import DomainState, DomainStatus
from nodeagent.services.evacuation import AT_ONCE, BACK_S_MAX, NO_ROOM_S, Evacuation
from nodeagent.services.event_log import EventLog
from nodeagent.services.maintenance import UnmovableError, enter, leave, progress
from nodeagent.services.placing import Placing
from nodeagent.services.vm_plan import Action, next_action
from nodeagent.services.vm_requests import MigrateVM, StopVM
from nodeagent.services.vm_service import VmService
from tests.api import ADMIN, app_of
from tests.golden.cli.cases import kvorum
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded
from tests.served_member import served

GIB = 1024


class Ages:
    """How old leases are; hosts in `dead` are silent."""

    def __init__(self) -> None:
        self.dead: set[str] = set()

    def age_s(self, host_id: str) -> float:
        return 600.0 if host_id in self.dead else 0.5


class Mesh:
    """Three hosts; h1 leads, and is the one that is emptied. Tasks do what a test says."""

    def __init__(self, member: OneMember) -> None:
        self.member, self.store, self.clock = member, member.store, member.clock
        self.ages = Ages()
        placing = Placing(member.node, self.ages)
        self.vms = VmService(member.node, placing)
        self.evacuation = self.new_leader()
        self.keys = 0

    def new_leader(self) -> Evacuation:
        node = self.member.node
        self.evacuation = Evacuation(node, self.ages, self.vms, EventLog(node))
        return self.evacuation

    def ids(self) -> Ids:
        self.keys += 1
        return Ids(f"key-{self.keys}")

    @property
    def host(self) -> Host:
        return self.store.need(Host, HOST_ID)

    def vm(self, name: str) -> VM:
        return self.store.find(VM, name)

    def on(self, host_id: str) -> set[str]:
        return {vm.name for vm in self.store.all(VM) if vm.host_id == host_id}

    async def add(self, name: str, **fields) -> VM:
        wanted = {"phase": VMPhase.RUNNING, "memory_mib": GIB} | fields
        return await self.member.add_vm(name, **wanted)

    async def enter(self, unmovable: Unmovable = Unmovable.REFUSE) -> None:
        await enter(self.member.node, self.ages, self.host, unmovable)

    async def leave(self, *, move_back: bool = True) -> None:
        await leave(self.member.node, self.host, move_back=move_back)

    def open_tasks(self) -> dict[str, Task]:
        return {
            task.subject_name: task
            for task in self.store.all(Task)
            if task.state is TaskState.PENDING
        }

    async def end_tasks(self, *, error: str = "") -> list[str]:
        """Let every open task succeed, or fail with an error; return what they did."""
        done = []
        for name, task in sorted(self.open_tasks().items()):
            vm, state = self.vm(name), TaskState.SUCCEEDED
            done.append(f"{task.workflow} {name}")
            if error or task.cancel_requested:
                state = TaskState.FAILED if error else TaskState.CANCELLED
                vm = replace(vm, power=PowerState.RUNNING)
            elif task.workflow == "migrate-vm":
                vm = replace(vm, host_id=task.arguments["target_host_id"])
            else:
                running = task.workflow == "start-vm"
                vm = replace(vm, phase=VMPhase.RUNNING if running else VMPhase.STOPPED)
            await self.store.apply(puts=(vm, replace(task, state=state, error=error)))
        return done

    async def rounds(self, count: int = 20) -> list[str]:
        """Let the leader work and tasks succeed until nothing more happens."""
        done: list[str] = []
        for _ in range(count):
            await self.evacuation.round()
            done += await self.end_tasks()
            self.clock.pass_s(1.0)
        return done

    def events(self, code: str) -> list[str]:
        return [event.message for event in self.store.all(Event) if event.code == code]


@pytest.fixture
async def mesh() -> Mesh:
    member = await founded()
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    await member.add_host(THIRD_ID, "h3", "192.0.2.3")
    return Mesh(member)


async def test_a_host_is_emptied_and_filled_again(mesh):
    for number in range(5):
        await mesh.add(f"vm{number}")
    await mesh.add("of-h2", host_id=OTHER_ID)
    await mesh.enter()
    done = await mesh.rounds()
    assert done == [f"migrate-vm vm{n}" for n in range(5)]
    assert mesh.on(HOST_ID) == set()
    assert mesh.host.maintenance_ready
    assert mesh.events("host-maintenance-ready") == [
        "host h1 is empty: what had to leave it for its maintenance has left"
    ]
    await mesh.leave()
    await mesh.rounds()
    assert mesh.on(HOST_ID) == {f"vm{n}" for n in range(5)}
    assert mesh.on(OTHER_ID) == {"of-h2"}
    assert not any(vm.home_host_id for vm in mesh.store.all(VM))
    assert await mesh.rounds(3) == []


async def test_a_few_move_at_a_time_and_those_of_high_priority_first(mesh):
    for number in range(4):
        await mesh.add(f"low{number}", priority=VMPriority.LOW)
    await mesh.add("z-high", priority=VMPriority.HIGH)
    await mesh.enter()
    await mesh.evacuation.round()
    assert set(mesh.open_tasks()) == {"z-high", "low0"}
    await mesh.evacuation.round()
    assert len(mesh.open_tasks()) == AT_ONCE
    assert not mesh.host.maintenance_ready


async def test_placement_gives_it_no_new_vms(mesh):
    await mesh.enter()
    placing = Placing(mesh.member.node, mesh.ages)
    vm = await mesh.add("new", host_id="", phase=VMPhase.STOPPED)
    with pytest.raises(ConflictError, match="h1: in maintenance"):
        placing.choose(vm, (), only="h1")


async def test_vms_that_cannot_be_moved_are_named_before_anything_is_changed(mesh):
    await mesh.add("local", shared=False)
    await mesh.add("paused", phase=VMPhase.PAUSED, blocked_reason="its storage fails")
    await mesh.add("huge", memory_mib=15 * GIB)
    await mesh.add("full2", host_id=OTHER_ID, memory_mib=4 * GIB)
    await mesh.add("full3", host_id=THIRD_ID, memory_mib=4 * GIB)
    await mesh.add("small")
    digest = mesh.store.digest()
    with pytest.raises(UnmovableError) as refused:
        await mesh.enter()
    assert refused.value.code == "unmovable-vms"
    for words in (
        "local: its disks are on local storage",
        "paused: it is paused: its storage fails",
        f"huge: {NO_ROOM}",
        "--unmovable stop",
    ):
        assert words in refused.value.message
    assert "small" not in refused.value.message
    assert mesh.store.digest() == digest


async def test_stopped_vms_stay_and_are_in_nobodys_way(mesh):
    await mesh.add("off", power=PowerState.STOPPED, phase=VMPhase.STOPPED)
    await mesh.add("off-local", shared=False, power=PowerState.STOPPED, phase=VMPhase.STOPPED)
    await mesh.enter()
    assert await mesh.rounds(3) == []
    assert mesh.host.maintenance_ready
    opened = await mesh.vms.start(mesh.vm("off"), mesh.ids())
    assert opened.vm.host_id == OTHER_ID, "it starts elsewhere"


async def test_unmovable_vms_are_stopped_if_asked_for_and_started_afterwards(mesh):
    await mesh.add("local", shared=False)
    await mesh.add("moves")
    await mesh.enter(Unmovable.STOP)
    assert await mesh.rounds(3) == ["stop-vm local", "migrate-vm moves"]
    local = mesh.vm("local")
    assert (local.power, local.phase, local.host_id) == (
        PowerState.STOPPED,
        VMPhase.STOPPED,
        HOST_ID,
    )
    assert mesh.host.maintenance_ready
    assert next_action(local, None, host_id=HOST_ID, has_task=False) is Action.NOTHING
    await mesh.leave()
    assert sorted(await mesh.rounds(5)) == ["migrate-vm moves", "start-vm local"]
    local = mesh.vm("local")
    assert (local.power, local.phase) == (PowerState.RUNNING, VMPhase.RUNNING)
    assert not local.starts_after_maintenance
    assert await mesh.rounds(3) == []


async def test_a_user_who_stops_such_a_vm_keeps_it_stopped(mesh):
    await mesh.add("local", shared=False)
    await mesh.enter(Unmovable.STOP)
    await mesh.rounds(3)
    assert (await mesh.vms.stop(mesh.vm("local"), StopVM(), mesh.ids())).task is None
    await mesh.leave()
    assert await mesh.rounds(5) == []
    assert mesh.vm("local").power is PowerState.STOPPED


async def test_unmovable_vms_are_kept_if_asked_for(mesh):
    await mesh.add("local", shared=False)
    await mesh.add("moves")
    await mesh.enter(Unmovable.KEEP)
    assert await mesh.rounds(3) == ["migrate-vm moves"]
    assert mesh.on(HOST_ID) == {"local"}
    assert mesh.host.maintenance_ready
    assert mesh.events("host-maintenance-ready") == [
        "host h1 is ready: what had to leave it for its maintenance has left"
    ]


async def test_a_guest_that_dies_in_maintenance_is_still_started_again(mesh):
    """NeverStop holds there too: the host starts it, and it is moved then."""
    vm = await mesh.add("web")
    await mesh.enter()
    assert next_action(vm, None, host_id=HOST_ID, has_task=False) is Action.START
    domain = DomainState(vm_id=vm.id, generation=vm.generation, status=DomainStatus.RUNNING)
    assert next_action(vm, domain, host_id=HOST_ID, has_task=False) is Action.NOTHING


async def test_ending_it_in_the_middle_takes_it_back(mesh):
    for number in range(4):
        await mesh.add(f"vm{number}")
    await mesh.enter()
    await mesh.evacuation.round()
    await mesh.end_tasks()
    mesh.clock.pass_s(1.0)
    await mesh.evacuation.round()
    assert set(mesh.open_tasks()) == {"vm2", "vm3"}
    await mesh.leave()
    await mesh.evacuation.round()
    assert mesh.open_tasks()["vm2"].cancel_requested
    assert mesh.open_tasks()["vm3"].cancel_requested
    await mesh.rounds()
    assert mesh.on(HOST_ID) == {"vm0", "vm1", "vm2", "vm3"}
    assert not any(vm.home_host_id for vm in mesh.store.all(VM))


async def test_a_new_leader_goes_on_where_the_former_was(mesh):
    for number in range(6):
        await mesh.add(f"vm{number}")
    await mesh.enter()
    for _ in range(30):
        mesh.new_leader()  # a new one each second
        await mesh.evacuation.round()
        assert len(mesh.open_tasks()) <= AT_ONCE
        await mesh.end_tasks()
    assert mesh.on(HOST_ID) == set()
    assert len(mesh.events("host-maintenance-ready")) == 1
    await mesh.leave()
    for _ in range(30):
        mesh.new_leader()
        await mesh.evacuation.round()
        await mesh.end_tasks()
    assert mesh.on(HOST_ID) == {f"vm{n}" for n in range(6)}


async def test_a_move_that_fails_is_shown_and_tried_again_later(mesh):
    await mesh.add("web")
    await mesh.enter()
    await mesh.evacuation.round()
    await mesh.end_tasks(error="the network broke")
    await mesh.evacuation.round()
    assert mesh.open_tasks() == {}, "not at once"
    now = progress(mesh.member.node, mesh.host)
    assert [(one.vm.name, one.why) for one in now.staying] == [("web", "the network broke")]
    assert now.left == 1
    assert not mesh.host.maintenance_ready
    mesh.clock.pass_s(6.0)
    assert await mesh.rounds(3) == ["migrate-vm web"]
    assert mesh.host.maintenance_ready


async def test_a_host_that_is_off_is_left_to_failover(mesh):
    await mesh.add("web")
    await mesh.enter()
    mesh.ages.dead.add(HOST_ID)
    assert await mesh.rounds(3) == []
    assert not mesh.host.maintenance_ready
    mesh.ages.dead.clear()
    assert await mesh.rounds(3) == ["migrate-vm web"]


async def test_room_that_goes_while_it_is_emptied_is_waited_for(mesh):
    await mesh.add("web", memory_mib=8 * GIB)
    await mesh.enter()
    mesh.ages.dead |= {OTHER_ID, THIRD_ID}
    assert await mesh.rounds(int(2 * NO_ROOM_S)) == []
    mesh.ages.dead.clear()
    mesh.clock.pass_s(60.0)
    assert await mesh.rounds(3) == ["migrate-vm web"]


async def test_what_finds_no_room_is_stopped_only_when_all_others_are_up_and_full(mesh):
    await mesh.add("web", memory_mib=8 * GIB)
    await mesh.add("full2", host_id=OTHER_ID, memory_mib=12 * GIB)
    await mesh.add("full3", host_id=THIRD_ID, memory_mib=12 * GIB)
    await mesh.enter(Unmovable.STOP)
    mesh.ages.dead.add(THIRD_ID)
    assert await mesh.rounds(int(4 * NO_ROOM_S)) == []
    mesh.ages.dead.clear()
    assert await mesh.rounds(int(NO_ROOM_S) - 2) == []
    assert await mesh.rounds(130) == ["stop-vm web"]
    assert mesh.host.maintenance_ready


async def test_a_vm_that_its_user_moved_meanwhile_stays_there(mesh):
    await mesh.add("web")
    await mesh.enter()
    await mesh.rounds(3)
    away = mesh.vm("web")
    other = THIRD_ID if away.host_id == OTHER_ID else OTHER_ID
    await mesh.vms.migrate(away, MigrateVM(host=other), mesh.ids())
    await mesh.end_tasks()
    await mesh.leave()
    assert await mesh.rounds(5) == []
    assert mesh.vm("web").host_id == other


async def test_vms_stay_away_if_asked_for(mesh):
    await mesh.add("web")
    await mesh.add("local", shared=False)
    await mesh.enter(Unmovable.STOP)
    await mesh.rounds(3)
    await mesh.leave(move_back=False)
    assert await mesh.rounds(5) == ["start-vm local"]
    assert mesh.vm("web").host_id != HOST_ID
    assert not mesh.vm("web").home_host_id


async def test_a_vm_that_cannot_go_back_stays_after_a_while(mesh):
    await mesh.add("web")
    await mesh.enter()
    await mesh.rounds(3)
    await mesh.leave()
    mesh.ages.dead.add(HOST_ID)
    assert await mesh.rounds(5) == []
    assert mesh.vm("web").home_host_id == HOST_ID, "it may still go back"
    mesh.clock.pass_s(BACK_S_MAX)
    await mesh.rounds(3)
    assert mesh.vm("web").home_host_id == ""
    assert mesh.events("vm-stays") == ["VM web stays where it is: it couldn't go back to h1"]


async def test_a_vm_away_goes_home_even_from_a_host_that_is_emptied_next(mesh):
    await mesh.add("web")
    await mesh.enter()
    await mesh.rounds(3)
    second = mesh.vm("web").host_id
    host = mesh.store.need(Host, second)
    await enter(mesh.member.node, mesh.ages, host, Unmovable.REFUSE)
    await mesh.rounds(3)
    assert mesh.vm("web").host_id not in (HOST_ID, second)
    await mesh.leave()
    await mesh.rounds(5)
    assert mesh.on(HOST_ID) == {"web"}


async def test_a_vm_that_is_still_coming_is_waited_for_and_leaves_again(mesh):
    await mesh.enter()
    await mesh.rounds(2)
    assert mesh.host.maintenance_ready
    vm = await mesh.add("late", host_id=OTHER_ID, migrating_to_host_id=HOST_ID)
    await mesh.evacuation.round()
    assert not mesh.host.maintenance_ready
    arrived = replace(mesh.vm("late"), host_id=HOST_ID, migrating_to_host_id="")
    await mesh.store.apply(puts=(arrived,))
    await mesh.rounds(3)
    assert mesh.store.need(VM, vm.id).host_id != HOST_ID
    assert mesh.host.maintenance_ready


async def test_it_can_be_asked_for_again_and_ended_twice(mesh):
    await mesh.add("web")
    await mesh.enter()
    await mesh.enter()
    assert len(mesh.events("host-maintenance-begun")) == 1
    await mesh.leave()
    await mesh.leave()
    assert len(mesh.events("host-maintenance-ended")) == 1


# -- through the API and the command


async def test_the_api_begins_shows_and_ends_it(mesh):
    await mesh.add("web")
    await mesh.add("local", shared=False)
    async with TestClient(TestServer(app_of(mesh.member)), headers=ADMIN) as client:

        async def ask(verb: str, body: dict[str, object]) -> tuple[int, dict]:
            answer = await client.post(f"/v1/hosts/h1/actions/{verb}", json=body)
            return answer.status, await answer.json()

        status, problem = await ask("enter-maintenance", {})
        assert (status, problem["code"]) == (409, "unmovable-vms")
        assert "local: its disks are on local storage" in problem["detail"]
        status, _ = await ask("enter-maintenance", {"unmovable": "perhaps"})
        assert status == 400
        status, now = await ask("enter-maintenance", {"unmovable": "keep"})
        assert status == 200
        assert now["maintenance"]
        assert not now["ready"]
        assert now["left"] == 1
        assert {vm["name"]: vm["standing"] for vm in now["vms"]} == {
            "local": "stuck",
            "web": "moves",
        }
        await mesh.rounds(3)
        now = await (await client.get("/v1/hosts/h1/maintenance")).json()
        assert (now["ready"], now["left"], now["away"]) == (True, 0, 1)
        host = await (await client.get("/v1/hosts/h1")).json()
        assert host["maintenance_ready"] is True
        status, now = await ask("leave-maintenance", {"move_back": True})
        assert (status, now["maintenance"], now["left"]) == (200, False, 1)
        await mesh.rounds(3)
        now = await (await client.get("/v1/hosts/h1/maintenance")).json()
        assert (now["left"], now["away"]) == (0, 0)


async def test_who_may_not_see_all_vms_is_not_told_their_names(mesh):
    await mesh.add("secret", shared=False)
    async with TestClient(TestServer(app_of(mesh.member)), headers=ADMIN) as client:
        role = {
            "name": "hosts-only",
            "permissions": [{"kinds": ["host"], "actions": ["read", "operate"]}],
        }
        made = await client.post("/v1/roles", json=role)
        assert made.status == 201, await made.text()
        token = await client.post(
            "/v1/access-tokens", json={"name": "guest", "roles": ["hosts-only"]}
        )
        assert token.status == 201, await token.text()
        held = {"Authorization": f"Bearer {(await token.json())['token']}"}
        refused = await client.post("/v1/hosts/h1/actions/enter-maintenance", headers=held, json={})
        assert refused.status == 409
        assert "secret" not in await refused.text()
        kept = await client.post(
            "/v1/hosts/h1/actions/enter-maintenance", headers=held, json={"unmovable": "keep"}
        )
        assert (await kept.json())["vms"] == []


async def test_the_command_empties_a_host_and_fills_it_again(mesh, tmp_path):
    await mesh.add("web")
    await mesh.add("local", shared=False)
    async with served(mesh.member) as agent:

        async def run(command: str):
            environ = {**agent.environ, "HOME": str(tmp_path)}
            return await asyncio.to_thread(kvorum, command, agent.address, environ=environ)

        refused = await run("host enter-maintenance h1")
        assert refused.code == 1
        assert "local: its disks are on local storage" in refused.err
        assert not mesh.host.maintenance
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            entering = group.create_task(
                run("host enter-maintenance h1 --unmovable keep"), name="entering"
            )
            while not entering.done():
                await mesh.rounds(1)
                await asyncio.sleep(0.05)
        assert entering.result().out == "h1: in maintenance, and what had to leave has left\n"
        shown = await run("host maintenance h1")
        assert "VMs elsewhere for it  1" in shown.out
        assert "local  running  stuck  its disks are on local storage" in shown.out
        left = await run("host leave-maintenance h1")
        assert left.out == "h1: in no maintenance; 1 of its VMs still come back\n"
        await mesh.rounds(3)
        assert mesh.on(HOST_ID) == {"web", "local"}


async def test_who_may_not_see_hosts_is_told_numbers_only(mesh):
    await mesh.add("web", memory_mib=15 * GIB)
    await mesh.add("full2", host_id=OTHER_ID, memory_mib=4 * GIB, ha=False)
    await mesh.add("full3", host_id=THIRD_ID, memory_mib=4 * GIB, ha=False)
    async with TestClient(TestServer(app_of(mesh.member)), headers=ADMIN) as client:
        role = {"name": "clusters", "permissions": [{"kinds": ["cluster"], "actions": ["read"]}]}
        assert (await client.post("/v1/roles", json=role)).status == 201
        token = await client.post(
            "/v1/access-tokens", json={"name": "guest", "roles": ["clusters"]}
        )
        held = {"Authorization": f"Bearer {(await token.json())['token']}"}
        answer = await client.get("/v1/clusters/test/room", headers=held)
        (loss,) = (await answer.json())["losses"]
        assert (loss["hosts"], loss["left_out"], loss["why"]) == (["(others)"], 1, "")


async def test_the_command_shows_room(mesh, tmp_path):
    await mesh.add("web", memory_mib=4 * GIB)
    async with served(mesh.member) as agent:

        async def run(command: str):
            environ = {**agent.environ, "HOME": str(tmp_path)}
            return await asyncio.to_thread(kvorum, command, agent.address, environ=environ)

        room = await run("cluster room")
        assert room.code == 0, room.err
        assert room.out.splitlines()[1].split() == ["h1", "1", "4.1", "GiB", "h2", "1", "-"]
        changed = await run("cluster set test --admission enforce --host-failures 2")
        assert changed.code == 0, changed.err
        await mesh.add("more", host_id=OTHER_ID, memory_mib=12 * GIB)
        room = await run("cluster room")
        assert room.code == 1
        assert "if h1 and h2 were lost, 1 of 2 highly available VMs would find no room" in room.err
