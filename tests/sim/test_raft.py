"""Short stories about consensus in virtual time: what each misfortune may cost, and what it must not."""

import asyncio

import pytest

from core.errors import UnavailableError
from tests.sim.flavours import Flavour
from tests.sim.raft_cluster import Cluster
from tests.sim.simulate import simulate

PATIENT = Flavour(quick=False)
FEW = pytest.mark.parametrize("seed", range(8))


def test_three_nodes_agree(tmp_path):
    async def story(cluster: Cluster) -> None:
        await cluster.grow(3)
        for name in "abc":
            assert await cluster[name].propose(b"by " + name.encode(), timeout_s=2)
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


async def settled(cluster: Cluster) -> str:
    """Let a cluster of three elect and agree; return its leader."""
    await cluster.grow(3)
    await cluster["c"].propose(b"settled", timeout_s=5)
    await asyncio.sleep(1)
    leader = cluster.leader()
    assert leader is not None
    return leader


@FEW
def test_a_dead_leader_is_replaced_within_two_and_a_half_seconds(tmp_path, seed):
    async def story(cluster: Cluster) -> None:
        cluster.crash(await settled(cluster))
        begun = asyncio.get_running_loop().time()
        await cluster[cluster.up[0]].propose(b"after", timeout_s=5)
        assert 1.2 < asyncio.get_running_loop().time() - begun < 2.5

    simulate(tmp_path, seed, story, flavour=PATIENT)


@FEW
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

    simulate(tmp_path, seed, story, flavour=PATIENT)


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

    simulate(tmp_path, 1, story, flavour=PATIENT)


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

    simulate(tmp_path, 1, story, flavour=PATIENT)


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

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_commits_for_ever_keep_log_and_memory_small(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        for number in range(400):
            await cluster["b"].propose(b"renew %d" % number, timeout_s=5)
            await asyncio.sleep(0.3)
        for name in "abc":
            assert len(cluster[name]._journal) < 120
            assert cluster[name]._journal.size_bytes < 20_000

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_deposed_leader_with_a_tail_of_its_own_catches_up_over_many_messages(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        cluster.isolate(leader)
        with pytest.raises(UnavailableError):
            await cluster[leader].propose(b"lonely", timeout_s=1.0)
        cluster.crash(leader)  # what waits at a deposed leader would be proposed again by it
        other = cluster.up[0]
        for number in range(5):
            await cluster[other].propose(b"%d" % number + 150 * b".", timeout_s=5)
        second = cluster.leader()
        cluster.step_aside(
            second
        )  # the next leader begins at its own end, and goes back from there
        await cluster.until(
            lambda: cluster.leader() not in (None, second), deadline_s=5, what="a third leader"
        )
        cluster.heal()
        cluster.start(leader)
        await cluster.until(
            lambda: cluster[leader].applied_index() == cluster[second].applied_index(),
            deadline_s=3,
            what="the old leader catches up without a snapshot",
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=Flavour(append_bytes=350))


@FEW
def test_a_killed_process_has_promised_nothing_that_the_disk_lacks(tmp_path, seed):
    """What a killed process wrote but didn't sync is read back at its next start, and must be synced then."""

    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        friend, stranger = (name for name in "abc" if name != leader)
        cluster.isolate(stranger)
        cluster.arm(friend, 1, loses_power=False)  # it dies between write and sync
        async with asyncio.TaskGroup() as group:
            ack = group.create_task(cluster[leader].propose(b"acked", timeout_s=9), name="ack")
            await cluster.until(lambda: friend not in cluster.up, deadline_s=5, what="a death")
            cluster.start(friend)
        if not ack.exception():
            cluster.history.acknowledged.add(b"acked")
        cluster.crash(leader)
        cluster.crash(friend)
        cluster.heal()
        cluster.start(friend)
        await cluster.until(cluster.leader, deadline_s=9, what="a leader without the old one")
        await cluster.converge()

    simulate(tmp_path, seed, story, flavour=PATIENT)


def test_a_node_whose_disk_is_full_stops_or_waits_and_serves_again_afterwards(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        other = next(name for name in "abc" if name != leader)
        cluster.fill_disk(leader, 9.0)
        for number in range(3):
            payload = b"meanwhile %d" % number
            await cluster[other].propose(payload, timeout_s=10)
            cluster.history.acknowledged.add(payload)
        await cluster.until(
            lambda: cluster.leader() not in (None, leader), deadline_s=5, what="another leads"
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_clock_that_jumps_an_hour_ahead_costs_an_election_at_most(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        for name in "abc":
            cluster.jump(name, 3600.0)
            assert await cluster["b"].propose(b"after the jump of %s" % name.encode(), timeout_s=5)
        assert cluster.leader() is not None
        assert leader in cluster.up
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)
