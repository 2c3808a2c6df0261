"""What a tiny guest wrote is read as it was meant: order, holes, wrap-around, and two writers at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tools.guests.records import RECORD_BYTES, SLOTS, TAG, Record, parse_record, parse_ring
from tools.lab.diskreader import Writer, took_turns, writers


def sector(counter: int, host: str = "h1", boot: str = "b1") -> bytes:
    """Return one record as the guest's script writes it."""
    line = f"{TAG} {counter} {host} {boot} 1700000000.25 -"
    return line.ljust(RECORD_BYTES - 1).encode() + b"\n"


def ring(*sectors: bytes) -> bytes:
    return b"".join(sectors).ljust(RECORD_BYTES * SLOTS, b"\0")


def record(counter: int, host: str, boot: str) -> Record:
    return Record(counter, host, boot, 0.0, "-")


def test_a_record_is_read_as_written() -> None:
    assert parse_record(sector(7, "h2", "b9")) == Record(7, "h2", "b9", 1700000000.25, "-")


def test_empty_slots_and_garbage_are_no_records() -> None:
    assert parse_record(bytes(RECORD_BYTES)) is None
    assert parse_record(b"\xff" * RECORD_BYTES) is None
    assert parse_record(sector(1).replace(b"1700000000.25", b"yesterday....")) is None


@given(st.integers(1, 10**12), st.integers(1, 40))
def test_the_newest_record_is_last_wherever_the_ring_was_overwritten(last: int, count: int) -> None:
    slots = [bytes(RECORD_BYTES)] * SLOTS
    for counter in range(max(1, last - count + 1), last + 1):
        slots[(counter - 1) % SLOTS] = sector(counter)
    records = parse_ring(b"".join(slots))
    assert [it.counter for it in records] == list(range(max(1, last - count + 1), last + 1))


def test_runs_of_a_guest_follow_each_other() -> None:
    records = parse_ring(ring(sector(1), sector(2), sector(3, "h2", "b2")))
    assert writers(records) == (Writer("h1", "b1", 1, 2), Writer("h2", "b2", 3, 3))
    assert took_turns(records)


def test_two_guests_that_write_at_the_same_time_are_told_apart() -> None:
    mixed = [record(1, "h1", "b1"), record(2, "h2", "b2"), record(3, "h1", "b1")]
    assert not took_turns(mixed)
    assert took_turns(mixed[:2])
