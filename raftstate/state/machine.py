"""The state machine: applies committed transactions to SQLite, the same way on every replica.

Called by the consensus engine, on the event loop's thread, and read by the store. Data, claims, remembered request
ids, the digest and the applied index change in one SQLite transaction, so a crash leaves a state that some log index
explains. The write-ahead log of the engine is the durable copy; SQLite may lag behind it after a power loss and is
then brought up again from the log. `apply` never raises for what a transaction contains: refusals are values.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.errors import FatalError
from core.model import RESOURCE_TYPES, Resource
from raftstate.state.digest import recomputed, request_hash, to_bytes
from raftstate.state.dump import (
    Frozen,
    check_dump,
    finish_swap,
    read_only,
    remove_staged,
    stage_file,
)
from raftstate.state.entry import Effect, Entry
from raftstate.state.readers import Checkpoints, Query, Readers, run_until
from raftstate.state.reads import Reads
from raftstate.state.schema import bring_up_to_date, table_of

log = logging.getLogger(__name__)

T = TypeVar("T")

REMEMBER_MS = 600_000
REMEMBER_COUNT = 200_000
FORGET_MIN = (
    100  # how many of the oldest requests one entry may forget beside four for each that it adds
)
CACHE_KIB = 32_768
WAL_KEPT_BYTES = 4 << 20
CACHED_STATEMENTS = 1024  # a dozen for each kind
IN_MEMORY = ":memory:"


@dataclass(frozen=True, slots=True)
class Change:
    """What one applied entry changed: keys that exist now, and keys that don't any more. `everything`: a whole new state."""

    index: int
    puts: frozenset[str]
    deletes: frozenset[str]
    everything: bool = False


Listener = Callable[[int, frozenset[str]], None]
ChangeListener = Callable[[Change], None]


class Machine(Reads):
    """A StateMachine of `raftstate.consensus` on one SQLite file (`:memory:` in tests).

    `types` are the kinds that this version knows.

    Raises:
        FatalError: the file is damaged, or of a layout that this version can't read.
    """

    def __init__(
        self, path: Path | str, *, types: Iterable[type[Resource]] = RESOURCE_TYPES
    ) -> None:
        self._path = None if str(path) == IN_MEMORY else Path(path)
        self._listeners: list[Listener] = []
        self._change_listeners: list[ChangeListener] = []
        self._tables = {table.kind: table for table in map(table_of, types)}
        self._applied = self._digest = self._remembered = self._stagings = 0
        self._readers = self._checkpoints = None
        if self._path is not None:
            finish_swap(self._path)
            remove_staged(self._path)
            self._readers = Readers(self._path)
            self._checkpoints = Checkpoints(self._path, self._readers)
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path or IN_MEMORY, isolation_level=None, cached_statements=CACHED_STATEMENTS
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 0")  # see Checkpoints
            db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            bring_up_to_date(db, self._tables)
            self._read_progress(db)
        except sqlite3.Error as error:
            db.close()
            raise FatalError(
                f"the state database {self._path} can't be read: {error}; remove state.db* and start again: "
                "it is made anew from snapshot and log"
            ) from error
        return db

    def _read_progress(self, db: sqlite3.Connection) -> None:
        self._applied, digest = db.execute("SELECT applied, digest FROM progress").fetchone()
        self._digest = int.from_bytes(digest, "big")
        self._remembered = db.execute("SELECT count(*) FROM request").fetchone()[0]

    def close(self) -> None:
        """End the threads and close the file."""
        if self._readers is not None:
            self._readers.close()
        self._db.close()

    def on_applied(self, listener: Listener) -> None:
        """Call `listener(index, changed keys)` after each applied log entry; `{"*"}` means everything."""
        self._listeners.append(listener)

    def on_change(self, listener: ChangeListener) -> None:
        """Call `listener(change)` after each applied log entry and after a new state was put in place."""
        self._change_listeners.append(listener)

    # -- what the engine calls

    def applied(self) -> int:
        """Return the index of the last applied log entry, 0 at birth."""
        return self._applied

    def digest(self) -> bytes:
        """Return a hash of everything replicated; equal on all replicas at an equal index."""
        return to_bytes(self._digest)

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        """Apply one log entry and return an encoded outcome for each of its transactions.

        Raises:
            FatalError: SQLite can't write (disk full, I/O error); the process must stop.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            effect = Entry(db, index, self.table).apply(payloads)
            forgotten, change = self._forget(effect)
            digest = self._digest + effect.digest_change + change
            db.execute("UPDATE progress SET applied = ?, digest = ?", (index, to_bytes(digest)))
            db.execute("COMMIT")
            if self._checkpoints is not None:
                self._checkpoints.after_entry(db)
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error):
                db.rollback()  # so that readers see the state of the entry before until the process ends
            raise FatalError(f"the state database can't be written: {error}") from error
        self._applied, self._digest = index, digest
        self._remembered += effect.requests - forgotten
        self._tell(Change(index, effect.puts, effect.deletes))
        return effect.outcomes

    def _forget(self, effect: Effect) -> tuple[int, int]:
        """Forget requests by the last new transaction's stamp; return how many, and what that adds to the digest's sum.

        Some at a time: after a quiet time the next entry would otherwise have to forget all of a busy one.
        """
        if not effect.requests:
            return 0, 0
        over = max(0, self._remembered + effect.requests - REMEMBER_COUNT)
        oldest = self._db.execute(
            "SELECT id, stamp_ms, outcome FROM request ORDER BY stamp_ms, id LIMIT ?",
            (FORGET_MIN + 4 * effect.requests + over,),
        )
        before_ms = effect.last_stamp_ms - REMEMBER_MS
        gone: list[tuple[str, int, bytes]] = []
        for row in oldest:
            if len(gone) >= over and row[1] >= before_ms:
                break
            gone.append(row)
        oldest.close()
        self._db.executemany("DELETE FROM request WHERE id = ?", [(row[0],) for row in gone])
        return len(gone), -sum([request_hash(*row) for row in gone])

    def freeze(self) -> Frozen:
        """Pin the present state, for a copy of it while more is applied. Between two entries; close it soon."""
        if self._path is None:
            db = sqlite3.connect(IN_MEMORY, isolation_level=None, check_same_thread=False)
            self._db.backup(db)
        else:
            db = read_only(self._path)
            db.execute("BEGIN")
        return Frozen(db)

    def stage(self, dump: Path) -> Callable[[], None]:
        """Check a dump and prepare it; the returned function puts it in the place of the whole state.

        Blocks; may run in a thread. The swap is for the loop's thread. The dump stays as it is.

        Raises:
            FatalError: the dump isn't a whole, sound state, or can't be copied; the state is unchanged.
        """
        if self._path is None:
            return self._stage_in_memory(dump)
        self._stagings += 1
        rename = stage_file(dump, self._path, self._stagings, self._tables)

        def swap() -> None:
            assert self._readers is not None and self._checkpoints is not None, "there's a file"
            self._checkpoints.wait()
            self._db.close()
            try:
                rename()
            except OSError as error:
                raise FatalError(f"the snapshot can't be put in place: {error}") from error
            self._readers.replaced()
            self._replaced(self._open())

        return swap

    def _stage_in_memory(self, dump: Path) -> Callable[[], None]:
        check_dump(dump)
        fresh = sqlite3.connect(IN_MEMORY, isolation_level=None, check_same_thread=False)
        source = read_only(dump, immutable=True)
        source.backup(fresh)
        source.close()
        bring_up_to_date(fresh, self._tables)

        def swap() -> None:
            self._db.close()
            self._read_progress(fresh)
            self._replaced(fresh)

        return swap

    def _replaced(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._tell(Change(self._applied, frozenset(), frozenset(), everything=True))

    def recompute_digest(self) -> bytes:
        """Return the digest worked out from all rows as they are: slow, for scrubbing and tests; may run in a thread."""
        if self._path is None:
            return recomputed(self._db, self._tables.values())
        db = read_only(self._path)
        try:
            db.execute("BEGIN")
            return recomputed(db, self._tables.values())
        finally:
            db.close()

    async def query(self, query: Query[T], over: Callable[[], bool]) -> T:
        """Run a query beside the loop, on a connection that sees at least what is applied now; see `Readers.run`."""
        if self._readers is None:
            return run_until(self._db, query, over)
        return await self._readers.run(query, over)

    # -- inside

    def _tell(self, change: Change) -> None:
        keys = frozenset({"*"}) if change.everything else change.puts | change.deletes
        for listener in self._listeners:
            try:
                listener(change.index, keys)
            except Exception:
                # The entry is applied; a listener's fault must not stop every voter on it, one after the other.
                log.exception("a listener of the state failed", extra={"index": change.index})
        for change_listener in self._change_listeners:
            try:
                change_listener(change)
            except Exception:  # as above
                log.exception("a listener of the state failed", extra={"index": change.index})
