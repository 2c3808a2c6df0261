"""The checker itself, on histories whose verdict is known."""

import itertools
import random

import pytest

from tests.linearizability.checker import NEVER, Kind, Operation, check

READ, WRITE, CAS = Kind.READ, Kind.WRITE, Kind.CAS


def op(kind, called, returned, *, value=None, expected=None, result=None, key="x"):
    return Operation("c", kind, key, called, returned, value, expected, result)


GOOD = {
    "nothing happened": [],
    "a read of nothing": [op(READ, 0, 1)],
    "one after the other": [op(WRITE, 0, 1, value=1), op(READ, 2, 3, result=1)],
    "a read beside a write sees the old value": [op(WRITE, 0, 9, value=1), op(READ, 2, 3)],
    "a read beside a write sees the new value": [
        op(WRITE, 0, 9, value=1),
        op(READ, 2, 3, result=1),
    ],
    "writes at once in the order a read shows": [
        op(WRITE, 0, 9, value=1),
        op(WRITE, 0, 9, value=2),
        op(READ, 10, 11, result=1),
    ],
    "an unknown write that came late": [
        op(WRITE, 0, NEVER, value=1),
        op(READ, 1, 2),
        op(READ, 3, 4, result=1),
    ],
    "an unknown write that never came": [op(WRITE, 0, NEVER, value=1), op(READ, 1, 2)],
    "an unknown cas that came": [
        op(WRITE, 0, 1, value=1),
        op(CAS, 2, NEVER, value=2, expected=1),
        op(READ, 3, 4, result=2),
    ],
    "a failed cas": [op(WRITE, 0, 1, value=1), op(CAS, 2, 3, value=3, expected=2, result=0)],
    "a cas that fails because of an unknown write": [
        op(WRITE, 0, NEVER, value=1),
        op(CAS, 2, 3, value=3, expected=None, result=0),
        op(READ, 4, 5, result=1),
    ],
    "keys apart": [op(WRITE, 0, 1, value=1), op(READ, 2, 3, key="y")],
}
BAD = {
    "a lost write": [op(WRITE, 0, 1, value=1), op(READ, 2, 3)],
    "a value from nowhere": [op(READ, 0, 1, result=7)],
    "back in time": [
        op(WRITE, 0, 9, value=1),
        op(READ, 1, 2, result=1),
        op(READ, 3, 4),
    ],
    "two cas from one value": [
        op(WRITE, 0, 1, value=1),
        op(CAS, 2, 9, value=2, expected=1, result=1),
        op(CAS, 2, 9, value=3, expected=1, result=1),
    ],
    "a cas that failed for no reason": [
        op(WRITE, 0, 1, value=1),
        op(CAS, 2, 3, value=2, expected=1, result=0),
    ],
    "an unknown write before its call": [
        op(READ, 0, 1, result=1),
        op(WRITE, 2, NEVER, value=1),
    ],
    "an unknown write that comes twice": [
        op(WRITE, 0, NEVER, value=1),
        op(READ, 1, 2, result=1),
        op(WRITE, 3, 4, value=2),
        op(READ, 5, 6, result=2),
        op(READ, 7, 8, result=1),
    ],
    "readers disagree on the order of writes": [
        op(WRITE, 0, 99, value=1),
        op(WRITE, 0, 99, value=2),
        op(READ, 1, 2, result=1),
        op(READ, 3, 4, result=2),
        op(READ, 5, 6, result=1),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name):
    assert check(GOOD[name]).linearizable


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found(name):
    assert check(BAD[name]).linearizable is False


def test_the_window_names_the_operations_at_fault_only():
    before = [op(WRITE, n, n + 0.5, value=n) for n in range(50)]
    after = [op(WRITE, n, n + 0.5, value=n) for n in range(60, 90)]
    fault = [op(WRITE, 55, 55.1, value=55), op(READ, 56, 56.1, result=3)]
    assert check([*before, *fault, *after]).window == tuple(fault)


def random_history(rng: random.Random, count: int) -> list[Operation]:
    """Return what clients of a correct register see: each operation takes effect between call and return."""
    state, values, history = None, itertools.count(1), []
    for _ in range(count):
        at = rng.uniform(0, count)
        history.append(
            (at, rng.choice(list(Kind)), at - rng.expovariate(1), at + rng.expovariate(1))
        )
    done = []
    for _, kind, called, returned in sorted(history):
        value, expected = next(values), state if rng.random() < 0.6 else 0
        unknown = rng.random() < 0.1
        each = op(kind, called, NEVER if unknown else returned, value=value, expected=expected)
        result = state if kind is READ else int(state == expected)
        if kind is WRITE or (kind is CAS and state == expected):
            state = value
        done.append(Operation("c", kind, "x", called, each.returned, value, expected, result))
    return done


@pytest.mark.parametrize("number", range(30))
def test_what_a_correct_register_did_passes_and_a_stale_read_in_it_is_found(number):
    rng = random.Random(number)
    history = random_history(rng, 120)
    assert check(history).linearizable
    end = max(each.returned for each in history if each.known)
    late = [
        op(WRITE, end + 1, end + 2, value=1000),
        op(READ, end + 3, end + 4, result=history[3].value),
    ]
    assert check([*history, *late]).linearizable is False


def test_a_search_without_end_says_so():
    history = [op(WRITE, 0, 100, value=n) for n in range(1, 22)]
    history += [op(READ, 0, 100, result=n) for n in range(1, 22)]
    history.append(op(READ, 200, 201, result=999))
    assert check(history, budget_s=0.3).linearizable is None
