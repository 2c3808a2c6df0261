"""A process with one host's (or many hosts') share of the replicated store, as the agent runs it; takes orders.

`python -m tools.bench.raft.host DIRECTORY --host NAME=ADDRESS:PORT ... [--call NAME=ADDRESS:PORT ...]`; started by
`tools.bench.raft.cluster`. Mesh with TLS, links, engine, machine and store are the product's, on uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import uvloop

from core.clock import SystemClock, system_random
from core.errors import ConflictError, UnavailableError
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import TlsFiles
from core.model import Event
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.links import RAFT_CHANNEL, MeshLinks
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.state.machine import Machine
from raftstate.store import Store
from raftstate.txn import Applied
from tools.bench.raft.clients import VALUE_BYTES, Write, drive, orders, reply
from tools.bench.raft.orders import (
    AddVoter,
    Answer,
    Ask,
    Barrier,
    Done,
    Drive,
    Fill,
    Follow,
    Order,
    Ready,
    Status,
)

COMMIT_TIMEOUT_S = 30.0
BARRIER_TIMEOUT_S = 3600.0
FILL_BYTES_A_COMMIT = 1 << 20
FILL_AT_ONCE = 4


@runtime_checkable
class Follower(Protocol):
    """An engine that knows replicas."""

    def follow(self, parents: tuple[Peer, ...]) -> None:
        """Take the feed from these, best first."""


class BenchHost:
    """One host: its mesh port, engine and store."""

    def __init__(self, name: str, directory: Path, address: str, port: int) -> None:
        self.name, self._directory = name, directory
        self._files = TlsFiles.in_directory(directory / "identity")
        self.server = MeshServer(self._files, address, port)
        self.server.add_channel(RAFT_CHANNEL, self._serve)
        self._address = address

    def open(self, call: tuple[Peer, ...]) -> None:
        """Make the engine, once the server has its port; without anybody to `call` it founds a cluster."""
        self.me = Peer(NodeId(self.name), f"{self._address}:{self.server.port}")
        rng = system_random()
        self._links = MeshLinks(self.me, MeshDialer(self._files), rng=rng)
        self._machine = Machine(self._directory / "state.db")
        self.engine = PySyncObjEngine(
            me=self.me,
            directory=self._directory / "raft",
            machine=self._machine,
            links=self._links,
            bootstrap=call or (self.me,),
            rng=rng,
        )
        self.store = Store(self._machine, self.engine, clock=SystemClock(), rng=rng)

    async def _serve(
        self, peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._links.serve(peer_id, reader, writer)


def make_event(id_: str, revision: int, size_bytes: int) -> Event:
    """Return a resource that is stored in `size_bytes`."""
    bare = Event(
        id=id_, name=id_, code="bench", subject="host/bench", subject_name="bench", message=""
    )
    padding = size_bytes - len(msgspec.msgpack.encode(bare)) - 2  # the length of longer texts
    return msgspec.structs.replace(bare, message="x" * max(0, padding), revision=revision)


def writer(store: Store, name: str) -> Write:
    """Return the write of one client: a key of its own, guarded by the revision of its last write."""
    revisions: dict[str, int] = {}

    async def write(client: int, key: int) -> None:
        id_ = f"{name}-{client}-{key}"
        if id_ not in revisions:
            before = store.get(Event, id_)
            revisions[id_] = before.revision if before else 0
        txn = store.change(puts=(make_event(id_, revisions[id_], VALUE_BYTES),))
        match await store.commit(txn, timeout_s=COMMIT_TIMEOUT_S):
            case Applied(index=index):
                revisions[id_] = index
            case refused:
                raise ConflictError(f"a write of the bench was refused: {refused}")

    return write


async def fill(store: Store, order: Fill) -> None:
    """Write many resources, as fast as the log takes them."""
    at_once = max(1, FILL_BYTES_A_COMMIT // order.size_bytes)

    def parts() -> Iterator[range]:
        for first in range(0, order.resources, at_once):
            yield range(first, min(first + at_once, order.resources))

    left = parts()

    async def work() -> None:
        for numbers in left:
            events = [make_event(f"fill-{number}", 0, order.size_bytes) for number in numbers]
            await store.apply(puts=events, timeout_s=COMMIT_TIMEOUT_S)

    async with asyncio.TaskGroup() as group:
        for number in range(FILL_AT_ONCE):
            group.create_task(work(), name=f"fill-{number}")


class Process:
    """Carries the orders out."""

    def __init__(self, hosts: list[BenchHost]) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._first = hosts[0]
        self._write = writer(self._first.store, self._first.name)

    async def obey(self, order: Order) -> Answer:
        """Do it and answer."""
        began_s = time.perf_counter()
        first = self._first
        match order:
            case Drive(clients, seconds):
                return await drive(self._write, clients=clients, seconds=seconds)
            case Ask():
                return Status(
                    leader=first.engine.leader() or "",
                    applied=first.engine.applied_index(),
                    cpu_s=time.process_time(),  # os.times counts in hundredths: too coarse
                    can_follow=isinstance(first.engine, Follower),
                )
            case AddVoter(id_, address, timeout_s):
                peer = Peer(NodeId(id_), address)
                await first.engine.add_voter(peer, timeout_s=timeout_s)
            case Follow(id_, parents):
                engine: object = self._hosts[id_].engine
                if not isinstance(engine, Follower):
                    raise UnavailableError("this engine knows no replicas")
                engine.follow(tuple(Peer(NodeId(i), address) for i, address in parents))
            case Fill():
                await fill(first.store, order)
            case Barrier():
                for host in self._hosts.values():
                    await host.store.barrier(timeout_s=BARRIER_TIMEOUT_S)
        return Done(time.perf_counter() - began_s)


async def serve(hosts: list[BenchHost], call: tuple[Peer, ...]) -> None:
    """Run the hosts and obey until standard input ends."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(h.server.run(), name=f"mesh-{h.name}") for h in hosts]
        for host in hosts:
            await host.server.started.wait()
            host.open(call)
            running.append(group.create_task(host.engine.run(), name=f"engine-{host.name}"))
        process = Process(hosts)
        reply(Ready({host.name: host.me.address for host in hosts}))
        async for order in orders():
            reply(await process.obey(order))
        for task in running:
            task.cancel()


def named_address(text: str) -> tuple[str, str, int]:
    """Return (name, address, port) of `NAME=ADDRESS:PORT`."""
    name, _, where = text.partition("=")
    address, _, port = where.rpartition(":")
    return name, address, int(port)


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.raft.host", description=__doc__)
    parser.add_argument("directory", type=Path, help="holds a directory for each host")
    parser.add_argument("--host", type=named_address, action="append", required=True)
    parser.add_argument("--call", type=named_address, action="append", default=[])
    parser.add_argument("--profile", type=Path, help="write a profile there at the end")
    arguments = parser.parse_args()
    call = tuple(Peer(NodeId(n), f"{address}:{port}") for n, address, port in arguments.call)
    hosts = [
        BenchHost(name, arguments.directory / name, address, port)
        for name, address, port in arguments.host
    ]
    profile = cProfile.Profile()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments.profile is None:
            runner.run(serve(hosts, call))
        else:
            profile.runcall(runner.run, serve(hosts, call))
            profile.dump_stats(arguments.profile)


if __name__ == "__main__":
    main()
