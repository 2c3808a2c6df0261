"""The one way to change replicated state: a transaction, and its outcomes.

Built by `raftstate.store`, carried through consensus as msgpack, applied by `raftstate.state.machine`.
Tagged and versioned, so that an older log stays readable. An unknown field makes a transaction unreadable: members write
only what all of them know, and skipping what one doesn't know would depend on how deeply it is nested.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

STAMP_MS_MAX = 1 << 53  # far beyond any date; the database's integers are larger


class Put(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Store one resource; its kind has no slash. `claims` are unique strings; one held by another resource rejects the transaction."""

    kind: str
    id: str
    name: str
    body: bytes
    claims: tuple[str, ...] = ()


class Txn(msgspec.Struct, frozen=True, kw_only=True, tag="txn.v1", forbid_unknown_fields=True):
    """All or nothing: every guard holds, then puts and deletes happen.

    `guards` maps `kind/id` to the revision that must be current (0: must be absent). `stamp_ms` is the
    proposer's wall clock; it serves only to forget old request ids, the same way on every replica.
    A repeated `request_id` gives the first outcome and changes nothing.
    """

    request_id: str
    stamp_ms: Annotated[int, msgspec.Meta(ge=0, le=STAMP_MS_MAX)]
    guards: dict[str, int] = {}
    puts: tuple[Put, ...] = ()
    deletes: tuple[str, ...] = ()


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """The transaction is in the log at `index` and in this node's state."""

    index: int


class Rejected(msgspec.Struct, frozen=True, kw_only=True, tag="rejected"):
    """Nothing was changed. `subject` is the key or claim that stood in the way, `reason` is `guard`, `claim` or `unreadable`.

    `holder` is the `kind/id` that holds a claim.
    """

    subject: str
    reason: str
    holder: str = ""


Outcome = Applied | Rejected

_outcomes: msgspec.msgpack.Decoder[Outcome] = msgspec.msgpack.Decoder(Applied | Rejected)


def encode_txn(txn: Txn) -> bytes:
    """Return the bytes that go into the log."""
    return msgspec.msgpack.encode(txn)


def decode_outcome(payload: bytes) -> Outcome:
    """Return the outcome that the state machine encoded."""
    return _outcomes.decode(payload)
