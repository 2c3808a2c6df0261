"""What the write-ahead log records, and what a row of records adds up to.

Written by `wal`, read by `wal_segment`, recovered by `recovery` and kept by `journal`. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from core.errors import FatalError
from raftstate.consensus.messages import Entry, Index, Term

MAX_RECORD_BYTES = 64 << 20


class EntryRecord(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """One log entry."""

    command: Annotated[bytes, msgspec.Meta(min_length=1)]
    index: Index
    term: Term


class TermRecord(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """The current term and whom this host voted for in it."""

    term: Term
    vote: str | None


class CutRecord(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """The entries at `index` and above are gone: truncated, or all (0) for a snapshot."""

    index: Index


class BootstrapRecord(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The voters this host was told of when it joined: (id, address)."""

    peers: list[tuple[str, str]]


class GenerationRecord(msgspec.Struct, frozen=True, array_like=True, tag="g"):
    """Which life of the cluster this is: one more after each forced new beginning."""

    generation: Index


Record = EntryRecord | TermRecord | CutRecord | BootstrapRecord | GenerationRecord
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
decode_record = _decoder.decode


def encode_record(record: Record) -> bytes:
    """Return the body of a record."""
    body = _encoder.encode(record)
    if len(body) > MAX_RECORD_BYTES:
        raise FatalError(f"a log record of {len(body)} bytes; at most {MAX_RECORD_BYTES} fit")
    return body


@dataclass(slots=True)
class Recovered:
    """What the records add up to."""

    entries: list[Entry] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    bootstrap: list[tuple[str, str]] = field(default_factory=list)
    generation: int = 0
    trimmed: int = 0  # the last entry before those held; 0: there was none, or they begin anew

    def last_index(self) -> int:
        """Return the index of the last entry, held or trimmed; 0 if there was none."""
        return self.entries[-1][1] if self.entries else self.trimmed

    def take(self, record: Record) -> None:
        """Take in the next record. Raises FatalError if it can't follow what is there."""
        match record:
            case EntryRecord(command, index, term):
                if (last := self.last_index()) and index != last + 1:
                    raise FatalError(f"log entry {index} follows {last}")
                self.entries.append((command, index, term))
            case TermRecord(term, vote):
                self.term, self.vote = term, vote
            case CutRecord(index):
                self.trimmed = min(self.trimmed, max(0, index - 1))
                if self.entries:
                    keep = max(0, index - self.entries[0][1])
                    if keep == 0:
                        self.trimmed = max(0, index - 1)
                    del self.entries[keep:]
            case BootstrapRecord(peers):
                self.bootstrap = peers
            case GenerationRecord(generation):
                self.generation = generation

    def standing(self) -> Iterator[Record]:
        """Yield what isn't a log entry: the records that each new segment begins with."""
        if self.bootstrap:
            yield BootstrapRecord(self.bootstrap)
        if self.generation:
            yield GenerationRecord(self.generation)
        yield TermRecord(self.term, self.vote)

    def records(self) -> Iterator[Record]:
        """Yield the fewest records that add up to the same."""
        yield from self.standing()
        for command, index, term in self.entries:
            yield EntryRecord(command, index, term)
