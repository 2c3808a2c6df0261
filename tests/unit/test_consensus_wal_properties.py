"""The laws of the write-ahead log, against a model, on a disk whose power may fail at any step; and garbage as input."""

import contextlib
import copy
import random
import tempfile
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.errors import FatalError
from raftstate.consensus.wal import (
    CutRecord,
    EntryRecord,
    GenerationRecord,
    Record,
    Recovered,
    TermRecord,
    Wal,
)
from raftstate.consensus.wal_segment import frame, salt, segment_path
from tests.sim.lossy_wal import LossyWal
from tests.sim.power import Power

SEGMENT_BYTES = 2048
MEMORY_BYTES = 32 << 20


class WhatWasSyncedIsThereAndNothingElse(RuleBasedStateMachine):
    """After any crash the log is what was synced, and perhaps a first part of what wasn't."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.home = Path(self.scratch.name).resolve()
        self.rng = random.Random(0)
        self.power = Power(self.rng)
        self.power.install()
        self.synced, self.pending = Recovered(), list[Record]()
        self.floor = 0
        self.armed = False
        self.wal = self.start()

    def start(self) -> LossyWal:
        """Open until it succeeds, then compare with everything that may be there."""
        while True:
            wal = LossyWal(self.home / "wal", segment_bytes=SEGMENT_BYTES)
            try:
                found = wal.open()
                break
            except FatalError:
                assert self.armed, "refused to open without a reason"
                wal.close()
                self.cut_power()
        self.check(found)
        self.synced, self.pending = found, []
        return wal

    def may_be(self) -> list[Recovered]:
        states = [copy.deepcopy(self.synced)]
        for record in self.pending:
            states.append(copy.deepcopy(states[-1]))
            states[-1].take(record)
        return states

    def check(self, found: Recovered, *others: Recovered) -> None:
        def view(state: Recovered) -> tuple[object, ...]:
            held = [entry for entry in state.entries if entry[1] >= self.floor]
            return held, state.last_index(), state.term, state.vote, state.generation

        assert view(found) in [view(state) for state in (*self.may_be(), *others)]

    def cut_power(self) -> None:
        self.power.tear(self.home)
        self.power.restore(self.home)
        self.armed = False

    def now(self) -> Recovered:
        return self.may_be()[-1]

    def append(self, record: Record) -> None:
        self.wal.append(record)
        self.pending.append(record)

    @contextlib.contextmanager
    def may_fail(self, *others: Recovered):
        """Go on after a power cut in the middle of what is done here."""
        try:
            yield
        except FatalError:
            assert self.armed, "failed without a reason"
            self.wal.close()
            self.cut_power()
            before = self.may_be
            if others:
                self.may_be = lambda: [*before(), *others]  # type: ignore[method-assign]
            self.wal = self.start()
            self.may_be = before  # type: ignore[method-assign]

    @rule(sizes=st.lists(st.integers(0, 900), min_size=1, max_size=8))
    def add_entries(self, sizes):
        index = self.now().last_index()
        for size in sizes:
            index += 1
            self.append(EntryRecord(b"\x00" + bytes(size), index, 1))

    @rule(term=st.integers(0, 99), generation=st.booleans())
    def vote(self, term, generation):
        self.append(TermRecord(term, f"v{term}"))
        if generation:
            self.append(GenerationRecord(term))

    @rule(back=st.integers(0, 12))
    def cut(self, back):
        entries = self.now().entries
        if entries and entries[-1][1] - back > self.floor:
            self.append(CutRecord(entries[-1][1] - back))

    @rule()
    def sync(self):
        with self.may_fail():
            self.wal.sync()
            self.synced, self.pending = self.now(), []

    @precondition(lambda self: self.synced.entries)
    @rule(data=st.data())
    def trim(self, data):
        with self.may_fail():
            self.wal.sync()
            self.synced, self.pending = self.now(), []
            if self.synced.entries:
                last = self.synced.entries[-1][1]
                self.floor = data.draw(st.integers(min(self.floor, last), last))
                self.wal.trim(self.floor)

    @rule(drop=st.integers(0, 30))
    def rewrite(self, drop):
        wanted = self.now()
        if len(wanted.entries) <= drop:
            return  # it would begin anew, and the model doesn't
        del wanted.entries[:drop]
        with self.may_fail(wanted):
            self.wal.rewrite(wanted.records())
            self.synced, self.pending = copy.deepcopy(wanted), []
        if self.synced.entries:
            self.floor = max(self.floor, min(self.floor + drop, self.synced.entries[0][1]))

    @rule(steps=st.integers(0, 9), seed=st.integers(0, 999))
    def let_the_power_fail_soon(self, steps, seed):
        self.rng.seed(seed)
        self.power.arm(self.home, steps, lambda: None)
        self.armed = True

    @rule(seed=st.integers(0, 999))
    def crash(self, seed):
        self.rng.seed(seed)
        self.wal.crash(self.rng)
        self.wal.close()
        self.cut_power()
        self.wal = self.start()

    @rule()
    def restart(self):
        self.wal.close()
        self.wal = self.start()

    @invariant()
    def old_segments_go(self):
        held = sum(
            len(command) + 40 for command, index, _ in self.now().entries if index >= self.floor
        )
        assert self.wal.size_bytes < 40 * SEGMENT_BYTES + 20 * held

    def teardown(self):
        self.wal.close()
        Power.remove()
        self.scratch.cleanup()


WhatWasSyncedIsThereAndNothingElse.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40
)
test_what_was_synced_is_there_and_nothing_else = WhatWasSyncedIsThereAndNothingElse.TestCase


# -- garbage


def valid_log(path: Path, rng: random.Random) -> Recovered:
    wal = Wal(path, segment_bytes=SEGMENT_BYTES)
    wal.open()
    for index in range(1, rng.randint(2, 80)):
        wal.append(EntryRecord(b"\x00" + rng.randbytes(rng.randint(0, 200)), index, 1))
        if rng.random() < 0.5:
            wal.sync()
    wal.sync()
    wal.close()
    return reopened(path)


def reopened(path: Path) -> Recovered:
    wal = Wal(path, segment_bytes=SEGMENT_BYTES)
    try:
        return wal.open()
    finally:
        wal.close()


def mutate(path: Path, rng: random.Random) -> bool:
    """Do something to a log; tell whether it was made to look right on purpose."""
    segment = rng.choice(sorted(path.glob("*.wal")))
    content = bytearray(segment.read_bytes())
    place = rng.randrange(len(content))
    forged = False
    match rng.randrange(10):
        case 0:
            for _ in range(rng.randint(1, 5)):
                content[rng.randrange(len(content))] ^= rng.randint(1, 255)
        case 1:
            del content[place:]
        case 2:
            content[place:] = rng.randbytes(len(content) - place)
        case 3:
            content += rng.randbytes(rng.randint(1, 9999))
        case 4:
            content[place : place + 512] = bytes(len(content[place : place + 512]))
        case 5:
            del content[place : place + rng.randint(1, 600)]
        case 6:
            content[place:place] = content[: rng.randint(1, 600)]
        case 7:
            segment.unlink()
            return False
        case 8:
            content[:] = rng.randbytes(rng.randint(0, 5000))
        case _:  # good checksums on bad bodies, from the first record on
            sequence, forged = int(segment.stem), True
            body = rng.choice(
                (
                    rng.randbytes(rng.randint(1, 60)),
                    msgspec.msgpack.encode(["e", b"", rng.randrange(99), 1]),
                    msgspec.msgpack.encode(["e", b"\x00", rng.choice((-1, 2**63, 5)), 1]),
                    msgspec.msgpack.encode(["t", 1, 5]),
                    msgspec.msgpack.encode(["x", 2**64 - 1]),
                    b"\xdd\xff\xff\xff\xff",
                    b"\x91" * 5000,
                )
            )
            made = frame(salt(sequence), body)
            end = len(bytes(content).rstrip(b"\0"))
            content[end : end + len(made)] = made
    segment.write_bytes(content)
    return forged


def test_no_input_makes_the_reader_do_more_than_read_or_refuse(tmp_path, seed):
    """What comes out of a log that something was done to is a first part of what was in it, or a refusal."""
    rng = random.Random(seed)
    tracemalloc.start()
    for number in range(40):
        path = tmp_path / str(number)
        original = valid_log(path, rng)
        forged = mutate(path, rng)
        try:
            found = reopened(path)
        except FatalError:
            continue
        if not forged:  # a log that has lost its first segments says so; recovery looks whether a snapshot has them
            start = found.trimmed - original.trimmed
            assert found.entries == original.entries[start : start + len(found.entries)]
        assert all(command and index >= 0 for command, index, _ in found.entries)
        assert reopened(path) == found, "opening has changed the log"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY_BYTES


@pytest.mark.parametrize("claimed", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_head_that_claims_an_enormous_size_costs_nothing(tmp_path, claimed):
    path = tmp_path / "wal"
    valid_log(path, random.Random(1))
    segment = segment_path(path, 1)
    with segment.open("r+b") as file:
        file.seek(16)
        file.write(claimed.to_bytes(8, "little"))
    with pytest.raises(FatalError, match="is damaged at byte 0"):
        reopened(path)
