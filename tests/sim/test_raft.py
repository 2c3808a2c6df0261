"""Consensus under crashes, partitions and stuck links, in virtual time: safety always, and service once it is over."""

import asyncio
import random

import pytest

from core.errors import UnavailableError
from tests.sim.loop import SimLoop
from tests.sim.power import Power
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

    try:
        with asyncio.Runner(loop_factory=SimLoop) as runner:
            runner.run(play())
    finally:
        Power.remove()


def test_three_nodes_agree(tmp_path):
    async def story(cluster: Cluster) -> None:
        await cluster.grow(3)
        for name in "abc":
            assert await cluster[name].propose(b"by " + name.encode(), timeout_s=2)
        await cluster.converge()

    simulate(tmp_path, 1, story)


async def settled(cluster: Cluster) -> str:
    """Let a cluster of three elect and agree; return its leader."""
    await cluster.grow(3)
    await cluster["c"].propose(b"settled", timeout_s=5)
    await asyncio.sleep(1)
    leader = cluster.leader()
    assert leader is not None
    return leader


def test_a_dead_leader_is_replaced_within_two_and_a_half_seconds(tmp_path, seed):
    async def story(cluster: Cluster) -> None:
        cluster.crash(await settled(cluster))
        begun = asyncio.get_running_loop().time()
        await cluster[cluster.up[0]].propose(b"after", timeout_s=5)
        assert 1.2 < asyncio.get_running_loop().time() - begun < 2.5

    simulate(tmp_path, seed, story)


def test_everything_acknowledged_survives_a_power_cut_of_all(tmp_path, seed):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        for number in range(60):
            payload = b"p%d" % number
            await cluster[cluster.rng.choice("abc")].propose(payload, timeout_s=5)
            cluster.history.acknowledged.add(payload)
        for name in "abc":
            cluster.crash(name)
        await cluster.converge()

    simulate(tmp_path, seed, story)


def test_a_lost_link_between_two_of_three_changes_no_leader(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        followers = [name for name in "abc" if name != leader]
        term = cluster[leader].term()
        cluster.cut(*followers)
        await asyncio.sleep(60)
        cluster.heal()
        cluster.cut(leader, followers[0])
        await asyncio.sleep(60)
        assert {cluster[name].term() for name in "abc"} == {term}
        await cluster.converge()

    simulate(tmp_path, 1, story)


def test_an_isolated_leader_steps_down_and_answers_nothing(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        cluster.isolate(leader)
        with pytest.raises(UnavailableError):
            await cluster[leader].read_barrier(timeout_s=1.0)
        with pytest.raises(UnavailableError):
            await cluster[leader].propose(b"lonely", timeout_s=2.0)
        await cluster.until(
            lambda: not cluster[leader].is_leader(), deadline_s=2.5, what="stepping down"
        )
        await cluster.converge()

    simulate(tmp_path, 1, story)


def test_a_node_that_was_cut_off_returns_without_a_disturbance(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        outsider = next(name for name in "abc" if name != leader)
        term = cluster[leader].term()
        cluster.isolate(outsider)
        await asyncio.sleep(120)
        cluster.heal()
        await asyncio.sleep(5)
        assert {cluster[name].term() for name in "abc"} == {term}

    simulate(tmp_path, 1, story)


def test_commits_for_ever_keep_log_and_memory_small(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        for number in range(400):
            await cluster["b"].propose(b"renew %d" % number, timeout_s=5)
            await asyncio.sleep(0.3)
        for name in "abc":
            assert len(cluster[name]._journal) < 120
            assert cluster[name]._journal.size_bytes < 20_000

    simulate(tmp_path, 1, story)


def test_nothing_acknowledged_is_lost_in_a_storm(tmp_path, seed):
    async def story(cluster: Cluster) -> None:
        await chaos(cluster, nodes=5 if seed % 4 == 3 else 3, spare="g" if seed % 3 == 2 else None)

    simulate(tmp_path, seed, story)
