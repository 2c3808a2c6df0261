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
Origin = Annotated[bytes, msgspec.Meta(max_length=32)]
Digest = Annotated[bytes, msgspec.Meta(max_length=64)]
Reason = Annotated[str, msgspec.Meta(max_length=500)]
Hops = Annotated[int, msgspec.Meta(ge=0, le=64)]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]


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


class Offer(Message, frozen=True, array_like=True, tag="offer"):
    """You need my snapshot: it ends at `index` (entry of `index_term`) and is `size_bytes` long with checksum `crc`.

    From a leader of `term` it counts like an Append; with `feed` it comes from whoever feeds the receiver.
    """

    term: Term
    commit: Index
    index: Index
    index_term: Term
    size_bytes: Index
    crc: Index
    feed: bool


class ChunkRequest(Message, frozen=True, array_like=True, tag="chunk?"):
    """Send me the piece of the snapshot of `index` and `crc` that begins at `offset`."""

    index: Index
    crc: Index
    offset: Index


class Chunk(Message, frozen=True, array_like=True, tag="chunk"):
    """A piece of the snapshot of `index` and `crc`; None: I haven't got that one any more."""

    index: Index
    crc: Index
    offset: Index
    data: bytes | None


class Follow(Message, frozen=True, array_like=True, tag="feed?"):
    """I hold everything that was committed up to `index`; send what follows, once there is something."""

    index: Index


class Fed(Message, frozen=True, array_like=True, tag="feed"):
    """Committed entries behind `previous`, for a host that doesn't vote. `term` and `leader` are hints, `commit` is not.

    Without entries it only shows that the sender is alive, and how far it is. `path` names the hosts from whom the
    sender has it, nearest first, up to a voter.
    """

    term: Term
    leader: str
    commit: Index
    previous: tuple[Index, Term]
    entries: list[Entry]
    path: Annotated[tuple[HostId, ...], msgspec.Meta(max_length=64)] = ()


class Ack(Message, frozen=True, array_like=True, tag="ack"):
    """The answer to Append or Offer of `term`: everything below `next` is held durably (`success`), or go back to it."""

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
    """The receiver is no voter as of `index`, up to which the sender knows everything that was committed."""

    index: Index


class Probe(Message, frozen=True, array_like=True, tag="probe?"):
    """Am I still the leader of `term`? (ReadIndex, Raft thesis §6.4)."""

    term: Term
    round: Index


class ProbeAck(Message, frozen=True, array_like=True, tag="probe"):
    """I know of no term above `term`."""

    term: Term
    round: Index


# -- requests on their way to the leader, passed on by hosts in between; `origin` is the asking engine's boot id


class Propose(Message, frozen=True, array_like=True, tag="put?"):
    """Append `payload`, but only as the leader of `term`: a late copy must not slip into a later term.

    `level` is the feature level that a host needs to apply it.
    """

    term: Term
    origin: Origin
    number: Index
    level: Level
    payload: bytes
    hops: Hops = 0


class Refused(Message, frozen=True, array_like=True, tag="no"):
    """Proposal `number` was not appended, and won't be in `term`; `reason` may say why."""

    term: Term
    origin: Origin
    number: Index
    reason: Reason = ""


class ReadRequest(Message, frozen=True, array_like=True, tag="read?"):
    """Which index must I have applied to read what is committed now?"""

    origin: Origin
    number: Index
    hops: Hops = 0


class ReadReply(Message, frozen=True, array_like=True, tag="read"):
    """The answer to `number`; None: the leader wasn't reached."""

    origin: Origin
    number: Index
    index: Index | None


class ChangeRequest(Message, frozen=True, array_like=True, tag="change?"):
    """Add or remove a voter."""

    origin: Origin
    number: Index
    add: bool
    host_id: HostId
    address: Address
    hops: Hops = 0


class ChangeReply(Message, frozen=True, array_like=True, tag="change"):
    """The fate of change `number`: done, refused with a reason, or try again (`retry`)."""

    origin: Origin
    number: Index
    retry: bool
    refusal: Reason


# -- about the connection itself


class Ping(Message, frozen=True, array_like=True, tag="ping"):
    """Shows that a quiet connection is alive, how far the sender is, and what its state is at `applied`.

    `last` is the last entry that it holds durably; `digest` is empty before anything was applied.
    """

    applied: Index = 0
    digest: Digest = b""
    last: Index = 0


class Hello(Message, frozen=True, array_like=True, tag="hello"):
    """First message of a connection, both ways. `boot` differs at each start of the sender's engine.

    `generation` grows when an operator recovers the cluster from a lost majority; only equals talk to each other.
    """

    boot: Origin
    address: Address
    voters: list[tuple[HostId, Address]]
    generation: Index
    level: Level


Wire = (
    RequestVote
    | Vote
    | Append
    | Offer
    | ChunkRequest
    | Chunk
    | Follow
    | Fed
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
