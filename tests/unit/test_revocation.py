"""A removed host: whatever it has open is cut, whatever it asks is refused, and it can't come back by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import PlatformError
from core.mesh.client import MeshClient, Nothing
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import HTTP, TlsFiles
from core.model import Host
from ha.lease import Renewal, RenewalAnswer
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.services.member_states import MemberStates
from nodeagent.services.revocation import Revocation
from tests.api import app_of
from tests.mesh_identity import Authority
from tests.one_member import HOST_ID, OTHER_ID, THIRD_ID, OneMember, founded

CHANNEL = "kvorum-test/1"
WORLD = {OTHER_ID: "192.0.2.2", THIRD_ID: "192.0.2.3"}


class _Services:
    def __init__(self, member: OneMember) -> None:
        self.states = MemberStates(member.node)
        self.leases = self

    async def renew_from_peer(self, peer_id: str, renewal: Renewal) -> int:
        del peer_id
        return renewal.seq


async def hold(peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A channel as consensus has it: open until an end goes away."""
    del peer_id
    while line := await reader.readline():
        writer.write(line)


@dataclass
class Mesh:
    """Host h1 with its mesh port, and the means of two others to call it."""

    member: OneMember
    port: int
    own: MeshDialer
    dialers: dict[str, MeshDialer]
    files: dict[str, TlsFiles]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def h1(self) -> Host:
        host = self.member.store.need(Host, HOST_ID)
        return replace(host, address="127.0.0.1", mesh_port=self.port)

    async def remove(self, host_id: str = OTHER_ID) -> None:
        host = self.member.store.need(Host, host_id)
        await self.member.store.apply(deletes=(host,))


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    member, ca = await founded(), Authority(tmp_path)
    for number, (host_id, address) in enumerate(WORLD.items(), 2):
        await member.add_host(host_id, f"h{number}", address)
    rpc = MeshRpc(member.node, _Services(member))
    app = rpc.app()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await asyncio.Event().wait()
        return response

    app.router.add_get("/mesh/stream", stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    files = ca.issue(HOST_ID)
    server = MeshServer(files, "127.0.0.1", 0, admit=rpc.is_member)
    server.add_http(runner.server)
    server.add_channel(CHANNEL, hold)
    own = MeshDialer(files)
    Revocation(member.machine, server, own, admits=rpc.is_member)
    theirs = {host_id: ca.issue(host_id) for host_id in WORLD}
    dialers = {host_id: MeshDialer(files) for host_id, files in theirs.items()}
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="mesh")
        await server.started.wait()
        yield Mesh(member, server.port, own, dialers, theirs)
        task.cancel()
    await runner.cleanup()


async def is_cut(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(3):
            return await reader.read() == b""
    return True


async def test_open_channels_of_a_removed_host_are_cut_and_no_others(mesh):
    opened = {h: await d.open(mesh.address, HOST_ID, CHANNEL) for h, d in mesh.dialers.items()}
    for reader, writer in opened.values():
        writer.write(b"here\n")
        assert await reader.readline() == b"here\n"
    await mesh.remove()
    assert await is_cut(opened[OTHER_ID][0])
    reader, writer = opened[THIRD_ID]
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    for _, writer in opened.values():
        writer.transport.abort()


async def test_it_cannot_connect_again(mesh):
    await mesh.remove()
    reader, writer = await mesh.dialers[OTHER_ID].open(mesh.address, HOST_ID, CHANNEL)
    assert await is_cut(reader)
    writer.transport.abort()


async def test_channels_that_were_opened_to_it_are_cut_too(mesh):
    theirs = MeshServer(mesh.files[OTHER_ID], "127.0.0.1", 0)
    theirs.add_channel(CHANNEL, hold)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(theirs.run(), name="removed-host")
        await theirs.started.wait()
        reader, _ = await mesh.own.open(f"127.0.0.1:{theirs.port}", OTHER_ID, CHANNEL)
        await mesh.remove(THIRD_ID)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read()
        await mesh.remove(OTHER_ID)
        assert await is_cut(reader)
        task.cancel()


async def test_an_open_http_connection_does_nothing_more_for_it(mesh):
    async with MeshClient(mesh.dialers[OTHER_ID]) as client:
        await client.call(mesh.h1(), "/mesh/state", Nothing(), dict)
        await mesh.remove()
        for path in (
            "/mesh/state",
            "/mesh/lease",
            "/mesh/leave",
            "/mesh/certificate",
            "/mesh/secrets-key",
        ):
            with pytest.raises(PlatformError) as refused:
                await client.call(mesh.h1(), path, Nothing(), RenewalAnswer)
            assert refused.value.code in {"not-a-member", "unavailable"}


async def test_a_download_of_a_removed_host_breaks_off(mesh):
    context = mesh.dialers[OTHER_ID].ssl_context(HOST_ID, HTTP)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"https://{mesh.address}/mesh/stream", ssl=context) as response,
    ):
        assert await response.content.readexactly(5) == b"begun"
        await mesh.remove()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            async with asyncio.timeout(5):
                await response.content.read()


async def test_the_api_does_for_nobody_what_only_a_host_may_do(mesh):
    """A removed host has no more than any stranger there: its certificate is not even asked for."""
    await mesh.remove()
    async with TestClient(TestServer(app_of(mesh.member))) as stranger:
        lease = {"boot_id": "b", "seq": 1}
        for path in ("/v1/local/lease", "/v1/local/leave", "/v1/local/status"):
            assert (await stranger.post(path, json=lease)).status == 403
        for path in ("/mesh/lease", "/mesh/leave", "/mesh/certificate", "/mesh/state"):
            assert (await stranger.post(path, json=lease)).status == 401
        said = await stranger.post("/v1/join/standing", json={"host_id": OTHER_ID})
        assert (await said.json())["member"] is False
