"""Forward, back, and on from wherever a runner died."""

import asyncio

import pytest

from core.errors import (
    ConflictError,
    PlatformError,
    TemporaryError,
    UnavailableError,
)
from core.model import StepMark
from core.workflow import (
    NO_RESULT,
    RepeatStepError,
    RollbackIncompleteError,
    RolledBackError,
    run_workflow,
)
from core.workflow_definition import Retry, StepRule
from tests.one_member import in_virtual_time

BEGUN, DONE, UNDONE = StepMark.BEGUN, StepMark.DONE, StepMark.UNDONE


class Crash(BaseException):
    """The process dies here: no handler of the product may catch it."""


class World:
    """What outlives a runner: the journal, and the effects of steps. Dies at the n-th thing that happens."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, StepMark]] = []
        self.failure: PlatformError | None = None
        self.effects: list[str] = []
        self.history: list[str] = []
        self.crash_at: int | None = None
        self.happened = 0
        self.cancel = False
        self.notes: list[tuple[str, str, str]] = []
        self.result: dict[str, str] = {}

    def tick(self) -> None:
        self.happened += 1
        if self.happened == self.crash_at:
            raise Crash

    def marks(self):
        return dict(self.lines)

    def rolling_back(self) -> bool:
        return self.failure is not None

    async def record(self, step, mark, result=NO_RESULT):
        self.tick()  # dies before it is durable
        self.lines.append((step, mark))
        self.result |= result
        self.tick()  # dies right after

    async def note(self, step, what, text):
        self.tick()
        self.notes.append((step, what, text))

    async def record_rollback(self, error):
        self.tick()
        self.failure = error
        self.tick()


class Piece:
    """A step that puts its name among the effects. Idempotent, as the engine demands."""

    def __init__(self, world: World, name: str, *, do_error=None, undo_errors=0) -> None:
        self.world, self.name, self.do_error, self.undo_errors = (
            world,
            name,
            do_error,
            undo_errors,
        )

    async def do(self) -> None:
        self.world.tick()
        self.world.history.append(f"do {self.name}")
        if self.name not in self.world.effects:
            self.world.effects.append(self.name)
        self.world.tick()
        if self.do_error is not None:
            raise self.do_error

    async def undo(self) -> None:
        self.world.tick()
        self.world.history.append(f"undo {self.name}")
        if self.undo_errors:
            self.undo_errors -= 1
            raise UnavailableError("not now")
        if self.name in self.world.effects:
            self.world.effects.remove(self.name)
        self.world.tick()


def pieces(world: World, **errors) -> list[Piece]:
    return [Piece(world, name, do_error=errors.get(name)) for name in "abc"]


async def run(world: World, steps) -> None:
    await run_workflow(steps, world, cancel_requested=lambda: world.cancel)


async def test_steps_run_in_order_and_each_is_begun_before_and_done_after():
    world = World()
    await run(world, pieces(world))
    assert world.history == ["do a", "do b", "do c"]
    assert world.lines == [(s, m) for s in "abc" for m in (BEGUN, DONE)]


async def test_a_failure_undoes_what_was_begun_in_reverse_and_names_its_cause():
    world = World()
    with pytest.raises(RolledBackError, match="no room") as caught:
        await run(world, pieces(world, b=ConflictError("no room", code="full")))
    assert world.history == ["do a", "do b", "undo b", "undo a"]
    assert world.effects == []
    assert caught.value.code == "full"
    assert world.failure.message == "no room"


async def test_an_unexpected_exception_rolls_back_too():
    world = World()
    with pytest.raises(RolledBackError, match="step c: ZeroDivisionError"):
        await run(world, pieces(world, c=ZeroDivisionError("oops")))
    assert world.effects == []


async def test_a_cancelled_workflow_stops_between_two_steps_and_undoes():
    world = World()
    steps = pieces(world)

    class AsksToCancel(Piece):
        async def do(self):
            await super().do()
            self.world.cancel = True

    steps[1] = AsksToCancel(world, "b")
    with pytest.raises(RolledBackError) as caught:
        await run(world, steps)
    assert caught.value.code == "cancelled"
    assert world.history == ["do a", "do b", "undo b", "undo a"]


async def test_a_cancellation_after_the_last_step_comes_too_late():
    world = World()
    await run(world, pieces(world))
    world.cancel = True
    await run(world, pieces(world))
    assert world.effects == ["a", "b", "c"]


async def test_a_failed_undo_is_told_and_the_next_run_finishes_it():
    world = World()
    steps = pieces(world, c=ConflictError("no"))
    steps[1].undo_errors = 2
    for _ in range(2):
        with pytest.raises(RollbackIncompleteError):
            await run(world, steps)
        assert "a" in world.effects, "what came before waits its turn"
    with pytest.raises(RolledBackError):
        await run(world, steps)
    assert world.effects == []
    assert world.history.count("undo c") == 1
    assert world.history.count("undo b") == 3


async def test_past_the_point_of_no_return_nothing_is_undone():
    world = World()
    steps = pieces(world, b=RepeatStepError("storage is away"))
    with pytest.raises(RepeatStepError):
        await run(world, steps)
    assert not world.rolling_back()
    steps[1].do_error = None
    await run(world, steps)
    assert world.history == ["do a", "do b", "do b", "do c"]


async def test_a_workflow_without_steps_is_done():
    await run(World(), [])


@pytest.mark.parametrize("crash_at", range(1, 20))
async def test_wherever_a_runner_dies_the_next_finishes_forward(crash_at):
    world = World()
    world.crash_at = crash_at
    try:
        await run(world, pieces(world))
        assert world.happened < crash_at, "it was to die before its end"
    except Crash:
        await run(world, pieces(world))
    assert sorted(world.effects) == ["a", "b", "c"]
    assert [world.marks()[s] for s in "abc"] == [DONE] * 3
    order = list(dict.fromkeys(world.history))
    assert order == ["do a", "do b", "do c"]
    assert len(world.history) <= 4, "only the step that was cut off runs again"


@pytest.mark.parametrize("crash_at", range(1, 30))
async def test_wherever_a_runner_dies_a_failure_ends_with_nothing_left(crash_at):
    world = World()
    world.crash_at = crash_at
    error = ConflictError("no room")
    for _ in range(2):
        try:
            await run(world, pieces(world, c=error))
        except RolledBackError:
            break
        except Crash:
            continue
    assert world.effects == []
    assert not any(m in (BEGUN, DONE) for m in world.marks().values())
    assert world.failure is error
    undone = [line for line in world.history if line.startswith("undo")]
    assert list(dict.fromkeys(undone)) == ["undo c", "undo b", "undo a"]


async def test_undoing_begun_is_never_turned_round():
    world = World()
    steps = pieces(world, c=ConflictError("no"))
    steps[0].undo_errors = 1
    with pytest.raises(RollbackIncompleteError):
        await run(world, steps)
    with pytest.raises(RolledBackError):
        await run(world, pieces(world))  # would succeed if it were tried forward
    assert "do c" not in world.history[-2:]
    assert world.effects == []


class Passing:
    """A step that fails for now some times, then works."""

    name = "passing"

    def __init__(self, failures: int) -> None:
        self.failures, self.tries = failures, 0

    async def do(self) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise TemporaryError("libvirt is away", retry_after_s=1.0)

    async def undo(self) -> None:
        return


@pytest.mark.parametrize(("failures", "works"), [(0, True), (15, True), (1000, False)])
def test_what_fails_for_now_is_tried_again_for_twenty_seconds(failures, works):
    world, step = World(), Passing(failures)

    async def run() -> None:
        await run_workflow([step], world, cancel_requested=lambda: False)

    if works:
        in_virtual_time(run)
        assert step.tries == failures + 1
    else:
        with pytest.raises(RolledBackError, match="libvirt is away"):
            in_virtual_time(run)
        assert 15 < step.tries < 25


def test_a_cancelled_task_does_not_wait_for_what_fails_for_now():
    world, step = World(), Passing(1000)
    asked = iter((False, True, True))  # before it begins; while it waits

    async def run() -> None:
        await run_workflow([step], world, cancel_requested=lambda: next(asked))

    with pytest.raises(RolledBackError):
        in_virtual_time(run)
    assert step.tries == 1


class Slow(Piece):
    """A step that takes its time, in `do` or `undo`."""

    def __init__(self, world: World, name: str, *, do_s=0.0, undo_s=()) -> None:
        super().__init__(world, name)
        self.do_s, self.undo_s = do_s, list(undo_s)

    async def do(self) -> None:
        await super().do()
        await asyncio.sleep(self.do_s)

    async def undo(self) -> None:
        if self.undo_s:
            await asyncio.sleep(self.undo_s.pop(0))
        await super().undo()


def run_ruled(world: World, steps, **rules) -> None:
    async def main() -> None:
        await run_workflow(steps, world, cancel_requested=lambda: world.cancel, rules=rules)

    in_virtual_time(main)


def test_a_step_over_its_time_fails_says_so_and_is_undone():
    world = World()
    steps = [Piece(world, "a"), Slow(world, "b", do_s=31), Piece(world, "c")]
    with pytest.raises(RolledBackError, match="step b did not end within its 30 s") as caught:
        run_ruled(world, steps, b=StepRule(ref="b", timeout_s=30))
    assert caught.value.code == "step-timeout"
    assert world.history == ["do a", "do b", "undo b", "undo a"]


def test_a_step_within_its_time_is_left_alone():
    world = World()
    run_ruled(world, [Slow(world, "b", do_s=29)], b=StepRule(ref="b", timeout_s=30))
    assert world.effects == ["b"]


def test_tries_and_pauses_count_towards_the_time_of_a_step():
    world, step = World(), Passing(1000)
    rule = StepRule(ref="passing", timeout_s=10, attempts=100, pause_s=4)
    with pytest.raises(RolledBackError, match="within its 10 s"):
        run_ruled(world, [step], passing=rule)
    assert step.tries == 2


def test_an_undo_over_its_time_is_tried_again_later():
    world = World()
    steps = [Slow(world, "a", undo_s=[31]), Piece(world, "b", do_error=ConflictError("no"))]
    rule = StepRule(ref="a", timeout_s=30)
    with pytest.raises(RollbackIncompleteError, match="undoing step a failed: TimeoutError"):
        run_ruled(world, steps, a=rule)
    with pytest.raises(RolledBackError):
        run_ruled(world, steps, a=rule)
    assert world.effects == []


def test_a_timeout_error_of_the_step_itself_is_not_taken_for_its_time():
    world = World()
    with pytest.raises(RolledBackError, match="internal error in step a: TimeoutError"):
        run_ruled(world, pieces(world, a=TimeoutError()), a=StepRule(ref="a", timeout_s=30))


def test_any_failure_is_tried_as_often_as_the_definition_says():
    world = World()
    steps = pieces(world, b=ConflictError("no"))
    with pytest.raises(RolledBackError):
        run_ruled(world, steps, b=StepRule(ref="b", retry=Retry.ANY, attempts=4, pause_s=1))
    assert world.history.count("do b") == 4
    assert world.notes == [("b", "retry", "no")] * 3, "for people to see; the journal says it once"


def test_cancelling_ends_a_long_pause_within_a_second():
    world, step = World(), Passing(1000)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        loop.call_later(100, lambda: setattr(world, "cancel", True))
        rule = StepRule(ref="passing", attempts=2, pause_s=3600)
        with pytest.raises(RolledBackError) as caught:
            await run_workflow(
                [step], world, cancel_requested=lambda: world.cancel, rules={"passing": rule}
            )
        assert caught.value.code == "cancelled"
        assert loop.time() - begin_s < 102

    in_virtual_time(main)


async def test_what_came_of_the_steps_is_recorded_with_them():
    world = World()

    class Tells(Piece):
        async def do(self):
            await super().do()
            return {self.name: "made"}

    await run(world, [Tells(world, "a"), Piece(world, "b"), Tells(world, "c")])
    assert world.result == {"a": "made", "c": "made"}


async def test_a_step_that_returns_nonsense_or_exits_fails_like_any_other():
    world = World()

    class Nonsense(Piece):
        async def do(self):
            await super().do()
            return "done!"

    with pytest.raises(RolledBackError, match="names and texts"):
        await run(world, [Piece(world, "a"), Nonsense(world, "b")])
    assert world.effects == []
    with pytest.raises(RolledBackError, match="SystemExit"):
        await run(World(), pieces(World(), b=SystemExit(1)))


class Final(Piece):
    """A step from whose beginning there is only forward."""

    no_return = True


@pytest.mark.parametrize("failing", ["b", "c"])
async def test_from_a_step_without_return_on_failures_and_cancelling_change_nothing(failing):
    world = World()
    errors = {failing: ConflictError("no")}
    steps = [
        Piece(world, "a"),
        Final(world, "b", do_error=errors.get("b")),
        Piece(world, "c", do_error=errors.get("c")),
    ]
    with pytest.raises(RepeatStepError, match="no"):
        await run(world, steps)
    world.cancel = True
    with pytest.raises(RepeatStepError):
        await run(world, steps)
    assert not world.rolling_back()
    for step in steps:
        step.do_error = None
    await run(world, steps)
    assert [world.marks()[s] for s in "abc"] == [DONE] * 3
    assert "undo a" not in world.history
    assert world.lines.count((failing, BEGUN)) == 1, "tries add nothing to the journal"


async def test_a_step_may_refuse_to_be_cancelled_before_it_begins():
    world = World()

    class Needed(Piece):
        may_cancel = False

    class Asks(Piece):
        async def do(self):
            await super().do()
            world.cancel = True

    with pytest.raises(RolledBackError):
        await run(world, [Asks(world, "a"), Needed(world, "b"), Piece(world, "c")])
    assert world.history == ["do a", "do b", "undo b", "undo a"]


async def test_cancelling_a_begun_step_after_a_crash_is_left_to_the_step():
    """It may be past what can be taken back, e.g. a guest that has moved: only the step can tell."""
    world = World()
    world.lines = [("a", DONE), ("b", BEGUN)]
    world.cancel = True
    with pytest.raises(RolledBackError):
        await run(world, pieces(world))
    assert world.history == ["do b", "undo b", "undo a"]
