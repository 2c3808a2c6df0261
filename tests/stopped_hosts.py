"""Hosts whose agent is stopped: state directories as an agent leaves them, made without one. For tests of recovery."""

import asyncio
import random
from pathlib import Path

import msgspec
from msgspec.structs import replace

from core.identity.certificates import make_request, sign_request
from core.member_file import MemberRecord
from core.model import Host
from core.paths import Paths, write_file
from raftstate.consensus.engine import NodeId, Peer
from raftstate.consensus.entries import NO_OP, REGULAR, Proposal, encode_proposals
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.recovery import wal_path
from raftstate.consensus.snapshot_files import SnapshotStore
from raftstate.consensus.snapshot_header import new_header
from raftstate.consensus.wal import EntryRecord, GenerationRecord, TermRecord, Wal
from raftstate.rescue.backup_file import BackupHeader, pieces
from raftstate.rescue.known import me
from raftstate.state.machine import Machine
from raftstate.state.peek import counts_in
from raftstate.store import Store
from raftstate.txn import Put, Txn, encode_txn
from tests.consensus_child import NoLinks
from tests.one_member import HOST_ID, NOW_MS, OTHER_ID, THIRD_ID, ManualClock, OneMember, authority

IDS = {"h1": HOST_ID, "h2": OTHER_ID, "h3": THIRD_ID}
ADDRESSES = {"h1": "127.0.0.91", "h2": "127.0.0.92", "h3": "127.0.0.93"}  # nobody answers there


def peer(name: str) -> Peer:
    return Peer(NodeId(IDS[name]), f"{ADDRESSES[name]}:7444")


def write(number: int) -> bytes:
    """Return a transaction that puts a thing called `n<number>`."""
    name = f"n{number}"
    put = Put(kind="thing", id=name, name=name, body=b"x" * 50, claims=(f"thing/{name}",))
    return encode_txn(Txn(request_id=name, stamp_ms=number, puts=(put,)))


class Cluster:
    """A founded state of the hosts h1, h2 and h3, and state directories of any of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.machine = Machine(root / "source.db")
        self.member = OneMember(machine=self.machine)

    async def found(self) -> None:
        await self.member.found()
        first = self.member.store.need(Host, HOST_ID)
        await self.member.store.apply(puts=(replace(first, address=ADDRESSES["h1"]),))
        for name in ("h2", "h3"):
            await self.member.add_host(IDS[name], name, ADDRESSES[name])

    def close(self) -> None:
        self.machine.close()

    def identity(self, paths: Paths, name: str) -> None:
        request, key = make_request(IDS[name])
        certificate = sign_request(
            authority(),
            request,
            host_id=IDS[name],
            host_name=name,
            address=ADDRESSES[name],
            now_ms=NOW_MS,
        )
        write_file(paths.ca_pem, authority().certificate_pem.encode())
        write_file(paths.host_pem, certificate.encode())
        write_file(paths.host_key, key.encode())
        write_file(paths.secrets_key, self.member.secrets_key)

    def host(
        self,
        name: str,
        *,
        tail: tuple[int, ...] = (),
        applied: int = 0,
        tail_term: int = 3,
        voters: str = "h1 h2 h3",
        generation: int = 1,
    ) -> Paths:
        """Make a host: snapshot of the state, then writes numbered `tail` in its log, `applied` of them in its database."""
        paths = Paths(
            etc=self.root / name / "etc",
            state=self.root / name / "state",
            run=self.root / name / "run",
        )
        paths.raft.mkdir(parents=True)
        self.identity(paths, name)
        record = MemberRecord(
            host_id=IDS[name],
            host_name=name,
            address=ADDRESSES[name],
            cluster_name="test",
            api_port=7443,
            mesh_port=7444,
            founder=name == "h1",
            members=(),
        )
        write_file(paths.member_file, msgspec.json.encode(record))
        index = self.machine.applied() + 2
        previous, last = (bytes([NO_OP]), index - 1, 1), (bytes([NO_OP]), index, 1)
        frozen = self.machine.freeze()
        header = new_header(
            previous,
            last,
            [peer(voter) for voter in voters.split()],
            machine_applied=frozen.applied,
            generation=generation,
            level=1,
        )
        SnapshotStore(paths.raft).write(header, frozen.write)
        frozen.write(paths.database)
        frozen.close()
        wal = Wal(wal_path(paths.raft), segment_bytes=1 << 16)
        wal.open()
        records = [GenerationRecord(generation), TermRecord(tail_term, IDS["h2"])]
        records += [EntryRecord(*previous), EntryRecord(*last)]
        for number in tail:
            index += 1
            command = bytes([REGULAR]) + encode_proposals([Proposal(b"o", number, write(number))])
            records.append(EntryRecord(command, index, tail_term))
        for entry in records:
            wal.append(entry)
        wal.sync()
        wal.close()
        if applied:
            machine = Machine(paths.database)
            for at, number in enumerate(tail[:applied]):
                machine.apply(header.index + 1 + at, [write(number)])
            machine.close()
        return paths

    def backup(self, file: Path, *, generation: int = 1, index: int = 50, **fields) -> BackupHeader:
        """Write a backup of the state."""
        dump = self.root / "dump"
        frozen = self.machine.freeze()
        frozen.write(dump)
        frozen.close()
        from crc32c import crc32c

        content = dump.read_bytes()
        header = BackupHeader(
            **{
                "cluster_name": "test",
                "ca_sha256": "ca",
                "host_name": "h1",
                "version": "0.1.0",
                "created_ms": NOW_MS,
                "generation": generation,
                "level": 1,
                "index": index,
                "term": 4,
                "machine_applied": self.machine.applied(),
                "voters": [(peer("h1").id, "h1", peer("h1").address)],
                "counts": counts_in(dump),
                "dump_bytes": len(content),
                "dump_crc": crc32c(content),
                **fields,
            }
        )
        with dump.open("rb") as opened:
            file.write_bytes(b"".join(pieces(header, opened)))
        return header


class Started:
    """What a host's engine has after its agent was started again, and has written one thing more."""

    def __init__(self, machine: Machine, engine: PySyncObjEngine) -> None:
        self.store = Store(machine, engine, clock=ManualClock(), rng=random.Random(1))
        self.things = set(machine.all_ids("thing"))
        self.hosts = {host.name: host for host in self.store.all(Host)}
        self.voters = [voter.id for voter in engine.voters()]
        self.generation, self.index = engine.generation(), engine.applied_index()


async def start(paths: Paths, record: MemberRecord) -> Started:
    """Start the engine of a host alone, commit something, and stop it."""
    machine = Machine(paths.database)
    engine = PySyncObjEngine(
        me=me(record),
        directory=paths.raft,
        machine=machine,
        links=NoLinks(),
        bootstrap=(),
        rng=random.Random(),
    )
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(engine.run(), name="engine")
            await engine.propose(write(9999), timeout_s=10)
            started = Started(machine, engine)
            running.cancel()
        return started
    finally:
        machine.close()
