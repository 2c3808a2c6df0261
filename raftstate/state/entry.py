"""What one log entry does to the state: read what its transactions touch, decide each in memory, write the difference.

Used by `raftstate.state.machine` inside one SQLite transaction. An entry packs up to hundreds of transactions, so
reads and writes go to SQLite in batches; between them everything is dictionaries. The decisions read nothing but
the log and the replicated state: no clock, no model, no order of sets.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from raftstate.state.digest import claim_hash, request_hash, resource_hash
from raftstate.state.schema import Scalar, Table
from raftstate.txn import Applied, Put, Rejected, Txn

NO_CLAIMS = msgspec.msgpack.encode(())
BATCH = 64
SMALL_BATCH = 8

_encode: Callable[[object], bytes] = msgspec.msgpack.Encoder().encode
_decode_txn = msgspec.msgpack.Decoder(Txn).decode
_decode_claims = msgspec.msgpack.Decoder(tuple[str, ...]).decode


class Row(NamedTuple):
    """One resource as stored; `rowid` is 0 while it isn't. `claims` is encoded."""

    rowid: int
    name: str
    revision: int
    claims: bytes
    body: bytes


class Effect(NamedTuple):
    """What an entry has changed: the keys, the digest's sum, and how many requests are remembered more."""

    outcomes: list[bytes]
    puts: frozenset[str]
    deletes: frozenset[str]
    digest_change: int
    requests: int
    last_stamp_ms: int


def decode_txn(payload: bytes) -> Txn | None:
    """Return the transaction, None for anything that isn't one."""
    try:
        return _decode_txn(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):  # text that isn't UTF-8 is the latter
        return None


def split_key(key: str) -> tuple[str, str] | None:
    """Return (kind, id) of a key; None if it has no slash, which no resource's key lacks."""
    kind, slash, id_ = key.partition("/")
    return (kind, id_) if slash else None


class Entry:
    """The state as the transactions of one entry see it: each sees what those before it have done."""

    def __init__(self, db: sqlite3.Connection, index: int, table: Callable[[str], Table]) -> None:
        self._db = db
        self._index = index
        self._table = table
        self._applied = _encode(Applied(index=index))
        self._before: dict[str, Row | None] = {}
        self._after: dict[str, Row | None] = {}
        self._holders_before: dict[str, str] = {}  # "": nobody
        self._holders: dict[str, str] = {}
        self._outcomes: dict[str, bytes] = {}
        self._fresh: dict[str, tuple[int, bytes]] = {}

    def apply(self, payloads: Sequence[bytes]) -> Effect:
        """Decide all transactions in order and write what has changed.

        Raises:
            sqlite3.Error: the database can't be read or written.
        """
        txns = [decode_txn(payload) for payload in payloads]
        self._load([txn for txn in txns if txn is not None])
        outcomes = [self._decide(txn) for txn in txns]
        last_stamp_ms = next(reversed(self._fresh.values()))[0] if self._fresh else 0
        change = self._write_requests() + self._write_claims() + self._write_resources()
        changed = [key for key, row in self._after.items() if row or self._before[key]]
        return Effect(
            outcomes=outcomes,
            puts=frozenset(key for key in changed if self._after[key]),
            deletes=frozenset(key for key in changed if not self._after[key]),
            digest_change=change,
            requests=len(self._fresh),
            last_stamp_ms=last_stamp_ms,
        )

    # -- reading

    def _load(self, txns: list[Txn]) -> None:
        """Read everything that the transactions ask about."""
        for id_, outcome in in_batches(
            self._db,
            "SELECT id, outcome FROM request WHERE id IN",
            (),
            [t.request_id for t in txns],
        ):
            self._outcomes[id_] = outcome
        by_kind: dict[str, list[str]] = {}
        claims: list[str] = []
        before = self._before
        for txn in txns:
            for put in txn.puts:
                claims += put.claims
                key = f"{put.kind}/{put.id}"
                if key not in before and "/" not in put.kind:
                    before[key] = None
                    by_kind.setdefault(put.kind, []).append(put.id)
            for key in (*txn.guards, *txn.deletes):
                if key not in before:
                    before[key] = None
                    if parts := split_key(key):
                        by_kind.setdefault(parts[0], []).append(parts[1])
        for kind, ids in by_kind.items():
            table = self._table(kind)
            for id_, *row in in_batches(self._db, table.by_ids, table.head, ids):
                before[f"{kind}/{id_}"] = Row._make(row)
        if claims:
            self._holders_before = dict.fromkeys(claims, "")
            self._holders_before.update(
                in_batches(
                    self._db,
                    "SELECT claim, holder FROM claim WHERE claim IN",
                    (),
                    list(self._holders_before),
                )
            )

    # -- deciding

    def _decide(self, txn: Txn | None) -> bytes:
        if txn is None:
            return _encode(Rejected(subject="", reason="unreadable"))
        known = self._outcomes.get(txn.request_id)
        if known is not None:  # a retry: the first outcome stands
            return known
        obstacle = self._obstacle(txn)
        if obstacle is None:
            self._perform(txn)
            outcome = self._applied
        else:
            outcome = _encode(obstacle)
        self._outcomes[txn.request_id] = outcome
        self._fresh[txn.request_id] = (txn.stamp_ms, outcome)
        return outcome

    def _row(self, key: str) -> Row | None:
        return self._after[key] if key in self._after else self._before[key]

    def _obstacle(self, txn: Txn) -> Rejected | None:
        for key, expected in txn.guards.items():
            row = self._row(key)
            if (row.revision if row else 0) != expected:
                return Rejected(subject=key, reason="guard")
        taken: dict[str, str] = {}
        for put in txn.puts:
            if "/" in put.kind:  # two resources would have the same key
                return Rejected(subject=put.kind, reason="unreadable")
            key = f"{put.kind}/{put.id}"
            for claim in put.claims:
                holder = taken.get(claim) or self._holder(claim)
                if (
                    holder
                    and holder != key
                    and (claim in taken or not _lets_go(txn, holder, claim))
                ):
                    return Rejected(subject=claim, reason="claim", holder=holder)
                taken[claim] = key
        return None

    def _holder(self, claim: str) -> str:
        held = self._holders.get(claim)
        return self._holders_before[claim] if held is None else held

    def _perform(self, txn: Txn) -> None:
        for key in txn.deletes:
            self._release(key)
            self._after[key] = None
        for put in txn.puts:
            self._store(put)

    def _release(self, key: str) -> None:
        """Free the claims of a resource, but for those that this transaction has given to another already."""
        row = self._row(key)
        if row is not None and row.claims != NO_CLAIMS:
            for claim in _decode_claims(row.claims):
                self._holders_before.setdefault(claim, key)
                if self._holder(claim) == key:
                    self._holders[claim] = ""

    def _store(self, put: Put) -> None:
        key = f"{put.kind}/{put.id}"
        self._release(key)
        for claim in put.claims:
            self._holders[claim] = key
        claims = _encode(put.claims) if put.claims else NO_CLAIMS
        self._after[key] = Row(0, put.name, self._index, claims, put.body)

    # -- writing; each returns what it adds to the digest's sum

    def _write_requests(self) -> int:
        rows = [(id_, *row) for id_, row in self._fresh.items()]
        if rows:
            self._db.executemany("INSERT INTO request VALUES (?, ?, ?)", rows)
        return sum([request_hash(*row) for row in rows])

    def _write_claims(self) -> int:
        change, gone, new = 0, [], []
        for claim, holder in self._holders.items():
            former = self._holders_before[claim]
            if holder == former:
                continue
            if former:
                change -= claim_hash(claim, former)
            if holder:
                new.append((claim, holder))
                change += claim_hash(claim, holder)
            else:
                gone.append((claim,))
        if gone:
            self._db.executemany("DELETE FROM claim WHERE claim = ?", gone)
        if new:
            self._db.executemany("INSERT OR REPLACE INTO claim VALUES (?, ?)", new)
        return change

    def _write_resources(self) -> int:
        change = 0
        batches: dict[str, list[tuple[object, ...]]] = {}
        tables: dict[str, Table] = {}
        for key, row in self._after.items():
            former = self._before[key]
            kind, _, id_ = key.partition("/")
            table = tables.get(kind) or tables.setdefault(kind, self._table(kind))
            if former is not None:
                change -= resource_hash(kind, id_, *former[1:])
            if row is None:
                if former is not None:
                    batches.setdefault(table.delete, []).append((former.rowid,))
                continue
            _, name, revision, claims, body = row
            change += resource_hash(kind, id_, name, revision, claims, body)
            values = (name, revision, claims, *table.values(body), body)
            if former is None:
                batches.setdefault(table.insert, []).append((*table.head, id_, *values))
            else:
                batches.setdefault(table.update, []).append((*values, former.rowid))
        for statement, rows in batches.items():
            self._db.executemany(statement, rows)
        return change


def _lets_go(txn: Txn, holder: str, claim: str) -> bool:
    """Whether this same transaction deletes the holder or stores it without the claim."""
    if holder in txn.deletes:
        return True
    return any(f"{put.kind}/{put.id}" == holder and claim not in put.claims for put in txn.puts)


def in_batches(
    db: sqlite3.Connection, query: str, head: tuple[Scalar, ...], values: list[str]
) -> Iterator[tuple[Any, ...]]:  # as sqlite3 gives them
    """Yield the rows of `query (?, ...)` for all values; few lengths, so that the statements are prepared once."""
    for start in range(0, len(values), BATCH):
        batch = values[start : start + BATCH]
        count = len(batch)
        size = 1 if count == 1 else SMALL_BATCH if count <= SMALL_BATCH else BATCH
        marks = _MARKS[size]
        batch += batch[:1] * (size - count)
        yield from db.execute(f"{query} {marks}", (*head, *batch)).fetchall()


_MARKS = {size: f"({', '.join('?' * size)})" for size in (1, SMALL_BATCH, BATCH)}
