"""The hash of the whole state that replicas compare, kept up to date row by row.

Each row is hashed and the hashes are added up modulo 2**256 (AdHash, Bellare and Micciancio 1997), so that a change
costs its own rows only and the order of rows doesn't matter. It finds faults, not forgers: whoever may write the
state needs no collision. `raftstate.state.machine` keeps the sum in the transaction that changes the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from raftstate.state.schema import Table

DIGEST_BYTES = 32
MODULUS_MASK = (1 << (8 * DIGEST_BYTES)) - 1

_encode: Callable[[object], bytes] = msgspec.msgpack.Encoder().encode


def resource_hash(kind: str, id_: str, name: str, revision: int, claims: bytes, body: bytes) -> int:
    """Return the hash of one resource; `claims` as stored."""
    row = _encode(("resource", kind, id_, name, revision, claims, body))
    return int.from_bytes(blake2b(row, digest_size=DIGEST_BYTES).digest(), "big")


def claim_hash(claim: str, holder: str) -> int:
    """Return the hash of one claim."""
    row = _encode(("claim", claim, holder))
    return int.from_bytes(blake2b(row, digest_size=DIGEST_BYTES).digest(), "big")


def request_hash(id_: str, stamp_ms: int, outcome: bytes) -> int:
    """Return the hash of one remembered request."""
    row = _encode(("request", id_, stamp_ms, outcome))
    return int.from_bytes(blake2b(row, digest_size=DIGEST_BYTES).digest(), "big")


def to_bytes(total: int) -> bytes:
    """Return the digest of a sum of hashes, which may be of any size and sign."""
    return (total & MODULUS_MASK).to_bytes(DIGEST_BYTES, "big")


def recomputed(db: sqlite3.Connection, tables: Iterable[Table]) -> bytes:
    """Return the digest of what the tables hold, from all rows: slow, for scrubbing and tests."""
    total = 0
    for row in db.execute("SELECT kind, id, name, revision, claims, body FROM resource"):
        total += resource_hash(*row)
    for table in tables:
        for row in db.execute(f"SELECT id, name, revision, claims, body FROM {table.name}"):
            total += resource_hash(table.kind, *row)
    for row in db.execute("SELECT claim, holder FROM claim"):
        total += claim_hash(*row)
    for row in db.execute("SELECT id, stamp_ms, outcome FROM request"):
        total += request_hash(*row)
    return to_bytes(total)
