"""How soon an event is at the subscribers of other agents, and how long a change takes to be committed.

An event is what a change of the secrets key tells in the end: its time is taken right before it is committed, and all
hosts of a lab have the same clock.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from core.errors import PlatformError, UnavailableError, first_in
from tools.bench.api.lxd import client

CHANGES = 8
COMMITS = 40
EVENT_TIMEOUT_S = 60.0
EVENT_CODE = "secrets-key-changed"
STREAM = {"Accept": "text/event-stream"}


class Told(msgspec.Struct, frozen=True):
    """What is read of an event."""

    id: str
    code: str
    host_id: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Delays:
    """Medians in milliseconds: of the way to other agents, commit included, and of a small create by one client."""

    event_ms: float
    commit_ms: float


async def measure_delays(sockets: Mapping[str, Path], writer: str) -> Delays:
    """Subscribe at all agents, whose hosts' ids are given, and change the secrets key some times by one of them.

    Raises:
        UnavailableError: something was refused, or an event did not come.
    """
    try:
        return await _measured(sockets, writer)
    except BaseExceptionGroup as errors:
        if (error := first_in(errors, PlatformError)) is not None:
            raise error from errors
        raise


async def _measured(sockets: Mapping[str, Path], writer: str) -> Delays:
    arrived: asyncio.Queue[tuple[str, float, Told]] = asyncio.Queue(1000)
    async with client(sockets[writer]) as http, asyncio.TaskGroup() as group:
        async with _subscribed(group, sockets, arrived):
            delays: list[float] = []
            for _ in range(CHANGES):
                await _post(http, "/v1/secrets/actions/rotate", {}, 202)
                delays += await _one_event(arrived, len(sockets))
        commits = []
        for number in range(COMMITS):
            began_s = time.perf_counter()
            body = {"name": f"delay-{number}", "ttl_s": 600}
            await _post(http, "/v1/access-tokens", body, 201)
            commits.append((time.perf_counter() - began_s) * 1000)
    return Delays(statistics.median(delays), statistics.median(commits))


async def _one_event(
    arrived: asyncio.Queue[tuple[str, float, Told]], subscribers: int
) -> list[float]:
    """Return after how many milliseconds the others were told."""
    delays = []
    try:
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            for _ in range(subscribers):
                host_id, at_ms, told = await arrived.get()
                if host_id != told.host_id:
                    delays.append(at_ms - told.created_ms)
    except TimeoutError:
        raise UnavailableError("an event did not reach all subscribers") from None
    return delays


@asynccontextmanager
async def _subscribed(
    group: asyncio.TaskGroup,
    sockets: Mapping[str, Path],
    arrived: asyncio.Queue[tuple[str, float, Told]],
) -> AsyncIterator[None]:
    ready = [asyncio.Event() for _ in sockets]

    async def listen(host_id: str, socket: Path, begun: asyncio.Event) -> None:
        unlimited = aiohttp.ClientTimeout(total=None)
        async with client(socket) as http:
            async with http.get("/v1/events", headers=STREAM, timeout=unlimited) as stream:
                begun.set()
                async for line in stream.content:
                    at_ms = time.time_ns() / 1e6
                    if line.startswith(b"data: "):
                        told = msgspec.json.decode(line[6:], type=Told)
                        if told.code == EVENT_CODE:
                            arrived.put_nowait((host_id, at_ms, told))

    tasks = [
        group.create_task(listen(host_id, socket, begun), name=f"subscriber-{host_id}")
        for (host_id, socket), begun in zip(sockets.items(), ready, strict=True)
    ]
    try:
        for begun in ready:
            await begun.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _post(
    http: aiohttp.ClientSession, path: str, body: dict[str, object], status: int
) -> None:
    async with http.post(path, json=body) as answer:
        if answer.status != status:
            raise UnavailableError(f"{path} was refused: {await answer.text()}")
