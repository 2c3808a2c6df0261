"""Real serf agents, encrypted, in network namespaces on one bridge: what our client and view make of them."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import PermanentError, TemporaryError
from ha.serf.config import SerfSettings, keyring_json, serf_json
from ha.serf.membership import MemberStatus, SerfMembership
from ha.serf.rpc import SerfRpc

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

HOSTS = ("h1", "h2", "h3")
KEY, NEW_KEY = bytes(range(32)), bytes(range(1, 33))
AUTH = "not-a-real-secret"
PREFIX = f"kvt-serf-{os.getpid()}"  # other tests on this machine have namespaces too
WIRE = f"{PREFIX}-wire"


async def poll(ready: Callable[[], bool], what: str, deadline_s: float = 15.0) -> None:
    end = time.monotonic() + deadline_s
    while not ready():
        assert time.monotonic() < end, f"after {deadline_s:g} s still not: {what}"
        await asyncio.sleep(0.05)


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, timeout=10)


class Lan:
    """One namespace with a bridge, one per host. RPC is on each host's own loopback."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="kvt-serf-"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.doorways: list[Doorway] = []
        self.remove_namespaces()
        ip("netns", "add", WIRE)
        ip("-n", WIRE, "link", "add", "br0", "type", "bridge")
        ip("-n", WIRE, "link", "set", "br0", "up")
        for number, name in enumerate(HOSTS, 1):
            space = f"{PREFIX}-{name}"
            ip("netns", "add", space)
            ip(
                "-n",
                space,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                name,
                "netns",
                WIRE,
            )
            ip("-n", WIRE, "link", "set", name, "master", "br0", "up")
            ip("-n", space, "addr", "add", f"10.98.0.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def remove_namespaces(self) -> None:
        for space in (WIRE, *(f"{PREFIX}-{name}" for name in HOSTS)):
            if Path(f"/run/netns/{space}").exists():
                ip("netns", "del", space)

    def start(self, name: str) -> None:
        folder = self.base / name
        folder.mkdir(exist_ok=True)
        number = HOSTS.index(name) + 1
        settings = SerfSettings(
            host_id=name,
            address=f"10.98.0.{number}",
            version="0.1.0",
            rpc_auth=AUTH,
            seeds=("10.98.0.1", "10.98.0.2", "10.98.0.3"),
            keyring_file=str(folder / "keyring.json"),
            snapshot_path=str(folder / "snapshot"),
            retry_interval="1s",
        )
        (folder / "serf.json").write_bytes(serf_json(settings))
        if not (folder / "keyring.json").exists():
            (folder / "keyring.json").write_bytes(keyring_json((KEY,)))
        argv = [
            "ip",
            "netns",
            "exec",
            f"{PREFIX}-{name}",
            "serf",
            "agent",
            f"-config-file={folder}/serf.json",
        ]
        with open(folder / "log", "ab") as log:
            self.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def rpc(self, name: str, auth_key: str = AUTH) -> SerfRpc:
        doorway = Doorway(name)
        self.doorways.append(doorway)
        return SerfRpc(auth_key=auth_key, port=doorway.port)

    def close(self) -> None:
        for doorway in self.doorways:
            doorway.close()
        for name in list(self.processes):
            self.kill(name)
        self.remove_namespaces()
        shutil.rmtree(self.base)


class Doorway(threading.Thread):
    """A port here that leads to the RPC port inside a host's namespace: sockets stay where they are made."""

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True)
        self._space = f"/run/netns/{PREFIX}-{name}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        with open(self._space, encoding="ascii") as space:
            if ctypes.CDLL(None).setns(space.fileno(), 0) != 0:
                return
        pairs: dict[socket.socket, socket.socket] = {}
        try:
            while True:
                ready, _, _ = select.select([self._listener, *pairs], [], [])
                for end in ready:
                    if end.fileno() < 0:
                        continue
                    if end is self._listener:
                        outside, inside = end.accept()[0], socket.socket()
                        self._ends += [outside, inside]
                        if inside.connect_ex(("127.0.0.1", 7373)) == 0:
                            pairs |= {outside: inside, inside: outside}
                        else:
                            outside.close()
                    elif data := end.recv(65536):
                        pairs[end].sendall(data)
                    else:
                        other = pairs.pop(end)
                        del pairs[other]
                        end.close()
                        other.close()
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join(2)
        for end in (self._listener, *self._ends):
            end.close()


@pytest.fixture
async def lan() -> AsyncIterator[Lan]:
    lan = Lan()
    try:
        yield lan
    finally:
        lan.close()


async def test_three_encrypted_agents_see_each_other_and_the_one_that_dies(lan: Lan) -> None:
    view = SerfMembership(lan.rpc("h1"), SystemClock())

    def seen() -> dict[str, str]:
        return {name: member.status.value for name, member in view.members.items()}

    async with asyncio.TaskGroup() as group:
        following = group.create_task(view.run(), name="follow")
        await asyncio.sleep(0.3)
        assert not view.connected and view.members == {}
        for name in HOSTS:
            lan.start(name)
        await poll(lambda: seen() == dict.fromkeys(HOSTS, "alive"), "three alive")
        assert view.members["h2"].address == "10.98.0.2" and view.members["h2"].version == "0.1.0"
        before = view.version
        lan.kill("h3")
        async with asyncio.timeout(25):
            await view.changed_since(before)
        assert view.members["h3"].status is MemberStatus.FAILED
        assert view.members["h2"].status is MemberStatus.ALIVE
        lan.start("h3")
        await poll(lambda: seen()["h3"] == "alive", "h3 alive again")
        await lan.rpc("h3").leave()
        await poll(lambda: seen()["h3"] == "left", "h3 left")
        lan.kill("h1")
        await poll(lambda: not view.connected, "the view notices that its agent is gone")
        assert seen()["h2"] == "alive"
        lan.start("h1")
        await poll(lambda: view.connected, "the view follows the agent again")
        following.cancel()


async def test_commands_and_refusals(lan: Lan) -> None:
    rpc = lan.rpc("h1")
    with pytest.raises(TemporaryError, match="serf"):
        await rpc.members()
    for name in HOSTS[:2]:
        lan.start(name)

    async def both_there() -> bool:
        try:
            return len(await rpc.members()) == 2
        except TemporaryError:
            return False

    async with asyncio.timeout(15):
        while not await both_there():
            await asyncio.sleep(0.1)
    for wrong in ("guessed", ""):
        with pytest.raises(PermanentError, match="refuses"):
            await lan.rpc("h1", auth_key=wrong).members()
    async with lan.rpc("h2").connect() as listener:
        await listener.subscribe("user")
        await rpc.event("hello", b"\x00\xffpayload")
        async with asyncio.timeout(5):
            event = await listener.next_event()
        assert (event.name, event.payload) == ("hello", b"\x00\xffpayload")
        assert {member.name for member in await listener.members()} == {"h1", "h2"}
    with pytest.raises(PermanentError, match="refuses event"):
        await rpc.event("large", b"x" * 2000)
    await rpc.set_tags({"id": "h1", "role": "witness", "version": "0.1.0"})
    async with asyncio.timeout(10):
        while {member.tags.get("role") for member in await lan.rpc("h2").members()} != {
            "witness",
            "host",
        }:
            await asyncio.sleep(0.2)
    new_key = base64.b64encode(NEW_KEY).decode()
    await rpc.install_key(new_key)
    await rpc.use_key(new_key)
    await rpc.remove_key(base64.b64encode(KEY).decode())
    assert (lan.base / "h2" / "keyring.json").read_text().count(new_key) == 1


async def test_agent_with_another_key_stays_outside(lan: Lan) -> None:
    (lan.base / "h2").mkdir()
    (lan.base / "h2" / "keyring.json").write_bytes(keyring_json((NEW_KEY,)))
    lan.start("h1")
    lan.start("h2")
    log = lan.base / "h1" / "log"
    await poll(
        lambda: log.exists() and "decrypt" in log.read_text().lower(),
        "h1 refuses what it cannot read",
    )
    assert {member.name for member in await lan.rpc("h1").members()} == {"h1"}
