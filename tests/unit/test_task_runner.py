"""Tasks of this host are run to their end, once, through crashes, lost quorums and cancellations."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, UnavailableError
from core.model import StepMark, Task, TaskState
from core.work_queue import Limit, WorkQueues
from core.workflow import Definition, RepeatStepError
from nodeagent.services.task_runner import TaskRunner
from nodeagent.services.work_kinds import Limits
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    LoopClock,
    OneMember,
    founded,
    in_virtual_time,
    running,
    until,
)

TASKS_AT_ONCE = Limits().other_tasks


class Bench:
    """A runner with steps `a`, `b`, `c` that note what they do; `trouble` maps `do b` to errors or waits."""

    def __init__(self, member: OneMember) -> None:
        self.member = member
        self.history: list[str] = []
        self.trouble: dict[str, list[object]] = {}
        self.prepared = 0

    def runner(self, workflows: tuple[str, ...] = ()) -> TaskRunner:
        async def prepare() -> None:
            self.prepared += 1

        definitions = {"w": Definition("w", ("a", "b", "c")), "one": Definition("one", ("a",))}
        definitions |= {name: Definition(name, ("a",)) for name in workflows}
        return TaskRunner(self.member.node, definitions, self.make_steps, prepare=prepare)

    def make_steps(self, task, definition):
        return [_Step(self, task, name) for name in definition.steps]

    async def add(self, id_: str = "t1", *, workflow: str = "w", **fields) -> None:
        mine = {"runner_host_id": HOST_ID, "subject": f"vm/{id_}"}
        task = Task(id=id_, name=id_, workflow=workflow, **(mine | fields))
        await self.member.store.apply(puts=(task,))

    def task(self, id_: str = "t1") -> Task:
        return self.member.store.need(Task, id_)

    async def change(self, id_: str = "t1", **fields) -> None:
        await self.member.store.apply(puts=(replace(self.task(id_), **fields),))

    def is_over(self, id_: str = "t1"):
        ended = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
        return lambda: self.task(id_).state in ended


class _Step:
    def __init__(self, bench: Bench, task: Task, name: str) -> None:
        self.bench, self.task, self.name = bench, task, name

    async def do(self) -> None:
        await self._happen("do")

    async def undo(self) -> None:
        await self._happen("undo")

    async def _happen(self, what: str) -> None:
        self.bench.history.append(f"{what} {self.name}")
        planned = self.bench.trouble.get(f"{what} {self.name}", [])
        trouble = planned.pop(0) if planned else None
        if isinstance(trouble, asyncio.Event):
            await trouble.wait()
        elif trouble is not None:
            raise trouble


def bench_test(test):
    """Run a test in virtual time with a bench."""

    def wrapper() -> None:
        async def main() -> None:
            await test(Bench(await founded(clock=LoopClock())))

        in_virtual_time(main)

    wrapper.__name__ = test.__name__
    return wrapper


@bench_test
async def test_a_task_of_this_host_is_run_and_its_progress_kept(bench):
    await bench.add()
    async with running(bench.runner().run):
        await until(bench.is_over())
    task = bench.task()
    assert bench.history == ["do a", "do b", "do c"]
    assert (task.state, task.progress, task.step, task.error) == (TaskState.SUCCEEDED, 100, "", "")
    assert task.ended_ms > 0
    assert [(e.step, e.mark) for e in task.journal] == [
        (s, m) for s in "abc" for m in (StepMark.BEGUN, StepMark.DONE)
    ]


@bench_test
async def test_a_task_that_comes_later_is_run_too(bench):
    async with running(bench.runner().run):
        await asyncio.sleep(100)
        await bench.add()
        await until(bench.is_over())
    assert bench.task().state is TaskState.SUCCEEDED


@bench_test
async def test_tasks_of_other_hosts_and_ended_ones_are_left_alone(bench):
    await bench.add("other", runner_host_id=OTHER_ID)
    await bench.add("ended", state=TaskState.CANCELLED)
    before = bench.task("other"), bench.task("ended")
    async with running(bench.runner().run):
        await asyncio.sleep(60)
    assert bench.history == []
    assert (bench.task("other"), bench.task("ended")) == before


@bench_test
async def test_what_an_agent_left_unfinished_is_cleared_before_its_tasks_go_on(bench):
    await bench.add()
    order = []
    bench.history = order
    runner = bench.runner()

    async def prepare() -> None:
        order.append("prepare")

    runner._prepare = prepare
    async with running(runner.run):
        await until(bench.is_over())
    assert order[0] == "prepare"
    assert order.count("prepare") == 1


@bench_test
async def test_a_restarted_agent_goes_on_where_it_stopped(bench):
    await bench.add()
    bench.trouble["do b"] = [asyncio.Event()]  # never set: the agent dies in step b
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
    assert bench.task().state is TaskState.RUNNING
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert bench.task().state is TaskState.SUCCEEDED
    assert bench.history == ["do a", "do b", "do b", "do c"]


@bench_test
async def test_a_failed_task_says_why_and_is_undone(bench):
    bench.trouble["do c"] = [ConflictError("no room on h1", code="no-host")]
    await bench.add()
    async with running(bench.runner().run):
        await until(bench.is_over())
    task = bench.task()
    assert (task.state, task.error, task.error_code) == (
        TaskState.FAILED,
        "no room on h1",
        "no-host",
    )
    assert bench.history[3:] == ["undo c", "undo b", "undo a"]
    assert task.progress < 100


@bench_test
async def test_a_failure_keeps_its_cause_through_a_restart_in_the_middle_of_undoing(bench):
    bench.trouble["do c"] = [ConflictError("no room on h1", code="no-host")]
    bench.trouble["undo b"] = [asyncio.Event()]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "undo b" in bench.history)
    assert bench.task().state is TaskState.ROLLING_BACK
    async with running(bench.runner().run):
        await until(bench.is_over())
    task = bench.task()
    assert (task.state, task.error, task.error_code) == (
        TaskState.FAILED,
        "no room on h1",
        "no-host",
    )
    assert bench.history[3:] == ["undo c", "undo b", "undo b", "undo a"]


@bench_test
async def test_a_cancelled_task_ends_as_cancelled_though_its_undo_fails_at_first(bench):
    gate = asyncio.Event()
    bench.trouble = {"do b": [gate], "undo a": [UnavailableError("not now")] * 3}
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
        await bench.change(cancel_requested=True)
        gate.set()
        await until(bench.is_over())
    task = bench.task()
    assert (task.state, task.error_code) == (TaskState.CANCELLED, "cancelled")
    assert bench.history == ["do a", "do b", "undo b"] + ["undo a"] * 4


@bench_test
async def test_a_task_waits_out_a_lost_quorum_and_goes_on(bench):
    gate = asyncio.Event()
    bench.trouble["do b"] = [gate]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
        bench.member.engine.available = False
        gate.set()
        await asyncio.sleep(60)
        assert bench.task().state is TaskState.RUNNING
        bench.member.engine.available = True
        await until(bench.is_over())
    assert bench.task().state is TaskState.SUCCEEDED


@bench_test
async def test_the_end_of_a_failed_task_is_recorded_after_a_lost_quorum(bench):
    gate = asyncio.Event()
    bench.trouble = {"do c": [ConflictError("no room")], "undo a": [gate]}
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "undo a" in bench.history)
        bench.member.engine.available = False
        gate.set()
        await asyncio.sleep(60)
        bench.member.engine.available = True
        await until(bench.is_over())
    assert (bench.task().state, bench.task().error) == (TaskState.FAILED, "no room")


@bench_test
async def test_a_step_past_the_point_of_no_return_is_repeated_until_it_works(bench):
    bench.trouble["do b"] = [RepeatStepError("the storage is away")] * 5
    await bench.add()
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert bench.task().state is TaskState.SUCCEEDED
    assert not any(line.startswith("undo") for line in bench.history)


@bench_test
async def test_a_task_that_failover_ended_stays_as_it_ended(bench):
    gate = asyncio.Event()
    bench.trouble["do b"] = [gate]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
        await bench.change(state=TaskState.FAILED, error="host lost", error_code="host-lost")
        ended = bench.task()
        gate.set()
        await asyncio.sleep(60)
    assert bench.task() == ended
    assert bench.history == ["do a", "do b"], "nothing is done or undone for it any more"


@bench_test
async def test_a_task_given_to_another_host_is_not_touched_again(bench):
    gate = asyncio.Event()
    bench.trouble["do b"] = [gate]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
        await bench.change(runner_host_id=OTHER_ID)
        moved = bench.task()
        gate.set()
        await asyncio.sleep(60)
    assert bench.task() == moved
    assert bench.history == ["do a", "do b"]


@bench_test
async def test_a_task_of_an_unknown_workflow_fails_with_its_name(bench):
    await bench.add(workflow="dance")
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert (bench.task().state, bench.task().error_code) == (TaskState.FAILED, "unknown-workflow")
    assert "'dance'" in bench.task().error


@bench_test
async def test_tasks_on_different_resources_run_side_by_side_up_to_a_limit(bench):
    gates = [asyncio.Event() for _ in range(TASKS_AT_ONCE + 2)]
    bench.trouble["do a"] = list(gates)
    for number in range(TASKS_AT_ONCE + 2):
        await bench.add(f"t{number}", workflow="one")
    async with running(bench.runner().run):
        await asyncio.sleep(10)
        assert len(bench.history) == TASKS_AT_ONCE
        gates[0].set()
        await asyncio.sleep(10)
        assert len(bench.history) == TASKS_AT_ONCE + 1


@bench_test
async def test_tasks_that_cannot_go_on_hold_up_no_others(bench):
    bench.trouble["do b"] = [RepeatStepError("the storage is away")] * 1000
    for number in range(TASKS_AT_ONCE):
        await bench.add(f"stuck{number}")
    async with running(bench.runner().run):
        await until(lambda: bench.history.count("do b") >= TASKS_AT_ONCE)
        await bench.add("other", workflow="one")
        await until(bench.is_over("other"), deadline_s=10)
    assert bench.task("other").state is TaskState.SUCCEEDED


@pytest.mark.parametrize("write", range(1, 9))
def test_a_cancel_request_just_before_any_write_of_the_journal_is_not_lost(write):
    """`write` counts the runner's own: 1 is "running", then begun and done of each step, and 8 the end."""

    async def main() -> None:
        bench = Bench(await founded(clock=LoopClock()))
        await bench.add()
        engine, count = bench.member.engine, 0
        commit = engine.propose

        async def propose(payload: bytes, *, timeout_s: float) -> bytes:
            nonlocal count
            count += 1
            if count == write:
                engine.propose = commit
                await bench.change(cancel_requested=True)
            return await commit(payload, timeout_s=timeout_s)

        engine.propose = propose
        async with running(bench.runner().run):
            await until(bench.is_over())
        assert bench.task().cancel_requested
        late = write >= 6  # the last step was about to begin or further
        expected = TaskState.SUCCEEDED if late else TaskState.CANCELLED
        assert bench.task().state is expected

    in_virtual_time(main)


@bench_test
async def test_each_kind_of_work_has_its_own_limit(bench):
    """Two migrations at a time; a boot needn't wait for the third."""
    for number in range(3):
        await bench.add(f"move{number}", workflow="migrate-vm")
    bench.trouble["do a"] = [asyncio.Event() for _ in range(3)]
    async with running(bench.runner(workflows=("migrate-vm", "start-vm")).run):
        await asyncio.sleep(10)
        assert bench.history == ["do a", "do a"]
        bench.trouble["do a"] = []
        await bench.add("boot", workflow="start-vm")
        await until(bench.is_over("boot"), deadline_s=10)
    assert bench.task("move2").state is TaskState.PENDING


@bench_test
async def test_a_task_that_finds_the_queue_full_is_run_later(bench):
    bench.member.node = replace_queues(bench.member.node, Limit(1, waiting_max=1))
    gate = asyncio.Event()
    bench.trouble["do a"] = [gate]
    for number in range(4):
        await bench.add(f"t{number}", workflow="one")
    async with running(bench.runner().run):
        await asyncio.sleep(10)
        assert bench.history == ["do a"]
        gate.set()
        for number in range(4):
            await until(bench.is_over(f"t{number}"))


def replace_queues(node, limit: Limit):
    limits = {**Limits().by_kind(), "other-tasks": limit}
    return dataclasses.replace(node, queues=WorkQueues(limits, node.clock))
