"""Which life of the cluster a log belongs to: 1 from its founding, a new one each time an operator began it anew.

A generation is a count and, from the second on, 32 random bits. So two new beginnings that know nothing of each other (force-quorum
on two survivors, a restore while others went on) never look alike: when they meet, the smaller falls silent, rather
than both believing that they are one cluster.
"""

from __future__ import annotations

import random

_RANDOM_BITS = 32


def count_of(generation: int) -> int:
    """Return the count in a generation; 0: it isn't known."""
    return generation >> _RANDOM_BITS or generation


def shown(generation: int) -> str:
    """Return a generation for people, e.g. `1` or `2-9f03c1aa`."""
    if generation >> _RANDOM_BITS == 0:
        return str(generation)
    return f"{generation >> _RANDOM_BITS}-{generation % (1 << _RANDOM_BITS):08x}"


def following(generation: int, rng: random.Random) -> int:
    """Return a generation above `generation` that no other call returns."""
    return (max(count_of(generation), 1) + 1 << _RANDOM_BITS) + rng.getrandbits(_RANDOM_BITS)
