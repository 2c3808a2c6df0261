"""Faults that belong together: each ambush aims at one step of the argument in docs/ha.md, with its moments left to chance.

Plain random faults rarely meet these schedules; `schedule.random_faults` mixes one in with every second seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.sim_ha.faults import Fault, Kind

Ambush = Callable[[random.Random, tuple[str, ...], float], list[Fault]]


def start_under_way(rng: random.Random, hosts: tuple[str, ...], safe_s: float) -> list[Fault]:
    """A start was committed before the host is cut off, and goes on when it is back: is the VM still its own?"""
    host, at_s = rng.choice(hosts), rng.uniform(9, 30)
    faults = [
        Fault(Kind.GUESTS_DIE, (host,), at_s),
        Fault(Kind.CUT, (host,), at_s + rng.uniform(0.3, 2), safe_s + rng.uniform(-2, 9)),
    ]
    if rng.random() < 0.5:
        faults.append(Fault(Kind.LAG, (host,), at_s + rng.uniform(0.3, 2), 60.0))
    return faults


def judges_start_anew(rng: random.Random, hosts: tuple[str, ...], safe_s: float) -> list[Fault]:
    """One host is cut off and runs on, all others begin anew: what do they believe of its lease?"""
    del safe_s
    host, at_s = rng.choice(hosts), rng.uniform(9, 50)
    others = [other for other in hosts if other != host]
    faults = [Fault(Kind.CUT, (host,), at_s, 60.0)]
    kind = rng.choice([Kind.POWER, Kind.AGENT])
    for other in others:
        faults.append(Fault(kind, (other,), at_s + rng.uniform(-1, 1.5), rng.uniform(0.2, 2)))
        if rng.random() < 0.7:
            faults.append(Fault(Kind.WALL, (other,), rng.uniform(2, at_s + 1)))
    return faults


def guard_fails_at_the_end(
    rng: random.Random, hosts: tuple[str, ...], safe_s: float
) -> list[Fault]:
    """A host is cut off, and its guard can't kill when the lease ends: the watchdog must."""
    host, at_s = rng.choice(hosts), rng.uniform(9, 40)
    kind = rng.choice([Kind.LOOP_FROZEN, Kind.GUARD_FROZEN, Kind.GUARD_KILLED, Kind.STUCK])
    end_s = at_s + rng.uniform(safe_s * 0.4, safe_s * 0.7)
    return [Fault(Kind.CUT, (host,), at_s, 60.0), Fault(kind, (host,), end_s, 60.0)]


def source_leaves_its_guests(
    rng: random.Random, hosts: tuple[str, ...], safe_s: float
) -> list[Fault]:
    """A host dies while its guests are on their way, or have just arrived elsewhere."""
    host, at_s = rng.choice(hosts), rng.uniform(12, 45)
    kind = rng.choice([Kind.CUT, Kind.CUT, Kind.POWER])
    return [Fault(kind, (host,), at_s, safe_s + rng.uniform(5, 30))]


AMBUSHES: tuple[Ambush, ...] = (
    start_under_way,
    judges_start_anew,
    guard_fails_at_the_end,
    source_leaves_its_guests,
)
