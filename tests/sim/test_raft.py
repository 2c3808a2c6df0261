"""Consensus under crashes, partitions and stuck links, in virtual time: safety always, and service once it is over."""

import asyncio
import random

from tests.sim.loop import SimLoop
from tests.sim.raft_chaos import chaos
from tests.sim.raft_cluster import Cluster


def simulate(directory, seed, story):
    """Run `story(cluster)` in virtual time; crashes of engines surface as errors."""

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            cluster = Cluster(directory, random.Random(seed), group)
            await story(cluster)
            for name in cluster.up:
                cluster.crash(name)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(play())


def test_three_nodes_agree(tmp_path):
    async def story(cluster: Cluster) -> None:
        await cluster.grow(3)
        for name in "abc":
            assert await cluster[name].propose(b"by " + name.encode(), timeout_s=2)
        await cluster.converge()

    simulate(tmp_path, 1, story)


def test_nothing_acknowledged_is_lost_in_a_storm(tmp_path, seed):
    async def story(cluster: Cluster) -> None:
        await chaos(cluster, nodes=5 if seed % 4 == 3 else 3, spare="g" if seed % 3 == 2 else None)

    simulate(tmp_path, seed, story)
