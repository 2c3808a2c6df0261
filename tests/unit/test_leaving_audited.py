"""`kvorum leave` in the audits: recorded as far as it can be, and never held up by that."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from core.member_file import MemberRecord
from core.mesh.client import MeshClient
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.model import Audit, Host
from nodeagent.identity.audits import Audits
from nodeagent.leaving import ask_out
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.node import Node
from nodeagent.services.exclusion import Exclusion
from tests.api import FakeAgent, app_of, unix_client
from tests.mesh_identity import Authority
from tests.one_member import HOST_ID, OTHER_ID, OneMember, founded

RECORD = MemberRecord(
    host_id=OTHER_ID,
    host_name="h2",
    address="192.0.2.2",
    cluster_name="test",
    api_port=7443,
    mesh_port=7444,
    founder=False,
    members=(),
)


class LeavingAgent(FakeAgent):
    """The agent of h2, whose state is that of h1 as well; after leaving it is a member no more."""

    def __init__(self, member: OneMember, node: Node) -> None:
        super().__init__(member)
        self.node = node
        audits = Audits(member.store, OTHER_ID, clock=member.clock, rng=member.rng)
        self.services.identity.audits = audits

    async def leave(self, *, force: bool, confirm: str, audit_id: str = "") -> MemberRecord:
        del confirm
        if not force:
            await ask_out(self.node, Exclusion(self.node), audit_id=audit_id)
        self.node = None
        return RECORD


@dataclass
class World:
    member: OneMember
    local: aiohttp.ClientSession
    agents: tuple[FakeAgent, FakeAgent]

    async def leave(self, **body) -> int:
        async with self.local.post("/v1/local/leave", json=body) as response:
            status = response.status
        for agent in self.agents:
            await agent.services.identity.audits.flush()
        return status

    def audits(self) -> list[Audit]:
        return self.member.store.all(Audit)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Host h1 with its mesh port, and h2, which is about to leave."""
    member, ca = await founded(), Authority(tmp_path)
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    remover = FakeAgent(member)
    rpc = MeshRpc(member.node, remover.services)
    mesh_runner = web.AppRunner(rpc.app(), access_log=None, shutdown_timeout=0.1)
    await mesh_runner.setup()
    server = MeshServer(ca.issue(HOST_ID), "127.0.0.1", 0, admit=rpc.is_member)
    server.add_http(mesh_runner.server)
    async with (
        asyncio.timeout(15),
        MeshClient(MeshDialer(ca.issue(OTHER_ID))) as client,
        asyncio.TaskGroup() as group,
    ):
        task = group.create_task(server.run(), name="mesh")
        await server.started.wait()
        h1 = replace(member.store.need(Host, HOST_ID), address="127.0.0.1", mesh_port=server.port)
        await member.store.apply(puts=(h1,))
        node = dataclasses.replace(member.node_of(OTHER_ID, "h2"), mesh=client)
        leaving = LeavingAgent(member, node)
        app = app_of(member, leaving)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        async with await unix_client(runner, tmp_path / "api.sock") as local:
            yield World(member, local, (remover, leaving))
        await runner.cleanup()
        task.cancel()
    await mesh_runner.cleanup()


async def test_who_left_is_recorded_and_the_end_is_written_by_the_host_that_removed_it(world):
    assert await world.leave() == 200
    assert world.member.store.get(Host, OTHER_ID) is None
    (audit,) = world.audits()
    assert (audit.action, audit.operator) == ("POST /v1/local/leave", "root")
    assert (audit.subject, audit.subject_name) == (f"host/{OTHER_ID}", "h2")
    assert (audit.host_id, audit.address, audit.result) == (OTHER_ID, "local", 200)
    assert audit.ended_ms >= audit.created_ms > 0


async def test_a_leave_that_is_refused_is_recorded_with_its_reason(world):
    await world.member.add_vm(host_id=OTHER_ID)
    assert await world.leave() == 409
    (audit,) = world.audits()
    assert (audit.result, audit.code) == (409, "conflict")


async def test_without_quorum_a_host_leaves_all_the_same(world):
    world.member.engine.available = False
    assert await world.leave(force=True, confirm="h2") == 200
    assert world.audits() == []


async def test_a_host_ends_no_records_but_those_of_the_host_that_asks(world):
    store = world.member.store
    audits = Audits(store, HOST_ID, clock=world.member.clock, rng=world.member.rng)
    other = await audits.begin(audits.make(None, "something"))
    audits.end_of(other.id, of_host=OTHER_ID, result=200)
    audits.end_of("none", of_host=OTHER_ID, result=200)
    await audits.flush()
    assert store.need(Audit, other.id) == other
    audits.end(other, result=500)
    await audits.flush()
    audits.end_of(other.id, of_host=HOST_ID, result=200)
    await audits.flush()
    assert store.need(Audit, other.id).result == 500
