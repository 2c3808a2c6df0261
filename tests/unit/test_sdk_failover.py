"""The client when agents die: it knows all of them, goes on at the next one, and never waits without end."""

import asyncio
import gc
import json
import random
import socket
import ssl
import threading
import warnings
from contextlib import aclosing, asynccontextmanager, contextmanager

import pytest

from core.errors import InvalidError, NotFoundError, UnavailableError
from kvorum_sdk import TaskFailedError
from tests.golden.cli.cases import kvorum
from tests.golden.cli.stub import Fault, StubAgent
from tests.golden.cli.world import small_cluster
from tests.mesh_identity import Authority
from tests.one_member import ManualClock
from tools.sdk.addresses import Addresses, address_file
from tools.sdk.client import Client
from tools.sdk.endpoints import parse_endpoints
from tools.sdk.kvorum import AsyncKvorum, Kvorum
from tools.sdk.transport import Request


@pytest.fixture
def world():
    return small_cluster()


@pytest.fixture
def files(tmp_path):
    return Authority(tmp_path / "cluster").issue("6b1c0f1e-0000-4000-8000-000000000001")


@pytest.fixture
def tls(files):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def hosts_at(*agents):
    """Return what the cluster says of its hosts: that these agents are there."""
    ports = [int(agent.address.rpartition(":")[2]) for agent in agents]
    return [
        {
            "id": f"h{n}",
            "name": f"h{n}",
            "state": "member",
            "joining": "false",
            "address": "127.0.0.1",
            "api_port": port,
        }
        for n, port in enumerate(ports, start=1)
    ]


def client_of(*addresses, **options):
    options = {"patience_s": 5.0, "first_patience_s": 5.0, **options}
    return Client(parse_endpoints(",".join(addresses)), rng=random.Random(1), **options)


# -- where all agents are


async def test_the_agents_that_the_cluster_tells_of_take_over_when_the_named_one_dies(
    world, tls, files
):
    with StubAgent(world, tls=tls) as second:
        with StubAgent(world, tls=tls) as first:
            world.collections["hosts"] = hosts_at(first, second)
            client = client_of(first.address, token="kvt_x", ca_file=str(files.ca), learning=True)
            await client.status()
            assert [asked.path for asked in first.asked] == ["/v1/status", "/v1/hosts"]
        async with AsyncKvorum(client) as kvorum:
            assert len(kvorum.endpoints) == 2
            assert (await kvorum.vms.get("web1")).name == "web1"
    assert second.asked[-1].path == "/v1/vms/web1"


async def test_a_program_that_knows_one_dead_agent_finds_the_cluster_by_what_is_remembered(
    world, tls, files, tmp_path
):
    clock = ManualClock()

    def client():
        named = parse_endpoints(first.address)
        remember = address_file(tmp_path / "cache", named, str(files.ca), clock)
        options = {"token": "kvt_secret", "ca_file": str(files.ca), "learning": True}
        return client_of(first.address, remember=remember, **options)

    with StubAgent(world, tls=tls) as second:
        with StubAgent(world, tls=tls) as first:
            world.collections["hosts"] = hosts_at(second)
            async with client() as known:
                await known.status()
            (file,) = (tmp_path / "cache").iterdir()
            assert file.stat().st_mode & 0o777 == 0o600
            assert "kvt_secret" not in file.read_text()
            async with client() as known:  # what was learned a moment ago isn't asked for again
                await known.status()
            assert [a.path for a in first.asked] == ["/v1/status", "/v1/hosts", "/v1/status"]
        clock.pass_s(86_400)
        async with client() as known:
            assert (await known.status()).text("cluster_name") == "prod"
        file.chmod(0o666)  # anybody may have written it
        async with client() as known:
            assert len(known.transport.endpoints) == 1
        file.write_bytes(b'{"agents": 7}')
        file.chmod(0o600)
        async with client() as known:
            assert len(known.transport.endpoints) == 1


def test_the_command_finds_the_cluster_when_the_one_host_it_was_told_of_is_gone(
    world, tls, files, tmp_path
):
    environ = {"HOME": str(tmp_path), "KVORUM_TOKEN": "kvt_x", "KVORUM_CA": str(files.ca)}
    with StubAgent(world, tls=tls) as second:
        with StubAgent(world, tls=tls) as first:
            world.collections["hosts"] = hosts_at(first, second)
            assert kvorum("vm list", first.address, environ=environ).code == 0
        done = kvorum("vm show web1", first.address, environ=environ)
        assert (done.code, done.err) == (0, "")
        assert "web1" in done.out
    assert [file.parent.name for file in tmp_path.rglob("agents-*.json")] == ["kvorum"]


async def test_whoever_may_not_list_hosts_works_with_the_addresses_given(world, tls, files):
    with StubAgent(world, tls=tls) as agent:
        async with client_of(
            agent.address, token="kvt_x", ca_file=str(files.ca), learning=True
        ) as client:
            agent.faults.extend([Fault(), Fault(403, "not allowed")])
            await client.status()
            await client.status()
    assert [asked.path for asked in agent.asked] == ["/v1/status", "/v1/hosts", "/v1/status"]


async def test_without_a_token_no_other_agent_is_of_use_and_none_is_asked_for(world):
    with StubAgent(world) as agent:
        async with client_of(agent.address, learning=True) as client:
            await client.status()
    assert [asked.path for asked in agent.asked] == ["/v1/status"]


def test_addresses_that_were_named_stay_and_the_present_one_too():
    one, two, three, four = parse_endpoints("h1,h2,h3,h4")
    known = Addresses([one], [two])
    known.leave(one)
    assert known.current == two
    known.leave(one)  # another request found the same one dead
    assert known.current == two
    known.learn([three, four])
    assert known.current == two
    assert known.all[:3] == (one, three, four)
    known.leave(two)
    assert known.current == one


# -- deadlines


@asynccontextmanager
async def deaf_agent(path):
    """An agent that is stopped: its host accepts connections, and nothing ever comes back."""
    done = asyncio.Event()

    async def accept(reader, writer):
        await done.wait()
        writer.close()

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield f"unix:{path}"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def test_no_request_outlives_its_deadline(tmp_path):
    async with deaf_agent(tmp_path / "s") as address:
        async with client_of(address, deadline_s=0.3) as client, asyncio.timeout(5):
            with pytest.raises(UnavailableError, match=r"within 0.3 s"):
                await client.status()


async def test_a_stream_of_events_leaves_an_agent_that_falls_silent(world):
    with StubAgent(world) as first, StubAgent(world) as second:
        first.streams.append([b"id: 7\n\n"])
        first.silent_streams = True
        second.streams.append([b'id: 8\ndata: {"name": "e8"}\n\n'])
        client = client_of(first.address, second.address, stream_silence_s=0.3)
        async with client, asyncio.timeout(5), aclosing(client.follow_events()) as events:
            assert (await anext(events)).text("name") == "e8"
    assert second.asked[0].headers["Last-Event-ID"] == "7"


# -- tasks


async def test_a_task_is_waited_for_at_the_next_agent_which_hears_of_it_a_moment_later(world):
    heard = []
    with StubAgent(world) as second:
        second.faults.append(Fault(404, "no task", code="not-found"))
        with StubAgent(world) as first:
            kvorum = AsyncKvorum(client_of(first.address, second.address))
            started = await kvorum.vms.create(name="web2", image="debian-12")
            states = kvorum.states(started)
            heard.append((await anext(states)).state)
        async with kvorum, asyncio.timeout(10), aclosing(states):
            heard += [task.state async for task in states]
    assert heard[0] == "running"
    assert heard[-1] == "succeeded"
    assert {asked.path for asked in second.asked} == {f"/v1/tasks/{started.task.id}"}


async def test_an_agent_that_lags_behind_takes_nothing_back(world):
    with StubAgent(world) as agent:
        world.collections["tasks"].append({"id": "t9", "name": "t9"})
        for revision, state in ((5, "running"), (3, "pending"), (6, "succeeded")):
            body = json.dumps({"id": "t9", "state": state, "revision": revision}).encode()
            agent.faults.append(Fault(body=body))
        async with AsyncKvorum(client_of(agent.address)) as kvorum:
            states = [(t.revision, t.state) async for t in kvorum.states("t9")]
    assert states == [(5, "running"), (6, "succeeded")]
    assert [a.headers.get("If-None-Match") for a in agent.asked] == [None, '"5"', '"5"']


async def test_a_task_that_nobody_knows_is_said_at_once(world):
    with StubAgent(world) as agent:
        async with AsyncKvorum(client_of(agent.address)) as kvorum:
            with pytest.raises(NotFoundError):
                await kvorum.wait("t99")
    assert len(agent.asked) == 1


async def test_a_task_that_was_cancelled_is_an_error(world):
    world.collections["tasks"].append({"id": "t9", "name": "t9", "state": "cancelled"})
    with StubAgent(world) as agent:
        async with AsyncKvorum(client_of(agent.address)) as kvorum:
            with pytest.raises(TaskFailedError, match="t9 cancelled"):
                await kvorum.wait("t9")


# -- files


async def test_an_image_is_sent_with_its_hash_and_its_progress(world, tmp_path):
    file, heard = tmp_path / "i.qcow2", []
    file.write_bytes(b"x" * 3_000_000)
    with StubAgent(world) as agent:
        agent.faults.append(Fault(drop_after_bytes=70_000))
        async with AsyncKvorum(client_of(agent.address)) as kvorum:
            image = await kvorum.images.create(
                name="i", file=file, on_bytes=lambda *now: heard.append(now)
            )
    assert (image.name, image.size_bytes) == ("i", 3_000_000)
    assert heard[-1] == (3_000_000, 3_000_000)
    assert len({asked.key for asked in agent.asked}) == 1


async def test_a_file_is_fetched_in_pieces(world):
    with StubAgent(world) as agent:
        agent.faults.append(Fault(body=b"backup" * 1000))
        async with AsyncKvorum(client_of(agent.address)) as kvorum:
            async with kvorum.state.get_backup(of="host") as pieces:
                assert b"".join([piece async for piece in pieces]) == b"backup" * 1000
    assert agent.asked[0].query == (("of", "host"),)


def test_a_file_is_fetched_in_pieces_without_asyncio(world):
    with StubAgent(world) as agent, Kvorum(client_of(agent.address)) as kvorum:
        agent.faults.append(Fault(body=b"backup" * 1000))
        with kvorum.state.get_backup() as pieces:
            assert b"".join(pieces) == b"backup" * 1000


def test_a_callback_on_the_clients_own_thread_may_not_use_it(world, tmp_path):
    file = tmp_path / "i.qcow2"
    file.write_bytes(b"x" * 100)
    with StubAgent(world) as agent, Kvorum(client_of(agent.address)) as kvorum:
        with pytest.raises(InvalidError, match="callback"):
            kvorum.images.create(name="i", file=file, on_bytes=lambda *_: kvorum.status())


@contextmanager
def agent_that_hears_no_farewell(tls):
    """An agent that begins a stream of events, and then neither sends nor reads anything more."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve():
            line, _ = door.accept()
            with tls.wrap_socket(line, server_side=True) as stream:
                stream.recv(65_536)
                stream.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n2\r\n:\n\r\n"
                )
                ended.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{door.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(10)


def test_a_program_that_leaves_a_stream_leaves_no_connection_behind(tls, files):
    async def look_and_leave(address):
        client = client_of(address, token="kvt_x", ca_file=str(files.ca))
        async with client, client.transport.open_stream(Request("GET", "/v1/events")) as reader:
            assert await reader.read(2) == b":\n"

    with agent_that_hears_no_farewell(tls) as address, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(look_and_leave(address))
        gc.collect()
    assert [str(one.message) for one in said if one.category is ResourceWarning] == []
