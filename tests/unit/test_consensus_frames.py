"""Frames: however a stream is cut into pieces, the same messages come out, and a burst is written at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidError
from raftstate.consensus.frames import FrameReader, FrameWriter, frame

LIMIT = 1000


class Wire(asyncio.Transport):
    """Keeps what was written, a piece for each write."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closing = False

    def write(self, data) -> None:
        assert not self.closing, "written to a closed connection"
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 5


def writer_on(wire: Wire) -> FrameWriter:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    return FrameWriter(asyncio.StreamWriter(wire, protocol, reader, loop))


async def read_all(pieces: list[bytes]) -> list[bytes]:
    stream = asyncio.StreamReader()
    reader, found = FrameReader(stream), []

    async def feed() -> None:
        for piece in pieces:
            stream.feed_data(piece)
            await asyncio.sleep(0)
        stream.feed_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed(), name="feed")
        try:
            while True:
                found.append(await reader.next(LIMIT))
        except EOFError:
            return found


@given(bodies=st.lists(st.binary(min_size=1, max_size=40)), piece=st.integers(1, 50))
def test_a_stream_cut_anywhere_gives_the_same_messages(bodies: list[bytes], piece: int) -> None:
    stream = b"".join(frame(body) for body in bodies)
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    assert asyncio.run(read_all(pieces)) == bodies


async def test_what_was_cut_off_by_the_end_is_no_message() -> None:
    assert await read_all([frame(b"whole"), frame(b"torn")[:-1]]) == [b"whole"]


@pytest.mark.parametrize("length", [0, LIMIT + 1, 0xFFFFFFFF])
async def test_a_length_out_of_bounds_is_refused_before_anything_is_kept(length: int) -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(frame(b"x" * LIMIT) + length.to_bytes(4, "big"))
    reader = FrameReader(stream)
    assert await reader.next(LIMIT) == b"x" * LIMIT
    with pytest.raises(InvalidError, match="at most 1000"):
        await reader.next(LIMIT)


async def test_each_message_has_its_own_limit_however_they_arrive() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(frame(b"hi") + frame(b"x" * 100))
    reader = FrameReader(stream)
    assert await reader.next(10) == b"hi"
    assert await reader.next(100) == b"x" * 100


async def test_messages_of_one_turn_leave_together_and_in_order() -> None:
    wire = Wire()
    writer = writer_on(wire)
    writer.write(b"one")
    writer.write(b"two")
    assert (wire.pieces, writer.unsent_bytes) == ([], 4 + 3 + 4 + 3 + 5)
    await asyncio.sleep(0)
    writer.write(b"three")
    await asyncio.sleep(0)
    assert wire.pieces == [frame(b"one") + frame(b"two"), frame(b"three")]
    assert writer.unsent_bytes == 5


async def test_nothing_is_written_to_a_link_that_was_cut_meanwhile() -> None:
    wire = Wire()
    writer_on(wire).write(b"late")
    wire.closing = True
    await asyncio.sleep(0)
    assert wire.pieces == []
