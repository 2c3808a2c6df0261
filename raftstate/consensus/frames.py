"""Frames on a byte stream: a length, then a message. Many are read and written at once where many are at hand.

Used by `links`. Waking a task, a system call and a TLS record cost more than a small message, so a burst of messages
shall cost each of them once.
"""

from __future__ import annotations

import asyncio

from core.errors import InvalidError

LENGTH_BYTES = 4
READ_BYTES = 256 << 10


def frame(body: bytes) -> bytes:
    """Return the bytes that carry `body`."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class FrameReader:
    """Cuts what arrives into frames. It holds at most the limit of the frame under way and one read more."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._arrived = bytearray()
        self._at = 0  # where the next frame begins

    def take(self, limit_bytes: int) -> bytes | None:
        """Return the body of the next frame; None if it hasn't arrived whole.

        Raises:
            InvalidError: it is empty or longer than the limit; nothing was kept of it.
        """
        start = self._at + LENGTH_BYTES
        if len(self._arrived) < start:
            return None
        length = int.from_bytes(self._arrived[self._at : start], "big")
        if not 0 < length <= limit_bytes:
            raise InvalidError(f"a message of {length} bytes; at most {limit_bytes} are allowed")
        end = start + length
        if len(self._arrived) < end:
            return None
        self._at = end
        with memoryview(self._arrived) as view:
            return bytes(view[start:end])

    async def more(self) -> None:
        """Wait until something arrives. Raises EOFError at the end of the stream."""
        if self._at:
            del self._arrived[: self._at]
            self._at = 0
        arrived = await self._reader.read(READ_BYTES)
        if not arrived:
            raise EOFError("the connection was closed")
        self._arrived += arrived

    async def next(self, limit_bytes: int) -> bytes:
        """Return the body of the next frame. Raises InvalidError or EOFError."""
        while (body := self.take(limit_bytes)) is None:
            await self.more()
        return body


class FrameWriter:
    """Collects the frames of one turn of the event loop and writes them together after it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: list[bytes] = []
        self._waiting_bytes = 0

    @property
    def unsent_bytes(self) -> int:
        """What the kernel hasn't taken yet."""
        return self._waiting_bytes + self._writer.transport.get_write_buffer_size()

    def write(self, body: bytes) -> None:
        """Send `body` soon, after all that was written before."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frame(body))
        self._waiting_bytes += LENGTH_BYTES + len(body)

    def _flush(self) -> None:
        frames, self._frames, self._waiting_bytes = self._frames, [], 0
        if not self._writer.transport.is_closing():
            self._writer.write(b"".join(frames))
