"""Cursors: where a list goes on. Opaque to callers; made and read by `nodeagent.api.lists`.

A cursor holds the last item's place in the order, so it stays true while others come and go, and a mark of the query it
belongs to. It is no secret and gives no right: whoever makes one up only begins at another place of the same list.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import msgspec

from core.errors import InvalidError
from raftstate.state.query import Position

MARK_CHARS = 16


class _Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    mark: str
    value: str | int | float | bool | None
    id: str


def encode_cursor(question: Sequence[str], position: Position) -> str:
    """Return the cursor for going on after a position."""
    packed = msgspec.json.encode(_Cursor(_mark(question), *position))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode_cursor(question: Sequence[str], cursor: str) -> Position:
    """Return the position of a cursor.

    Raises:
        InvalidError: it is no cursor, or one of another query.
    """
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        found = msgspec.json.decode(packed, type=_Cursor)
    except (ValueError, msgspec.DecodeError):
        raise InvalidError(
            "that is no cursor: give 'next' of the page before as it is, or none to begin anew"
        ) from None
    if found.mark != _mark(question):
        raise InvalidError(
            "the cursor is of another query: repeat the collection, q and sort of the page it came from, "
            "or give none to begin anew"
        )
    return Position(found.value, found.id)


def _mark(question: Sequence[str]) -> str:
    return hashlib.sha256(msgspec.json.encode(tuple(question))).hexdigest()[:MARK_CHARS]
