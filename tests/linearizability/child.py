"""One agent's consensus as a process, and clients in it that use a few registers; started by `test_processes.py`.

`python -m tests.linearizability.child DIRECTORY NAME INCARNATION NAME=ADDRESS…`. Real TLS, files and state machine. Obeys lines on
standard input: `cut b` (no connection with b), `mute b` (what b sends isn't read), `heal`. A register's value is the
number in its body.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from core.errors import PlatformError
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import TlsFiles, cut
from raftstate.consensus.elections import Timing
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.journal import Compaction
from raftstate.consensus.links import RAFT_CHANNEL, MeshLinks
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.state.machine import Machine
from raftstate.txn import Applied, Put, Txn, decode_outcome, encode_txn
from tests.linearizability.checker import Kind, Value
from tests.linearizability.history import Recorder

KEYS = ("x", "y", "z")
CLIENTS = 2
QUICK = Timing(
    heartbeat_s=0.1, silence_s=(0.6, 0.9), retry_s=(0.15, 0.3), patience_s=0.5, quorum_s=0.9
)
SMALL = Compaction(entries=60, pause_s=0.5, keep_entries=10)


class Gate:
    """Stands before a reader: while the other end is mute, nothing of it is read."""

    def __init__(self, reader: asyncio.StreamReader, opened: asyncio.Event) -> None:
        self._reader, self._opened = reader, opened

    async def read(self, count: int) -> bytes:
        content = await self._reader.read(count)
        await self._opened.wait()
        return content


class UnreliableLinks(MeshLinks):
    """Links that can be cut, or deaf in one direction."""

    def __init__(self, me: Peer, dialer: MeshDialer, *, rng: random.Random) -> None:
        super().__init__(me, dialer, rng=rng)
        self._cut: set[str] = set()
        self._opened: dict[str, asyncio.Event] = {}
        self._writers: dict[str, set[asyncio.StreamWriter]] = {}

    def obey(self, order: str) -> None:
        """Carry out one line of standard input."""
        match order.split():
            case ["cut", peer]:
                self._cut.add(peer)
                for writer in self._writers.get(peer, set()):
                    cut(writer.transport)
            case ["mute", peer]:
                self._gate(peer).clear()
            case ["heal"]:
                self._cut.clear()
                for opened in self._opened.values():
                    opened.set()

    def _gate(self, peer: str) -> asyncio.Event:
        if peer not in self._opened:
            self._opened[peer] = asyncio.Event()
            self._opened[peer].set()
        return self._opened[peer]

    async def _serve(
        self,
        peer: NodeId,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        dialled: bool,
    ) -> None:
        if peer in self._cut:
            return
        writers = self._writers.setdefault(peer, set())
        writers.add(writer)
        gate = Gate(reader, self._gate(peer))
        try:
            await super()._serve(peer, gate, writer, dialled=dialled)  # type: ignore[arg-type]  # it is only read from
        finally:
            writers.discard(writer)


class Client:
    """Reads, writes, and compares and sets registers, one operation at a time."""

    def __init__(
        self, name: str, values: int, engine: PySyncObjEngine, machine: Machine, recorder: Recorder
    ) -> None:
        self._engine, self._machine, self._recorder = engine, machine, recorder
        self._name, self._value, self._rng = name, values, random.Random(name)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.001, 0.03))
            key = self._rng.choice(KEYS)
            try:
                await self._rng.choice((self._read, self._write, self._cas))(key)
            except PlatformError:
                pass  # the outcome is unknown, and that is what the record says

    async def _read(self, key: str) -> None:
        number = self._recorder.call(Kind.READ, key)
        await self._engine.read_barrier(timeout_s=2.0)
        self._recorder.returned(number, self._local(key)[0])

    async def _write(self, key: str) -> None:
        value = self._next()
        number = self._recorder.call(Kind.WRITE, key, value)
        if await self._propose(key, value, {}):
            self._recorder.returned(number)

    async def _cas(self, key: str) -> None:
        (expected, revision), value = self._local(key), self._next()
        number = self._recorder.call(Kind.CAS, key, value, expected)
        applied = await self._propose(key, value, {f"register/{key}": revision})
        self._recorder.returned(number, int(applied))

    async def _propose(self, key: str, value: int, guards: dict[str, int]) -> bool:
        put = Put(kind="register", id=key, name=key, body=b"%d" % value)
        txn = Txn(request_id=f"{value}", stamp_ms=0, guards=guards, puts=(put,))
        timeout_s = self._rng.choice((0.2, 2.0))
        return isinstance(
            decode_outcome(await self._engine.propose(encode_txn(txn), timeout_s=timeout_s)),
            Applied,
        )

    def _local(self, key: str) -> tuple[Value, int]:
        row = self._machine.get("register", key)
        return (int(row[0]), row[1]) if row else (None, 0)

    def _next(self) -> int:
        self._value += 1
        return self._value


async def main(directory: Path, name: str, incarnation: int, addresses: dict[str, str]) -> None:
    first = min(addresses)
    me = Peer(NodeId(name), addresses[name])
    files = TlsFiles.in_directory(directory / f"identity-{name}")
    address, _, port = me.address.rpartition(":")
    server = MeshServer(files, address, int(port))
    links = UnreliableLinks(me, MeshDialer(files), rng=random.Random())
    server.add_channel(RAFT_CHANNEL, links.serve)
    machine = Machine(directory / f"{name}.db")
    engine = PySyncObjEngine(
        me=me,
        directory=directory / f"raft-{name}",
        machine=machine,
        links=links,
        bootstrap=(me,) if name == first else (Peer(NodeId(first), addresses[first]),),
        rng=random.Random(),
        settings=Settings(QUICK, SMALL),
    )
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="mesh")
        group.create_task(engine.run(), name="engine")
        while len(engine.voters()) < len(addresses):
            await asyncio.sleep(0.05)
            for other, at in addresses.items():
                if engine.is_leader() and other not in {peer.id for peer in engine.voters()}:
                    try:
                        await engine.add_voter(Peer(NodeId(other), at), timeout_s=1)
                    except PlatformError:
                        pass
        print("ready", flush=True)
        for number in range(CLIENTS):
            client = f"{name}{incarnation}.{number}"
            values = (ord(name) * 1000 + incarnation * 10 + number) * 1_000_000
            recorder = Recorder(directory / f"history-{client}.jsonl", client)
            group.create_task(Client(client, values, engine, machine, recorder).run(), name=client)
        while line := await orders.readline():
            links.obey(line.decode())
        sys.exit(0)


if __name__ == "__main__":
    asyncio.run(
        main(
            Path(sys.argv[1]),
            sys.argv[2],
            int(sys.argv[3]),
            dict(pair.split("=", 1) for pair in sys.argv[4:]),
        )
    )
