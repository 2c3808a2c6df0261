"""Cancelling: long steps stop where it is safe, and each workflow of the product ends as its documents say."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import ConflictError, TemporaryError
from core.model import TaskState, VMPhase
from core.workflow import CancelledByUserError
from nodeagent.services.vm_requests import MigrateVM, StopVM
from nodeagent.workflows.cancelling import stoppable
from nodeagent.workflows.registry import load_registry
from tests.one_member import HOST_ID, OTHER_ID, LoopClock, founded, in_virtual_time, until
from tests.workflow_world import ENDED, World

REGISTRY = load_registry([])


class Asked:
    def __init__(self) -> None:
        self.yes = False

    def __call__(self) -> bool:
        return self.yes


def in_loop(test):
    """Run a test in virtual time."""

    def wrapper() -> None:
        in_virtual_time(test)

    wrapper.__name__ = test.__name__
    return wrapper


async def after(seconds: float, result=None):
    await asyncio.sleep(seconds)
    if isinstance(result, Exception):
        raise result
    return result


@in_loop
async def test_work_that_nobody_cancels_gives_its_result_or_its_error():
    assert await stoppable(after(100, "made"), Asked()) == "made"
    assert await stoppable(after(0), Asked()) is None
    with pytest.raises(TemporaryError, match="away"):
        await stoppable(after(100, TemporaryError("away")), Asked())


@in_loop
async def test_work_is_cancelled_within_a_second_of_the_request():
    asked, loop = Asked(), asyncio.get_running_loop()
    loop.call_later(50, lambda: setattr(asked, "yes", True))
    begin_s = loop.time()
    with pytest.raises(CancelledByUserError):
        await stoppable(after(1000), asked)
    assert 50 <= loop.time() - begin_s <= 51.1


@in_loop
async def test_work_with_a_stop_of_its_own_ends_by_itself():
    asked, told, stopped = Asked(), [], asyncio.Event()
    asked.yes = True

    async def stop() -> None:
        told.append("stop")
        if len(told) == 1:
            raise ConflictError("not yet")
        stopped.set()

    async def work() -> None:
        await stopped.wait()
        raise ConflictError("aborted")

    with pytest.raises(CancelledByUserError):
        await stoppable(work(), asked, stop=stop)
    assert told == ["stop", "stop"], "asked again, as the first came too early"


@in_loop
async def test_work_that_ends_all_the_same_was_asked_too_late():
    asked = Asked()
    asked.yes = True

    async def stop() -> None:
        return

    assert await stoppable(after(3, "moved"), asked, stop=stop) == "moved"


@in_loop
async def test_the_death_of_the_agent_is_no_request_to_cancel():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(stoppable(after(1000), Asked()), name="work")
        await asyncio.sleep(10)
        task.cancel()
    assert task.cancelled()


def cancelled_after(seconds: float, open_task, *, spoil=None, migration_s: float = 0.0):
    """Open a task, ask to cancel it some time after, and return how it and its VM ended, and how long it took."""
    ended = []

    async def main() -> None:
        world = World(await founded(clock=LoopClock()), migration_s=migration_s)
        await world.begin()
        async with world.outside():
            task = await open_task(world)
            if spoil is not None:
                spoil(world)
            async with world.agent(world.h1, REGISTRY):
                await asyncio.sleep(seconds)
                assert world.task(task.id).state is TaskState.RUNNING
                await world.cancel(task.id)
                asked_s = asyncio.get_running_loop().time()
                await until(lambda: world.task(task.id).state in ENDED, 3600)
                took_s = asyncio.get_running_loop().time() - asked_s
            world.new_agent()
            await world.settle()
            assert await world.garbage() == []
            ended.extend((world.task(task.id), world.vm(), took_s))

    in_virtual_time(main)
    return ended


async def create(world: World):
    return await world.create(start=True, shared=True)


def test_fetching_an_image_stops_and_the_create_is_undone():
    def slow_images(world: World) -> None:
        async def ensure_image(disk) -> None:
            await asyncio.sleep(3600)

        storages = world.h1.storages(world.faults)
        storages.ensure_image = ensure_image
        world.h1.storages = lambda faults: storages

    task, vm, took_s = cancelled_after(100, create, spoil=slow_images)
    assert (task.state, task.error_code, vm) == (TaskState.CANCELLED, "cancelled", None)
    assert took_s < 5
    assert task.result == {}


async def stop(world: World):
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service().stop(vm, StopVM(timeout_s=3600), world.ids())).task


def test_waiting_for_a_guest_to_shut_down_stops_and_it_goes_on():
    def deaf_guest(world: World) -> None:
        async def shutdown(vm_id: str) -> None:
            del vm_id

        world.h1.hypervisor.shutdown = shutdown

    task, vm, took_s = cancelled_after(100, stop, spoil=deaf_guest)
    assert task.state is TaskState.CANCELLED
    assert vm.phase is VMPhase.RUNNING
    assert took_s < 5


async def migrate(world: World):
    vm = await world.made(REGISTRY, start=True, shared=True)
    return (await world.service(OTHER_ID).migrate(vm, MigrateVM(), world.ids())).task


def test_a_move_under_way_is_aborted_and_the_guest_goes_on_where_it_was():
    task, vm, took_s = cancelled_after(100, migrate, migration_s=600)
    assert task.state is TaskState.CANCELLED
    assert (vm.phase, vm.host_id) == (VMPhase.RUNNING, HOST_ID)
    assert took_s < 5
