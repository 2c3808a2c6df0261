"""Tells whether a history of operations on registers is linearizable (Herlihy and Wing 1990).

Each key is judged for itself, which is enough (locality). The search is Wing and Gong's with Lowe's memory of
configurations seen (Lowe, "Testing for linearizability", 2017), as in Porcupine. No kept Python package does this: PyPI
has none under any name we know, and Knossos and Porcupine need a JVM or Go.

An operation without a return may have taken effect at any time after its call, or never.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

NEVER = math.inf
Value = int | None


class Kind(StrEnum):
    READ = "read"
    WRITE = "write"
    CAS = "cas"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a client. `returned` is `NEVER` when its outcome is unknown.

    A read has a `result`, a write a `value`; cas sets `value` if the register is `expected`, and `result` says
    whether it was (1 or 0).
    """

    client: str
    kind: Kind
    key: str
    called: float
    returned: float = NEVER
    value: Value = None
    expected: Value = None
    result: Value = None

    @property
    def known(self) -> bool:
        return self.returned != NEVER

    def step(self, state: Value) -> tuple[bool, Value]:
        """Return whether it can take effect in `state` as it says it did, and the state after."""
        match self.kind:
            case Kind.READ:
                return self.result == state, state
            case Kind.WRITE:
                return True, self.value
            case Kind.CAS if not self.known:
                return state == self.expected, self.value
            case Kind.CAS:
                succeeds = state == self.expected
                return succeeds == bool(self.result), self.value if succeeds else state


@dataclass(frozen=True, slots=True)
class Verdict:
    """`linearizable` is None when time ran out. `window` is the shortest run of one key's operations that can't be."""

    linearizable: bool | None
    window: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        if self.linearizable is not False:
            return "linearizable" if self.linearizable else "unknown: out of time"
        return "not linearizable:\n" + "\n".join(f"  {operation}" for operation in self.window)


class _OutOfTime(Exception):
    """The budget is used up."""


def check(
    history: Iterable[Operation],
    *,
    budget_s: float = 30.0,
    now: Callable[[], float] = time.monotonic,
) -> Verdict:
    """Judge a history; the first key that fails counts."""
    deadline = now() + budget_s
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.known or operation.kind is not Kind.READ:
            keys[operation.key].append(operation)
    try:
        for _, operations in sorted(keys.items()):
            useful = _useful(operations)
            if not _possible(useful, {None}, deadline, now):
                return Verdict(False, _window(useful, deadline, now))
    except _OutOfTime:
        return Verdict(None)
    return Verdict(True)


def _useful(operations: Sequence[Operation]) -> list[Operation]:
    """Drop operations of unknown outcome that nobody can have noticed: no read or cas saw their value, none failed."""
    seen = {op.result for op in operations if op.kind is Kind.READ}
    seen |= {op.expected for op in operations if op.kind is Kind.CAS}
    failed = [op.returned for op in operations if op.kind is Kind.CAS and op.result == 0]
    last_failure = max((at for at in failed if at != NEVER), default=-NEVER)
    kept = [op for op in operations if op.known or op.value in seen or op.called < last_failure]
    return sorted(kept, key=lambda op: op.called)


def _possible(
    operations: Sequence[Operation],
    starts: set[Value],
    deadline: float,
    now: Callable[[], float],
) -> bool:
    """Search an order in which every operation of known outcome takes effect, from any of the `starts`."""
    return any(_search(operations, start, deadline, now) for start in starts)


def _search(
    operations: Sequence[Operation], state: Value, deadline: float, now: Callable[[], float]
) -> bool:
    calls = sorted(range(len(operations)), key=lambda i: operations[i].called)
    wanted = sum(1 << i for i in calls if operations[i].known)
    seen: set[tuple[int, Value]] = set()
    stack: list[tuple[int, Value]] = [(0, state)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & wanted == wanted:
            return True
        steps += 1
        if steps % 256 == 0 and now() > deadline:
            raise _OutOfTime
        # Whoever was called before the first return of those left may be next.
        first_return, candidates = NEVER, []
        for i in calls:
            if done >> i & 1:
                continue
            if operations[i].called > first_return:
                break
            candidates.append(i)
            first_return = min(first_return, operations[i].returned)
        for i in reversed(candidates):  # so that the one called first is tried first
            if operations[i].called > first_return:
                continue
            fits, after = operations[i].step(state)
            configuration = (done | 1 << i, after)
            if fits and configuration not in seen:
                seen.add(configuration)
                stack.append(configuration)
    return False


def _window(
    operations: Sequence[Operation], deadline: float, now: Callable[[], float]
) -> tuple[Operation, ...]:
    """Return the shortest end of the shortest beginning that is impossible, from whatever value it starts."""
    ends = sorted(op.returned for op in operations if op.known)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _possible(_until(operations, ends[middle]), {None}, deadline, now):
            low = middle + 1
        else:
            high = middle
    beginning = _until(operations, ends[low])
    values: set[Value] = {None} | {op.value for op in beginning}
    low, high = 0, len(beginning) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _possible(beginning[middle:], values, deadline, now):
            high = middle - 1
        else:
            low = middle
    return tuple(beginning[low:])


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    """Return the history as it was known at `end`."""
    known = [op if op.returned <= end else replace(op, returned=NEVER) for op in operations]
    return [op for op in known if op.called <= end and (op.known or op.kind is not Kind.READ)]
