"""Each misfortune that `flavours` name: a function that brings it about somewhere at random, if it can happen now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftstate.consensus.engine import NodeId
from tests.sim.raft_cluster import Cluster


async def break_things(cluster: Cluster) -> None:
    """Bring about what the flavour wants, as often as it wants, until cancelled."""
    weights = cluster.flavour.misfortunes
    names, odds = list(weights), list(weights.values())
    while True:
        await asyncio.sleep(cluster.rng.expovariate(1 / cluster.flavour.pace_s))
        (name,) = cluster.rng.choices(names, odds)
        MISFORTUNES[name](cluster)


def _pair(cluster: Cluster) -> tuple[NodeId, NodeId] | None:
    names = sorted(cluster.nodes)
    if len(names) < 2:
        return None
    a, b = cluster.rng.sample(names, 2)
    return NodeId(a), NodeId(b)


def _up(cluster: Cluster) -> str | None:
    """Return a node to take down or torment; the leader more often than others."""
    leader = cluster.leader()
    if leader is not None and cluster.rng.random() < 0.3:
        return leader
    return cluster.rng.choice(cluster.up) if cluster.up else None


def _may_fall(cluster: Cluster) -> str | None:
    """Most of the time leave a majority up."""
    enough = len(cluster.up) > len(cluster.nodes) // 2 + 1
    return _up(cluster) if enough or cluster.rng.random() < 0.15 else None


def crash(cluster: Cluster) -> None:
    if name := _may_fall(cluster):
        cluster.note(f"crash {name}")
        cluster.crash(name)


def kill(cluster: Cluster) -> None:
    if name := _may_fall(cluster):
        cluster.note(f"kill {name}")
        cluster.kill(name)


def all_off(cluster: Cluster) -> None:
    cluster.report["all off"] += 1
    cluster.note("all off")
    for name in cluster.up:
        cluster.crash(name)


def start(cluster: Cluster) -> None:
    for name in cluster.nodes:
        if cluster.nodes[name].engine is None:
            cluster.note(f"start {name}")
            cluster.report["restarts"] += 1
            cluster.start(name)


def power_cut(cluster: Cluster) -> None:
    if name := _up(cluster):
        cluster.arm(name, cluster.rng.randint(0, 8), loses_power=cluster.rng.random() < 0.7)


def cut(cluster: Cluster) -> None:
    if pair := _pair(cluster):
        cluster.report["partitions: one link"] += 1
        cluster.note(f"cut {pair}")
        cluster.cut(*pair)


def isolate(cluster: Cluster) -> None:
    if name := _up(cluster):
        cluster.report["partitions: one node"] += 1
        cluster.note(f"isolate {name}")
        cluster.isolate(name)


def split(cluster: Cluster) -> None:
    """Two halves that don't see each other."""
    names = sorted(cluster.nodes)
    half = set(cluster.rng.sample(names, cluster.rng.randint(0, len(names))))
    if 0 < len(half) < len(names):
        cluster.report["partitions: two halves"] += 1
        cluster.note(f"split {sorted(half)}")
        for a in half:
            for b in set(names) - half:
                cluster.cut(a, b)


def scatter(cluster: Cluster) -> None:
    """Any set of links: most nodes see some of the others."""
    names = sorted(cluster.nodes)
    if len(names) < 3:
        return
    cluster.report["partitions: some links"] += 1
    cluster.note("scatter")
    for number, a in enumerate(names):
        for b in names[:number]:
            if cluster.rng.random() < 0.4:
                cluster.cut(a, b)


def hold(cluster: Cluster) -> None:
    """Nothing gets from one to the other, but back."""
    if pair := _pair(cluster):
        cluster.report["partitions: one way"] += 1
        cluster.note(f"hold {pair}")
        cluster.hold(*pair)


def strand(cluster: Cluster) -> None:
    """Leave the leader alone with one follower whose answers are stuck; it returns sooner than the follower."""
    leader = cluster.leader()
    others = [name for name in cluster.up if name != leader]
    if leader is None or not others:
        return
    friend = cluster.rng.choice(others)
    alone_s = cluster.rng.uniform(0.5, 3)
    away_s = alone_s + cluster.rng.uniform(0, 8)
    cluster.report["partitions: leader and a mute follower"] += 1
    cluster.note(f"strand {leader} with {friend}")
    cluster.hold(friend, leader, seconds=away_s)
    for other in cluster.nodes:
        if other not in (leader, friend):
            cluster.cut(leader, other, seconds=alone_s)
            cluster.cut(friend, other, seconds=away_s)
    cluster.later(alone_s, lambda: cluster.cut(leader, friend, seconds=away_s - alone_s))


def depose(cluster: Cluster) -> None:
    """Cut the leader off for long enough to be replaced."""
    leader = cluster.leader()
    if leader is not None:
        cluster.report["partitions: leader deposed"] += 1
        cluster.note(f"depose {leader}")
        for other in cluster.nodes:
            if other != leader:
                cluster.cut(leader, other, seconds=cluster.rng.uniform(1, 2))


def lag(cluster: Cluster) -> None:
    """Let one direction be slow, from some milliseconds to long stalls, until healed."""
    if pair := _pair(cluster):
        cluster.report["slow links"] += 1
        longest_s = cluster.rng.choice((0.05, 0.3, 1.0, 4.0))
        cluster.note(f"lag {pair} {longest_s}")
        cluster.network.lag[pair] = (0.0, longest_s)


def reset(cluster: Cluster) -> None:
    if (pair := _pair(cluster)) and cluster.network.reset(*pair):
        cluster.note(f"reset {pair}")
        cluster.report["link resets"] += 1


def heal(cluster: Cluster) -> None:
    cluster.note("heal")
    cluster.heal()


def heal_cuts(cluster: Cluster) -> None:
    """What is stuck stays stuck."""
    cluster.note("heal cuts")
    cluster.network.mend()


def release(cluster: Cluster) -> None:
    for way in sorted(cluster.network.held):
        if cluster.rng.random() < 0.5:
            cluster.note(f"release {way}")
            cluster.network.release(*way)


def freeze(cluster: Cluster) -> None:
    if name := _up(cluster):
        cluster.report["freezes"] += 1
        cluster.note(f"freeze {name}")
        cluster.freeze(name, cluster.rng.uniform(0.3, 5))


def jump(cluster: Cluster) -> None:
    if name := _up(cluster):
        cluster.report["clock jumps"] += 1
        cluster.note(f"jump {name}")
        cluster.jump(name, cluster.rng.choice((0.5, 2.0, 10.0, 3600.0)))


def slow_disk(cluster: Cluster) -> None:
    if name := _up(cluster):
        cluster.report["slow disks"] += 1
        cluster.note(f"slow disk {name}")
        cluster.slow_disk(name, cluster.rng.uniform(1, 4))


def full_disk(cluster: Cluster) -> None:
    if name := _up(cluster):
        cluster.report["full disks"] += 1
        cluster.note(f"full disk {name}")
        cluster.fill_disk(name, cluster.rng.uniform(0.5, 4))


def follow(cluster: Cluster) -> None:
    """Tell a host which others to follow while it doesn't vote, sensibly or not."""
    if (name := _up(cluster)) and len(cluster.nodes) > 2:
        others = [other for other in sorted(cluster.nodes) if other != name]
        parents = cluster.rng.sample(others, 2)
        cluster.note(f"{name} follows {parents}")
        cluster.report["parents chosen"] += 1
        cluster[name].follow([cluster.peer(parent) for parent in parents])


def hand_over(cluster: Cluster) -> None:
    """Ask the leader to let another lead."""
    if name := cluster.leader():
        cluster.report["hand-overs asked"] += 1
        cluster.note(f"hand over {name}")
        cluster.step_aside(name)


MISFORTUNES: dict[str, Callable[[Cluster], None]] = {
    function.__name__: function
    for function in (
        crash,
        kill,
        all_off,
        start,
        power_cut,
        cut,
        isolate,
        split,
        scatter,
        hold,
        strand,
        depose,
        lag,
        reset,
        heal,
        heal_cuts,
        release,
        freeze,
        jump,
        slow_disk,
        full_disk,
        hand_over,
        follow,
    )
}
