"""The listener of the VIP: open before the host has the address, at the address that is set, and gone when none is."""

import random
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from msgspec.structs import replace

from core.model import Mesh
from nodeagent.api.limits import DEFAULT_LIMITS
from nodeagent.api.serving import Front
from nodeagent.api.vip_door import VipDoor
from nodeagent.joining.founding import MESH_ID
from tests.one_member import OneMember, founded, running, until

NOT_HERE = "192.0.2.100"


@pytest.fixture
async def member() -> OneMember:
    return await founded()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    yield Front(runner, DEFAULT_LIMITS, rng=random.Random(1))
    await runner.cleanup()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Tell whether a socket listens there, whether or not the address is this host's."""
    wanted = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return any(row[1] == wanted and row[3] == "0A" for row in rows[1:])


async def set_vip(member: OneMember, vip: str) -> None:
    await member.store.apply(puts=(replace(member.store.need(Mesh, MESH_ID), vip=vip),))


async def test_it_listens_at_an_address_that_the_host_does_not_have_yet(member, front):
    port = free_port()
    await set_vip(member, NOT_HERE)
    async with running(VipDoor(front, member.store, port, None).run):
        await until(lambda: listens(NOT_HERE, port), 5.0)
    assert not listens(NOT_HERE, port)


async def test_it_follows_the_setting(member, front):
    port = free_port()
    async with running(VipDoor(front, member.store, port, None).run):
        assert not listens("127.0.0.2", port)
        await set_vip(member, "127.0.0.2")
        await until(lambda: listens("127.0.0.2", port), 5.0)
        await set_vip(member, "127.0.0.3")
        await until(lambda: listens("127.0.0.3", port), 5.0)
        assert not listens("127.0.0.2", port)
        await set_vip(member, "")
        await until(lambda: not listens("127.0.0.3", port), 5.0)


async def test_a_port_that_is_taken_is_tried_again_and_ends_nothing(member, front, caplog):
    with socket.create_server(("127.0.0.2", 0)) as other:
        await set_vip(member, "127.0.0.2")
        door = VipDoor(front, member.store, other.getsockname()[1], None)
        async with running(door.run):
            await until(lambda: "can't listen on the VIP" in caplog.text, 5.0)
            await set_vip(member, "")
