"""The law of the workflow engine under random workflows, failures, requests to cancel, and deaths at any moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConflictError, PlatformError, TemporaryError, UnavailableError
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
RUNS_MAX = 60


class Death(BaseException):
    """The agent dies: nothing of the product may catch it."""


@dataclass(frozen=True)
class Plan:
    """A step's nature: what its tries of `do` and `undo` meet, one after the other; then they work."""

    troubles: tuple[str, ...]
    undo_troubles: int
    no_return: bool
    may_cancel: bool
    retry: Retry


TROUBLES = ("temporary", "conflict", "crashed", "repeat", "hangs")

plans = st.lists(
    st.builds(
        Plan,
        troubles=st.lists(st.sampled_from(TROUBLES), max_size=2).map(tuple),
        undo_troubles=st.integers(0, 2),
        no_return=st.sampled_from([False, False, False, True]),
        may_cancel=st.sampled_from([True, True, False]),
        retry=st.sampled_from(list(Retry)),
    ),
    min_size=1,
    max_size=5,
)


class Everything:
    """What outlives an agent: the journal, the effects, and what shall go wrong at which moment."""

    def __init__(
        self, plans: list[Plan], deaths: set[int], losses: set[int], cancel_at: int
    ) -> None:
        self.steps = [PlannedStep(self, f"s{n}", plan) for n, plan in enumerate(plans)]
        self.deaths, self.losses, self.cancel_at = deaths, losses, cancel_at
        self.moment = 0
        self.lines: list[tuple[str, StepMark]] = []
        self.failure: PlatformError | None = None
        self.effects: set[str] = set()
        self.undone: list[str] = []
        self.broken: list[str] = []

    def insist(self, holds: bool, law: str) -> None:
        """Keep a breach for the end: raised in a step, the engine would take it for the step's failure."""
        if not holds:
            self.broken.append(law)

    def pass_moment(self) -> None:
        self.moment += 1
        if self.moment in self.deaths:
            raise Death

    def is_cancelled(self) -> bool:
        return self.moment >= self.cancel_at

    def marks(self):
        return dict(self.lines)

    def rolling_back(self) -> bool:
        return self.failure is not None

    def _commit_begins(self) -> None:
        self.pass_moment()
        if self.moment in self.losses:
            raise UnavailableError("no quorum")

    async def record(self, step, mark, result=NO_RESULT) -> None:
        self._commit_begins()
        self.lines.append((step, mark))
        self._commit_begins()  # lost now, it is stored all the same and its writer does not know

    async def note(self, step, what, text) -> None:
        self._commit_begins()

    async def record_rollback(self, error) -> None:
        self._commit_begins()
        begun = {step for step, mark in self.lines if mark is BEGUN}
        final = any(s.no_return for s in self.steps if s.name in begun)
        self.insist(not final, "there was no way back")
        self.failure = error
        self._commit_begins()


class PlannedStep:
    """A step that keeps the law's books while it works as planned."""

    def __init__(self, world: Everything, name: str, plan: Plan) -> None:
        self.world, self.name = world, name
        self.no_return, self.may_cancel = plan.no_return, plan.may_cancel
        self._troubles, self._undo_troubles = list(plan.troubles), plan.undo_troubles
        self.rule = StepRule(ref=name, retry=plan.retry, attempts=3, pause_s=1, timeout_s=50)

    async def do(self) -> None:
        world = self.world
        world.insist(not world.rolling_back(), "nothing is done once undoing has begun")
        world.insist(world.marks().get(self.name) is BEGUN, "its undo could be lost")
        before = world.steps[: world.steps.index(self)]
        in_order = all(world.marks().get(s.name) is DONE for s in before)
        world.insist(in_order, "out of order")
        world.pass_moment()
        trouble = self._troubles.pop(0) if self._troubles else ""
        if trouble == "conflict":
            raise ConflictError("no")  # before its effect; the others after it
        world.effects.add(self.name)
        world.pass_moment()
        match trouble:
            case "temporary":
                raise TemporaryError("away")
            case "crashed":
                raise ZeroDivisionError
            case "repeat":
                raise RepeatStepError("once more")
            case "hangs":
                await asyncio.sleep(1000)

    async def undo(self) -> None:
        world = self.world
        world.insist(world.rolling_back(), "undone before it was decided")
        after = world.steps[world.steps.index(self) + 1 :]
        out_of_order = any(world.marks().get(s.name) in (BEGUN, DONE) for s in after)
        world.insist(not out_of_order, "out of order")
        world.pass_moment()
        if self._undo_troubles:
            self._undo_troubles -= 1
            raise TemporaryError("away")
        world.effects.discard(self.name)
        world.undone.append(self.name)
        world.pass_moment()


async def run_to_the_end(world: Everything) -> str:
    """Let one runner after the other work on it, as the task runner does."""
    rules = {step.name: step.rule for step in world.steps}
    for _ in range(RUNS_MAX):
        try:
            await run_workflow(world.steps, world, cancel_requested=world.is_cancelled, rules=rules)
        except RolledBackError:
            return "undone"
        except (Death, RollbackIncompleteError, RepeatStepError, UnavailableError):
            continue
        return "done"
    raise AssertionError("it never ends")


@settings(max_examples=400, deadline=None)
@given(
    plans=plans,
    deaths=st.sets(st.integers(1, 60), max_size=6),
    losses=st.sets(st.integers(1, 60), max_size=4),
    cancel_at=st.sampled_from([1, 3, 6, 10, 20, 10_000, 10_000]),
)
def test_work_is_done_or_undone_in_reverse_and_never_done_again(plans, deaths, losses, cancel_at):
    world = Everything(plans, deaths, losses, cancel_at)
    names = {step.name for step in world.steps}

    async def main() -> None:
        end = await run_to_the_end(world)
        assert world.broken == []
        if end == "done":
            assert world.effects == names
            assert all(world.marks()[name] is DONE for name in names)
            assert world.undone == []
        else:
            assert world.effects == set()
            assert all(mark is UNDONE for mark in world.marks().values())
            order = list(dict.fromkeys(world.undone))
            assert order == sorted(order, reverse=True)
        assert len(world.lines) <= 2 * len(names) + len(names) + 6, "tries don't fill the journal"

    in_virtual_time(main)
