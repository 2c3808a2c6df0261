"""A backup over the API: whole, as of one moment while commits go on, from whoever may have it, and fit to be restored."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.identity.certificates import fingerprint
from core.model import AccessToken
from core.paths import Paths
from nodeagent.api import state
from raftstate.rescue.backup_file import BackupHeader, Reader, verify
from raftstate.rescue.restore import FreshHost, Order, restore
from raftstate.state.machine import Machine
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import OneMember, authority
from tests.stopped_hosts import Cluster


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[OneMember]:
    cluster = Cluster(tmp_path)
    await cluster.found()
    made = cluster.member
    directory = Paths(etc=tmp_path, state=tmp_path / "state", run=tmp_path)
    directory.state.mkdir()
    made.node = replace(made.node, paths=directory)
    yield made
    cluster.close()


@pytest.fixture
async def api(member: OneMember) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(app_of(member, FakeAgent(member)))) as client:
        client.session.headers.update(ADMIN)
        yield client


def read(content: bytes) -> tuple[BackupHeader, bytes]:
    reader = Reader()
    dump = reader.feed(content)
    return reader.finish(), dump


async def test_a_backup_is_whole_and_says_what_it_is(member, api, tmp_path):
    response = await api.get("/v1/state/backup")
    content = await response.read()
    assert (response.status, response.content_length) == (200, len(content))
    header, dump = read(content)
    assert (header.cluster_name, header.host_name, header.generation) == ("test", "h1", 1)
    assert header.ca_sha256 == fingerprint(authority().certificate_pem)
    assert header.counts["host"] == 3
    assert header.machine_applied == header.index == member.store.index
    (tmp_path / "dump").write_bytes(dump)
    copy = Machine(tmp_path / "copy.db")
    copy.stage(tmp_path / "dump")()
    assert copy.digest() == member.machine.digest()
    copy.close()
    assert list(member.node.paths.state.iterdir()) == []  # nothing is left lying


async def test_no_secret_is_in_it_in_the_clear(member, api):
    content = await (await api.get("/v1/state/backup")).read()
    assert member.secrets_key not in content
    assert b"PRIVATE KEY" not in content
    assert authority().certificate_pem.encode() in content


async def test_commits_go_on_while_a_backup_is_sent_and_are_not_in_it(member, api):
    index = member.store.index
    async with api.get("/v1/state/backup") as response:
        first = await response.content.readany()
        for number in range(50):
            token = AccessToken(id=f"t{number}", name=f"t{number}", secret_sha256="x", expires_ms=0)
            await member.store.apply(puts=(token,))
        header, dump = read(first + await response.content.read())
    assert header.index == index
    assert header.counts["access-token"] == 1
    assert dump
    assert read(await (await api.get("/v1/state/backup")).read())[0].counts["access-token"] == 51


async def test_without_a_quorum_only_what_this_host_has_can_be_had_and_only_if_asked_for(
    member, api
):
    member.engine.available = False
    await problem_of(await api.get("/v1/state/backup"), 503, "unavailable")
    response = await api.get("/v1/state/backup?of=host")
    assert read(await response.read())[0].index == member.store.index


async def test_one_backup_at_a_time(member):
    app = app_of(member, FakeAgent(member))
    async with TestClient(TestServer(app)) as client, app[state.UNDER_WAY]:
        response = await client.get("/v1/state/backup", headers=ADMIN)
        await problem_of(response, 409, "conflict")


async def test_a_stranger_gets_none(member):
    async with TestClient(TestServer(app_of(member, FakeAgent(member)))) as client:
        await problem_of(await client.get("/v1/state/backup"), 401, "unauthenticated")


async def test_a_reader_that_goes_away_leaves_nothing_behind(member, api):
    for _ in range(3):
        response = await api.get("/v1/state/backup")
        await response.content.readany()
        response.close()
    async with asyncio.timeout(5):
        while (await api.get("/v1/state/backup")).status != 200:
            await asyncio.sleep(0.05)
    assert list(member.node.paths.state.iterdir()) == []


async def test_what_was_sent_can_be_restored(member, api, tmp_path):
    file = tmp_path / "b.kvb"
    file.write_bytes(await (await api.get("/v1/state/backup")).read())
    assert verify(file, on_bytes=lambda *_: None).term == 1
    fresh = Paths(etc=tmp_path, state=tmp_path / "fresh", run=tmp_path)
    fresh.state.mkdir()
    order = Order(
        file, FreshHost("h9", "192.0.2.9"), lambda _: member.secrets_key, "20261125T173544Z"
    )
    done = await restore(
        fresh, order, on_bytes=lambda *_: None, clock=member.clock, rng=random.Random(1)
    )
    assert done.host_name == "h9"
