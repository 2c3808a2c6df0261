"""What idle subscribers of events cost the agent that they are connected to."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

from core.errors import UnavailableError
from tools.bench.usage import cpu_percent, read_usage

SUBSCRIBERS = 2000
SPARE_FILES = 200
CONNECTING = 50
REQUEST = b"GET /v1/events HTTP/1.1\r\nHost: host\r\nAccept: text/event-stream\r\n\r\n"


async def idle_percent(socket: Path, pid: int, *, seconds: float) -> tuple[float, float]:
    """Return the agent's share of a core, in percent, without subscribers and with `SUBSCRIBERS` of them.

    Raises:
        UnavailableError: one was refused.
    """
    _allow_files(SUBSCRIBERS + SPARE_FILES)
    without = await _share(pid, seconds)
    async with _subscribed(socket):
        return without, await _share(pid, seconds)


async def _share(pid: int, seconds: float) -> float:
    before, began_s = read_usage(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return cpu_percent(before, read_usage(pid), time.monotonic() - began_s)


@contextlib.asynccontextmanager
async def _subscribed(socket: Path) -> AsyncIterator[None]:
    writers: list[asyncio.StreamWriter] = []
    turn = asyncio.Semaphore(CONNECTING)

    async def subscribe() -> None:
        async with turn:
            reader, writer = await asyncio.open_unix_connection(str(socket))
            writers.append(writer)
            writer.write(REQUEST)
            line = await reader.readline()
        if b" 200 " not in line:
            raise UnavailableError(f"a subscriber was refused: {line!r}")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(SUBSCRIBERS):
                group.create_task(subscribe(), name=f"subscriber-{number}")
        yield
    finally:
        for writer in writers:
            writer.close()


def _allow_files(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))
