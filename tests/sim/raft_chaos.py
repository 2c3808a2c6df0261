"""Random misfortune for a raft cluster, and clients that keep using it meanwhile."""

from __future__ import annotations

import asyncio

from core.errors import PlatformError
from raftstate.consensus.engine import NodeId
from tests.sim.raft_cluster import Cluster

CHAOS_S = 40.0
MAJORITY_DOWN_S = 4.0


async def use(cluster: Cluster, client: int) -> None:
    """Propose and read through random nodes for ever; what is acknowledged enters the history."""
    rng, number = cluster.rng, 0
    while True:
        await asyncio.sleep(rng.uniform(0.02, 0.6))
        if not cluster.up:
            continue
        name = rng.choice(cluster.up)
        node, engine = cluster.nodes[name], cluster[name]
        number += 1
        try:
            if rng.random() < 0.25:
                before = set(cluster.history.acknowledged)
                await engine.read_barrier(timeout_s=2.0)
                if node.engine is engine:
                    cluster.history.read(before, node.machine.payloads())
            else:
                payload = b"c%d-%d" % (client, number) + b"." * rng.choice((0, 0, 300))
                result = await engine.propose(payload, timeout_s=rng.choice((0.3, 3.0)))
                if node.engine is engine:
                    assert result.endswith(payload)
                    assert payload in node.machine.payloads(), "a node reads its own writes"
                cluster.history.acknowledged.add(payload)
        except PlatformError:
            pass


async def break_things(cluster: Cluster) -> None:
    """Crash, restart, cut, hold and heal at random until cancelled."""
    rng = cluster.rng
    while True:
        await asyncio.sleep(rng.expovariate(1.2))
        a, b = (NodeId(name) for name in rng.sample(sorted(cluster.nodes), 2))
        match rng.randrange(15):
            case 0 | 1 if len(cluster.up) > len(cluster.nodes) // 2 + 1 and a in cluster.up:
                cluster.crash(a)
            case 2 if rng.random() < 0.3:
                for name in cluster.up:
                    cluster.crash(name)
            case 3 | 4 | 5:
                for name in set(cluster.nodes) - set(cluster.up):
                    cluster.start(name)
            case 6:
                cluster.cut(a, b)
            case 7:
                cluster.isolate(a)
            case 8:
                cluster.network.held.add((a, b))
            case 9:
                cluster.network.reset(a, b)
            case 10 | 11:
                cluster.heal()
            case 12 | 13:
                cluster.arm(a)
            case 14 if a in cluster.up:
                cluster.freeze(a, rng.uniform(0.5, 8))


async def change_members(cluster: Cluster, spare: str) -> None:
    """Add and remove one host again and again."""
    rng = cluster.rng
    cluster.create(spare, via="a")
    while True:
        await asyncio.sleep(rng.uniform(1, 5))
        if not cluster.up:
            continue
        engine = cluster[rng.choice(cluster.up)]
        try:
            if rng.random() < 0.5:
                await engine.add_voter(cluster.peer(spare), timeout_s=3)
            else:
                await engine.remove_voter(NodeId(spare), timeout_s=3)
        except PlatformError:
            pass


async def chaos(cluster: Cluster, *, nodes: int, spare: str | None) -> None:
    """A whole run: grow, suffer, heal, and be checked."""
    await cluster.grow(nodes)
    try:
        async with asyncio.timeout(CHAOS_S), asyncio.TaskGroup() as group:
            for client in range(3):
                group.create_task(use(cluster, client), name=f"client-{client}")
            group.create_task(break_things(cluster), name="chaos")
            if spare:
                group.create_task(change_members(cluster, spare), name="members")
    except TimeoutError:
        pass
    assert cluster.history.acknowledged, "the run proves nothing"
    await cluster.converge()
