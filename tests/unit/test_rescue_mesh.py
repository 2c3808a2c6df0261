"""The ways out as they happen: real engines, real TLS on loopback, real files; voters destroyed, survivors, returning hosts."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web

from core.clock import SystemClock
from core.errors import (
    ConflictError,
    FatalError,
    PlatformError,
    SupersededError,
    UnavailableError,
    first_in,
)
from core.identity.certificates import make_request, sign_request
from core.member_file import MemberAddress, MemberRecord, read_member_file
from core.mesh.client import MeshClient, Nothing
from core.mesh.dialer import MeshDialer
from core.mesh.server import MeshServer
from core.mesh.tls import TlsFiles
from core.model import Cluster, Host
from core.paths import Paths, write_file
from core.work_queue import WorkQueues
from nodeagent.joining.founding import founding_resources
from nodeagent.mesh_rpc import MeshRpc
from nodeagent.node import Node
from nodeagent.services.member_states import MemberStates, State
from nodeagent.services.work_kinds import Limits
from raftstate.consensus.engine import NodeId, Peer, Role
from raftstate.consensus.generation import count_of
from raftstate.consensus.journal import Compaction
from raftstate.consensus.links import RAFT_CHANNEL, MeshLinks
from raftstate.consensus.pysyncobj_engine import PySyncObjEngine
from raftstate.consensus.raft_node import Settings
from raftstate.rescue.asking import Others
from raftstate.rescue.facts import best_of, facts_of
from raftstate.rescue.force_quorum import force_quorum
from raftstate.rescue.rejoin import begin_to_follow, follow_anew, standing
from raftstate.state.machine import Machine
from raftstate.store import Store
from tests.one_member import NOW_MS, NoGossip, authority
from tests.stopped_hosts import write
from tests.unit.test_consensus_mesh import QUICK, until

WHEN = "20261125T173544Z"
KEY = bytes(32)
pytestmark = pytest.mark.timeout(60)


class Agent:
    """As much of a host as recovery needs: mesh, engine, state, and what it answers to others."""

    def __init__(self, hosts: "Hosts", name: str) -> None:
        self.hosts, self.name = hosts, name
        self.id = f"{name[1] * 8}-{name[1] * 4}-4{name[1] * 3}-8{name[1] * 3}-{name[1] * 12}"
        self.address = f"127.0.0.{30 + int(name[1])}"
        with (
            socket.socket() as free
        ):  # the mesh's port is part of the host's record, so it is needed first
            free.bind((self.address, 0))
            self.port = free.getsockname()[1]
        root = hosts.directory / name
        self.paths = Paths(etc=root / "etc", state=root, run=root / "run")
        self.task: asyncio.Task[None] | None = None
        self.ended: BaseException | None = None
        self._write_identity()

    def _write_identity(self) -> None:
        request, key = make_request(self.id)
        certificate = sign_request(
            authority(),
            request,
            host_id=self.id,
            host_name=self.name,
            address=self.address,
            now_ms=NOW_MS,
        )
        write_file(self.paths.ca_pem, authority().certificate_pem.encode())
        write_file(self.paths.host_pem, certificate.encode())
        write_file(self.paths.host_key, key.encode())
        write_file(self.paths.secrets_key, KEY)

    @property
    def peer(self) -> Peer:
        return Peer(NodeId(self.id), f"{self.address}:{self.port}")

    def host(self, cluster_id: str) -> Host:
        return Host(
            id=self.id,
            name=self.name,
            cluster_id=cluster_id,
            address=self.address,
            mesh_port=self.port,
        )

    async def start(self, bootstrap: tuple[Peer, ...] = (), *, founds: bool = False) -> None:
        """Start as the agent does, with the hosts of member.json to ask if there is one."""
        files = TlsFiles.in_directory(self.paths.identity)
        server, self.ended = MeshServer(files, self.address, self.port), None
        record = read_member_file(self.paths.member_file)
        if record is None:
            record = MemberRecord(
                host_id=self.id,
                host_name=self.name,
                address=self.address,
                cluster_name="test",
                api_port=7443,
                mesh_port=self.port,
                founder=False,
                members=(),
            )
            write_file(self.paths.member_file, msgspec.json.encode(record))
        ask = tuple(Peer(NodeId(m.id), f"{m.address}:{m.mesh_port}") for m in record.members)
        self.machine = Machine(self.paths.database)
        self.dialer = MeshDialer(files)
        self.links = MeshLinks(self.peer, self.dialer, rng=random.Random())
        try:
            self.engine = PySyncObjEngine(
                me=self.peer,
                directory=self.paths.raft,
                machine=self.machine,
                links=self.links,
                bootstrap=(self.peer,) if founds else bootstrap or ask,
                rng=random.Random(),
                settings=Settings(QUICK, Compaction(entries=20, pause_s=0.2, keep_entries=2)),
            )
        except FatalError:
            self.machine.close()
            raise
        self.store = Store(self.machine, self.engine, clock=SystemClock(), rng=random.Random())
        self.node = Node(
            host_id=self.id,
            host_name=self.name,
            paths=self.paths,
            clock=SystemClock(),
            rng=random.Random(),
            store=self.store,
            engine=self.engine,
            mesh=MeshClient(self.dialer, generation=self.engine.generation),
            guard=None,
            hypervisor=None,
            membership=NoGossip(),
            queues=WorkQueues(Limits().by_kind(), SystemClock()),
        )
        rpc = MeshRpc(self.node, SimpleNamespace(states=MemberStates(self.node)))
        self.runner = web.AppRunner(rpc.app(), access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        server.add_http(self.runner.server)
        server.add_channel(RAFT_CHANNEL, self.links.serve)
        self.task = self.hosts.group.create_task(self._run(server), name=self.name)
        await server.started.wait()

    async def _run(self, server: MeshServer) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(server.run(), name="mesh")
                group.create_task(self.engine.run(), name="engine")
        except BaseExceptionGroup as error:
            self.ended = first_in(error, PlatformError)
            if self.ended is None:
                raise

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.task = None
        await self.runner.cleanup()
        self.machine.close()

    def things(self) -> set[str]:
        return set(self.machine.all_ids("thing"))

    async def write(self, number: int) -> None:
        await self.engine.propose(write(number), timeout_s=8)

    def voters(self) -> set[str]:
        names = {agent.id: agent.name for agent in self.hosts.agents.values()}
        return {names[peer.id] for peer in self.engine.voters()}


class Hosts:
    """A cluster of agents."""

    def __init__(self, directory: Path, group: asyncio.TaskGroup) -> None:
        self.directory, self.group = directory, group
        self.agents: dict[str, Agent] = {}

    def __getitem__(self, name: str) -> Agent:
        return self.agents[name]

    async def found(self, voters: str, replicas: str = "") -> None:
        for name in (*voters.split(), *replicas.split()):
            agent = self.agents[name] = Agent(self, name)
            if name == "h1":
                await agent.start(founds=True)
                await agent.store.apply(
                    puts=founding_resources(
                        cluster_name="test",
                        host=agent.host("c1"),
                        authority=authority(),
                        gossip_key=KEY,
                        secrets_key=KEY,
                        admin_token="kvt_x",
                        now_ms=NOW_MS,
                        rng=random.Random(1),
                    )
                )
            else:
                await agent.start((self["h1"].peer,))
                cluster_id = self["h1"].store.all(Cluster)[0].id
                await self["h1"].store.apply(puts=(agent.host(cluster_id),))
                if name in voters:
                    await self["h1"].engine.add_voter(agent.peer, timeout_s=8)
        last = self["h1"].store.index
        await until(lambda: all(a.store.index >= last for a in self.agents.values()), 10)


@contextlib.asynccontextmanager
async def hosts(directory: Path, voters: str, replicas: str = "") -> AsyncIterator[Hosts]:
    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        cluster = Hosts(directory, group)
        try:
            await cluster.found(voters, replicas)
            yield cluster
        finally:
            for agent in cluster.agents.values():
                if agent.task is not None:
                    await agent.stop()


async def drop_and_follow(agent: Agent) -> bool:
    """Do what `kvorum recover rejoin` does; tell whether a vote was ended."""
    stands = standing(agent.paths)
    async with Others(agent.paths) as others:
        answer = await others.ask_to_rejoin(stands)
    begin_to_follow(agent.paths, answer.members, when=WHEN)
    return answer.had_vote


async def begin_anew(agent: Agent) -> int:
    """Force a quorum on a host and start it; return the new generation."""
    done = force_quorum(agent.paths, when=WHEN, rng=random.Random())
    await agent.start()
    await agent.write(1000)
    assert agent.engine.generation() == done.generation
    return done.generation


async def test_after_the_loss_of_two_of_three_voters_the_third_goes_on_and_replicas_follow(
    tmp_path,
):
    async with hosts(tmp_path, "h1 h2 h3", "h4") as cluster:
        for number in range(40):
            await cluster["h2"].write(number)
        written = {f"n{number}" for number in range(40)}
        for name in ("h2", "h3", "h1"):
            await cluster[name].stop()
        generation = await begin_anew(cluster["h1"])
        assert cluster["h1"].things() == written | {"n1000"}
        assert cluster["h1"].voters() == {"h1"}

        replica = cluster["h4"]
        replica.engine.follow((cluster["h1"].peer,))
        await until(lambda: replica.ended is not None, 10)
        assert isinstance(replica.ended, SupersededError)
        replica.task = None
        replica.machine.close()
        await replica.runner.cleanup()
        follow_anew(replica.paths, when=WHEN)
        await replica.start()
        await until(lambda: replica.things() == written | {"n1000"}, 10)
        assert (replica.engine.role(), replica.engine.generation()) == (Role.REPLICA, generation)
        await cluster["h1"].engine.add_voter(replica.peer, timeout_s=8)
        await replica.write(1001)
        assert cluster["h1"].voters() == {"h1", "h4"}


async def test_old_voters_that_return_change_nothing_say_what_to_do_and_can_come_back(tmp_path):
    async with hosts(tmp_path, "h1 h2 h3") as cluster:
        await cluster["h1"].write(1)
        for name in ("h2", "h3", "h1"):
            await cluster[name].stop()
        generation = await begin_anew(cluster["h1"])
        for name in ("h2", "h3"):  # together they have a quorum of the old generation
            await cluster[name].start()
        for name in ("h2", "h3"):
            old = cluster[name]
            await until(lambda old=old: old.engine.fault() != "", 10)
            assert "stop the agent and run 'kvorum recover rejoin' here" in old.engine.fault()
            with pytest.raises(UnavailableError, match="kvorum recover rejoin"):
                await old.write(5000)
            with pytest.raises(UnavailableError, match="kvorum recover rejoin"):
                await old.engine.read_barrier(timeout_s=2)
            assert old.things() >= {"n1"}
        await cluster["h1"].write(1001)
        assert cluster["h1"].things() == {"n1", "n1000", "n1001"}
        assert cluster["h1"].voters() == {"h1"}

        for name in ("h2", "h3"):
            await cluster[name].stop()
            assert await drop_and_follow(cluster[name]) is False
            await cluster[name].start()
            back = cluster[name]
            await until(lambda back=back: back.things() == cluster["h1"].things(), 10)
            assert back.engine.generation() == generation
            await cluster["h1"].engine.add_voter(back.peer, timeout_s=8)
        await cluster["h3"].write(1002)
        assert cluster["h2"].voters() == {"h1", "h2", "h3"}
        assert cluster["h2"].machine.digest() != b""


async def test_an_old_quorum_that_never_met_the_new_one_loses_only_its_own_writes(tmp_path):
    async with hosts(tmp_path, "h1 h2 h3") as cluster:
        await cluster["h1"].write(1)
        await cluster["h1"].stop()
        await cluster["h2"].write(2)  # the majority was not destroyed after all
        generation = await begin_anew(cluster["h1"])
        await until(lambda: all(cluster[n].engine.fault() for n in ("h2", "h3")), 10)
        assert cluster["h1"].things() == {"n1", "n1000"}
        assert count_of(generation) == 2
        for name in ("h2", "h3"):
            with pytest.raises(UnavailableError):
                await cluster[name].write(3)


async def test_two_survivors_that_both_began_anew_never_work_together(tmp_path):
    async with hosts(tmp_path, "h1 h2 h3") as cluster:
        await cluster["h1"].write(1)
        for name in ("h1", "h2", "h3"):
            await cluster[name].stop()
        one, two = await begin_anew(cluster["h1"]), await begin_anew(cluster["h2"])
        assert one != two
        older, newer = (cluster[n] for n in (("h1", "h2") if one < two else ("h2", "h1")))
        async with Others(newer.paths) as others:
            with pytest.raises(ConflictError, match="which has to rejoin"):
                await others.ask_to_rejoin(standing(newer.paths))
        await older.stop()
        await drop_and_follow(older)
        await older.start()
        await until(lambda: older.engine.generation() == newer.engine.generation(), 10)


async def test_the_survivor_with_the_longer_log_is_the_one_to_take(tmp_path):
    async with hosts(tmp_path, "h1 h2 h3") as cluster:
        await cluster["h3"].stop()
        for number in range(5):
            await cluster["h1"].write(number)
        await until(lambda: len(cluster["h2"].things()) == 5)
        for name in ("h1", "h2"):
            await cluster[name].stop()
        best = best_of([facts_of(cluster["h3"].paths), facts_of(cluster["h2"].paths)])
        assert best.host_name == "h2"
        await begin_anew(cluster["h2"])
        assert cluster["h2"].things() == {"n0", "n1", "n2", "n3", "n4", "n1000"}


# -- a damaged disk in a cluster that is well


def damage(agent: Agent) -> None:
    (dump,) = agent.paths.raft.glob("snapshot-*.db")
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.write_bytes(content)


async def test_a_voter_whose_disk_was_damaged_gives_up_its_vote_before_it_forgets(tmp_path):
    async with hosts(tmp_path, "h1 h2 h3") as cluster:
        for number in range(30):
            await cluster["h2"].write(number)
        await until(lambda: any(cluster["h2"].paths.raft.glob("snapshot-*.db")), 10)
        await cluster["h2"].stop()
        damage(cluster["h2"])
        with pytest.raises(FatalError, match="kvorum recover rejoin"):
            await cluster["h2"].start()
        assert standing(cluster["h2"].paths).generation == 0
        assert await drop_and_follow(cluster["h2"]) is True
        assert cluster["h1"].voters() == cluster["h3"].voters() == {"h1", "h3"}
        await cluster["h2"].start()
        await until(lambda: len(cluster["h2"].things()) == 30, 10)
        assert cluster["h2"].engine.role() is Role.REPLICA
        await cluster["h1"].engine.add_voter(cluster["h2"].peer, timeout_s=8)
        await cluster["h2"].write(100)


async def test_without_a_quorum_a_damaged_voter_must_not_forget(tmp_path):
    """Of two voters left one forgets: then the third, which missed an acknowledged write, could win with it."""
    async with hosts(tmp_path, "h1 h2 h3") as cluster:
        await cluster["h1"].write(1)
        await cluster["h3"].stop()
        await cluster["h1"].write(2)  # acknowledged by h1 and h2
        await cluster["h2"].stop()
        damage(cluster["h2"])
        with pytest.raises(UnavailableError, match=r"h1: .*(quorum|leader)"):
            await drop_and_follow(cluster["h2"])
        assert cluster["h2"].paths.raft.exists()
        await cluster["h3"].start()
        await until(lambda: "n2" in cluster["h3"].things(), 10)
        assert await drop_and_follow(cluster["h2"]) is True


async def test_with_nobody_to_ask_nothing_is_forgotten(tmp_path):
    async with hosts(tmp_path, "h1 h2") as cluster:
        for name in ("h1", "h2"):
            await cluster[name].stop()
        with pytest.raises(UnavailableError, match="no other member answers"):
            await drop_and_follow(cluster["h2"])
        assert facts_of(cluster["h2"].paths).votes


# -- calls between agents


async def test_hosts_of_different_generations_do_not_work_together_over_the_mesh(tmp_path):
    async with hosts(tmp_path, "h1", "h2") as cluster:
        callee = MemberAddress(
            id=cluster["h1"].id,
            name="h1",
            address=cluster["h1"].address,
            mesh_port=cluster["h1"].port,
        )
        for generation, allowed in ((0, True), (1, True), (2 << 32, False)):
            async with MeshClient(cluster["h2"].dialer, generation=lambda g=generation: g) as mesh:
                assert (await mesh.call(callee, "/mesh/state", Nothing(), State)).generation == 1
                calls = mesh.call(callee, "/mesh/leave", Nothing(), Nothing)
                with pytest.raises(PlatformError) as raised:
                    # What is allowed gets as far as having no body that could be read.
                    await (
                        mesh.call(callee, "/mesh/lease", Nothing(), Nothing) if allowed else calls
                    )
                if not allowed:
                    assert raised.value.code == "other-generation"
                    calls = None
                else:
                    calls.close()
                    assert raised.value.code == "invalid"
