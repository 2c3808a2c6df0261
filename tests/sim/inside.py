"""All that the simulator knows of the engine's inside: its knobs, and the places where it looks on.

Used by `raft_cluster` and `mutations`. When the engine changes, this is the file to follow it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysyncobj.syncobj

from raftstate.consensus import (
    proposals,
    pysyncobj_driver,
    raft_node,
    snapshot_fetch,
    snapshot_source,
)
from raftstate.consensus.elections import Timing
from raftstate.consensus.engine import Peer
from raftstate.consensus.journal import Compaction, Journal
from raftstate.consensus.links import Links
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.shell import Shell
from raftstate.consensus.wal import Wal
from raftstate.consensus.wal_room import DiskRoom
from tests.sim.checkers import Entries
from tests.sim.flavours import Flavour
from tests.sim.machine import SimMachine

Engine = PySyncObjEngine
SEGMENT_BYTES = 4096
QUICK = Timing(
    heartbeat_s=0.15,
    silence_s=(0.8, 1.1),
    retry_s=(0.2, 0.4),
    patience_s=0.6,
    quorum_s=1.1,
)
LOGGERS = ("raftstate.consensus", "pysyncobj")
SMALL_LOG = Compaction(entries=12, pause_s=1.0, keep_entries=4)


def make_engine(
    flavour: Flavour,
    *,
    me: Peer,
    directory: Path,
    machine: SimMachine,
    links: Links,
    bootstrap: tuple[Peer, ...],
    rng: random.Random,
    free_bytes: Callable[[Path], int],
) -> Engine:
    """Return an engine with tiny limits."""
    return PySyncObjEngine(
        me=me,
        directory=directory,
        machine=machine,
        links=links,
        bootstrap=bootstrap,
        rng=rng,
        settings=Settings(
            QUICK if flavour.quick else Timing(),
            SMALL_LOG,
            wal=Wal(
                wal_path(directory),
                segment_bytes=SEGMENT_BYTES,
                room=DiskRoom(reserve_bytes=1, free_bytes=free_bytes),
            ),
        ),
    )


def log_of(engine: Engine) -> Entries:
    """Return the entries of the log, as far as it reaches back."""
    return engine._journal.entries(engine._journal.first())


def holds(log: Entries, index: int, term: int) -> bool:
    """Tell whether a log holds that entry, or has compacted it away."""
    offset = index - log[0][1]
    return offset < 0 or (offset < len(log) and log[offset][2] == term)


def term_at(engine: Engine, index: int) -> int | None:
    return engine._journal.term_at(index)


def matched(engine: Engine, follower: str) -> int:
    """Return up to where this leader believes that a follower's log equals its own."""
    known: dict[Any, int] = engine._raft._SyncObj__raftMatchIndex
    return next((index for node, index in known.items() if node.id == follower), 0)


def configurations(engine: Engine, index: int) -> tuple[set[str], set[str]]:
    """Return the voters as of `index`, and those that count now."""
    members = engine._journal.members
    return {peer.id for peer in members.at(index)}, {peer.id for peer in members.latest()}


@contextmanager
def watched(
    flavour: Flavour,
    rng: random.Random,
    *,
    state_changed: Callable[[str, int, int, int], None],
    truncated: Callable[[int], None],
    logged: Callable[[logging.LogRecord], None],
) -> Iterator[None]:
    """Turn the constants that aren't settings, and look on: `state_changed(name, term, old, new)` and so on."""
    real_change, real_delete = Shell.state_changed, Journal.deleteEntriesFrom

    def change(self: Shell, old: int, new: int) -> None:
        real_change(self, old, new)
        if self._raft is not None:
            state_changed(self._me, self._raft.raftCurrentTerm, old, new)

    def delete(self: Journal, offset: int) -> None:
        truncated(len(self) - offset)
        real_delete(self, offset)

    changes: list[tuple[Any, str, Any]] = [
        (Shell, "state_changed", change),
        (Journal, "deleteEntriesFrom", delete),
        (pysyncobj_driver, "MAX_APPEND_BYTES", flavour.append_bytes),
        (proposals, "MAX_ENTRY_BYTES", flavour.entry_bytes),
        (snapshot_fetch, "CHUNK_BYTES", flavour.chunk_bytes),
        (snapshot_source, "CHUNK_BYTES", flavour.chunk_bytes),
        (raft_node, "check_source", lambda: None),  # reads files for 2 ms at each start
        (pysyncobj.syncobj, "random", rng),
    ]
    ear = _Ear(logged)
    try:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(ear)
        with replaced(changes):
            yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(ear)


class _Ear(logging.Handler):
    def __init__(self, logged: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.WARNING)
        self.emit = logged  # type: ignore[method-assign]  # a handler is this one function


@contextmanager
def replaced(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Give attributes other values for a while."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
