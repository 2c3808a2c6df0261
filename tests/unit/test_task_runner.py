"""Tasks of this host are run to their end, once, through crashes, lost quorums and cancellations."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from core.errors import ConflictError, TemporaryError, UnavailableError
from core.model import Event, JournalEntry, Severity, StepMark, Task, TaskState
from core.work_queue import Limit, WorkQueues
from core.workflow import RepeatStepError
from core.workflow_definition import Definition, StepRule
from nodeagent.api.views import show
from nodeagent.services.task_journal import LOG_LINES_MAX, TEXT_LENGTH_MAX
from nodeagent.services.task_runner import TaskRunner, pause_after
from nodeagent.services.work_kinds import Limits
from tests.one_member import (
    HOST_ID,
    NOW_MS,
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
        self.results: dict[str, dict[str, str]] = {}
        self.known = "abcd"
        self.definition = Definition("w", tuple(StepRule(ref=ref) for ref in "abc"))

    def runner(self, workflows: tuple[str, ...] = ()) -> TaskRunner:
        async def prepare() -> None:
            self.prepared += 1

        one = (StepRule(ref="a"),)
        definitions = {"w": self.definition, "one": Definition("one", one)}
        definitions |= {name: Definition(name, one) for name in workflows}
        return TaskRunner(self.member.node, definitions, self.make_steps, prepare=prepare)

    def make_steps(self, task, names):
        if unknown := [name for name in names if name not in self.known]:
            raise KeyError(unknown[0])
        return [_Step(self, task, name) for name in names]

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

    async def do(self):
        await self._happen("do")
        return self.bench.results.get(self.name)

    async def undo(self) -> None:
        await self._happen("undo")

    async def _happen(self, what: str) -> None:
        self.bench.history.append(f"{what} {self.name}")
        planned = self.bench.trouble.get(f"{what} {self.name}", [])
        trouble = planned.pop(0) if planned else None
        if isinstance(trouble, asyncio.Event):
            await trouble.wait()
            trouble = getattr(trouble, "error", None)
        if trouble is not None:
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
        await until(bench.is_over(), deadline_s=600)
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


# -- what is shown of a task


def story(bench: Bench) -> dict:
    return show(bench.member.store, bench.task())


def told(bench: Bench) -> list[tuple[str, str, str]]:
    return [(line["what"], line["step"], line["text"]) for line in story(bench)["log"]]


@bench_test
async def test_the_log_tells_of_tries_failures_and_undoing_in_their_order(bench):
    bench.trouble = {
        "do b": [TemporaryError("libvirt is away")] * 2 + [TemporaryError("still away")],
        "do c": [ConflictError("no room on h1")],
        "undo b": [UnavailableError("not now")] * 2,
    }
    await bench.add()
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert told(bench) == [
        ("begun", "a", ""),
        ("done", "a", ""),
        ("begun", "b", ""),
        ("retry", "b", "libvirt is away"),
        ("retry", "b", "still away"),
        ("done", "b", ""),
        ("begun", "c", ""),
        ("failed", "c", "no room on h1"),
        ("undone", "c", ""),
        ("undo-failed", "b", "undoing step b failed: not now"),
        ("resumed", "", "by host h1"),
        ("undone", "b", ""),
        ("undone", "a", ""),
    ]
    times = [line["at_ms"] for line in story(bench)["log"]]
    assert times == sorted(times)
    assert times[0] >= NOW_MS


@bench_test
async def test_a_step_that_is_repeated_for_an_hour_leaves_a_short_log_and_journal(bench):
    bench.trouble["do b"] = [RepeatStepError("the storage is away")] * 20
    await bench.add()
    async with running(bench.runner().run):
        await asyncio.sleep(3000)
        before = bench.member.store.index
        assert 12 < len(bench.history) < 22
        assert told(bench).count(("repeat", "b", "the storage is away")) == 1
        await asyncio.sleep(300)
        assert bench.member.store.index == before, "trying again commits nothing"
        await asyncio.sleep(2000)
    assert bench.is_over()()
    assert len(bench.task().journal) == 6


def events(bench: Bench) -> list[Event]:
    return sorted(bench.member.store.all(Event), key=lambda e: e.revision)


@pytest.mark.parametrize("what", ["do", "undo"])
def test_a_step_that_fails_again_and_again_tells_people_what_they_can_do(what):
    @bench_test
    async def main(bench):
        if what == "do":
            bench.trouble["do b"] = [RepeatStepError("the storage is away")] * 12
        else:
            bench.trouble = {
                "do b": [ConflictError("no")],
                "undo b": [UnavailableError("the storage is away")] * 12,
            }
        await bench.add(subject_name="web1")
        async with running(bench.runner().run):
            await asyncio.sleep(90)
            assert not [e for e in events(bench) if e.code.startswith("task-")], "it may pass"
            await asyncio.sleep(180)
            (stuck,) = [e for e in events(bench) if e.code.startswith("task-")]
            assert (stuck.code, stuck.severity) == ("task-stuck", Severity.WARNING)
            assert "w of web1: step b failed 8 times" in stuck.message
            assert "the storage is away" in stuck.message
            (line,) = [line for line in told(bench) if line[0] == "stuck"]
            assert line[1] == "b"
            assert "Mend the cause" in line[2]
            assert "'kvorum task retry t1'" in line[2]
            assert "the storage is away" in line[2]
            await asyncio.sleep(1500)
            assert bench.is_over()()
        codes = [e.code for e in events(bench) if e.code.startswith("task-")]
        assert codes == ["task-stuck", "task-goes-on"], "each once"

    main()


@pytest.mark.parametrize("when", ["during a pause", "during a try"])
def test_who_asks_for_the_next_try_of_a_stuck_task_does_not_wait_five_minutes(when):
    @bench_test
    async def main(bench):
        away = RepeatStepError("the storage is away")
        gate = asyncio.Event()
        gate.error = away
        during = when == "during a try"
        bench.trouble["do b"] = [away] * 8 + [gate if during else away, away]
        tries = 9 if during else 8
        await bench.add()
        async with running(bench.runner().run):
            await until(lambda: bench.history.count("do b") == tries, deadline_s=600)
            await asyncio.sleep(10)
            await bench.change(retries_asked=1)
            gate.set()
            await until(lambda: bench.history.count("do b") == tries + 1, deadline_s=5)
            await asyncio.sleep(200)
            assert bench.history.count("do b") == tries + 1, "it is one try, not a shorter pause"
            await asyncio.sleep(1500)
            assert bench.is_over()()

    main()


def test_the_pauses_between_tries_grow_to_five_minutes():
    pauses = [pause_after(tries) for tries in range(12)]
    assert pauses == [3, 3, 6, 12, 24, 30, 30, 30, 300, 300, 300, 300]


@bench_test
async def test_the_log_keeps_the_newest_lines_and_short_texts(bench):
    bench.trouble["do b"] = [RepeatStepError(f"away {n} " + "x" * 9000) for n in range(80)]
    await bench.add()
    async with running(bench.runner().run):
        await asyncio.sleep(80 * 300)
    assert bench.is_over()()
    log = bench.task().log
    assert len(log) == LOG_LINES_MAX
    assert log[-2].text.startswith("away 79")
    assert all(len(line.text) <= TEXT_LENGTH_MAX for line in log)


@bench_test
async def test_progress_goes_by_the_weights_of_the_steps(bench):
    gates = [asyncio.Event() for _ in "abc"]
    for name, gate in zip("abc", gates, strict=True):
        bench.trouble[f"do {name}"] = [gate]
    rules = (StepRule(ref="a"), StepRule(ref="b", weight=8), StepRule(ref="c"))
    bench.definition = Definition("w", rules)
    await bench.add()
    async with running(bench.runner().run):
        seen = []
        for name, gate in zip("abc", gates, strict=True):
            await until(lambda name=name: f"do {name}" in bench.history)
            seen.append(bench.task().progress)
            gate.set()
        await until(bench.is_over())
    assert [*seen, bench.task().progress] == [0, 10, 90, 100]


@bench_test
async def test_nested_workflows_are_shown_as_a_tree_before_they_are_begun(bench):
    inner = Definition("inner", (StepRule(ref="b"),))
    bench.definition = Definition("w", (StepRule(ref="a"), inner, StepRule(ref="c")))
    bench.trouble["do b"] = [gate := asyncio.Event()]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
        assert [(s["step"], s["inside"], s["state"]) for s in story(bench)["steps"]] == [
            ("a", [], "done"),
            ("b", ["inner"], "begun"),
            ("c", [], "waiting"),
        ]
        assert story(bench)["log"][-1]["inside"] == ["inner"]
        gate.set()
        await until(bench.is_over())


@bench_test
async def test_what_came_of_the_work_is_kept_unless_it_was_undone(bench):
    bench.results = {"a": {"vm": "web1"}, "c": {"host": "h1", "n": 3}}
    await bench.add()
    await bench.add("t2", subject="vm/2")
    bench.trouble["do c"] = [None, ConflictError("no")]
    async with running(bench.runner().run):
        await until(bench.is_over())
        await until(bench.is_over("t2"))
    by_state = {task.state: task.result for task in bench.member.store.all(Task)}
    assert by_state == {
        TaskState.SUCCEEDED: {"vm": "web1", "host": "h1", "n": "3"},
        TaskState.FAILED: {},
    }


@bench_test
async def test_a_step_takes_two_commits_and_a_task_two_more(bench):
    await bench.add()
    before = bench.member.store.index
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert bench.member.store.index - before == 2 * 3 + 2


# -- versions and plug-ins that come and go


@bench_test
async def test_work_begun_before_an_upgrade_is_undone_by_the_plan_it_began_with(bench):
    bench.trouble["do b"] = [asyncio.Event()]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
    bench.definition = Definition("w", (StepRule(ref="d"), StepRule(ref="b")))
    bench.trouble["do b"] = [ConflictError("no")]
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert bench.history[-3:] == ["do b", "undo b", "undo a"]


@bench_test
async def test_a_journal_of_a_version_that_wrote_no_plan_is_gone_on_with(bench):
    journal = (
        JournalEntry(step="d", mark=StepMark.DONE, at_ms=1),
        JournalEntry(step="a", mark=StepMark.DONE, at_ms=2),
        JournalEntry(step="b", mark=StepMark.BEGUN, at_ms=3),
    )
    bench.trouble["do c"] = [ConflictError("no")]
    await bench.add(state=TaskState.RUNNING, journal=journal)
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert bench.history == ["do b", "do c", "undo c", "undo b", "undo a", "undo d"]


@bench_test
async def test_a_task_whose_step_is_unknown_fails_before_it_begins_anything(bench):
    bench.known = "ac"
    await bench.add()
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert (bench.task().state, bench.task().error_code) == (TaskState.FAILED, "unknown-workflow")
    assert "step 'b' of workflow 'w'" in bench.task().error
    assert bench.history == []


@bench_test
async def test_a_begun_task_whose_step_is_gone_waits_for_its_plugin(bench):
    bench.trouble["do b"] = [asyncio.Event()]
    await bench.add()
    async with running(bench.runner().run):
        await until(lambda: "do b" in bench.history)
    bench.known = "ac"
    async with running(bench.runner().run):
        await asyncio.sleep(60)
        assert bench.task().state is TaskState.RUNNING, "its undo would be lost"
        bench.known = "abc"
        await until(bench.is_over())
    assert bench.task().state is TaskState.SUCCEEDED


@bench_test
async def test_steps_that_cannot_be_made_fail_their_task_and_no_other(bench):
    runner = bench.runner()
    make = runner._make_steps
    runner._make_steps = lambda task, names: 1 / 0 if task.id == "t1" else make(task, names)
    await bench.add()
    await bench.add("t2", subject="vm/2")
    async with running(runner.run):
        await until(bench.is_over())
        await until(bench.is_over("t2"))
    assert bench.task().state is TaskState.FAILED
    assert bench.task("t2").state is TaskState.SUCCEEDED


@bench_test
async def test_nothing_is_gone_on_with_before_the_state_has_caught_up(bench):
    """The copy of an agent that starts anew may lack what the agent itself had committed last."""
    tries = iter(range(3))

    async def read_barrier(*, timeout_s: float) -> int:
        if next(tries, None) is not None:
            assert bench.history == []
            raise UnavailableError("no quorum yet")
        return bench.member.store.index

    bench.member.engine.read_barrier = read_barrier
    await bench.add()
    async with running(bench.runner().run):
        await until(bench.is_over())
    assert bench.history == ["do a", "do b", "do c"]
    assert next(tries, None) is None
