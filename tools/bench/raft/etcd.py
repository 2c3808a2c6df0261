"""Three members of Debian's etcd on loopback, and their client: what our figures are compared with.

Peers and clients of etcd talk without TLS, ours with: the comparison is to our disadvantage. etcd calls fdatasync by
itself, as we do.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from core.errors import NotFoundError, UnavailableError
from tools.bench.raft.child import Child, child, process
from tools.bench.raft.orders import Ready

NAMES = ("a", "b", "c")
UP_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 2.0


@contextlib.asynccontextmanager
async def etcd_client(directory: Path) -> AsyncIterator[Child]:
    """Run three members with their data in `directory`, and a client process that drives their leader.

    Raises:
        NotFoundError: etcd isn't installed.
        UnavailableError: they elect no leader.
    """
    program = shutil.which("etcd")
    if program is None:
        raise NotFoundError("there is no etcd: apt-get install etcd-server")
    peers = {n: f"http://127.0.0.{number}:{_free()}" for number, n in enumerate(NAMES, 21)}
    urls = {n: f"http://127.0.0.{number}:{_free()}" for number, n in enumerate(NAMES, 21)}
    async with contextlib.AsyncExitStack() as stack:
        for name in NAMES:
            argv = _argv(program, name, directory / f"etcd-{name}", peers, urls[name])
            log = directory / f"etcd-{name}.log"
            await stack.enter_async_context(process(f"etcd {name}", *argv, log=log))
        leader = await _leader(urls)
        client = child(
            "etcd's client",
            "tools.bench.raft.etcd_client",
            leader,
            log=directory / "etcd-client.log",
        )
        running = await stack.enter_async_context(client)
        await running.answer(Ready, timeout_s=UP_TIMEOUT_S)
        yield running


def _argv(program: str, name: str, data: Path, peers: dict[str, str], url: str) -> tuple[str, ...]:
    return (
        program,
        *("--name", name, "--data-dir", str(data), "--log-level", "error"),
        *("--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]),
        *("--listen-client-urls", url, "--advertise-client-urls", url),
        *("--initial-cluster", ",".join(f"{n}={peer}" for n, peer in peers.items())),
        *("--initial-cluster-state", "new", "--initial-cluster-token", data.parent.name),
    )


async def _leader(urls: dict[str, str]) -> str:
    """Return the client URL of the leader."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    try:
        async with asyncio.timeout(UP_TIMEOUT_S), aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                for url in urls.values():
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with http.post(f"{url}/v3/maintenance/status", json={}) as answer:
                            status = await answer.json()
                        if status.get("leader") == status["header"]["member_id"]:
                            return url
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise UnavailableError(f"etcd has no leader after {UP_TIMEOUT_S:g} s") from None


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
