"""Random misfortune for a raft cluster, and clients that keep using it meanwhile."""

from __future__ import annotations

import asyncio

from core.errors import PlatformError
from raftstate.consensus.engine import NodeId
from tests.sim.misfortunes import break_things
from tests.sim.raft_cluster import Cluster


async def use(cluster: Cluster, client: int) -> None:
    """Propose and read through random nodes for ever, often those that lead or still think so.

    What is acknowledged enters the history.
    """
    rng, number = cluster.rng, 0
    while True:
        await asyncio.sleep(rng.uniform(0.01, 0.25))
        if not cluster.up:
            continue
        leading = [name for name in cluster.up if cluster[name].is_leader()]
        name = rng.choice(leading if leading and rng.random() < 0.4 else cluster.up)
        number += 1
        payload = b"c%d-%d" % (client, number) + b"." * rng.choice(cluster.flavour.payload_bytes)
        try:
            with cluster.nodes[name].process.entered():
                await (
                    _read(cluster, name) if rng.random() < 0.25 else _write(cluster, name, payload)
                )
        except PlatformError:
            cluster.report["refused or unknown"] += 1


async def _read(cluster: Cluster, name: str) -> None:
    node, engine = cluster.nodes[name], cluster[name]
    before = set(cluster.history.acknowledged)
    await engine.read_barrier(timeout_s=2.0)
    if node.engine is engine:
        cluster.report["barriers"] += 1
        cluster.history.read(before, node.machine.payloads())


async def _write(cluster: Cluster, name: str, payload: bytes) -> None:
    node, engine = cluster.nodes[name], cluster[name]
    result = await engine.propose(payload, timeout_s=cluster.rng.choice((0.3, 3.0)))
    if node.engine is engine:
        assert result.endswith(payload)
        assert payload in node.machine.payloads(), "a node reads its own writes"
    cluster.report["acks"] += 1
    cluster.history.acknowledged.add(payload)


async def change_members(cluster: Cluster) -> None:
    """Add and remove voters again and again, whoever leads included; never below two."""
    rng = cluster.rng
    for name in "hijk"[: cluster.flavour.spares]:
        cluster.create(name, via="a")
    while True:
        await asyncio.sleep(rng.uniform(0.3, 3))
        if not cluster.up:
            continue
        asked = rng.choice(cluster.up)
        engine = cluster[asked]
        voters = [peer.id for peer in engine.voters()]
        outside = [name for name in cluster.nodes if name not in voters]
        try:
            with cluster.nodes[asked].process.entered():
                if outside and (rng.random() < 0.55 or len(voters) <= 2):
                    await engine.add_voter(cluster.peer(rng.choice(outside)), timeout_s=3)
                    cluster.report["voters added"] += 1
                elif len(voters) > 2:
                    removed = rng.choice([*voters, cluster.leader() or voters[0]])
                    led = removed == cluster.leader()
                    await engine.remove_voter(NodeId(removed), timeout_s=3)
                    cluster.report["voters removed"] += 1
                    cluster.report["leaders removed"] += led
        except PlatformError:
            pass


async def chaos(cluster: Cluster) -> None:
    """A whole run: grow, suffer, heal, and be checked."""
    await cluster.grow(cluster.flavour.nodes)
    try:
        async with asyncio.timeout(cluster.flavour.chaos_s), asyncio.TaskGroup() as group:
            for client in range(cluster.flavour.clients):
                group.create_task(use(cluster, client), name=f"client-{client}")
            group.create_task(break_things(cluster), name="chaos")
            if cluster.flavour.spares:
                group.create_task(change_members(cluster), name="members")
    except TimeoutError:
        pass
    cluster.report["runs without an ack"] += not cluster.history.acknowledged
    await cluster.converge()
