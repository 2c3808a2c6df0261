"""Hosts that don't vote: they follow the log through each other, write and read like any other, and can be promoted."""

import asyncio

import pytest

from core.errors import UnavailableError
from raftstate.consensus.engine import Role
from tests.sim.flavours import Flavour
from tests.sim.raft_cluster import Cluster
from tests.sim.simulate import simulate
from tests.sim.test_raft import PATIENT, settled


async def add_replicas(cluster: Cluster, names: str, *parents: str) -> None:
    """Let hosts join that don't vote; each follows the one of the same place in `parents`, or the voters."""
    for name, parent in zip(names, parents or "a" * len(names), strict=True):
        cluster.create(name, via=parent)
        cluster[name].follow(
            [cluster.peer(parent)] + [cluster.peer(v) for v in "abc" if v != parent]
        )
    await cluster.until(
        lambda: all(cluster[name].generation() for name in names),
        deadline_s=20,
        what="the replicas have the state",
    )


def payloads(cluster: Cluster, name: str) -> list[bytes]:
    return cluster.nodes[name].machine.payloads()


def test_a_replica_has_everything_and_writes_and_reads_like_a_voter(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "de", "a", "d")
        for name in "de":
            assert cluster[name].role() is Role.REPLICA
            assert await cluster[name].propose(b"by " + name.encode(), timeout_s=2)
            assert payloads(cluster, name)[-1] == b"by " + name.encode()
            await cluster["a"].propose(b"before " + name.encode(), timeout_s=2)
            await cluster[name].read_barrier(timeout_s=2)
            assert payloads(cluster, name)[-1] == b"before " + name.encode()
        assert {p.id for p in cluster["e"].voters()} == {"a", "b", "c"}
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_replica_changes_its_parent_when_that_dies(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "de", "a", "d")
        cluster.crash("d")
        await cluster["a"].propose(b"one", timeout_s=5)
        await cluster.until(
            lambda: b"one" in payloads(cluster, "e"), deadline_s=6, what="e follows another"
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_parent_that_is_cut_off_itself_loses_its_followers_to_others(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "de", "a", "d")
        for voter in "abc":
            cluster.cut("d", voter)
        await cluster["a"].propose(b"one", timeout_s=5)
        await cluster.until(
            lambda: b"one" in payloads(cluster, "e"), deadline_s=12, what="e follows another"
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_replicas_that_follow_each_other_in_a_circle_leave_it(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "def")
        for name, parent in ("de", "ef", "fd"):
            cluster[name].follow([cluster.peer(parent), cluster.peer("a")])
        await asyncio.sleep(60)  # each has returned to its best parent
        await cluster["a"].propose(b"one", timeout_s=5)
        await cluster.until(
            lambda: all(b"one" in payloads(cluster, name) for name in "def"),
            deadline_s=8,
            what="all have it",
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_replica_that_is_promoted_needs_no_snapshot_and_counts(tmp_path):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        await add_replicas(cluster, "d")
        await cluster["d"].add_voter(cluster.peer("d"), timeout_s=8)
        assert cluster["d"].role() is Role.VOTER
        others = [name for name in "abc" if name != leader]
        cluster.crash(others[0])
        await cluster["d"].propose(b"three of four", timeout_s=5)
        await cluster[leader].remove_voter(cluster.peer(others[0]).id, timeout_s=5)
        await cluster.until(
            lambda: {p.id for p in cluster["d"].voters()} == set("abcd") - {others[0]},
            deadline_s=5,
            what="the dead one is removed",
        )
        cluster.start(others[0])
        await cluster.until(
            lambda: cluster[others[0]].role() is Role.REPLICA,
            deadline_s=15,
            what="the removed one learns it",
        )
        await cluster["d"].propose(b"seen by all", timeout_s=5)
        await cluster.until(
            lambda: b"seen by all" in payloads(cluster, others[0]),
            deadline_s=10,
            what="the removed one follows",
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_host_whose_return_was_never_agreed_on_follows_again(tmp_path):
    async def story(cluster: Cluster) -> None:
        await cluster.grow(5)
        leader = cluster.leader()
        guest, *others = (name for name in "abcde" if name != leader)
        await cluster[leader].remove_voter(cluster.peer(guest).id, timeout_s=5)
        await cluster.until(
            lambda: cluster[guest].role() is Role.REPLICA, deadline_s=15, what="it is told"
        )
        cluster[guest].follow([cluster.peer(leader)])
        await cluster.until(
            lambda: cluster[guest]._follower.parent == leader, deadline_s=60, what="it follows"
        )
        for other in others:
            cluster.cut(leader, other)
        with pytest.raises(UnavailableError):  # only the two of them learn of it
            await cluster[leader].add_voter(cluster.peer(guest), timeout_s=1.5)
        assert cluster[guest].role() is Role.VOTER
        cluster.crash(leader)
        await cluster[others[0]].propose(b"one", timeout_s=9)
        await cluster.until(
            lambda: cluster[guest].role() is Role.REPLICA, deadline_s=15, what="it is told again"
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=Flavour(quick=False, silent=True))


def test_a_replica_far_behind_fetches_a_snapshot_through_its_parent(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "de", "a", "d")
        cluster.crash("e")
        for number in range(150):
            await cluster["b"].propose(b"n%d" % number, timeout_s=5)
            await asyncio.sleep(0.1)
        cluster.start("e")
        cluster["e"].follow([cluster.peer("d")])
        await cluster["a"].propose(b"last", timeout_s=5)
        await cluster.until(
            lambda: b"last" in payloads(cluster, "e"), deadline_s=10, what="e has caught up"
        )
        assert payloads(cluster, "e") == payloads(cluster, "a")
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_replica_without_any_parent_says_so(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "d")
        cluster.isolate("d")
        with pytest.raises(UnavailableError):
            await cluster["d"].propose(b"lonely", timeout_s=2)
        with pytest.raises(UnavailableError):
            await cluster["d"].read_barrier(timeout_s=1)
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def damage(cluster: Cluster, name: str) -> None:
    """Let a host's state be wrong from now on, as if a bit had flipped in it."""
    machine = cluster.nodes[name].machine
    right = machine.digest
    machine.digest = lambda: right() + b"!"
    cluster.damaged = True


async def until_silent(cluster: Cluster, name: str) -> None:
    await cluster.until(lambda: "differs" in cluster[name].fault(), deadline_s=8, what="it notices")
    with pytest.raises(UnavailableError, match="kvorum recover rejoin"):
        await cluster[name].propose(b"by the wrong one", timeout_s=2)


@pytest.mark.parametrize("leads", [False, True])
def test_a_voter_whose_state_differs_falls_silent_and_the_others_go_on(tmp_path, leads):
    async def story(cluster: Cluster) -> None:
        leader = await settled(cluster)
        victim = leader if leads else next(name for name in "abc" if name != leader)
        damage(cluster, victim)
        await cluster[leader].propose(b"one", timeout_s=5)
        await until_silent(cluster, victim)
        others = [name for name in "abc" if name != victim]
        for name in others:
            await cluster[name].propose(b"by " + name.encode(), timeout_s=5)
        await asyncio.sleep(10)
        assert [cluster[name].fault() for name in others] == ["", ""]
        # Nobody counts the silent one as a voter that is up.
        assert victim not in cluster[others[0]].connected() | cluster[others[1]].connected()

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_replica_leaves_a_parent_whose_state_differs_and_is_not_taken_with_it(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        await add_replicas(cluster, "de", "a", "d")
        damage(cluster, "d")
        await cluster["a"].propose(b"one", timeout_s=5)
        await until_silent(cluster, "d")
        await cluster["a"].propose(b"two", timeout_s=5)
        await cluster.until(
            lambda: b"two" in payloads(cluster, "e"), deadline_s=10, what="e goes on"
        )
        await asyncio.sleep(10)
        assert [cluster[name].fault() for name in "abce"] == ["", "", "", ""]

    simulate(tmp_path, 1, story, flavour=PATIENT)


def test_a_transfer_that_breaks_off_goes_on(tmp_path):
    async def story(cluster: Cluster) -> None:
        await settled(cluster)
        for number in range(60):
            await cluster["a"].propose(b"%d" % number + b"." * 60_000, timeout_s=5)
            await asyncio.sleep(0.1)
        cluster.create("d", via="a")
        cluster["d"].follow([cluster.peer("a")])
        fetch = cluster["d"]._node.snapshots._fetch
        for _ in range(3):
            before = fetch.received_bytes
            await cluster.until(
                lambda before=before: fetch.received_bytes > before or cluster["d"].generation(),
                deadline_s=20,
                what="more of the snapshot",
            )
            cluster.network.reset(cluster.peer("a").id, cluster.peer("d").id)
        await cluster.until(
            lambda: payloads(cluster, "d") == payloads(cluster, "a"),
            deadline_s=30,
            what="all of it",
        )
        await cluster.converge()

    simulate(tmp_path, 1, story, flavour=PATIENT)
