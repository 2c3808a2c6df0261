"""The layout of what a tiny guest writes: one fixed-size record after the other, in a ring.

The guest's init script is filled in from these numbers, and `tools.lab.diskreader` reads the same
ring from outside, so that who wrote when can be told from the disk alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.guests.image import MIB, SECOND_OFFSET_BYTES

RECORD_BYTES = 512
RING_OFFSET_BYTES = SECOND_OFFSET_BYTES
RING_BYTES = 8 * MIB
SLOTS = RING_BYTES // RECORD_BYTES
TAG = "kvorum1"


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One write of a tiny guest.

    `counter` grows by one with each record, over reboots too. `host` is the host that started this
    run of the guest ("-" if it did not say), `serial` the machine's serial number, `boot` the
    guest's boot id; `guest_time_s` is the guest's own wall clock.
    """

    counter: int
    host: str
    boot: str
    guest_time_s: float
    serial: str


def parse_record(raw: bytes) -> Record | None:
    """Return the record in one slot, or None if the slot is empty or half-written."""
    words = raw.decode("ascii", "replace").split()
    if len(words) != 6 or words[0] != TAG:
        return None
    try:
        return Record(
            counter=int(words[1]),
            host=words[2],
            boot=words[3],
            guest_time_s=float(words[4]),
            serial=words[5],
        )
    except ValueError:
        return None


def parse_ring(raw: bytes) -> tuple[Record, ...]:
    """Return all records of a ring's bytes, oldest first."""
    slots = (raw[at : at + RECORD_BYTES] for at in range(0, len(raw), RECORD_BYTES))
    return tuple(sorted(record for slot in slots if (record := parse_record(slot)) is not None))
