"""Serf without Serf: the RPC client against a scripted agent, the configuration's content, and the view's rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgpack
import pytest

from core.clock import SystemClock
from core.errors import InvalidError, PermanentError, TemporaryError
from ha.serf.config import SerfSettings, keyring_json, serf_json
from ha.serf.membership import MemberStatus, SerfMembership, StaticMembership, merge
from ha.serf.rpc import SerfMember, SerfRpc, SerfStatus

Reply = Callable[[str, int, asyncio.StreamWriter], Awaitable[None]]
MEMBER = {"Name": "h1", "Addr": b"\x0a\x00\x00\x01", "Status": "alive", "Tags": {"id": "h1"}}


def pack(*objects: object) -> bytes:
    return b"".join(msgpack.packb(found, use_bin_type=False) for found in objects)


@asynccontextmanager
async def agent(reply: Reply) -> AsyncIterator[SerfRpc]:
    """An agent that takes the handshake and leaves the rest to `reply`."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        unpacker = msgpack.Unpacker(raw=False)
        header = None
        while data := await reader.read(4096):
            unpacker.feed(data)
            for found in unpacker:
                if header is None and found["Command"] not in ("members", "leave"):
                    header = found
                    continue
                command, seq = (header or found)["Command"], (header or found)["Seq"]
                header = None
                if command == "handshake":
                    writer.write(pack({"Seq": seq, "Error": ""}))
                else:
                    await reply(command, seq, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield SerfRpc(auth_key="", port=server.sockets[0].getsockname()[1], timeout_s=1.0)
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_reply_in_pieces_with_events_in_between_is_understood() -> None:
    async def reply(command: str, seq: int, writer: asyncio.StreamWriter) -> None:
        if command == "stream":
            writer.write(pack({"Seq": seq, "Error": ""}))
            writer.write(pack({"Seq": seq, "Error": ""}))
            await asyncio.sleep(0.1)
            writer.write(pack({"Event": "user", "Name": "n", "Payload": None}))
        else:
            event = pack({"Seq": seq - 1, "Error": ""}, {"Event": "member-join"})
            data = event + pack({"Seq": seq, "Error": ""}, {"Members": [MEMBER]})
            for number in range(len(data)):
                writer.write(data[number : number + 1])
                await writer.drain()

    async with agent(reply) as rpc, rpc.connect() as connection:
        await connection.subscribe("*")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.next_event()  # given up between header and body
        first = await connection.next_event()
        assert (first.kind, first.name, first.payload) == ("user", "n", b"")
        assert await connection.members() == (
            SerfMember("h1", "10.0.0.1", SerfStatus.ALIVE, {"id": "h1"}),
        )
        assert (await connection.next_event()).kind == "member-join"


@pytest.mark.parametrize(
    "answer",
    [b"", pack({"Seq": 99, "Error": ""}), b"\xc1\xc1\xc1"],
    ids=["closed", "another request", "no msgpack"],
)
async def test_broken_connection_is_a_temporary_error(answer: bytes) -> None:
    async def reply(command: str, seq: int, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with agent(reply) as rpc:
        with pytest.raises(TemporaryError):
            await rpc.members()


async def test_silent_agent_is_a_temporary_error() -> None:
    async def reply(command: str, seq: int, writer: asyncio.StreamWriter) -> None: ...

    async with agent(reply) as rpc:
        rpc.timeout_s = 0.2
        with pytest.raises(TemporaryError, match="members: timeout"):
            await rpc.members()


async def test_refusal_is_a_permanent_error() -> None:
    async def reply(command: str, seq: int, writer: asyncio.StreamWriter) -> None:
        writer.write(pack({"Seq": seq, "Error": "Authentication required"}))

    async with agent(reply) as rpc:
        with pytest.raises(PermanentError, match="refuses members: Authentication required"):
            await rpc.members()


async def test_agent_runs_without_serf() -> None:
    membership = SerfMembership(SerfRpc(auth_key="", port=1, timeout_s=0.2), SystemClock())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await membership.run()
    assert membership.members == {} and not membership.connected


def found(name: str, status: SerfStatus) -> SerfMember:
    return SerfMember(name, "10.0.0.1", status, {"id": name, "version": "1"})


def test_status_keeps_its_time_while_it_stays() -> None:
    view = merge({}, [found("a", SerfStatus.ALIVE), found("b", SerfStatus.ALIVE)], 10.0)
    later = merge(view, [found("a", SerfStatus.ALIVE), found("b", SerfStatus.FAILED)], 20.0)
    assert (later["a"].changed_s, later["b"].changed_s) == (10.0, 20.0)
    assert later["b"].status is MemberStatus.FAILED


def test_who_leaves_has_left_and_who_is_forgotten_is_gone() -> None:
    view = merge({}, [found("a", SerfStatus.LEAVING), found("b", SerfStatus.NONE)], 1.0)
    assert {name: member.status for name, member in view.items()} == {"a": MemberStatus.LEFT}
    assert merge(view, [], 2.0) == {}


async def test_static_view_tells_its_changes() -> None:
    membership = StaticMembership(SystemClock(), ["a", "b"])
    version = membership.version
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(membership.changed_since(version), name="wait")
        await asyncio.sleep(0)
        membership.set_alive(["a", "b"])  # nothing new
        await asyncio.sleep(0)
        assert not waiting.done()
        membership.set_alive(["a"])
    assert waiting.result() == membership.version == version + 1
    assert membership.members["b"].status is MemberStatus.FAILED


def test_configuration_holds_what_serf_needs_and_no_gossip_key() -> None:
    settings = SerfSettings(
        host_id="h1", address="10.0.0.1", version="0.1", rpc_auth="x", seeds=("10.0.0.1", "fd00::2")
    )
    made = json.loads(serf_json(settings))
    assert made["bind"] == "10.0.0.1:7946" and made["rpc_addr"] == "127.0.0.1:7373"
    assert made["retry_join"] == ["[fd00::2]:7946"]
    assert made["tags"] == {"id": "h1", "role": "host", "version": "0.1"}
    assert made["leave_on_terminate"] is False and "encrypt_key" not in made


def test_keyring_is_base64_and_refuses_keys_of_another_length() -> None:
    assert json.loads(keyring_json((bytes(32),))) == ["A" * 43 + "="]
    for keys in ((), (bytes(16),)):
        with pytest.raises(InvalidError):
            keyring_json(keys)
