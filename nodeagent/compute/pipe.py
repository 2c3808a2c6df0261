"""Carry one local connection over one stream to another host.

Both ends of a migration's tunnel use it. The bytes between the hosts are framed (4-byte length, then so many
bytes; length 0 ends a direction), because TLS streams cannot be closed in one direction alone. Memory is bounded:
what one side does not take is not read from the other.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

CHUNK_BYTES = 256 * 1024
FRAME_BYTES_MAX = 1 << 20
BUFFER_BYTES = 256 * 1024
IDLE_S_MAX = 120.0

_LENGTH = struct.Struct("!I")


class PipeError(Exception):
    """The other end broke the framing or left without ending it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The two halves of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def set_buffer(self) -> None:
        """Let much be under way before `drain` waits."""
        self.writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def abort(self) -> None:
        """Close at once; unsent bytes are dropped. May be repeated."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close after sending what was written; give up when the other end does not take it."""
        self.writer.close()
        try:
            async with asyncio.timeout(5):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()


@dataclass(slots=True)
class _Idle:
    """Moves a timeout forward as long as bytes flow, at most once a second."""

    timeout: asyncio.Timeout
    limit_s: float
    moved_s: float = 0.0

    def moved(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self.moved_s >= min(1.0, self.limit_s / 4):
            self.moved_s = now_s
            self.timeout.reschedule(now_s + self.limit_s)


async def pipe(local: Stream, remote: Stream, *, idle_s_max: float = IDLE_S_MAX) -> int:
    """Carry bytes both ways until both directions have ended; return how many. Both streams are closed after.

    Raises:
        PipeError: the other host broke off or broke the framing.
        OSError: a connection broke.
        TimeoutError: no byte moved for `idle_s_max`.
    """
    local.set_buffer()
    remote.set_buffer()
    try:
        async with asyncio.timeout(idle_s_max) as timeout:
            idle = _Idle(timeout, idle_s_max)
            async with asyncio.TaskGroup() as group:
                out = group.create_task(_frame(local, remote, idle), name="pipe-out")
                back = group.create_task(_unframe(remote, local, idle), name="pipe-in")
        await local.close()
        await remote.close()
        return out.result() + back.result()
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    finally:
        local.abort()
        remote.abort()


async def _frame(local: Stream, remote: Stream, idle: _Idle) -> int:
    total = 0
    while chunk := await local.reader.read(CHUNK_BYTES):
        remote.writer.writelines((_LENGTH.pack(len(chunk)), chunk))
        await remote.writer.drain()
        total += len(chunk)
        idle.moved()
    remote.writer.write(_LENGTH.pack(0))
    await remote.writer.drain()
    return total


async def _unframe(remote: Stream, local: Stream, idle: _Idle) -> int:
    total = 0
    while left := await _read_length(remote.reader):
        while left:
            chunk = await remote.reader.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise PipeError("the other host broke off inside a frame")
            local.writer.write(chunk)
            await local.writer.drain()
            left -= len(chunk)
            total += len(chunk)
            idle.moved()
    if local.writer.can_write_eof():
        local.writer.write_eof()
    return total


async def _read_length(reader: asyncio.StreamReader) -> int:
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    except asyncio.IncompleteReadError:
        raise PipeError("the other host broke off") from None
    if length > FRAME_BYTES_MAX:
        raise PipeError(
            f"the other host announced a frame of {length} bytes, more than {FRAME_BYTES_MAX}"
        )
    return int(length)
