"""Strangers at the mesh port: they cost next to nothing, are soon gone, and don't disturb the hosts of the cluster."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.mesh import server as mesh_server
from core.mesh.dialer import MeshDialer
from core.mesh.doorway import HANDSHAKES_PER_ADDRESS_MAX
from core.mesh.server import MeshServer
from tests.mesh_identity import Authority

STRANGERS = 150
PATIENCE_S = 1.0
CHANNEL = "echo/1"
BYTES_PER_STRANGER = 100 << 10  # over all; those that are hung up on cost nothing
CPU_S_PER_STRANGER = 0.02


def client_hello() -> bytes:
    """Return the first bytes of an honest TLS handshake."""
    out = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


HELLO = client_hello()
OPENINGS = {
    "nothing": b"",
    "one byte": HELLO[:1],
    "half a hello": HELLO[: len(HELLO) // 2],
    "a hello, then silence": HELLO,
    "a record that never ends": b"\x16\x03\x01\x3f\xff" + b"\x01\x00\xff\xff",
    "garbage": bytes(range(256)) * 8,
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@contextlib.asynccontextmanager
async def listening(directory: Path, monkeypatch) -> AsyncIterator[tuple[MeshServer, MeshDialer]]:
    """A mesh server with an echo channel and a short patience, and a host that may use it."""
    monkeypatch.setattr(mesh_server, "HANDSHAKE_TIMEOUT_S", PATIENCE_S)
    authority = Authority(directory)
    server = MeshServer(authority.issue("a"), "127.0.0.1", 0)

    async def echo(
        peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(await reader.readexactly(4))
        await writer.drain()

    server.add_channel(CHANNEL, echo)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="mesh")
        await server.started.wait()
        yield server, MeshDialer(authority.issue("b"))
        task.cancel()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def stranger(port: int, opening: bytes) -> float:
    """Connect, say `opening`, and return how long it took until the server hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        writer.write(opening)
        while await reader.read(4096):
            pass
    writer.close()
    return time.monotonic() - begun


async def use(dialer: MeshDialer, port: int) -> float:
    """Return how long a host of the cluster waits for its echo."""
    begun = time.monotonic()
    reader, writer = await dialer.open(f"127.0.0.1:{port}", "a", CHANNEL)
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    writer.close()
    return time.monotonic() - begun


@pytest.mark.parametrize("name", OPENINGS)
async def test_strangers_are_cheap_and_soon_gone_while_hosts_are_served(
    tmp_path, monkeypatch, name
):
    async with listening(tmp_path, monkeypatch) as (server, dialer):
        await use(dialer, server.port)
        memory, cpu_s = resident_bytes(), time.process_time()
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            strangers = [
                group.create_task(stranger(server.port, OPENINGS[name]), name=f"stranger-{number}")
                for number in range(STRANGERS)
            ]
            await asyncio.sleep(0.1)
            waited_s = await use(dialer, server.port)
        cost = (resident_bytes() - memory) / STRANGERS
        assert waited_s < 3.0
        assert cost < BYTES_PER_STRANGER, f"{cost:.0f} bytes a connection, both ends"
        assert (time.process_time() - cpu_s) / STRANGERS < CPU_S_PER_STRANGER
        assert max(task.result() for task in strangers) < PATIENCE_S + 3.0
        await use(dialer, server.port)


async def test_who_is_one_too_many_is_hung_up_on_at_once(tmp_path, monkeypatch):
    async with listening(tmp_path, monkeypatch) as (server, dialer):
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            strangers = [
                group.create_task(stranger(server.port, b""), name=f"stranger-{number}")
                for number in range(3 * HANDSHAKES_PER_ADDRESS_MAX)
            ]
        at_once = sum(task.result() < PATIENCE_S / 2 for task in strangers)
        assert (
            at_once >= HANDSHAKES_PER_ADDRESS_MAX
        )  # on a busy machine some come when others have gone
        await use(dialer, server.port)


@pytest.mark.parametrize("certificate", ["none", "of another cluster"])
async def test_a_stranger_who_finishes_the_handshake_reaches_no_channel(
    tmp_path, monkeypatch, certificate
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([CHANNEL])
    if certificate != "none":
        files = Authority(tmp_path / "other", "other cluster").issue("b")
        context.load_cert_chain(files.certificate, files.key)
    async with listening(tmp_path, monkeypatch) as (server, dialer):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        writer.write(b"ping")
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.close()
        await use(dialer, server.port)
