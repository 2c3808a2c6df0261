"""Read what a tiny guest wrote, from its disk file, while it runs: nothing is asked of the product.

Called by tests, drills and the demo. `qemu-img -U` takes no lock; the guest flushes each record, and
the product opens disks with cache=none, so a record is seen here well within a second.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.command import run
from tools.guests.records import RING_BYTES, RING_OFFSET_BYTES, Record, parse_ring

READ_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Writer:
    """One run of a guest, as its records tell: `first` to `last` are the counters it wrote."""

    host: str
    boot: str
    first: int
    last: int


async def read_records(disk: Path) -> tuple[Record, ...]:
    """Return all records on a qcow2 disk, oldest first; at most the newest 16,384.

    The backing file is not opened (its path may be valid inside a lab host only): what the guest
    wrote is always in the topmost file.

    Raises:
        CommandError: not a qcow2, or too small for a ring.
    """
    ring = {
        "driver": "raw",
        "offset": RING_OFFSET_BYTES,
        "size": RING_BYTES,
        "file": {
            "driver": "qcow2",
            "backing": None,
            "file": {"driver": "file", "filename": str(disk)},
        },
    }
    with tempfile.TemporaryDirectory(prefix="kvorum-records-") as directory:
        copy = Path(directory) / "ring"
        argv = ["qemu-img", "convert", "-U", "-O", "raw", f"json:{json.dumps(ring)}", str(copy)]
        await run(argv, timeout_s=READ_TIMEOUT_S)
        return parse_ring(copy.read_bytes())


async def newest(disk: Path) -> Record | None:
    """Return the last record, or None if the guest has written none."""
    records = await read_records(disk)
    return records[-1] if records else None


def writers(records: Sequence[Record]) -> tuple[Writer, ...]:
    """Return the runs of the guest in the order they wrote."""
    found: list[Writer] = []
    for record in records:
        first = record.counter
        if found and found[-1].boot == record.boot:
            first = found.pop().first
        found.append(Writer(record.host, record.boot, first, record.counter))
    return tuple(found)


def took_turns(records: Sequence[Record]) -> bool:
    """Return whether each run wrote in one go: false means that two ran at the same time."""
    boots = [writer.boot for writer in writers(records)]
    return len(boots) == len(set(boots))
