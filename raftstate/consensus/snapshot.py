"""The snapshot: the machine's whole state with the two log entries and the voters it ends at, checksummed.

Written at compaction and sent to voters that are too far behind. Every log begins with one (`recovery` founds the
first), so a newcomer always learns the voters from it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from core.errors import FatalError, InvalidError
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.members import Voters, as_voters
from raftstate.consensus.messages import UNREADABLE, Address, Chunk, Entry, HostId

MAGIC = b"KVSNAP1\n"
MAX_SNAPSHOT_BYTES = 1 << 30
_U32 = struct.Struct("<I")


class SnapshotHeader(msgspec.Struct, frozen=True, array_like=True):
    """Where the snapshot ends. PySyncObj wants the last two entries; `machine_applied` is the dump's `applied()`."""

    previous: Entry
    last: Entry
    members: list[tuple[HostId, Address]]
    machine_applied: int

    @property
    def index(self) -> int:
        """The index of the last entry the snapshot covers."""
        return self.last[1]

    @property
    def voters(self) -> Voters:
        """The configuration as of `index`."""
        return as_voters(Peer(NodeId(host), address) for host, address in self.members)


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[SnapshotHeader] = msgspec.msgpack.Decoder(SnapshotHeader)


def make_header(
    previous: Entry, last: Entry, voters: Iterable[Peer], machine_applied: int
) -> SnapshotHeader:
    """Return a header, checked as a reader would."""
    assert previous[1] + 1 == last[1]
    return SnapshotHeader(
        previous, last, [(peer.id, peer.address) for peer in voters], machine_applied
    )


def write_snapshot(path: Path, header: SnapshotHeader, dump: bytes) -> None:
    """Write and fsync the file; the caller renames it into place and syncs the directory."""
    head = _encoder.encode(header)
    checksum = 0
    with path.open("wb") as file:
        for part in (MAGIC, _U32.pack(len(head)), head, dump):
            checksum = zlib.crc32(part, checksum)
            file.write(part)
        file.write(_U32.pack(checksum))
        file.flush()
        os.fsync(file.fileno())


def parse_snapshot(blob: bytes) -> tuple[SnapshotHeader, bytes]:
    """Return header and dump. Raises InvalidError if any byte is not as it was written."""
    start = len(MAGIC) + _U32.size
    if len(blob) < start + _U32.size or blob[: len(MAGIC)] != MAGIC:
        raise InvalidError("not a snapshot of this version")
    if (
        zlib.crc32(memoryview(blob)[: -_U32.size])
        != _U32.unpack_from(blob, len(blob) - _U32.size)[0]
    ):
        raise InvalidError("the snapshot's checksum is wrong")
    (length,) = _U32.unpack_from(blob, len(MAGIC))
    try:
        header = _decoder.decode(blob[start : start + length])
    except UNREADABLE as error:
        raise InvalidError(f"the snapshot's header is unreadable: {error}") from error
    if header.previous[1] + 1 != header.last[1] or not header.members:
        raise InvalidError("the snapshot's header makes no sense")
    return header, blob[start + length : -_U32.size]


def read_snapshot(path: Path) -> tuple[SnapshotHeader, bytes] | None:
    """Return the snapshot in `path`, None if there is none. Raises FatalError if it is damaged."""
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FatalError(f"can't read the snapshot {path}: {error.strerror}") from error
    try:
        return parse_snapshot(blob)
    except InvalidError as error:
        raise FatalError(
            f"the snapshot {path} is damaged ({error.message}); remove this host from the cluster, "
            "replace the disk and join the host again"
        ) from error


class SnapshotReceiver:
    """Puts a snapshot together from the pieces of one leader in one term."""

    def __init__(self) -> None:
        self._source: tuple[NodeId, int] | None = None
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def take(self, peer: NodeId, chunk: Chunk) -> bytes | None:
        """Return the whole after its last piece. After a missing piece the leader has to start again.

        Raises:
            InvalidError: it is too big.
        """
        source = (peer, chunk.term)
        if chunk.number == 0:
            self.forget()
            self._source = source
        if source != self._source or chunk.number != len(self._parts):
            self.forget()
            return None
        self._parts.append(chunk.data)
        self._size_bytes += len(chunk.data)
        if self._size_bytes > MAX_SNAPSHOT_BYTES:
            self.forget()
            raise InvalidError("the snapshot is too big")
        if not chunk.last:
            return None
        blob = b"".join(self._parts)
        self.forget()
        return blob

    def link_lost(self, peer: NodeId) -> None:
        """The rest of what `peer` was sending will never come."""
        if self._source is not None and self._source[0] == peer:
            self.forget()

    def forget(self) -> None:
        """Drop what has come so far."""
        self._source, self._parts, self._size_bytes = None, [], 0
