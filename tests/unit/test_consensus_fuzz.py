"""What may arrive on a raft link, or lie in a log: whatever the bytes are, they are refused cheaply or understood."""

import asyncio
import struct
import tracemalloc
import typing

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidError
from raftstate.consensus import links, messages
from raftstate.consensus.entries import (
    MemberChange,
    Proposal,
    TooNewError,
    check_command,
    decode_change,
    decode_proposals,
    encode_change,
    encode_proposals,
)
from raftstate.consensus.frames import FrameReader, frame
from raftstate.consensus.messages import Append, Chunk, Hello, Ping, Wire, decode, encode
from raftstate.consensus.snapshot_header import (
    MAGIC,
    SnapshotHeader,
    encode_manifest,
    manifest_bytes,
    parse_manifest,
)

ROOM_BYTES = 256 << 10  # what a decoder may take besides a small multiple of its input
HUGE_LENGTHS = (
    b"\xdd\xff\xff\xff\xff",  # array of 2**32 - 1
    b"\xdf\xff\xff\xff\xff",  # map
    b"\xc6\xff\xff\xff\xff",  # bytes
    b"\xdb\xff\xff\xff\xff",  # text
    b"\xdc\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",  # extension
)


PLAIN = {
    int: st.integers(0, (1 << 62) - 1),
    bool: st.booleans(),
    bytes: st.binary(max_size=32),
    str: st.text(min_size=1, max_size=20),
    type(None): st.none(),
}


def values(annotation) -> st.SearchStrategy:
    """Return what may stand in a field, within the bounds that `messages` sets."""
    match typing.get_origin(annotation), typing.get_args(annotation):
        case None, _:
            return PLAIN[annotation]
        case (typing.Annotated, [plain, meta]) if plain is int:
            return st.integers(meta.ge, meta.lt - 1 if meta.le is None else meta.le)
        case typing.Annotated, [plain, _]:
            return values(plain)
        case (origin, [item]) if origin is list:
            return st.lists(values(item), max_size=5)
        case (origin, [item, end]) if origin is tuple and end is ...:
            return st.lists(values(item), max_size=5).map(tuple)
        case (origin, items) if origin is tuple:
            return st.tuples(*map(values, items))
        case _, options:
            return st.one_of(*map(values, options))


def structs(type_) -> st.SearchStrategy:
    return st.builds(
        type_, *map(values, typing.get_type_hints(type_, include_extras=True).values())
    )


def valid_messages() -> st.SearchStrategy[messages.Message]:
    return st.one_of(*(structs(type_) for type_ in typing.get_args(Wire)))


def entries() -> st.SearchStrategy[bytes]:
    proposals = st.lists(
        st.builds(Proposal, st.binary(max_size=12), st.integers(0, 1 << 40), st.binary(max_size=40))
    )
    change = st.builds(
        MemberChange, st.booleans(), st.text(min_size=1, max_size=9), st.text(max_size=9)
    )
    return st.one_of(proposals.map(encode_proposals), change.map(encode_change))


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes with a few bytes changed, inserted, dropped, doubled, or a huge length put in."""
    content = draw(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = draw(st.integers(at, min(len(content), at + 9)))
        piece = draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from(HUGE_LENGTHS),
                st.just(content[at:end] * 2),
                st.just(b"\x91" * 2000),
            )
        )
        content = content[:at] + piece + content[end:]
    return content


def understood_or_refused(decoder, content: bytes) -> None:
    """Decode; nothing but InvalidError (or TooNewError) may be raised, nothing big may be made."""
    tracemalloc.start()
    try:
        decoder(content)
    except (InvalidError, TooNewError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 * len(content) + ROOM_BYTES


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), damaged(valid_messages().map(encode))))
def test_a_frame_is_a_message_or_invalid(content):
    understood_or_refused(decode, content)


@settings(max_examples=200)
@given(valid_messages())
def test_a_message_survives_the_wire(message):
    assert decode(encode(message)) == message


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), damaged(entries())))
@pytest.mark.parametrize(
    "decoder",
    [
        decode_proposals,
        decode_change,
        check_command,
        lambda content: check_command(b"\0" + content),
    ],
    ids=["proposals", "change", "command", "regular command"],
)
def test_a_log_entry_is_understood_or_invalid(decoder, content):
    understood_or_refused(decoder, content)


def manifest(head: bytes) -> bytes:
    """Return a manifest whose checksum is right, whatever is in it."""
    body = MAGIC + struct.pack("<I", len(head)) + head
    return body + struct.pack("<I", crc32c(body))


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=100),
        damaged(structs(SnapshotHeader).map(msgspec.msgpack.encode)),
    )
)
def test_a_manifest_with_a_right_checksum_is_understood_or_invalid(head):
    understood_or_refused(parse_manifest, manifest(head))


@settings(max_examples=200)
@given(damaged(structs(SnapshotHeader).map(encode_manifest)))
def test_a_damaged_manifest_is_understood_or_invalid(blob):
    understood_or_refused(parse_manifest, blob)


@given(st.binary(min_size=4, max_size=4), st.integers(0, 1 << 40))
def test_the_end_of_a_snapshot_names_a_bounded_manifest_or_is_invalid(tail, size_bytes):
    try:
        assert 0 < manifest_bytes(tail, size_bytes) < size_bytes
    except InvalidError:
        pass


@pytest.mark.parametrize("length", HUGE_LENGTHS, ids=lambda length: length.hex())
@pytest.mark.parametrize("prefix", [b"", b"\x93\xa6append\x01", b"\x92\xa5hello"])
def test_an_announced_length_takes_no_memory(prefix, length):
    understood_or_refused(decode, prefix + length)


@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa1a", b"\x92\xa5hello\x91"])
def test_a_deep_nest_is_refused(nest):
    with pytest.raises(InvalidError):
        decode(nest * 200_000)


def frames(*bodies: bytes) -> bytes:
    return b"".join(map(frame, bodies))


async def read_all(content: bytes, pieces: list[int], limit: int) -> list[bytes]:
    """Read frames from a stream that arrives in pieces, until it ends between two frames."""
    stream, start = asyncio.StreamReader(), 0
    reader, found = FrameReader(stream), list[bytes]()
    for size in [*pieces, len(content)]:
        if piece := content[start : start + size]:
            stream.feed_data(piece)
            await reader.more()
            start += size
        while (body := reader.take(limit)) is not None:
            found.append(body)
    return found


@given(st.lists(st.binary(min_size=1, max_size=50)), st.lists(st.integers(1, 30), max_size=20))
def test_frames_arrive_whole_however_the_stream_is_cut(bodies, pieces):
    assert asyncio.run(read_all(frames(*bodies), pieces, 50)) == bodies


@settings(max_examples=200)
@given(damaged(st.lists(st.binary(min_size=1, max_size=50)).map(lambda bodies: frames(*bodies))))
def test_a_stream_gives_bounded_frames_or_is_refused(content):
    try:
        assert all(0 < len(body) <= 50 for body in asyncio.run(read_all(content, [], 50)))
    except (InvalidError, EOFError):
        pass


@pytest.mark.parametrize("length", [0, links.MAX_HELLO_BYTES + 1, 0xFFFFFFFF])
def test_a_frame_of_a_forbidden_length_is_refused_before_it_arrives(length):
    with pytest.raises(InvalidError):
        asyncio.run(read_all(length.to_bytes(4, "big"), [], links.MAX_HELLO_BYTES))


@pytest.mark.parametrize(
    "message",
    [
        Append(1, 0, (1, 0), [(b"\0P\x90", 2, 1 << 62)]),
        Append(-1, 0, None, []),
        Chunk(1, -1, 0, b""),
        Hello(b"", "", [("x" * 129, "")], 1, 1),
        Hello(b"", "x" * 301, [], 1, 1),
        Hello(b"x" * 33, "", [], 1, 1),
        Ping(1, b"x" * 65, 1),
    ],
)
def test_numbers_and_names_out_of_bounds_are_refused(message):
    with pytest.raises(InvalidError):
        decode(encode(message))
