"""Every workflow of the product, every step of it, every point at which an agent may die or something may fail.

The law: in the end the work is done or undone, as the task says, and an audit of hypervisors, storages, guards,
networks and records finds nothing that belongs to nothing. A workflow added later has to be added to `CASES`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from core.errors import PermanentError
from core.model import VM, Disk, Snapshot, Task, TaskState, VMPhase
from nodeagent.services.vm_requests import MigrateVM, StopVM
from nodeagent.workflows.registry import load_registry
from raftstate.state.machine import Machine
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    LoopClock,
    OneMember,
    in_virtual_time,
    until,
)
from tests.workflow_world import CANCEL, ENDED, FAIL, KILL, World

REGISTRY = load_registry([])


def is_gone(vm: VM | None) -> bool:
    return vm is None


def runs_on(host_id: str) -> Callable[[VM | None], bool]:
    return lambda vm: vm is not None and (vm.phase, vm.host_id) == (VMPhase.RUNNING, host_id)


def is_stopped(vm: VM | None) -> bool:
    return vm is not None and vm.phase is VMPhase.STOPPED


@dataclass(frozen=True)
class Case:
    """A workflow on a VM: how to open its task, and what is true of the VM when it is done and when it is undone.

    `undone` may be met in another way than `before`: a delete that can't begin has cut the guest's power. `even_so`:
    the work may turn out done although the task says that it failed: a guest that arrived can't be called back.
    `names` are the snapshots when done and when undone, `goes_on_from` is what the disk goes on from then.
    """

    workflow: str
    open: Callable[[World], Awaitable[Task]]
    done: Callable[[VM | None], bool]
    undone: Callable[[VM | None], bool]
    even_so: bool = False
    moves: bool = False
    names: tuple[str, str] = ("", "")
    goes_on_from: tuple[str, str] | None = None


async def create(world: World) -> Task:
    return await world.create(start=True, shared=True)


async def create_local(world: World) -> Task:
    return await world.create(start=True, shared=False)


async def create_stopped(world: World) -> Task:
    return await world.create(start=False, shared=True)


async def start(world: World) -> Task:
    vm = await world.made(REGISTRY, start=False, shared=True)
    return (await world.service().start(vm, world.ids())).task


async def stop(world: World) -> Task:
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service().stop(vm, StopVM(), world.ids())).task


async def cut_power(world: World) -> Task:
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service().stop(vm, StopVM(force=True), world.ids())).task


async def reboot(world: World) -> Task:
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service().reboot(vm, world.ids())).task


async def migrate(world: World) -> Task:
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service(OTHER_ID).migrate(vm, MigrateVM(), world.ids())).task


async def delete(world: World) -> Task:
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service().delete(vm, world.ids())).task


async def delete_local(world: World) -> Task:
    vm = await world.made(REGISTRY, start=False, shared=False)
    return (await world.service().delete(vm, world.ids())).task


async def stopped(world: World, *, shared: bool = True) -> VM:
    return await world.made(REGISTRY, start=False, shared=shared)


async def done(world: World, opened) -> Snapshot:
    """Have an agent that nothing happens to do what was opened."""
    async with world.agent(world.h1, REGISTRY):
        await until(lambda: world.task(opened.task.id).state in ENDED)
    assert world.task(opened.task.id).state is TaskState.SUCCEEDED
    world.new_agent()
    return world.store.get(Snapshot, opened.snapshot.id)


async def taken(world: World, name: str) -> Snapshot:
    """Take a snapshot of the disk with one more word on it."""
    world.write(f"before {name}")
    opened = await world.snapshots().take(world.vm(), world.ids(), name=name)
    world.shown_then[name] = world.shown()
    snapshot = await done(world, opened)
    world.write(f"after {name}")
    return snapshot


async def reverted(world: World, snapshot: Snapshot) -> Snapshot:
    return await done(world, await world.snapshots().revert(snapshot, world.ids()))


async def take(world: World) -> Task:
    await stopped(world)
    await taken(world, "first")
    world.shown_then["second"] = world.shown()
    return (await world.snapshots().take(world.vm(), world.ids(), name="second")).task


async def take_local(world: World) -> Task:
    vm = await stopped(world, shared=False)
    world.write("before first")
    world.shown_then["first"] = world.shown()
    return (await world.snapshots().take(vm, world.ids(), name="first")).task


async def revert(world: World) -> Task:
    await stopped(world)
    first = await taken(world, "first")
    await taken(world, "second")
    return (await world.snapshots().revert(first, world.ids())).task


async def forget_leaf(world: World) -> Task:
    """The second is what a branch ends with that nothing goes on from."""
    await stopped(world)
    first = await taken(world, "first")
    second = await taken(world, "second")
    await reverted(world, first)
    return (await world.snapshots().delete(second, world.ids())).task


async def forget_current(world: World) -> Task:
    await stopped(world)
    await taken(world, "first")
    second = await taken(world, "second")
    return (await world.snapshots().delete(second, world.ids())).task


async def forget_fork(world: World) -> Task:
    """Two snapshots and the disk itself go on from the first."""
    await stopped(world)
    first = await taken(world, "first")
    await taken(world, "second")
    await reverted(world, first)
    await taken(world, "third")
    first = await reverted(world, first)
    return (await world.snapshots().delete(first, world.ids())).task


async def delete_with_snapshots(world: World) -> Task:
    await stopped(world)
    first = await taken(world, "first")
    await taken(world, "second")
    await reverted(world, first)
    return (await world.service().delete(world.vm(), world.ids())).task


HERE, THERE = runs_on(HOST_ID), runs_on(OTHER_ID)
CASES = {
    "create": Case("create-vm", create, HERE, is_gone, moves=True),
    "create-local": Case("create-vm", create_local, HERE, is_gone),
    "create-stopped": Case("create-vm", create_stopped, is_stopped, is_gone),
    "start": Case("start-vm", start, HERE, is_stopped),
    "stop": Case("stop-vm", stop, is_stopped, HERE),
    "cut-power": Case("stop-vm", cut_power, is_stopped, HERE),
    "reboot": Case("reboot-vm", reboot, HERE, HERE),
    "migrate": Case("migrate-vm", migrate, THERE, HERE, even_so=True),
    "delete": Case("delete-vm", delete, is_gone, is_stopped, moves=True),
    "delete-local": Case("delete-vm", delete_local, is_gone, is_stopped),
    "delete-with-snapshots": Case(
        "delete-vm", delete_with_snapshots, is_gone, is_stopped, moves=True
    ),
    "take": Case(
        "take-snapshot", take, is_stopped, is_stopped, moves=True, names=("first second", "first")
    ),
    "take-local": Case("take-snapshot", take_local, is_stopped, is_stopped, names=("first", "")),
    "revert": Case(
        "revert-snapshot",
        revert,
        is_stopped,
        is_stopped,
        moves=True,
        names=("first second", "first second"),
        goes_on_from=("first", "second"),
    ),
    "forget-leaf": Case(
        "delete-snapshot",
        forget_leaf,
        is_stopped,
        is_stopped,
        moves=True,
        names=("first", "first second"),
    ),
    "forget-current": Case(
        "delete-snapshot",
        forget_current,
        is_stopped,
        is_stopped,
        moves=True,
        names=("first", "first second"),
        goes_on_from=("first", "second"),
    ),
    "forget-fork": Case(
        "delete-snapshot",
        forget_fork,
        is_stopped,
        is_stopped,
        moves=True,
        names=("second third", "first second third"),
        goes_on_from=("", "first"),
    ),
}


def test_every_workflow_of_the_product_has_its_case():
    assert {case.workflow for case in CASES.values()} == set(REGISTRY.definitions)


class Spoiled:
    """A step that fails, before or after it has done its work."""

    def __init__(self, inner, when: str) -> None:
        self._inner, self._when, self.name = inner, when, inner.name
        self.no_return = getattr(inner, "no_return", False)
        self.may_cancel = getattr(inner, "may_cancel", True)

    async def do(self):
        if self._when == "after":
            await self._inner.do()
        raise PermanentError(f"step {self.name} is spoiled")

    async def undo(self):
        await self._inner.undo()


@dataclass(frozen=True)
class Trouble:
    """What goes wrong: a step that always fails, and a death or failure at one point of the agent's work."""

    step: str = ""
    when: str = "after"
    kind: str = KILL
    at: int | None = None
    other_host: bool = False
    cancel: bool = False


class Ground:
    """The replicated state that one story after the other begins on, as making a new one takes long."""

    def __init__(self) -> None:
        self._machine: Machine | None = None
        self._stories = 0

    async def world(self) -> World:
        self._stories += 1
        member = OneMember(seed=self._stories, machine=self._machine, clock=LoopClock())
        world = World(member)
        if self._machine is None:
            await member.found()
            await world.begin()
        self._machine = member.machine
        return world


class Story:
    """One run of a case under some trouble, from its task's opening to the audit."""

    def __init__(self, case: Case, trouble: Trouble) -> None:
        self.case, self.trouble = case, trouble
        self.points = 0
        self.where = ""
        self.taken_over = False
        self._shown_before: frozenset[str] = frozenset()
        self.state = TaskState.PENDING

    def play(self, ground: Ground | None = None) -> Story:
        in_virtual_time(lambda: self._play(ground or Ground()))
        return self

    async def _play(self, ground: Ground) -> None:
        world = await ground.world()
        async with world.outside():
            task = await self.case.open(world)
            self._shown_before = world.shown()
            await self._work(world, task)
            await world.settle()
            self._judge(world.task(task.id), world.vm(), await world.garbage())
            self._judge_snapshots(world)
        await world.clear()

    def _judge_snapshots(self, world: World) -> None:
        when = 0 if self.state is TaskState.SUCCEEDED else 1
        told = f"{self.trouble} {self.where}"
        left = () if world.vm() is None else world.store.all(Snapshot)
        if self.case.workflow.endswith("-snapshot") or world.vm() is None:
            assert " ".join(sorted(s.name for s in left)) == self.case.names[when], told
        if self.case.goes_on_from is not None:
            by_id = {s.id: s.name for s in left}
            (disk,) = world.store.all(Disk)
            assert by_id.get(disk.current_snapshot_id, "") == self.case.goes_on_from[when], told
        if world.vm() is None:
            return
        for snapshot in left:
            assert world.shown(snapshot.layer_id) == world.shown_then[snapshot.name], told
        was_reverted = self.case.workflow == "revert-snapshot" and not when
        wanted = world.shown_then["first"] if was_reverted else self._shown_before
        assert world.shown() == wanted, told

    def _spoil(self, steps):
        return [
            Spoiled(step, self.trouble.when) if step.name == self.trouble.step else step
            for step in steps
        ]

    async def _work(self, world: World, task: Task) -> None:
        faults = world.faults
        faults.at, faults.kind = self.trouble.at, self.trouble.kind
        faults.ask = lambda: world.cancel(task.id)
        async with world.agent(world.h1, REGISTRY, self._spoil):
            await until(lambda: faults.dead or world.task(task.id).state in ENDED, 600)
        self.points, self.where = faults.points, faults.where
        world.new_agent()
        if not faults.dead or world.task(task.id).state in ENDED:
            return
        heir = world.h1
        if self.trouble.cancel:
            await world.cancel(task.id)
        if self.trouble.other_host:
            await world.take_over(task.id)
            self.taken_over = True
            heir = world.h2
        async with world.agent(heir, REGISTRY, self._spoil):
            await until(lambda: world.task(task.id).state in ENDED, 600)
        world.new_agent()

    def _judge(self, task: Task, vm: VM | None, garbage: list[str]) -> None:
        told = f"{self.trouble} {self.where}: task {task.state} {task.error!r}, VM {vm}"
        self.state = task.state
        assert garbage == [], told
        done = self.case.done
        if self.taken_over and done is HERE:
            done = THERE
        if task.state is TaskState.SUCCEEDED:
            assert done(vm), told
            assert self.trouble.step == "", told
        else:
            even_so = self.case.even_so and task.state is TaskState.FAILED and done(vm)
            assert self.case.undone(vm) or even_so, told


def play_at_every_point(case: Case, **trouble) -> int:
    """Play the story with its trouble at every point there is; return how many there were."""
    ground, at = Ground(), 0
    while True:
        at += 1
        if Story(case, Trouble(at=at, **trouble)).play(ground).points < at:
            return at - 1


@pytest.mark.parametrize("name", CASES)
def test_without_trouble_the_work_is_done(name):
    assert Story(CASES[name], Trouble()).play().state is TaskState.SUCCEEDED


@pytest.mark.parametrize("name", CASES)
def test_wherever_the_agent_dies_its_next_one_ends_the_work(name):
    assert play_at_every_point(CASES[name]) >= 8, (
        "at least: running, begun, the effect, done, ended"
    )


@pytest.mark.parametrize("name", CASES)
def test_wherever_something_fails_the_work_is_done_or_undone(name):
    play_at_every_point(CASES[name], kind=FAIL)


def ways_back(workflow: str) -> list[str]:
    """Return the steps before the first from which there is only forward: that and what follows is repeated."""
    found = []
    for step in REGISTRY.definitions[workflow].steps:
        if getattr(REGISTRY.steps[step], "no_return", False):
            break
        found.append(step)
    return found


BACK = [(name, step) for name, case in CASES.items() for step in ways_back(case.workflow)]
# The last step with a way back of each case: when it fails, all before it are undone.
LAST = dict(BACK)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "step"), BACK)
def test_whichever_step_fails_the_work_is_undone(name, step, when):
    state = Story(CASES[name], Trouble(step=step, when=when)).play().state
    assert state is TaskState.FAILED


@pytest.mark.parametrize("kind", [KILL, FAIL])
@pytest.mark.parametrize(("name", "step"), LAST.items())
def test_wherever_the_agent_dies_or_something_fails_while_it_undoes(name, step, kind):
    play_at_every_point(CASES[name], step=step, kind=kind)


MOVING = [name for name, case in CASES.items() if case.moves]


@pytest.mark.parametrize("name", MOVING)
def test_another_host_ends_the_work_of_one_that_is_lost(name):
    play_at_every_point(CASES[name], other_host=True)


@pytest.mark.parametrize("name", MOVING)
def test_another_host_undoes_the_work_of_one_that_is_lost(name):
    play_at_every_point(CASES[name], step=LAST[name], other_host=True)


@pytest.mark.parametrize("name", CASES)
def test_whenever_cancelling_is_asked_for_the_work_is_done_or_undone(name):
    """Too late is fine: then it is done. What is not fine is a task that says one and a VM that says the other."""
    case, at, states, ground = CASES[name], 0, set(), Ground()
    while True:
        at += 1
        story = Story(case, Trouble(at=at, kind=CANCEL)).play(ground)
        if story.points < at:
            break
        states.add(story.state)
    assert states <= {TaskState.SUCCEEDED, TaskState.CANCELLED}
    assert TaskState.CANCELLED in states, "asked for early enough, it is cancelled"


@pytest.mark.parametrize("name", CASES)
def test_wherever_the_agent_dies_after_cancelling_was_asked_for(name):
    play_at_every_point(CASES[name], kind=KILL, cancel=True)
