"""Work in turns: serial on a resource, parallel across them, limited by kind, bounded, and each error its own."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.work_queue import Limit, QueueFullError, WorkQueues
from tests.one_member import LoopClock, in_virtual_time, until


class Yard:
    """Queues of `boots` (two at a time) and `moves` (one), and what happens in them."""

    def __init__(self, group: asyncio.TaskGroup, waiting_max: int = 100) -> None:
        limits = {"boots": Limit(2, waiting_max), "moves": Limit(1, waiting_max)}
        self.queues = WorkQueues(limits, LoopClock())
        self.group = group
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def ask(self, name: str, kind: str, resource: str) -> asyncio.Task:
        """Ask for a turn that lasts until its gate opens."""
        self.gates[name] = asyncio.Event()

        async def job() -> str:
            self.begun.append(name)
            await self.gates[name].wait()
            return name

        work = self.group.create_task(self.queues.perform(kind, resource, job), name=name)
        await asyncio.sleep(0)
        return work

    async def end(self, name: str) -> None:
        self.gates[name].set()
        await asyncio.sleep(0.01)

    def shown(self, kind: str) -> tuple[int, int]:
        (state,) = (s for s in self.queues.state() if s.kind == kind)
        return state.running, state.waiting


def yard_test(test):
    """Run a test in virtual time; what is still at work at its end is cancelled."""

    def wrapper() -> None:
        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                before = asyncio.all_tasks()
                await test(Yard(group))
                for task in asyncio.all_tasks() - before:
                    task.cancel()

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


@yard_test
async def test_work_on_one_resource_is_done_in_the_order_it_came(yard):
    for name in ("first", "second", "third"):
        await yard.ask(name, "boots", "vm/1")
    assert yard.begun == ["first"]
    await yard.end("first")
    await yard.end("second")
    assert yard.begun == ["first", "second", "third"]


@yard_test
async def test_work_of_another_kind_does_not_overtake_on_the_same_resource(yard):
    await yard.ask("busy", "moves", "vm/9")
    await yard.ask("move", "moves", "vm/1")
    await yard.ask("boot", "boots", "vm/1")
    assert yard.begun == ["busy"]
    await yard.end("busy")
    assert yard.begun == ["busy", "move"]


@yard_test
async def test_work_on_different_resources_runs_side_by_side_up_to_the_limit_of_its_kind(yard):
    for number in range(4):
        await yard.ask(f"boot{number}", "boots", f"vm/{number}")
    await yard.ask("move", "moves", "vm/9")
    assert yard.begun == ["boot0", "boot1", "move"]
    assert yard.shown("boots") == (2, 2)
    await yard.end("boot1")
    assert yard.begun == ["boot0", "boot1", "move", "boot2"]


@yard_test
async def test_one_whose_resource_is_busy_is_passed_by_others(yard):
    await yard.ask("long", "boots", "vm/1")
    await yard.ask("behind", "boots", "vm/1")
    await yard.ask("other", "boots", "vm/2")
    assert yard.begun == ["long", "other"]


@yard_test
async def test_an_error_reaches_only_the_one_who_asked(yard):
    async def fails() -> None:
        raise ValueError("a mistake of ours")

    await yard.ask("good", "boots", "vm/1")
    with pytest.raises(ValueError, match="mistake"):
        await yard.queues.perform("boots", "vm/2", fails)
    after = await yard.ask("after", "boots", "vm/2")
    assert yard.begun == ["good", "after"]
    await yard.end("after")
    assert await after == "after"
    assert [state.failed for state in yard.queues.state()] == [1, 0]


@yard_test
async def test_who_is_cancelled_while_waiting_holds_up_nobody(yard):
    await yard.ask("long", "boots", "vm/1")
    await yard.ask("move", "moves", "vm/2")
    waiting = await yard.ask("given up", "moves", "vm/3")
    await yard.ask("behind", "boots", "vm/3")
    waiting.cancel()
    await until(waiting.done)
    assert yard.begun == ["long", "move", "behind"]
    assert yard.shown("moves") == (1, 0)


@yard_test
async def test_who_is_cancelled_at_work_makes_room(yard):
    work = await yard.ask("move", "moves", "vm/1")
    await yard.ask("next", "moves", "vm/1")
    work.cancel()
    await until(lambda: yard.begun == ["move", "next"])


@yard_test
async def test_who_is_cancelled_in_the_moment_of_the_call_gives_the_turn_back(yard):
    await yard.ask("move", "moves", "vm/1")
    called = await yard.ask("called", "moves", "vm/2")
    await yard.ask("next", "moves", "vm/3")
    yard.gates["move"].set()
    await asyncio.sleep(0)  # the first ends and calls the second, which hasn't run yet
    called.cancel()
    await until(lambda: yard.begun == ["move", "next"])
    assert yard.shown("moves") == (1, 0)


@yard_test
async def test_the_oldest_age_is_that_of_the_longest_waiting(yard):
    await yard.ask("move", "moves", "vm/1")
    await yard.ask("second", "moves", "vm/2")
    await asyncio.sleep(5)
    await yard.ask("third", "moves", "vm/3")
    await asyncio.sleep(2)
    ages = {state.kind: round(state.oldest_s, 1) for state in yard.queues.state()}
    assert ages == {"boots": 0.0, "moves": 7.0}


def test_a_full_queue_refuses_with_a_word_and_other_kinds_go_on():
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            before = asyncio.all_tasks()
            yard = Yard(group, waiting_max=2)
            for number in range(3):
                await yard.ask(f"move{number}", "moves", f"vm/{number}")
            with pytest.raises(
                QueueFullError, match=r"2 moves wait on this host already.*\[limits\]"
            ):
                async with yard.queues.turn("moves", "vm/7"):
                    raise AssertionError("not reached")
            assert yard.shown("moves") == (1, 2)
            await yard.ask("boot", "boots", "vm/7")
            await yard.end("move0")
            await yard.ask("move3", "moves", "vm/8")
            assert yard.begun == ["move0", "boot", "move1"]
            for task in asyncio.all_tasks() - before:
                task.cancel()

    in_virtual_time(main)


JOBS = st.lists(
    st.tuples(
        st.sampled_from(("boots", "moves")),
        st.sampled_from(("vm/1", "vm/2", "vm/3")),
        st.integers(0, 20),  # begins, tenths of a second
        st.integers(1, 9),  # lasts
        st.sampled_from(("ends", "fails", "cancelled")),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(jobs=JOBS)
def test_no_resource_and_no_limit_is_ever_overrun_and_nothing_is_forgotten(jobs):
    async def main() -> None:
        queues = WorkQueues({"boots": Limit(2), "moves": Limit(1)}, LoopClock())
        at_work: list[tuple[str, str]] = []
        order: dict[str, list[int]] = {}

        async def one(number: int, kind: str, resource: str, lasts: int, fate: str) -> None:
            async with queues.turn(kind, resource):
                order.setdefault(resource, []).append(number)
                at_work.append((kind, resource))
                kinds, resources = zip(*at_work, strict=True)
                assert len(set(resources)) == len(resources)
                assert kinds.count("boots") <= 2 and kinds.count("moves") <= 1
                try:
                    await asyncio.sleep(lasts / 10)
                    if fate == "fails":
                        raise OSError("broken")
                finally:
                    at_work.remove((kind, resource))

        async def begin(number: int, job: tuple[str, str, int, int, str]) -> None:
            kind, resource, begins, lasts, fate = job
            await asyncio.sleep(begins / 10 + number / 1000)
            patience_s = lasts / 20 if fate == "cancelled" else 3600
            try:
                async with asyncio.timeout(patience_s):
                    await one(number, kind, resource, lasts, fate)
            except (OSError, TimeoutError):
                pass

        async with asyncio.TaskGroup() as group:
            for number, job in enumerate(jobs):
                group.create_task(begin(number, job), name=f"job-{number}")
        assert all((s.running, s.waiting) == (0, 0) for s in queues.state())
        served = [number for numbers in order.values() for number in numbers]
        assert {n for n, job in enumerate(jobs) if job[4] != "cancelled"} <= set(served)
        for numbers in order.values():
            came = [(jobs[n][2], n) for n in numbers]
            assert came == sorted(came)

    in_virtual_time(main)
