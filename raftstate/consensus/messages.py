"""What voters say to each other and what the log holds, as msgpack: every byte that arrives is checked against a type.

Nothing here (or anywhere in this package) can run code that a peer chose: PySyncObj's pickle is replaced by these
structs. `shell` translates between them and PySyncObj's dictionaries.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from core.errors import InvalidError

MAX_PAYLOAD_BYTES = 2 << 20
MAX_ENTRY_BYTES = 4 << 20  # one entry packs payloads up to about this size
MAX_APPEND_BYTES = 8 << 20  # entries of one Append; PySyncObj may exceed it by the last entry
MAX_FRAME_BYTES = 16 << 20

# What msgspec raises for bytes that aren't what they should be; it lets errors of text decoding through.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

Term = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Entry = tuple[bytes, Index, Term]  # command, index, term: PySyncObj's order
HostId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Address = Annotated[str, msgspec.Meta(max_length=300)]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class RequestVote(Message, frozen=True, array_like=True, tag="vote?"):
    """Raft RequestVote; `transfer` marks an election asked for by the leader, which nobody may refuse as too early."""

    term: Term
    last_index: Index
    last_term: Term
    transfer: bool


class Vote(Message, frozen=True, array_like=True, tag="vote"):
    """A vote for the receiver in `term`."""

    term: Term


class Append(Message, frozen=True, array_like=True, tag="append"):
    """Raft AppendEntries. `previous` is None if the sender's log has no entry there."""

    term: Term
    commit: Index
    previous: tuple[Index, Term] | None
    entries: list[Entry]


class Chunk(Message, frozen=True, array_like=True, tag="chunk"):
    """A piece of a snapshot; `number` counts from 0, so that a gap is noticed."""

    term: Term
    commit: Index
    number: Index
    last: bool
    data: bytes


class Ack(Message, frozen=True, array_like=True, tag="ack"):
    """The answer to Append or Chunk of `term`: everything below `next` is held durably (`success`), or go back to it."""

    term: Term
    next: Index
    reset: bool
    success: bool


class TimeoutNow(Message, frozen=True, array_like=True, tag="lead"):
    """The leader asks the receiver to stand for election at once."""

    term: Term


class PreVote(Message, frozen=True, array_like=True, tag="pre?"):
    """Would you vote for me in `term`? Changes nothing at the receiver."""

    term: Term
    last_index: Index
    last_term: Term


class PreVoteGranted(Message, frozen=True, array_like=True, tag="pre"):
    """Yes, I would."""

    term: Term


class Newer(Message, frozen=True, array_like=True, tag="newer"):
    """Your term is over: mine is `term`."""

    term: Term


class NotVoter(Message, frozen=True, array_like=True, tag="retired"):
    """The receiver is no voter in the committed configuration of `index`."""

    index: Index


class Probe(Message, frozen=True, array_like=True, tag="probe?"):
    """Am I still the leader of `term`? (ReadIndex, Raft thesis §6.4)."""

    term: Term
    round: Index


class ProbeAck(Message, frozen=True, array_like=True, tag="probe"):
    """I know of no term above `term`."""

    term: Term
    round: Index


class Propose(Message, frozen=True, array_like=True, tag="put?"):
    """Append `payload`, but only as the leader of `term`: a late copy must not slip into a later term."""

    term: Term
    origin: bytes
    number: Index
    payload: bytes


class Refused(Message, frozen=True, array_like=True, tag="no"):
    """Proposal `number` was not appended, and won't be in `term`."""

    term: Term
    number: Index


class ReadRequest(Message, frozen=True, array_like=True, tag="read?"):
    """Which index must I have applied to read what is committed now?"""

    number: Index


class ReadReply(Message, frozen=True, array_like=True, tag="read"):
    """The answer to `number`; None: I am not (any more) the leader."""

    number: Index
    index: Index | None


class ChangeRequest(Message, frozen=True, array_like=True, tag="change?"):
    """Add or remove a voter."""

    number: Index
    add: bool
    host_id: HostId
    address: Address


class ChangeReply(Message, frozen=True, array_like=True, tag="change"):
    """The fate of change `number`: done, refused with a reason, or try again (`retry`)."""

    number: Index
    retry: bool
    refusal: str


class Ping(Message, frozen=True, array_like=True, tag="ping"):
    """Shows that a quiet connection is alive."""


class Hello(Message, frozen=True, array_like=True, tag="hello"):
    """First message of a connection, both ways. `boot` differs at each start of the sender's engine."""

    boot: bytes
    address: Address
    voters: list[tuple[HostId, Address]]


Wire = (
    RequestVote
    | Vote
    | Append
    | Chunk
    | Ack
    | TimeoutNow
    | PreVote
    | PreVoteGranted
    | Newer
    | NotVoter
    | Probe
    | ProbeAck
    | Propose
    | Refused
    | ReadRequest
    | ReadReply
    | ChangeRequest
    | ChangeReply
    | Ping
    | Hello
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Wire] = msgspec.msgpack.Decoder(Wire)


def encode(message: Message) -> bytes:
    """Return the frame body of `message`."""
    return _encoder.encode(message)


def decode(frame: bytes) -> Wire:
    """Return the message in a frame body. Raises InvalidError for anything else."""
    try:
        return _decoder.decode(frame)
    except UNREADABLE as error:
        raise InvalidError(f"unreadable consensus message: {error}") from error


# -- log entries: one type byte (PySyncObj's), then msgpack

REGULAR, NO_OP, MEMBERSHIP = 0, 1, 2


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


_proposals: msgspec.msgpack.Decoder[list[Proposal]] = msgspec.msgpack.Decoder(list[Proposal])
_change: msgspec.msgpack.Decoder[MemberChange] = msgspec.msgpack.Decoder(MemberChange)


_PROPOSALS, _CHANGE = b"P", b"M"  # so that a decoder which sees no type byte can tell them apart


def encode_proposals(proposals: list[Proposal]) -> bytes:
    """Return the content (without type byte) of a regular entry."""
    return _PROPOSALS + _encoder.encode(proposals)


def is_change(content: bytes) -> bool:
    """Tell a membership entry's content from a regular one's."""
    return content[:1] == _CHANGE


def decode_proposals(content: bytes) -> list[Proposal]:
    """Return the payloads packed in a regular entry. Raises InvalidError for anything else."""
    try:
        if content[:1] != _PROPOSALS:
            raise InvalidError("unreadable log entry: no proposals")
        return _proposals.decode(memoryview(content)[1:])
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


def check_command(command: bytes) -> None:
    """Check an entry's command before it enters the log. Raises InvalidError for what could never be applied."""
    match command[0] if command else None:
        case 0:
            decode_proposals(command[1:])
        case 1:
            pass
        case 2:
            decode_change(command[1:])
        case other:
            raise InvalidError(f"log entry of unknown type {other}")
