"""Programs and a real cluster of three hosts: agents that die with an answer or in a stream, requests sent twice, revoked keys.

Programs run on the lab's wire, in threads that have entered its network namespace. `tests/unit/test_sdk_failover.py` and
`test_signed_replays.py` try far more with agents in memory.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from core.errors import PlatformError
from tests.integration.cluster import SHARED, Cluster
from tests.integration.conftest import in_own_loop, poll
from tests.signed_requests import Program
from tools.lab.lab import Lab
from tools.sdk.bodies import VMBody
from tools.sdk.client import Client
from tools.sdk.endpoints import parse_endpoints

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PORT = 7443
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    async def form() -> Cluster:
        made = await Cluster.form(lab, tiny_image)
        await poll(made.every_lease_is_fresh, 30.0, every_s=0.3)
        return made

    formed: Cluster = in_own_loop(form())
    return formed


@pytest.fixture(autouse=True)
def all_agents_answer(cluster: Cluster) -> None:
    """A test before may have killed one."""
    in_own_loop(poll(cluster.every_agent_answers, 60.0, every_s=0.3))


def on_the_wire(lab: Lab, work: Coroutine[Any, Any, Any]) -> Any:
    """Run a program's coroutine to its end in the network namespace of the lab's wire."""

    async def inside() -> Any:
        fd = os.open(f"/run/netns/{lab.layout.wire}", os.O_RDONLY)
        try:
            assert _libc.setns(fd, CLONE_NEWNET) == 0, "setns"
        finally:
            os.close(fd)
        return await work

    return in_own_loop(inside())


def admin_token(lab: Lab) -> str:
    return lab.inside("h1", "/etc/kvorum/admin.token").read_text().strip()


def client_of(lab: Lab, *addresses: str, heard: list[PlatformError] | None = None) -> Client:
    return Client(
        parse_endpoints(",".join(addresses)),
        token=admin_token(lab),
        ca_file=str(lab.inside("h1", "/var/lib/kvorum/identity/ca.pem")),
        rng=random.Random(5),
        patience_s=40.0,
        on_retry=(heard if heard is not None else []).append,
    )


class Relay:
    """Stands before an agent. Once `armed`, the next bytes of its answer are swallowed, and `on_answer` is called."""

    def __init__(self, lab: Lab, host: str) -> None:
        self._lab, self._host = lab, host
        self.armed = False
        self.swallowed = 0
        self.address = ""

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = None
        try:
            back, there = await asyncio.open_connection(self._lab.address(self._host), PORT)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, there), name="questions")
                group.create_task(self._pipe(back, writer, answers=True), name="answers")
        except* OSError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        while piece := await reader.read(65536):
            if answers and self.armed:
                self.armed = False
                self.swallowed += len(piece)
                self._lab.kill(self._host, "agent")
                raise ConnectionAbortedError
            writer.write(piece)
            await writer.drain()
        raise ConnectionAbortedError


def test_a_create_whose_answer_is_lost_with_its_agent_is_made_once_and_found_at_another(
    cluster: Cluster,
) -> None:
    lab = cluster.lab

    async def program() -> None:
        heard: list[PlatformError] = []
        async with Relay(lab, "h1").standing() as relay:
            others = (f"{lab.address(host)}:{PORT}" for host in ("h2", "h3"))
            async with client_of(lab, relay.address, *others, heard=heard) as client:
                await client.status()
                relay.armed = True
                body = VMBody(name="once", image="tiny", memory_mib=128, data_storage=SHARED)
                started = await client.create_vm(body)
                assert relay.swallowed, "h1 had answered"
                assert heard, "the client saw its agent die"
                assert started.task is not None
                ended = await asyncio.wait_for(client.wait_task(started.task.id), 60)
                assert (ended.state, ended.workflow) == ("succeeded", "create-vm")
                vms = (await client.list_all("vms")).items
                assert [(vm.text("name"), vm.text("id")) for vm in vms] == [
                    ("once", started.item.text("id"))
                ]
                tasks = (await client.list_all("tasks", query=["workflow=create-vm"])).items
                assert [task.text("id") for task in tasks] == [started.task.id]

    on_the_wire(lab, program())
    in_own_loop(cluster.delete("once"))


def test_a_stream_of_events_goes_on_at_another_agent_without_loss_or_repetition(
    cluster: Cluster,
) -> None:
    lab = cluster.lab

    async def program() -> None:
        at = {lab.address(host): host for host in lab.hosts}
        async with (
            client_of(lab, *(f"{address}:{PORT}" for address in at)) as client,
            asyncio.timeout(90),
        ):
            since = (await client.list_all("vms")).index
            async with aclosing(client.follow_events(str(since))) as events:
                heard = []
                for dies in (False, True):
                    if dies:
                        lab.kill(at.pop(client.endpoint.host), "agent")
                    (guest,) = lab.qemus("h3")
                    os.kill(guest.pid, signal.SIGKILL)
                    async for event in events:
                        heard.append(event)
                        if event.text("code") == "vm-started":
                            break
            at.pop(client.endpoint.host, "")
        (third,) = at
        async with client_of(lab, f"{third}:{PORT}") as client:
            kept = list((await client.list_all("events")).items)
        ids = [event.text("id") for event in heard]
        assert len(set(ids)) == len(ids), "none is told twice"
        last = heard[-1].integer("revision")
        kept.sort(key=lambda event: event.integer("revision"))
        assert ids == [e.text("id") for e in kept if since < e.integer("revision") <= last]

    in_own_loop(cluster.create("told", "--host", "h3"))
    on_the_wire(lab, program())
    in_own_loop(poll(cluster.every_agent_answers, 60.0, every_s=0.3))  # one was killed
    in_own_loop(cluster.delete("told"))


async def _signer(session: aiohttp.ClientSession, lab: Lab, name: str) -> Program:
    """Return a program with a new access key, which every agent has heard of."""
    head = {"Authorization": f"Bearer {admin_token(lab)}"}
    url = f"https://{lab.address('h2')}:{PORT}/v1/access-keys"
    async with session.post(url, json={"name": name, "roles": ["operator"]}, headers=head) as made:
        assert made.status == 201, await made.text()
        key = await made.json()
    return Program(key["id"], key["secret"], lambda: int(time.time()))


async def _ask(
    session: aiohttp.ClientSession, lab: Lab, host: str, method: str, path: str, **said: Any
) -> int:
    url = f"https://{lab.address(host)}:{PORT}{path}"
    skip = ["Content-Type"]  # the library would add one that isn't signed
    async with session.request(method, url, skip_auto_headers=skip, **said) as answer:
        await answer.read()
        return answer.status


@asynccontextmanager
async def _stranger() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        yield session


def test_a_signed_request_that_reaches_all_agents_at_once_is_taken_by_one(
    cluster: Cluster,
) -> None:
    lab = cluster.lab

    async def program() -> None:
        async with _stranger() as session:
            signer = await _signer(session, lab, "twice")
            for turn in range(3):
                body = b'{"name": "replayed-%d"}' % turn
                kind = {"Content-Type": "application/json"}
                head = signer.head("POST", "/v1/security-groups", body, kind)
                sent = (
                    _ask(session, lab, host, "POST", "/v1/security-groups", data=body, headers=head)
                    for host in lab.hosts
                )
                assert sorted(await asyncio.gather(*sent)) == [201, 401, 401]
                late = [
                    await _ask(
                        session, lab, host, "POST", "/v1/security-groups", data=body, headers=head
                    )
                    for host in lab.hosts
                ]
                assert late == [401, 401, 401]

    on_the_wire(lab, program())


def test_a_revoked_access_key_opens_no_agent_any_more(cluster: Cluster) -> None:
    lab = cluster.lab

    async def program() -> None:
        async with _stranger() as session:
            signer = await _signer(session, lab, "gone")

            async def statuses() -> list[int]:
                return [
                    await _ask(
                        session, lab, host, "GET", "/v1/vms", headers=signer.head("GET", "/v1/vms")
                    )
                    for host in lab.hosts
                ]

            async def opens_all() -> bool:
                return await statuses() == [200, 200, 200]

            await poll(opens_all, 20.0)  # an agent may be a moment behind
            path = f"/v1/access-keys/{signer.key_id}"
            head = {"Authorization": f"Bearer {admin_token(lab)}"}
            assert await _ask(session, lab, "h3", "DELETE", path, headers=head) == 204
            assert await statuses() == [401, 401, 401], "at once, not when it comes around"

    on_the_wire(lab, program())
