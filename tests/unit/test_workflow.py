"""Forward, back, and on from wherever a runner died."""

import pytest

from core.errors import (
    ConflictError,
    FatalError,
    PlatformError,
    TemporaryError,
    UnavailableError,
)
from core.model import StepMark
from core.workflow import (
    RepeatStepError,
    RollbackIncompleteError,
    RolledBackError,
    parse_definitions,
    run_workflow,
)
from nodeagent.workflows.registry import STEPS, load_definitions
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

    def tick(self) -> None:
        self.happened += 1
        if self.happened == self.crash_at:
            raise Crash

    def marks(self):
        return dict(self.lines)

    def rolling_back(self) -> bool:
        return self.failure is not None

    async def record(self, step, mark):
        self.tick()  # dies before it is durable
        self.lines.append((step, mark))
        self.tick()  # dies right after

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


def xml(name: str, *children: str) -> str:
    return f'<workflow name="{name}">{"".join(children)}</workflow>'


def step(ref: str) -> str:
    return f'<step ref="{ref}"/>'


def nested(ref: str) -> str:
    return f'<workflow ref="{ref}"/>'


KNOWN = frozenset("abcde")


def test_a_definition_lists_its_steps_in_order():
    definitions = parse_definitions([xml("w", step("b"), step("a"))], KNOWN)
    assert definitions["w"].steps == ("b", "a")


def test_nested_workflows_are_put_in_place_in_whatever_order_the_files_come():
    texts = [
        xml("outer", step("a"), nested("inner"), step("e")),
        xml("inner", step("b"), nested("innermost")),
        xml("innermost", step("c"), step("d")),
    ]
    for order in (texts, texts[::-1]):
        assert parse_definitions(order, KNOWN)["outer"].steps == ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["<workflow"], "not XML"),
        ([xml("", step("a"))], "unique name"),
        (["<flow name='w'/>"], "root <workflow>"),
        ([xml("w", step("a")), xml("w", step("b"))], "unique name"),
        ([xml("w", step("z"))], "unknown step <step ref='z'>"),
        ([xml("w", "<stage ref='a'/>")], "unknown step <stage"),
        ([xml("w", "<step/>")], "unknown step"),
        ([xml("w", nested("other"))], "unknown workflow 'other'"),
        ([xml("w", nested("w"))], "contains itself"),
        ([xml("v", nested("w")), xml("w", nested("v"))], "contains itself"),
        ([xml("w", step("a"), step("a"))], "twice"),
        ([xml("w", step("a"), nested("v")), xml("v", step("a"))], "twice"),
    ],
)
def test_a_broken_definition_stops_the_agent_with_a_reason(texts, complaint):
    with pytest.raises(FatalError, match=complaint):
        parse_definitions(texts, KNOWN)


def test_every_shipped_definition_loads_and_every_step_is_used():
    definitions = load_definitions()
    assert set(definitions) == {
        "create-vm",
        "delete-vm",
        "migrate-vm",
        "reboot-vm",
        "start-vm",
        "stop-vm",
    }
    assert {ref for d in definitions.values() for ref in d.steps} == set(STEPS)


def test_every_step_is_known_to_the_journal_by_its_name_in_the_definitions():
    for name, make in STEPS.items():
        assert make(None).name == name


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
    asked = iter((False, True, True))

    async def run() -> None:
        await run_workflow([step], world, cancel_requested=lambda: next(asked))

    with pytest.raises(RolledBackError):
        in_virtual_time(run)
    assert step.tries == 1
