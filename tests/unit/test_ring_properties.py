"""The ring's laws: one answer everywhere, only what must move moves, and everyone has a fair share."""

import os
import subprocess
import sys
import uuid
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.ring import Ring, score

MEMBERS = st.sets(st.uuids().map(str), min_size=1, max_size=12)
KEYS = st.lists(st.uuids().map(lambda u: f"image/{u}"), max_size=40)
FEW_OF = "from core.ring import Ring; print([Ring(('h1', 'h2', 'h3')).owner(f'image/{i}') for i in range(20)])"


@given(members=MEMBERS, newcomer=st.uuids().map(str), keys=KEYS)
def test_a_member_that_joins_takes_keys_and_nothing_else_moves(members, newcomer, keys):
    before, after = Ring(members), Ring(members | {newcomer})
    for key in keys:
        assert after.owner(key) in (before.owner(key), newcomer)


@given(members=MEMBERS, keys=KEYS, data=st.data())
def test_a_member_that_leaves_gives_up_its_own_keys_only(members, keys, data):
    gone = data.draw(st.sampled_from(sorted(members)))
    before, after = Ring(members), Ring(members - {gone})
    for key in keys:
        if before.owner(key) != gone:
            assert after.owner(key) == before.owner(key)


@given(members=MEMBERS, keys=KEYS)
def test_the_next_in_order_owns_the_key_when_those_before_are_gone(members, keys):
    for key in keys:
        order = Ring(members).in_order(key)
        assert sorted(order) == sorted(members)
        for place, member in enumerate(order):
            assert Ring(order[place:]).owner(key) == member


@given(members=MEMBERS, keys=KEYS, data=st.data())
def test_the_order_in_which_members_are_known_does_not_matter(members, keys, data):
    shuffled = data.draw(st.permutations(sorted(members)))
    for key in keys:
        assert Ring(shuffled).owner(key) == Ring(members).owner(key)
        assert Ring([*shuffled, *shuffled]).in_order(key) == Ring(members).in_order(key)


def test_every_process_gives_the_same_answer():
    answers = {
        subprocess.run(
            [sys.executable, "-c", FEW_OF],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(answers) == 1


def test_every_version_gives_the_same_answer():
    """Hosts of two versions work side by side: these numbers may change only with a feature level."""
    assert score("image/1", "h1") == 9588738261887818085
    assert "".join(Ring("abc").owner(f"image/{i}") for i in range(16)) == "cacabbaaabbccaca"


def test_each_member_has_its_share_and_a_tenth_moves_to_the_tenth_member():
    hosts = [str(uuid.UUID(int=i)) for i in range(1, 11)]
    keys = [f"vm/{uuid.UUID(int=i)}" for i in range(20_000)]
    nine, ten = Ring(hosts[:9]), Ring(hosts)
    shares = Counter(ten.owner(key) for key in keys)
    assert set(shares) == set(hosts)
    # 2,000 expected, a standard deviation of 42
    assert all(1800 < share < 2200 for share in shares.values()), shares
    moved = sum(1 for key in keys if nine.owner(key) != ten.owner(key))
    assert moved == shares[hosts[9]]


def test_an_empty_ring_owns_nothing():
    assert Ring(()).owner("vm/1") is None
    assert Ring(()).in_order("vm/1") == []
