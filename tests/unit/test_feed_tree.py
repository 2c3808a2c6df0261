"""The tree by which committed entries reach every replica: whole, without cycles, flat, and calm when hosts come and go."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.clock import new_id
from raftstate.feed_tree import FAN_OUT, parents

VOTERS = ["v1", "v2", "v3", "v4", "v5"]
LEADER = "v3"


def ids(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [new_id(rng) for _ in range(count)]


def tree(replicas, *, voters=VOTERS, leader=LEADER, dead=(), fan_out=FAN_OUT) -> dict[str, str]:
    """Return each living replica's parent."""
    alive = (set(replicas) | set(voters)) - set(dead)
    return {
        r: parents(
            r, voters=voters, leader=leader, replicas=replicas, alive=alive, fan_out=fan_out
        )[0]
        for r in replicas
        if r in alive
    }


def depth(of: str, tree: dict[str, str]) -> int:
    steps = 0
    while of in tree:
        of = tree[of]
        steps += 1
        assert steps <= len(tree), "a cycle"
    return steps


names = st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=60)


@given(names, st.sets(st.sampled_from(VOTERS), min_size=1), st.integers(1, 5), st.randoms())
def test_every_replica_hangs_on_a_voter_by_one_way_and_nobody_feeds_too_many(
    replicas, voters, fan_out, rng
):
    leader = rng.choice([None, *sorted(voters)])
    dead = {r for r in sorted(replicas) if rng.random() < 0.3}
    made = tree(sorted(replicas), voters=sorted(voters), leader=leader, dead=dead, fan_out=fan_out)
    for replica in made:
        depth(replica, made)
    assert set(made.values()) <= set(made) | voters
    assert max(Counter(made.values()).values(), default=0) <= fan_out
    if len(voters) > 1:
        assert leader not in made.values()


@given(names, st.randoms())
def test_hosts_that_disagree_on_who_lives_make_no_cycle(replicas, rng):
    everybody = sorted(replicas)
    views = {r: {x for x in [*everybody, *VOTERS] if rng.random() < 0.5} for r in everybody}
    lines = {
        r: parents(r, voters=VOTERS, leader=LEADER, replicas=everybody, alive=views[r], fan_out=3)
        for r in everybody
    }
    chosen = {r: rng.choice(line) for r, line in lines.items()}
    for replica in everybody:
        depth(replica, chosen)
        assert replica not in lines[replica]
        assert set(VOTERS) <= set(lines[replica])


def test_the_way_out_leads_up_the_tree_then_to_other_voters_and_last_to_the_leader_and_the_dead():
    replicas = ids(400)
    made = tree(replicas)
    lowest = max(replicas, key=lambda r: depth(r, made))
    alive = {*replicas, *VOTERS} - {"v1"}
    line = parents(lowest, voters=VOTERS, leader=LEADER, replicas=replicas, alive=alive)
    above = [x for x in line if x in made]
    assert above == [made[lowest], *[made[x] for x in above[:-1]]]
    assert len(above) >= 2
    assert line[-2:] == (LEADER, "v1")
    assert sorted(line[len(above) :]) == VOTERS


def test_a_voter_follows_nobody_and_a_lone_leader_feeds_all():
    assert parents("v1", voters=VOTERS, leader=None, replicas=["v1", "r"], alive=[]) == ()
    assert parents("r", voters=["v1"], leader="v1", replicas=["r"], alive=["v1"]) == ("v1",)
    assert parents("r", voters=["v1"], leader="v1", replicas=[], alive=[]) == ("v1",)
    assert parents("r", voters=[], leader=None, replicas=["r"], alive=[]) == ()


def test_ten_thousand_hosts_make_a_flat_tree():
    replicas = ids(10_000)
    alive = {*replicas, *VOTERS}
    depths = Counter(
        sum(
            x not in VOTERS
            for x in parents(r, voters=VOTERS, leader=LEADER, replicas=replicas, alive=alive)
        )
        + 1
        for r in replicas[:300]
    )
    assert max(depths) <= 6
    assert sum(d * n for d, n in depths.items()) / sum(depths.values()) < 4.2


def test_the_first_groups_are_shared_evenly_by_the_voters_that_do_not_lead():
    children = Counter(tree(ids(600)).values())
    assert [children[v] for v in VOTERS] == [4, 4, 0, 4, 4]


def test_one_host_that_leaves_or_joins_moves_few_others():
    replicas = ids(600)
    before = tree(replicas)
    moved = []
    for gone in replicas[:20]:
        after = tree(replicas, dead={gone})
        moved.append(sum(after[r] != before[r] for r in after))
    assert sum(moved) / len(moved) < 4, moved
    assert max(moved) < 4 * FAN_OUT


def test_a_new_leader_or_voter_moves_only_the_heads_of_the_first_groups():
    replicas = ids(600)
    before = tree(replicas)
    for change in ({"leader": "v1"}, {"voters": VOTERS[:4]}, {"dead": {"v1"}}):
        after = tree(replicas, **change)
        assert sum(after[r] != before[r] for r in replicas) <= FAN_OUT
