"""How many small things a second get made: a process of its own, the same for ours and for the peer's.

The bench starts it, inside a host's network when it is to go over HTTPS, and gives it its order on standard input.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Sequence

import aiohttp
import msgspec

from core.command import run
from core.errors import UnavailableError

WRITERS = 16


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

    async def write(http: aiohttp.ClientSession, number: int) -> int:
        turn = 0
        while time.monotonic() - began_s < order.seconds:
            turn += 1
            body = {"name": f"{order.prefix}-{number}-{turn}"}
            async with http.post(order.path, json=body) as answer:
                if answer.status >= 300:
                    raise UnavailableError(f"a create was refused: {await answer.text()}")
        return turn

    session = aiohttp.ClientSession(order.base, connector=_connector(order), headers=order.headers)
    async with session as http:
        made = await asyncio.gather(*(write(http, number) for number in range(WRITERS)))
        return sum(made) / (time.monotonic() - began_s)


def _connector(order: Order) -> aiohttp.BaseConnector:
    if order.socket:
        return aiohttp.UnixConnector(order.socket, limit=WRITERS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return aiohttp.TCPConnector(ssl=context, limit=WRITERS)


if __name__ == "__main__":
    rate = asyncio.run(carry_out(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))
    sys.stdout.write(f"{rate}\n")
