"""A stuck task is ended as it is when people say so: only where no guest can be left running, and nothing starts twice."""

import asyncio

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, PermanentError
from core.model import (
    VM,
    Disk,
    Event,
    JournalEntry,
    Leftover,
    LogLine,
    PowerState,
    Severity,
    StepMark,
    Task,
    TaskState,
    VMPhase,
)
from core.workflow import RepeatStepError
from nodeagent.services import giving_up
from nodeagent.services.giving_up import check, unfinished
from nodeagent.workflows.registry import STEPS, load_registry
from storage.memory_driver import MemoryDriver
from tests.api import problem_of
from tests.one_member import LoopClock, founded, in_virtual_time, running, until
from tests.unit.test_task_runner import Bench, bench_test
from tests.workflow_world import ENDED, World

REGISTRY = load_registry([])


class LostDriver(MemoryDriver):
    """A storage that came back without what was asked of it."""

    lost = True

    async def delete_disk(self, disk_id: str) -> None:
        if self.lost:
            raise PermanentError("the array is broken")
        await super().delete_disk(disk_id)


def world_test(test):
    def wrapper() -> None:
        async def main() -> None:
            world = World(await founded(clock=LoopClock()))
            await world.begin()
            async with world.outside():
                await test(world)

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


def lose_storage(world: World, vm: VM) -> LostDriver:
    (disk,) = (disk for disk in world.store.all(Disk) if disk.vm_id == vm.id)
    driver = LostDriver(disk.data_storage_id, "/shared")
    if (before := world.shared_disks.get(disk.data_storage_id)) is not None:
        driver.__dict__.update(before.__dict__)
    world.shared_disks[disk.data_storage_id] = driver
    return driver


async def ask(store, task: Task, reason: str = "the array is scrap") -> None:
    """Ask as the API does."""
    await store.apply(puts=(replace(task, give_up_reason=reason, give_up_after=len(task.journal)),))


async def give_up(world: World, task: Task, spoil=lambda steps: steps) -> Task:
    """Let an agent try until the task is stuck, and give it up."""
    async with world.agent(world.h1, REGISTRY, spoil):
        await until(lambda: giving_up.is_stuck(world.task(task.id)), 600)
        await ask(world.store, world.task(task.id))
        await until(lambda: world.task(task.id).state in ENDED, 10)
    world.new_agent()
    return world.task(task.id)


async def is_out_of_use_until_it_is_deleted(world: World, driver: LostDriver) -> None:
    await world.settle()
    vm = world.vm()
    assert (vm.phase, vm.power) == (VMPhase.DELETING, PowerState.STOPPED)
    assert "was given up (the array is scrap): delete the VM" in vm.blocked_reason
    for host in (world.h1, world.h2):
        assert await host.hypervisor.list_domains() == ()
        assert not host.guard.grants
    with pytest.raises(ConflictError, match="being deleted"):
        await world.service().start(vm, world.ids())
    assert not world.store.claim_holder(f"task.subject/vm/{vm.id}")
    driver.lost = False
    again = (await world.service().delete(vm, world.ids())).task
    async with world.agent(world.h1, REGISTRY):
        await until(lambda: world.task(again.id).state in ENDED)
    assert world.vm() is None
    assert await world.garbage() == []


@world_test
async def test_a_delete_whose_storage_is_lost_lists_the_files_and_keeps_the_vm_out_of_use(world):
    vm = await world.made(REGISTRY, start=True, shared=True)
    driver = lose_storage(world, vm)
    task = (await world.service().delete(vm, world.ids())).task
    ended = await give_up(world, task)
    assert (ended.state, ended.error_code) == (TaskState.FAILED, "given-up")
    assert "the array is scrap" in ended.error
    (disk,) = world.store.all(Disk)
    assert [(left.step, left.resource) for left in ended.left_behind] == [
        ("delete-disks", f"disk/{disk.id}"),
        ("delete-disks", f"vm/{vm.id}"),
    ]
    assert all("on data storage shared (/srv/shared)" in left.what for left in ended.left_behind)
    (event,) = (e for e in world.store.all(Event) if e.code == "task-given-up")
    assert event.severity is Severity.ALARM and "the disk's files on data storage" in event.message
    await is_out_of_use_until_it_is_deleted(world, driver)


class NoStart:
    """A start that fails; undoing it works."""

    def __init__(self, inner) -> None:
        self._inner, self.name = inner, inner.name

    async def do(self) -> None:
        await self._inner.do()
        raise PermanentError("no such machine type")

    async def undo(self) -> None:
        await self._inner.undo()


@pytest.mark.parametrize("failing", ["start-guest", "write-seed"])
def test_a_create_that_cannot_be_undone_never_becomes_a_vm_that_is_well(failing):
    @world_test
    async def test(world: World) -> None:
        task = await world.create(start=True, shared=True)
        driver = lose_storage(world, world.vm())
        ended = await give_up(
            world, task, lambda steps: [NoStart(s) if s.name == failing else s for s in steps]
        )
        assert "no such machine type" in ended.error, "the first cause is told too"
        assert {left.step for left in ended.left_behind} == {"create-disks", "keep-records"}
        await is_out_of_use_until_it_is_deleted(world, driver)

    test()


# -- when


def stuck(
    *journal: tuple[str, StepMark], state: TaskState = TaskState.RUNNING, after: int = -1
) -> Task:
    lines = tuple(JournalEntry(step=step, mark=mark, at_ms=1) for step, mark in journal)
    line = LogLine(after=len(lines) if after < 0 else after, at_ms=1, what="stuck", step="x")
    return Task(
        id="t1", name="t1", workflow="w", subject="vm/1", subject_name="web1", state=state,
        journal=lines, log=(line,),
    )  # fmt: skip


def says(step: str) -> bool:
    return hasattr(STEPS[step], "left_behind")


BACK = TaskState.ROLLING_BACK
BEGUN, DONE, UNDONE = StepMark.BEGUN, StepMark.DONE, StepMark.UNDONE
GUEST_STEPS = (
    "start-guest", "stop-guest", "reboot-guest", "destroy-guest",
    "reserve-target", "prepare-target", "move-guest", "hand-over",
)  # fmt: skip


@pytest.mark.parametrize("step", GUEST_STEPS)
@pytest.mark.parametrize("state", [TaskState.RUNNING, BACK])
def test_a_step_that_a_guest_may_hang_on_is_never_given_up(step, state):
    with pytest.raises(ConflictError, match="a guest may run") as refused:
        check(stuck((step, BEGUN), state=state), says)
    assert refused.value.code == "not-to-give-up"


def test_every_step_has_been_thought_of():
    assert {step for step in STEPS if not says(step)} == set(GUEST_STEPS)


def test_what_counts_is_what_is_unfinished_not_what_failed_last():
    check(stuck(("destroy-guest", BEGUN), ("destroy-guest", DONE), ("delete-disks", BEGUN)), says)
    back = stuck(
        ("create-disks", DONE), ("start-guest", BEGUN), ("start-guest", UNDONE), state=BACK
    )
    assert unfinished(back) == ("create-disks",)
    check(back, says)
    with pytest.raises(ConflictError, match="start-guest"):
        check(stuck(("start-guest", DONE), ("create-disks", BEGUN), state=BACK), says)


def test_only_a_stuck_task_is_given_up():
    with pytest.raises(ConflictError, match="isn't stuck") as refused:
        check(stuck(("create-disks", BEGUN), ("create-disks", DONE), after=1), says)
    assert refused.value.code == "not-stuck"


class LeavingBench(Bench):
    """A bench whose steps can say what they leave."""

    left: object = ()

    def make_steps(self, task, names):
        steps = super().make_steps(task, names)
        for step in steps:
            step.left_behind = lambda step=step: (
                self.left(step) if callable(self.left) else self.left
            )
        return steps


def leaving_test(test):
    def wrapper() -> None:
        async def main() -> None:
            await test(LeavingBench(await founded(clock=LoopClock())))

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


@leaving_test
async def test_a_wish_for_a_step_that_was_left_behind_since_is_forgotten(bench):
    """The storage came back at that moment; what sticks later is another matter, for people to decide anew."""
    away = RepeatStepError("the storage is away")
    gate = asyncio.Event()
    bench.trouble = {"do b": [away] * 8 + [gate], "do c": [away] * 20}
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: giving_up.is_stuck(bench.task()), 600)
        await until(lambda: bench.history.count("do b") == 9, 600)
        await ask(bench.member.store, bench.task())
        gate.set()
        await until(lambda: bench.history.count("do c") == 9, 600)
        await asyncio.sleep(5)
        assert bench.task().state is TaskState.RUNNING
        await ask(bench.member.store, bench.task())
        await until(bench.is_over(), 10)
    assert bench.task().error_code == "given-up"
    assert bench.history.count("do c") == 9, "nothing is tried once more"


@leaving_test
async def test_the_next_agent_of_the_host_does_what_the_one_that_died_was_asked(bench):
    bench.trouble["do b"] = [RepeatStepError("the storage is away")] * 30
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: giving_up.is_stuck(bench.task()), 600)
    await ask(bench.member.store, bench.task())
    tries = bench.history.count("do b")
    async with running(bench.runner().run):
        await until(bench.is_over(), 10)
    assert (bench.task().error_code, bench.history.count("do b")) == ("given-up", tries)


@leaving_test
async def test_a_step_that_cannot_say_what_it_leaves_left_something(bench):
    def left(step) -> tuple[Leftover, ...]:
        raise KeyError(step.name)

    bench.left = left
    bench.trouble["do b"] = [RepeatStepError("no")] * 30
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: giving_up.is_stuck(bench.task()), 600)
        await ask(bench.member.store, bench.task())
        await until(bench.is_over(), 10)
    (left_behind,) = bench.task().left_behind
    assert left_behind.what.startswith("unknown: KeyError")


@bench_test
async def test_a_step_that_says_nothing_keeps_its_task(bench):
    bench.trouble["do b"] = [RepeatStepError("no")] * 11
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: giving_up.is_stuck(bench.task()), 600)
        await ask(bench.member.store, bench.task())
        await asyncio.sleep(5)
        assert not bench.is_over()()
        await asyncio.sleep(3000)
    assert bench.task().state is TaskState.SUCCEEDED, "it goes on as ever"


# -- the API


GIVE_UP = "/v1/tasks/t1/actions/give-up"


async def test_people_say_why_and_of_what(member, api):
    await member.store.apply(puts=(stuck(("delete-disks", BEGUN)),))
    for body in (
        {},
        {"reason": "scrap"},
        {"reason": " ", "confirm": "web1"},
        {"reason": "x", "confirm": "web2"},
    ):
        await problem_of(await api.post(GIVE_UP, json=body), 400, "invalid")
    body = {"reason": "scrap", "confirm": "web1"}
    answer = await api.post(GIVE_UP, json=body)
    assert answer.status == 202
    assert (await api.post(GIVE_UP, json=body)).status == 202
    task = member.store.need(Task, "t1")
    assert (task.give_up_reason, task.give_up_after, task.state) == ("scrap", 1, TaskState.RUNNING)
    assert [line.what for line in task.log] == ["stuck", "give-up-asked"], "once"


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (stuck(("start-guest", BEGUN), state=BACK), "not-to-give-up"),
        (stuck(("delete-disks", BEGUN), after=0), "not-stuck"),
        (stuck(("delete-disks", BEGUN), state=TaskState.FAILED), "conflict"),
    ],
)
async def test_what_must_not_be_given_up_is_refused_at_once(member, api, task, code):
    await member.store.apply(puts=(task,))
    answer = await api.post(GIVE_UP, json={"reason": "scrap", "confirm": "web1"})
    await problem_of(answer, 409, code)
    assert not member.store.need(Task, "t1").give_up_reason
