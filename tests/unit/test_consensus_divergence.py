"""Whose state is wrong: counted among those that can be compared, never too early, and the leader breaks a tie."""

import pytest

from raftstate.consensus.divergence import JUDGE_AFTER_S, Divergence
from raftstate.consensus.engine import NodeId

A, B, C, D = (NodeId(name) for name in "abcd")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def judged(verdicts: dict[NodeId, bool], leader: NodeId | None, waited_s: float = JUDGE_AFTER_S):
    clock = Clock()
    divergence = Divergence(clock)
    for peer, agrees in verdicts.items():
        divergence.compared(peer, agrees)
    clock.now_s += waited_s
    return divergence.outvoted_by((A, B, C, D), leader)


@pytest.mark.parametrize(
    ("verdicts", "leader", "wrong"),
    [
        ({}, A, False),
        ({A: True, B: True}, A, False),
        ({A: False, B: True}, A, False),  # the leader is wrong, and a third voter agrees with us
        ({A: False, B: False}, None, True),
        ({A: False, B: False}, NodeId("me"), True),  # we lead, and are wrong
        ({A: False}, A, True),  # one against one: the leader is believed
        ({A: False}, NodeId("me"), False),
        ({A: False}, None, False),
        ({A: False, B: True, C: False}, B, False),  # two against two, the leader with us
        ({A: False, B: True, C: False}, A, True),
        ({A: False, B: False, C: False, D: True}, D, True),
    ],
)
def test_the_majority_of_those_compared_is_right(verdicts, leader, wrong):
    assert (judged(verdicts, leader) is not None) is wrong


def test_nobody_is_judged_before_all_had_time_to_be_compared():
    assert judged({A: False, B: False}, A, waited_s=JUDGE_AFTER_S - 0.1) is None


def test_a_difference_with_a_host_that_is_gone_is_forgotten():
    clock = Clock()
    divergence = Divergence(clock)
    divergence.compared(A, False)
    divergence.forget(A)
    clock.now_s += 60
    divergence.compared(B, False)
    assert divergence.outvoted_by((B,), B) is None  # the time is counted anew
    clock.now_s += JUDGE_AFTER_S
    assert divergence.outvoted_by((B,), B) is not None


def test_a_difference_that_still_stands_is_timed_from_its_beginning():
    clock = Clock()
    divergence = Divergence(clock)
    divergence.compared(A, False)
    clock.now_s += JUDGE_AFTER_S
    divergence.compared(B, False)
    divergence.forget(B)
    divergence.compared(C, True)
    assert divergence.outvoted_by((A,), A) is A


def test_a_host_that_is_fed_doubts_its_parent_first_and_itself_at_the_second():
    divergence = Divergence(Clock())
    assert not divergence.misfed(A, False, 3)
    assert not divergence.misfed(A, False, 3)
    assert divergence.misfed(B, False, 3)
    divergence.misfed(C, True, 3)
    assert not divergence.misfed(A, False, 3)
    assert divergence.misfed(A, False, 1)  # there is nobody else
