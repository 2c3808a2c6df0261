"""The state machine: applies committed transactions to SQLite, the same way on every replica.

Called by the consensus engine only, on the event loop's thread. Data, claims, remembered request ids and the
applied index change in one SQLite transaction, so a crash leaves a state that some log index explains.
The write-ahead log of the engine is the durable copy; SQLite may lag behind it after a power loss and is then
brought up again from the log. `apply` never raises for what a transaction contains: refusals are values.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from core.errors import FatalError
from raftstate.txn import Applied, Outcome, Rejected, Txn

log = logging.getLogger(__name__)

REMEMBER_MS = 600_000
REMEMBER_COUNT = 200_000
REVISION_MAX = (1 << 63) - 1  # SQLite's largest integer

SCHEMA = """
CREATE TABLE IF NOT EXISTS resource (
  kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS resource_name ON resource (kind, name);
CREATE TABLE IF NOT EXISTS claim (claim TEXT PRIMARY KEY, holder TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claim_holder ON claim (holder);
CREATE TABLE IF NOT EXISTS request (id TEXT PRIMARY KEY, stamp_ms INTEGER NOT NULL, outcome BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS request_stamp ON request (stamp_ms, id);
CREATE TABLE IF NOT EXISTS progress (only INTEGER PRIMARY KEY CHECK (only = 1), applied INTEGER NOT NULL);
INSERT OR IGNORE INTO progress VALUES (1, 0);
"""

DIGESTED = (
    "SELECT kind, id, name, revision, body FROM resource ORDER BY kind, id",
    "SELECT claim, holder FROM claim ORDER BY claim",
    "SELECT id, stamp_ms, outcome FROM request ORDER BY id",
)

Listener = Callable[[int, frozenset[str]], None]


class Machine:
    """A StateMachine of `raftstate.consensus` on one SQLite file (`:memory:` in tests)."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._listeners: list[Listener] = []
        self._remembered = 0
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(SCHEMA)
        self._remembered = db.execute("SELECT count(*) FROM request").fetchone()[0]
        return db

    def close(self) -> None:
        self._db.close()

    def on_applied(self, listener: Listener) -> None:
        """Call `listener(index, changed keys)` after each applied log entry; `{"*"}` means everything."""
        self._listeners.append(listener)

    # -- what the engine calls

    def applied(self) -> int:
        """Return the index of the last applied log entry, 0 at birth."""
        index: int = self._db.execute("SELECT applied FROM progress").fetchone()[0]
        return index

    def apply(self, index: int, payloads: Sequence[bytes]) -> list[bytes]:
        """Apply one log entry and return an encoded outcome for each of its transactions.

        Raises:
            FatalError: SQLite can't write (disk full, I/O error); the process must stop.
        """
        changed: set[str] = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._apply_payload(index, payload, changed) for payload in payloads]
            self._db.execute("UPDATE progress SET applied = ?", (index,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.rollback()  # so that readers see the state of the entry before until the process ends
            raise FatalError(f"the state database can't be written: {error}") from error
        self._tell(index, frozenset(changed))
        return [msgspec.msgpack.encode(outcome) for outcome in outcomes]

    def dump(self) -> bytes:
        """Return the whole state as the bytes of an SQLite file."""
        return self._db.serialize()

    def load(self, dump: bytes) -> None:
        """Replace the whole state by a dump, all or nothing.

        Raises:
            FatalError: the dump isn't a whole, sound database; the state is unchanged.
        """
        source = sqlite3.connect(":memory:")
        try:
            source.deserialize(_out_of_wal_mode(dump))
            sound = source.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            if not sound:
                raise FatalError("the snapshot received is damaged")
            for query in (*DIGESTED, "SELECT applied FROM progress"):
                source.execute(f"{query} LIMIT 1")  # a whole database, but is it one of ours?
            source.backup(self._db)
        except sqlite3.Error as error:
            raise FatalError(f"the snapshot can't be loaded: {error}") from error
        finally:
            source.close()
        self._remembered = self._db.execute("SELECT count(*) FROM request").fetchone()[0]
        self._tell(self.applied(), frozenset({"*"}))

    def digest(self) -> str:
        """Return a hash of everything replicated; equal on all replicas at an equal index."""
        hasher = hashlib.sha256()
        for query in DIGESTED:
            for row in self._db.execute(query):
                hasher.update(msgspec.msgpack.encode(row))
        return hasher.hexdigest()

    # -- what the store reads

    def get(self, kind: str, id_: str) -> tuple[bytes, int] | None:
        """Return (body, revision) of one resource."""
        row: tuple[bytes, int] | None = self._db.execute(
            "SELECT body, revision FROM resource WHERE kind = ? AND id = ?", (kind, id_)
        ).fetchone()
        return row

    def ids_by_name(self, kind: str, name: str) -> list[str]:
        """Return the ids of the resources of a kind with that name."""
        rows = self._db.execute("SELECT id FROM resource WHERE kind = ? AND name = ?", (kind, name))
        return [row[0] for row in rows]

    def scan(self, kind: str) -> Iterator[tuple[bytes, int]]:
        """Yield (body, revision) of every resource of a kind, ordered by name."""
        yield from self._db.execute(
            "SELECT body, revision FROM resource WHERE kind = ? ORDER BY name, id", (kind,)
        )

    def scan_since(self, kind: str, revision: int, limit: int) -> list[tuple[bytes, int]]:
        """Return about `limit` resources of a kind with a higher revision, oldest first.

        It never ends inside a revision, so that going on after the last one leaves nothing out.
        """
        last = self._db.execute(
            "SELECT revision FROM resource WHERE kind = ? AND revision > ? ORDER BY revision LIMIT 1 OFFSET ?",
            (kind, revision, limit - 1),
        ).fetchone()
        return self._db.execute(
            "SELECT body, revision FROM resource WHERE kind = ? AND revision > ? AND revision <= ? ORDER BY revision, id",
            (kind, revision, last[0] if last else REVISION_MAX),
        ).fetchall()

    def claim_holder(self, claim: str) -> str:
        """Return the `kind/id` that holds a claim, or an empty string."""
        row = self._db.execute("SELECT holder FROM claim WHERE claim = ?", (claim,)).fetchone()
        return row[0] if row else ""

    def remembered(self, request_id: str) -> Outcome | None:
        """Return the outcome of a request applied in the last minutes."""
        row = self._db.execute("SELECT outcome FROM request WHERE id = ?", (request_id,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Applied | Rejected) if row else None

    # -- one transaction

    def _apply_payload(self, index: int, payload: bytes, changed: set[str]) -> Outcome:
        try:
            txn = msgspec.msgpack.decode(payload, type=Txn)
        except (msgspec.DecodeError, UnicodeDecodeError):  # text that isn't UTF-8 is the latter
            log.error("a log entry could not be read", extra={"index": index})
            return Rejected(subject="", reason="unreadable")
        before = self.remembered(txn.request_id)
        if before is not None:
            return before
        outcome = self._obstacle(txn)
        if outcome is None:
            self._write(index, txn)
            changed.update(f"{put.kind}/{put.id}" for put in txn.puts)
            changed.update(txn.deletes)
            outcome = Applied(index=index)
        self._remember(txn, outcome)
        return outcome

    def _obstacle(self, txn: Txn) -> Outcome | None:
        for key, expected in txn.guards.items():
            kind, _, id_ = key.partition("/")
            row = self._db.execute(
                "SELECT revision FROM resource WHERE kind = ? AND id = ?", (kind, id_)
            ).fetchone()
            if (row[0] if row else 0) != expected:
                return Rejected(subject=key, reason="guard")
        taken: dict[str, str] = {}
        for put in txn.puts:
            key = f"{put.kind}/{put.id}"
            for claim in put.claims:
                holder = taken.get(claim) or self.claim_holder(claim)
                if (
                    holder
                    and holder != key
                    and (claim in taken or not self._lets_go(txn, holder, claim))
                ):
                    return Rejected(subject=claim, reason="claim", holder=holder)
                taken[claim] = key
        return None

    @staticmethod
    def _lets_go(txn: Txn, holder: str, claim: str) -> bool:
        """Whether this same transaction deletes the holder or stores it without the claim."""
        if holder in txn.deletes:
            return True
        return any(f"{put.kind}/{put.id}" == holder and claim not in put.claims for put in txn.puts)

    def _write(self, index: int, txn: Txn) -> None:
        for key in (*txn.deletes, *(f"{put.kind}/{put.id}" for put in txn.puts)):
            self._db.execute("DELETE FROM claim WHERE holder = ?", (key,))
        for key in txn.deletes:
            kind, _, id_ = key.partition("/")
            self._db.execute("DELETE FROM resource WHERE kind = ? AND id = ?", (kind, id_))
        for put in txn.puts:
            self._db.execute(
                "INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?)",
                (put.kind, put.id, put.name, index, put.body),
            )
            for claim in put.claims:
                self._db.execute(
                    "INSERT OR REPLACE INTO claim VALUES (?, ?)", (claim, f"{put.kind}/{put.id}")
                )

    def _remember(self, txn: Txn, outcome: Outcome) -> None:
        self._db.execute(
            "INSERT INTO request VALUES (?, ?, ?)",
            (txn.request_id, txn.stamp_ms, msgspec.msgpack.encode(outcome)),
        )
        forgotten = self._db.execute(
            "DELETE FROM request WHERE stamp_ms < ?", (txn.stamp_ms - REMEMBER_MS,)
        ).rowcount
        self._remembered += 1 - forgotten
        if self._remembered > REMEMBER_COUNT:
            self._db.execute(
                "DELETE FROM request WHERE id IN (SELECT id FROM request ORDER BY stamp_ms, id LIMIT ?)",
                (self._remembered - REMEMBER_COUNT,),
            )
            self._remembered = REMEMBER_COUNT

    def _tell(self, index: int, changed: frozenset[str]) -> None:
        for listener in self._listeners:
            try:
                listener(index, changed)
            except Exception:
                # The entry is applied; a listener's fault must not stop every voter on it, one after the other.
                log.exception("a listener of the state failed", extra={"index": index})


def _out_of_wal_mode(dump: bytes) -> bytes:
    """Return the file with its header's read and write version set to 1 (rollback journal).

    A database in memory can't be in WAL mode (SQLite file format, sections 1.3.3).
    """
    header_is_whole = len(dump) >= 100 and dump.startswith(b"SQLite format 3\x00")
    if not header_is_whole:
        raise FatalError("the snapshot received is not a database")
    return dump[:18] + b"\x01\x01" + dump[20:]
