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
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

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
from raftstate.state.schema import Table, bring_up_to_date, table_of, table_of_unknown
from raftstate.txn import Applied, Outcome, Rejected

log = logging.getLogger(__name__)

T = TypeVar("T")

REMEMBER_MS = 600_000
REMEMBER_COUNT = 200_000
FORGET_MIN = 100  # how many of the oldest requests one entry may forget beside four for each that it adds
REVISION_MAX = (1 << 63) - 1  # SQLite's largest integer
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


class Machine:
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
        self._tables: dict[str, Table] = {t.kind: t for t in map(table_of, types)}
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
            effect = Entry(db, index, self._table).apply(payloads)
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

    # Whole dumps in memory, for an engine that keeps its snapshots there.

    def dump(self) -> bytes:
        """Return the whole state as the bytes of an SQLite file."""
        with tempfile.TemporaryDirectory(prefix="state-") as directory:
            path, frozen = Path(directory, "dump"), self.freeze()
            frozen.write(path)
            frozen.close()
            return path.read_bytes()

    def load(self, dump: bytes) -> None:
        """Replace the whole state by a dump, all or nothing.

        Raises:
            FatalError: the dump isn't a whole, sound state; the state is unchanged.
        """
        with tempfile.TemporaryDirectory(prefix="state-") as directory:
            path = Path(directory, "dump")
            path.write_bytes(dump)
            self.stage(path)()

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

    # -- what the store reads

    def get(self, kind: str, id_: str) -> tuple[bytes, int] | None:
        """Return (body, revision) of one resource."""
        table = self._table(kind)
        row: tuple[bytes, int] | None = self._db.execute(
            table.get, (*table.head, id_)
        ).fetchone()
        return row

    def texts(self, kind: str, id_: str, fields: Sequence[str]) -> tuple[str | None, ...] | None:
        """Return some text attributes of one resource, None for what its body doesn't have."""
        table = self._table(kind)
        assert table.searchable().keys() >= set(fields), "only attributes that the schema has become SQL"
        names = ", ".join(f'"{field}"' for field in fields)
        row: tuple[str | None, ...] | None = self._db.execute(
            f"SELECT {names} FROM {table.name}{table.where('id = ?')}", (*table.head, id_)
        ).fetchone()
        return row

    def ids_where(self, kind: str, field: str, value: str) -> list[str]:
        """Return the ids of the resources of a kind with that value in one attribute, which should be indexed."""
        table = self._table(kind)
        assert field in table.searchable(), "only attributes that the schema has become SQL"
        condition = table.where(f'"{field}" = ?')
        rows = self._db.execute(
            f"SELECT id FROM {table.name}{condition} ORDER BY id", (*table.head, value)
        )
        return [row[0] for row in rows.fetchall()]

    def all_ids(self, kind: str) -> list[str]:
        """Return the ids of all resources of a kind."""
        table = self._table(kind)
        rows = self._db.execute(f"SELECT id FROM {table.name}{table.where()} ORDER BY id", table.head)
        return [row[0] for row in rows.fetchall()]

    def ids_by_name(self, kind: str, name: str) -> list[str]:
        """Return the ids of the resources of a kind with that name."""
        return self.ids_where(kind, "name", name)

    def scan(self, kind: str) -> list[tuple[bytes, int]]:
        """Return (body, revision) of every resource of a kind, ordered by name."""
        table = self._table(kind)
        return self._db.execute(
            f"SELECT body, revision FROM {table.name}{table.where()} ORDER BY name, id", table.head
        ).fetchall()

    def scan_since(self, kind: str, revision: int, limit: int) -> list[tuple[bytes, int]]:
        """Return about `limit` resources of a kind with a higher revision, oldest first.

        It never ends inside a revision, so that going on after the last one leaves nothing out.
        """
        table = self._table(kind)
        last = self._db.execute(
            f"SELECT revision FROM {table.name}{table.where('revision > ?')} ORDER BY revision LIMIT 1 OFFSET ?",
            (*table.head, revision, limit - 1),
        ).fetchone()
        return self._db.execute(
            f"SELECT body, revision FROM {table.name}{table.where('revision > ? AND revision <= ?')} ORDER BY revision, id",
            (*table.head, revision, last[0] if last else REVISION_MAX),
        ).fetchall()

    def claim_holder(self, claim: str) -> str:
        """Return the `kind/id` that holds a claim, or an empty string."""
        row = self._db.execute("SELECT holder FROM claim WHERE claim = ?", (claim,)).fetchone()
        return row[0] if row else ""

    def remembered(self, request_id: str) -> Outcome | None:
        """Return the outcome of a request applied in the last minutes."""
        row = self._db.execute("SELECT outcome FROM request WHERE id = ?", (request_id,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Applied | Rejected) if row else None

    def table(self, kind: str) -> Table:
        """Return where the resources of a kind are, for queries."""
        return self._table(kind)

    async def query(self, query: Query[T], over: Callable[[], bool]) -> T:
        """Run a query beside the loop, on a connection that sees at least what is applied now; see `Readers.run`."""
        if self._readers is None:
            return run_until(self._db, query, over)
        return await self._readers.run(query, over)

    # -- inside

    def _table(self, kind: str) -> Table:
        return self._tables.get(kind) or table_of_unknown(kind)

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
