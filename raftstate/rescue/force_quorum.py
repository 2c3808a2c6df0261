"""Making a survivor the only voter of a new generation, after the majority of the voters was destroyed.

Everything in this host's log stays, committed or not. An entry counts as acknowledged once a majority has it; this host
can't tell which of its last entries the destroyed hosts had. To drop them could lose what a user was promised; to keep them may only
carry out what somebody asked for and was told nothing about. A new leader of the old majority would have done the same.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConflictError, FatalError
from core.paths import Paths
from raftstate.consensus.entries import LEVEL, REGULAR, decode_proposals, entry_level
from raftstate.consensus.generation import following
from raftstate.consensus.messages import Entry
from raftstate.consensus.recovery import REJOIN
from raftstate.rescue.anew import INDEX_LEAP, Beginning, begin_anew
from raftstate.rescue.known import Log, applied_index, me, read_log, read_record
from raftstate.rescue.room import require_room
from raftstate.rescue.state_files import state_files
from raftstate.rescue.swap import swap, work_directory
from raftstate.state.dump import read_only
from raftstate.state.machine import Machine

COPIES = 2  # of the state: the one that the tail is applied to, and its dump
VERB = "recover force-quorum"


@dataclass(frozen=True, slots=True)
class Forced:
    """What was done."""

    generation: int
    index: int
    applied_now: int  # entries of the tail that had not been applied yet
    kept: Path | None


def force_quorum(paths: Paths, *, when: str, rng: random.Random) -> Forced:
    """Make this host, whose agent is stopped, the only voter. All or nothing. Blocks.

    Raises:
        ConflictError: it is no member, or holds no state.
        FatalError: damaged files, or no room; nothing was changed.
    """
    record, log = read_record(paths), read_log(paths)
    applied = applied_index(paths)
    if applied is not None and applied > log.last_index:
        raise FatalError(
            f"the state (index {applied}) is newer than the log (index {log.last_index}): the log has lost entries, "
            f"so this host can't be the one that goes on; take another survivor or a backup, and here {REJOIN}"
        )
    needed = max(log.snapshot.level, *(entry_level(command) for command, _, _ in log.tail), 0)
    if needed > LEVEL:
        raise ConflictError(
            f"the log needs feature level {needed}, this version knows {LEVEL}: install the newer version again"
        )
    require_room(paths.state, COPIES * max(log.snapshot.dump_bytes, _size(paths.database)))
    work = work_directory(paths.state)
    copy = work / "state.db"
    _copy_state(paths, log, applied, copy)
    machine = Machine(copy)
    try:
        if machine.applied() < log.snapshot.machine_applied:
            machine.stage(log.dump)()
        applied_now = _apply(machine, log.tail)
        generation, index = following(log.generation, rng), log.last_index + INDEX_LEAP
        frozen = machine.freeze()
        try:
            begin_anew(
                work / "raft",
                me(record),
                Beginning(
                    index=index,
                    term=log.term + 1,
                    generation=generation,
                    level=needed,
                    machine_applied=frozen.applied,
                ),
                frozen.write,
            )
        finally:
            frozen.close()
    finally:
        machine.close()
    kept = swap(paths.state, verb=VERB, when=when, old=state_files(paths), new=("raft",))
    return Forced(generation, index, applied_now, kept)


def _copy_state(paths: Paths, log: Log, applied: int | None, copy: Path) -> None:
    """Copy the database, unless the snapshot's dump is ahead of it: then it is made from that."""
    if applied is None or applied < log.snapshot.machine_applied:
        return
    try:
        source, target = read_only(paths.database), sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
    except sqlite3.Error as error:
        raise FatalError(f"can't copy {paths.database}: {error}; nothing was changed") from error


def _apply(machine: Machine, tail: Sequence[Entry]) -> int:
    """Apply what is in the log and not yet in the state; return how many entries that were."""
    count = 0
    for command, index, _ in tail:
        if index > machine.applied() and command[0] == REGULAR:
            proposals = decode_proposals(command[1:])
            machine.apply(index, [proposal.payload for proposal in proposals])
            count += 1
    return count


def _size(database: Path) -> int:
    return database.stat().st_size if database.exists() else 0
