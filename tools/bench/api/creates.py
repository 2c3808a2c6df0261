"""How many small things a second get made: the same client code for ours and for the peer's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from core.errors import UnavailableError

WRITERS = 16


async def creates_per_second(
    http: aiohttp.ClientSession,
    path: str,
    body: Callable[[str], dict[str, object]],
    *,
    prefix: str,
    seconds: float,
) -> float:
    """Make things with names of their own for some time, `WRITERS` at a time.

    Raises:
        UnavailableError: one was refused.
    """
    began_s = time.monotonic()

    async def write(number: int) -> int:
        turn = 0
        while time.monotonic() - began_s < seconds:
            turn += 1
            async with http.post(path, json=body(f"{prefix}-{number}-{turn}")) as answer:
                if answer.status >= 300:
                    raise UnavailableError(f"a create was refused: {await answer.text()}")
        return turn

    made = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    return sum(made) / (time.monotonic() - began_s)
