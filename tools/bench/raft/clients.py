"""The load: clients as asyncio tasks, the same code for our store and for etcd, and the loop that takes orders for it.

Runs in the bench's child processes, so that what a client costs is paid where a client would pay it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from tools.bench.raft.orders import Answer, Load, Order, order_in, to_line

VALUE_BYTES = 256
KEYS_OF_A_CLIENT = 100

Write = Callable[[int, int], Awaitable[None]]  # (client, key of that client): write the next value


async def drive(write: Write, *, clients: int, seconds: float) -> Load:
    """Let `clients` tasks write one value after the other; return how many and how long each one took."""
    took_s: list[float] = []
    began_s = time.perf_counter()

    async def client(number: int) -> None:
        turn, now_s = 0, began_s
        while now_s - began_s < seconds:
            await write(number, turn % KEYS_OF_A_CLIENT)
            turn, before_s, now_s = turn + 1, now_s, time.perf_counter()
            took_s.append(now_s - before_s)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number), name=f"client-{number}")
    ended_s = time.perf_counter()
    took_s.sort()
    return Load(
        len(took_s), ended_s - began_s, 1e3 * quantile(took_s, 0.5), 1e3 * quantile(took_s, 0.99)
    )


def quantile(ordered: list[float], share: float) -> float:
    """Return the value below which `share` of `ordered` lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def orders() -> AsyncIterator[Order]:
    """Yield the orders that come on standard input, until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        yield order_in(line)


def reply(answer: Answer) -> None:
    """Write an answer to standard output."""
    sys.stdout.buffer.write(to_line(answer))
    sys.stdout.buffer.flush()
