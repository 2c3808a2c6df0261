"""What the log holds: one type byte (PySyncObj's), then for proposals the feature level they need, then msgpack.

Written by the leader's engine, checked by every host before an entry enters its log, read when it is applied. A host
that doesn't know an entry's level can neither apply nor skip it, so it never lets it in.
"""

from __future__ import annotations

import msgspec

from core.errors import InvalidError
from raftstate.consensus.messages import UNREADABLE, Address, HostId

# The newest level this version can apply. A level stays readable for two releases after the next one came.
LEVEL = 1
OLDEST_LEVEL = 1  # what every version that may be met can apply

REGULAR, NO_OP, MEMBERSHIP = 0, 1, 2

_PROPOSALS, _CHANGE = b"P", b"M"  # so that a decoder which sees no type byte can tell them apart


class TooNewError(Exception):
    """An entry needs a feature level above this host's."""

    def __init__(self, level: int) -> None:
        super().__init__(f"an entry of feature level {level}")
        self.level = level


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """One payload in an entry; `origin` and `number` tell the proposing engine which of its callers waits for it."""

    origin: bytes
    number: int
    payload: bytes


class MemberChange(msgspec.Struct, frozen=True, array_like=True):
    """One voter more or less."""

    add: bool
    host_id: HostId
    address: Address


_encoder = msgspec.msgpack.Encoder()
_proposals: msgspec.msgpack.Decoder[list[Proposal]] = msgspec.msgpack.Decoder(list[Proposal])
_change: msgspec.msgpack.Decoder[MemberChange] = msgspec.msgpack.Decoder(MemberChange)


def encode_proposals(proposals: list[Proposal], level: int = 1) -> bytes:
    """Return the content (without type byte) of a regular entry that needs `level` to be applied."""
    return _PROPOSALS + bytes([level]) + _encoder.encode(proposals)


def is_change(content: bytes) -> bool:
    """Tell a membership entry's content from a regular one's."""
    return content[:1] == _CHANGE


def level_of(content: bytes) -> int:
    """Return the level that a regular entry's content needs. Raises InvalidError if it isn't one."""
    if content[:1] != _PROPOSALS or len(content) < 2:
        raise InvalidError("unreadable log entry: no proposals")
    return content[1]


def decode_proposals(content: bytes) -> list[Proposal]:
    """Return the payloads packed in a regular entry. Raises InvalidError for anything else."""
    level_of(content)
    try:
        return _proposals.decode(memoryview(content)[2:])
    except UNREADABLE as error:
        raise InvalidError(f"unreadable log entry: {error}") from error


def encode_change(change: MemberChange) -> bytes:
    """Return the content (without type byte) of a membership entry."""
    return _CHANGE + _encoder.encode(change)


def decode_change(content: bytes) -> MemberChange:
    """Return the change in a membership entry. Raises InvalidError for anything else."""
    try:
        if content[:1] != _CHANGE:
            raise InvalidError("unreadable membership entry: no change")
        return _change.decode(memoryview(content)[1:])
    except UNREADABLE as error:
        raise InvalidError(f"unreadable membership entry: {error}") from error


def entry_level(command: bytes) -> int:
    """Return the level that an entry needs, 0 for those that every version knows."""
    return level_of(command[1:]) if command[:1] == bytes([REGULAR]) else 0


def check_command(command: bytes, level: int = LEVEL) -> None:
    """Check an entry's command before it enters the log.

    Raises:
        InvalidError: it could never be applied.
        TooNewError: not by this version, which knows `level`.
    """
    match command[0] if command else None:
        case 0:
            if (needed := level_of(command[1:])) > level:
                raise TooNewError(needed)
            decode_proposals(command[1:])
        case 1:
            pass
        case 2:
            decode_change(command[1:])
        case other:
            raise InvalidError(f"log entry of unknown type {other}")
