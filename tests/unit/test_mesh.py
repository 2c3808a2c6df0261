"""The mesh: who gets in, who is believed, and which handler a connection reaches."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import uvloop
from aiohttp import web

from core.errors import UnavailableError
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import HTTP, client_context, peer_id_of
from tests.mesh_identity import Authority

ECHO = "kvorum-test/1"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


async def echo(peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readline()
    if line == b"fail\n":
        raise ValueError("a mistake of ours")
    writer.write(f"hello {peer_id}: ".encode() + line)
    await writer.drain()


async def who_asks(request: web.BaseRequest) -> web.Response:
    return web.Response(text=f"{peer_id_of(request.transport)} asks {request.path}")


@contextlib.asynccontextmanager
async def serving(files, **options) -> AsyncIterator[str]:
    server = MeshServer(files, "127.0.0.1", 0, **options)
    server.add_channel(ECHO, echo)
    http = web.Server(who_asks)
    server.add_http(http)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="mesh")
        await server.started.wait()
        try:
            yield f"127.0.0.1:{server.port}"
        finally:
            await http.shutdown(1.0)
            task.cancel()


async def test_a_stream_channel_learns_who_calls(authority):
    dialer = MeshDialer(authority.issue("host-b"))
    async with serving(authority.issue("host-a")) as address:
        reader, writer = await dialer.open(address, "host-a", ECHO)
        writer.write(b"good day\n")
        assert await reader.read() == b"hello host-b: good day\n"
        writer.close()


async def test_http_shares_the_port_and_learns_who_calls(authority):
    dialer = MeshDialer(authority.issue("host-b"))
    async with serving(authority.issue("host-a")) as address, aiohttp.ClientSession() as session:
        context = dialer.ssl_context("host-a", HTTP)
        for path in ("/one", "/two"):
            async with session.get(f"https://{address}{path}", ssl=context) as answer:
                assert await answer.text() == f"host-b asks {path}"


async def test_a_caller_without_a_certificate_is_refused(authority):
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    bare.set_alpn_protocols([ECHO])
    async with serving(authority.issue("host-a")) as address:
        port = int(address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=bare)
        writer.write(b"let me in\n")
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_a_host_of_another_cluster_is_refused(authority, tmp_path):
    stranger = Authority(tmp_path / "other").issue("host-b")
    async with serving(authority.issue("host-a")) as address:
        with pytest.raises(UnavailableError, match="certificate"):
            await MeshDialer(stranger).open(address, "host-a", ECHO)


async def test_a_plain_text_caller_gets_no_answer(authority):
    async with serving(authority.issue("host-a")) as address:
        port = int(address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"hello" not in await reader.read()
        writer.close()


async def test_the_dialer_refuses_any_other_host_at_that_address(authority):
    dialer = MeshDialer(authority.issue("host-b"))
    async with serving(authority.issue("host-a")) as address:
        with pytest.raises(UnavailableError, match="expected host host-c, found host-a"):
            await dialer.open(address, "host-c", ECHO)


async def test_http_clients_too_refuse_any_other_host(authority):
    context = client_context(authority.issue("host-b"), peer_id="host-c", channel=HTTP)
    async with serving(authority.issue("host-a")) as address, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"https://{address}/", ssl=context)


async def test_a_host_that_is_not_admitted_is_turned_away(authority):
    dialer = MeshDialer(authority.issue("removed"))
    async with serving(authority.issue("host-a"), admit=lambda peer: peer != "removed") as address:
        reader, writer = await dialer.open(address, "host-a", ECHO)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_a_handler_that_fails_takes_nothing_else_down(authority, caplog):
    dialer = MeshDialer(authority.issue("host-b"))
    async with serving(authority.issue("host-a")) as address:
        reader, writer = await dialer.open(address, "host-a", ECHO)
        writer.write(b"fail\n")
        assert await reader.read() == b""
        writer.close()
        reader, writer = await dialer.open(address, "host-a", ECHO)
        writer.write(b"go on\n")
        assert await reader.read() == b"hello host-b: go on\n"
        writer.close()
    assert "mesh handler failed" in caplog.text


async def test_an_unknown_channel_is_refused(authority):
    dialer = MeshDialer(authority.issue("host-b"))
    async with serving(authority.issue("host-a")) as address:
        with pytest.raises(UnavailableError):
            await dialer.open(address, "host-a", "kvorum-unknown/1")


async def test_a_silent_address_is_reported_in_time(authority):
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    dialer = MeshDialer(authority.issue("host-b"))
    with pytest.raises(UnavailableError, match=r"didn't answer within 0\.2 s"):
        await dialer.open(f"127.0.0.1:{port}", "host-a", ECHO, timeout_s=0.2)
    await over.wait()
    server.close()


async def test_a_taken_port_is_explained(authority):
    files = authority.issue("host-a")
    async with serving(files) as address:
        second = MeshServer(files, "127.0.0.1", int(address.rpartition(":")[2]))
        second.add_channel(ECHO, echo)
        with pytest.raises(UnavailableError, match="is another agent running"):
            await second.run()


def test_everything_works_on_uvloop_as_the_agent_runs_it(authority):
    a, b = authority.issue("host-a"), MeshDialer(authority.issue("host-b"))

    async def story() -> None:
        async with serving(a) as address, aiohttp.ClientSession() as session:
            reader, writer = await b.open(address, "host-a", ECHO)
            writer.write(b"good day\n")
            assert await reader.read() == b"hello host-b: good day\n"
            writer.close()
            context = b.ssl_context("host-a", HTTP)
            async with session.get(f"https://{address}/one", ssl=context) as answer:
                assert await answer.text() == "host-b asks /one"
            with pytest.raises(UnavailableError, match="expected host host-c"):
                await b.open(address, "host-c", ECHO)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
