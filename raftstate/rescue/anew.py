"""The raft directory of a host that begins anew as the only voter of a new generation.

Written beside the old one by restore and force-quorum; `swap` puts it into its place. It looks as if a snapshot had
just been taken, so the agent's start is the usual one: it takes the state from the dump.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import FatalError, PlatformError
from raftstate.consensus.engine import Peer
from raftstate.consensus.entries import NO_OP
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import new_header
from raftstate.consensus.wal import EntryRecord, GenerationRecord, TermRecord, Wal

# Other hosts may have seen higher indexes than this one holds, and remember them (guards, watchers of the API): the new
# log begins far above, so that an index never means two things. etcd's restore does the same (`--bump-revision`).
INDEX_LEAP = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the new log begins. `machine_applied` is what the state says of itself, at most `index`."""

    index: int
    term: int
    generation: int
    level: int
    machine_applied: int


def begin_anew(
    directory: Path, me: Peer, at: Beginning, write_dump: Callable[[Path], None]
) -> None:
    """Write a whole raft directory; durable on return.

    Raises:
        FatalError: it can't be written.
    """
    previous, last = (bytes([NO_OP]), at.index - 1, at.term), (bytes([NO_OP]), at.index, at.term)
    header = new_header(
        previous,
        last,
        (me,),
        machine_applied=at.machine_applied,
        generation=at.generation,
        level=at.level,
    )
    try:
        os.makedirs(directory, mode=0o700)
        SnapshotStore(directory).write(header, write_dump)
        wal = Wal(wal_path(directory))
        wal.open()
        for record in (
            GenerationRecord(at.generation),
            TermRecord(at.term, None),
            EntryRecord(*previous),
            EntryRecord(*last),
        ):
            wal.append(record)
        wal.sync()
        wal.close()
    except OSError as error:
        raise FatalError(
            f"can't write {directory}: {error.strerror}: nothing was changed"
        ) from error
    except FatalError:
        raise
    except PlatformError as error:
        raise FatalError(f"{error.message}: nothing was changed") from error
