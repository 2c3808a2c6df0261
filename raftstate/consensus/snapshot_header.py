"""What a snapshot says about itself: the manifest of the file pair, and the byte stream in which it travels.

Used by everything named `snapshot_*` and by recovery. A snapshot is a dump of the machine and a manifest that says
where in the log it ends. On the wire the dump comes first and the manifest last, so that a receiver has its dump
file by cutting the end off, without a second copy. One checksum covers the stream: the same index and checksum are
the same bytes, whoever sends them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Annotated

import msgspec
from crc32c import crc32c

from core.errors import InvalidError
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import check_command
from raftstate.consensus.members import Voters, as_voters
from raftstate.consensus.messages import UNREADABLE, Address, Entry, HostId, Index

MAGIC = b"KVSNAP2\n"
MAX_SNAPSHOT_BYTES = 64 << 30  # of the dump
MAX_MANIFEST_BYTES = 64 << 20  # it holds two log entries
CHUNK_BYTES = 256 << 10  # of the stream, in one message
_U32 = struct.Struct("<I")
_LEAST_MANIFEST_BYTES = len(MAGIC) + 2 * _U32.size

DumpBytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_SNAPSHOT_BYTES)]
Checksum = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]  # CRC32C


class SnapshotInfo(msgspec.Struct, frozen=True, array_like=True):
    """What an offer says: where the snapshot ends, and size and CRC32C of its stream."""

    index: Index
    term: Index
    size_bytes: Index
    crc: Checksum

    def check(self) -> None:
        """Raise InvalidError if no snapshot that we would take can look like this."""
        if self.size_bytes > MAX_SNAPSHOT_BYTES + MAX_MANIFEST_BYTES + _U32.size:
            raise InvalidError(f"a snapshot of {self.size_bytes} bytes is too big")
        if self.size_bytes < _LEAST_MANIFEST_BYTES + _U32.size:
            raise InvalidError(f"a snapshot of {self.size_bytes} bytes is too small")


class SnapshotHeader(msgspec.Struct, frozen=True, array_like=True):
    """The manifest. PySyncObj wants the last two entries; `machine_applied` is the dump's `applied()`.

    `generation` is the cluster's, `level` the feature level that a reader of the dump needs. Size and CRC32C of the
    dump are 0 until it is written.
    """

    previous: Entry
    last: Entry
    members: list[tuple[HostId, Address]]
    machine_applied: Index
    generation: Index
    level: Index
    dump_bytes: DumpBytes = 0
    dump_crc: Checksum = 0

    @property
    def index(self) -> int:
        """The index of the last entry the snapshot covers."""
        return self.last[1]

    @property
    def term(self) -> int:
        """The term of that entry."""
        return self.last[2]

    @property
    def voters(self) -> Voters:
        """The configuration as of `index`."""
        return as_voters(Peer(NodeId(host), address) for host, address in self.members)

    def info(self) -> SnapshotInfo:
        """Return what to offer; encodes the manifest, reads no file."""
        end = stream_end(self)
        size_bytes = self.dump_bytes + len(end)
        return SnapshotInfo(self.index, self.term, size_bytes, crc32c(end, self.dump_crc))


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[SnapshotHeader] = msgspec.msgpack.Decoder(SnapshotHeader)


def new_header(
    previous: Entry,
    last: Entry,
    voters: Iterable[Peer],
    *,
    machine_applied: int,
    generation: int,
    level: int,
) -> SnapshotHeader:
    """Return the header of a dump that is still to be written."""
    assert previous[1] + 1 == last[1]
    members: list[tuple[HostId, Address]] = [(peer.id, peer.address) for peer in as_voters(voters)]
    return SnapshotHeader(previous, last, members, machine_applied, generation, level)


def encode_manifest(header: SnapshotHeader) -> bytes:
    """Return the manifest file's content."""
    head = _encoder.encode(header)
    body = MAGIC + _U32.pack(len(head)) + head
    return body + _U32.pack(crc32c(body))


def parse_manifest(blob: bytes) -> SnapshotHeader:
    """Return the header in a manifest. Raises InvalidError if any byte is not as it was written, or makes no sense."""
    if not _LEAST_MANIFEST_BYTES <= len(blob) <= MAX_MANIFEST_BYTES or not blob.startswith(MAGIC):
        raise InvalidError("not a snapshot of this version")
    view = memoryview(blob)
    if crc32c(view[: -_U32.size]) != _U32.unpack_from(blob, len(blob) - _U32.size)[0]:
        raise InvalidError("the manifest's checksum is wrong")
    head = view[len(MAGIC) + _U32.size : -_U32.size]
    if _U32.unpack_from(blob, len(MAGIC))[0] != len(head):
        raise InvalidError("the manifest's length is wrong")
    try:
        header = _decoder.decode(head)
    except UNREADABLE as error:
        raise InvalidError(f"the manifest is unreadable: {error}") from error
    _check(header)
    return header


def stream_end(header: SnapshotHeader) -> bytes:
    """Return what follows the dump in the stream: the manifest and its length."""
    manifest = encode_manifest(header)
    return manifest + _U32.pack(len(manifest))


def manifest_bytes(stream_tail: bytes, size_bytes: int) -> int:
    """Return the length of the manifest in a stream of `size_bytes`, from the stream's last 4 bytes.

    Raises:
        InvalidError: it can't be that long.
    """
    (length,) = _U32.unpack(stream_tail)
    if not _LEAST_MANIFEST_BYTES <= length <= min(MAX_MANIFEST_BYTES, size_bytes - _U32.size):
        raise InvalidError(f"a manifest of {length} bytes can't be")
    return int(length)


def _check(header: SnapshotHeader) -> None:
    """Entries and voters of a snapshot become the receiver's own, so they must be fit to be read again."""
    (command, before, before_term), (last_command, last, last_term) = header.previous, header.last
    hosts = {host for host, _ in header.members}
    if (
        before + 1 != last
        or before_term > last_term
        or header.machine_applied > last
        or not hosts
        or len(hosts) != len(header.members)
    ):
        raise InvalidError("the manifest makes no sense")
    check_command(command)
    check_command(last_command)
