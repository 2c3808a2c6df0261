"""How many small things a second get made: a process of its own, the same for ours and for the peer's.

The bench starts it, inside a host's network when it is to go over HTTPS, and gives it its order on standard input. It
shares the processors with what it measures, so it speaks HTTP by itself: that takes a third of an HTTP library's time.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
import uvloop

from core.command import run
from core.errors import PlatformError, UnavailableError, first_in

WRITERS = 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to make: `path` at `base`, or at a unix socket if one is named. Names begin with `prefix`."""

    base: str
    path: str
    prefix: str
    seconds: float
    socket: str = ""
    headers: dict[str, str] = {}


async def creates_per_second(order: Order, *, inside: Sequence[str] = ()) -> float:
    """Have the order carried out by a process started through `inside` (as `nsenter ...`); return its rate.

    Raises:
        CommandError: something was refused; the message says what.
    """
    argv = [*inside, sys.executable, "-m", "tools.bench.api.creates"]
    ended = await run(argv, timeout_s=order.seconds + 60, input=msgspec.json.encode(order))
    return float(ended.stdout)


async def carry_out(order: Order) -> float:
    """Make things with names of their own for some time, `WRITERS` at a time; return how many a second.

    Raises:
        UnavailableError: one was refused.
    """
    began_s = time.monotonic()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def write(number: int) -> int:
        reader, writer = await _connected(order, context)
        turn = 0
        try:
            while time.monotonic() - began_s < order.seconds:
                turn += 1
                body = msgspec.json.encode({"name": f"{order.prefix}-{number}-{turn}"})
                writer.write(request_of(order, body))
                status, answer = await answer_from(reader)
                if status >= 300:
                    said = answer.decode(errors="replace")
                    raise UnavailableError(f"a create was refused: {said}")
        finally:
            writer.close()
        return turn

    try:
        async with asyncio.TaskGroup() as group:
            writers = [
                group.create_task(write(number), name=f"writer-{number}")
                for number in range(WRITERS)
            ]
    except BaseExceptionGroup as errors:
        if (error := first_in(errors, PlatformError)) is not None:
            raise error from errors
        raise
    return sum(writer.result() for writer in writers) / (time.monotonic() - began_s)


def request_of(order: Order, body: bytes) -> bytes:
    """Return the bytes of one request."""
    lines = (
        f"POST {order.path} HTTP/1.1",
        f"Host: {urlsplit(order.base).netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in order.headers.items()),
    )
    return "\r\n".join((*lines, "", "")).encode() + body


async def answer_from(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of one answer.

    Raises:
        UnavailableError: it doesn't say how long it is.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if (length := _LENGTH.search(head)) is not None:
        return status, await reader.readexactly(int(length[1]))
    if _CHUNKED.search(head) is None:
        raise UnavailableError("an answer doesn't say how long it is")
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return status, body


async def _connected(
    order: Order, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if order.socket:
        return await asyncio.open_unix_connection(order.socket)
    where = urlsplit(order.base)
    return await asyncio.open_connection(where.hostname, where.port, ssl=context)


if __name__ == "__main__":
    rate = uvloop.run(carry_out(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))
    sys.stdout.write(f"{rate}\n")
