"""The normaliser against Raft's own receiver rules (§5.3), over random logs and messages."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import FatalError
from raftstate.consensus.journal import Journal
from raftstate.consensus.members import Members
from raftstate.consensus.messages import Append, Entry
from raftstate.consensus.normaliser import normalise
from raftstate.consensus.wal import Recovered, Wal

BASE = 2  # logs begin with two entries of term 0, as after a snapshot
NOOP = b"\x01"


def log_of(terms: list[int]) -> list[Entry]:
    return [(NOOP, BASE + at, term) for at, term in enumerate([0, 0, *sorted(terms)])]


def journal_of(log: list[Entry], committed: int) -> Journal:
    unopened = Wal(Path("never-written"))
    return Journal(unopened, Recovered(entries=list(log)), Members(), committed)


def raft_rules(log: list[Entry], append: Append) -> list[Entry] | None:
    """Return the log after `append`, None if it must be refused: the paper's words, nothing clever."""
    assert append.previous is not None
    held = {index: (command, index, term) for command, index, term in log}
    index, term = append.previous
    if index >= BASE and (index not in held or held[index][2] != term):
        return None
    result = dict(held)
    for entry in append.entries:
        if entry[1] < BASE:
            continue
        if entry[1] in result and result[entry[1]][2] != entry[2]:
            result = {at: kept for at, kept in result.items() if at < entry[1]}
        result[entry[1]] = entry
    return [result[at] for at in sorted(result)]


def pysyncobj(log: list[Entry], previous: tuple[int, int] | None, entries: list[Entry]):
    """Return the log after PySyncObj has had its way: it truncates behind `previous`, always."""
    if previous is None:
        return None
    at = previous[0] - BASE
    if not 0 <= at < len(log) or log[at][2] != previous[1]:
        return None
    return [*log[: at + 1], *entries]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_pysyncobj_behind_the_normaliser_does_what_raft_says(data):
    shared = data.draw(st.lists(st.integers(1, 3), max_size=4).map(sorted))
    mine = data.draw(st.lists(st.integers(3, 5), max_size=4))
    theirs = data.draw(st.lists(st.integers(3, 6), max_size=4))
    log, leaders = log_of(shared + mine), log_of(shared + theirs)
    common = next(
        (at for at, (a, b) in enumerate(zip(log, leaders, strict=False)) if a != b),
        min(len(log), len(leaders)),
    )
    committed = data.draw(st.integers(BASE + 1, BASE + max(2, common) - 1))
    previous = data.draw(st.integers(BASE - 2, leaders[-1][1]))
    end = data.draw(st.integers(previous, leaders[-1][1]))
    by_index = {BASE - 2: (NOOP, BASE - 2, 0), BASE - 1: (NOOP, BASE - 1, 0)}
    by_index |= {index: (command, index, term) for command, index, term in leaders}
    append = Append(
        9,
        data.draw(st.integers(committed, leaders[-1][1])),
        (previous, by_index[previous][2]),
        [by_index[at] for at in range(previous + 1, end + 1)],
    )

    plan = normalise(append, journal_of(log, committed), committed)

    expected = raft_rules(log, append)
    assert pysyncobj(log, plan.previous, plan.entries) == expected
    if expected is None:
        assert plan.next is None
        assert plan.back_to is None or committed < plan.back_to <= previous
    else:
        assert plan.next == end + 1
        assert plan.commit <= max(end, committed)
        assert plan.commit == min(append.commit, end)


@settings(deadline=None)
@given(depth=st.integers(0, 3))
def test_what_is_committed_is_never_given_up(depth):
    log = log_of([1, 1, 2, 2])
    committed = log[-1][1]
    index = committed - depth
    entries = [(NOOP, index, 7)]
    journal = journal_of(log, committed)
    previous = (index - 1, journal.term_at(index - 1) or 0)
    with pytest.raises(FatalError, match="contradicts the committed entry"):
        normalise(Append(7, index, previous, entries), journal, committed)
