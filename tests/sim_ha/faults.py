"""What goes wrong: one record each, and a random choice of them for a seed.

Related faults on one unlucky host make most of the trouble, so the choice leans that way. `world.misfortune` brings them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

HEAL_S = 70.0
NEVER_S = 1e6


class Kind(StrEnum):
    """The kinds of faults; what has no duration happens once."""

    CUT = "cut off"
    CUT_IN = "nothing comes in"
    CUT_OUT = "nothing goes out"
    MESH = "two hosts do not see each other"
    SPLIT = "two halves"
    LOOP_FROZEN = "guard's loop frozen"
    GUARD_FROZEN = "guard frozen"
    GUARD_KILLED = "guard killed"
    POWER = "power loss of a host"
    BLACKOUT = "power loss of all hosts"
    STUCK = "guests survive the kill"
    LAG = "log applied late"
    AGENT = "agent down"
    WALL = "wall clock set wrong"
    LEADER = "another leads"
    GUESTS_DIE = "guests die by themselves"
    CONFIRM = "operator confirms off"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with some hosts for a while. Two hosts of MESH, one half of SPLIT; elsewhere one."""

    kind: Kind
    hosts: tuple[str, ...]
    at_s: float
    for_s: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What a world is before anything goes wrong."""

    hosts: int = 3
    vms: int = 2
    profile: str = "default"
    rate_spread: float = 0.002
    losses: float = 0.1
    slow: bool = True
    everybody_leads: bool = False
    migrations: float = 0.05
    no_watchdog: frozenset[str] = frozenset()


def names(count: int) -> tuple[str, ...]:
    """Return the names of so many hosts."""
    return tuple(f"h{number}" for number in range(1, count + 1))


def random_setting(rng: random.Random) -> Setting:
    count = rng.choice([3, 3, 3, 4, 5])
    unarmed = rng.choice(names(count))
    rough = rng.random() < 0.5
    return Setting(
        hosts=count,
        vms=rng.choice([2, 3, 4]),
        profile=rng.choice(["default", "default", "default", "moonshot"]),
        rate_spread=rng.choice([0.0, 0.002, 0.005, 0.02]),
        losses=0.1 if rough else 0.01,
        slow=rough,
        everybody_leads=rng.random() < 0.3,
        migrations=rng.choice([0.0, 0.03, 0.08]),
        no_watchdog=frozenset({unarmed} if rng.random() < 0.2 else ()),
    )


ONE_HOST = (
    *[Kind.CUT] * 6,
    Kind.CUT_IN,
    Kind.CUT_OUT,
    Kind.LOOP_FROZEN,
    *[Kind.GUARD_FROZEN] * 2,
    Kind.GUARD_KILLED,
    *[Kind.POWER] * 3,
    *[Kind.STUCK] * 2,
    *[Kind.LAG] * 3,
    *[Kind.AGENT] * 2,
    *[Kind.LEADER] * 2,
    *[Kind.GUESTS_DIE] * 2,
    *[Kind.CONFIRM] * 2,
    Kind.WALL,
)


def random_faults(rng: random.Random, hosts: tuple[str, ...]) -> list[Fault]:
    """Return some faults. At most a minority of hosts never comes back."""
    unlucky, gone = rng.choice(hosts), 0
    faults: list[Fault] = []
    for _ in range(rng.randint(1, 9)):
        host = rng.choice([unlucky, unlucky, rng.choice(hosts)])
        kind, at_s = rng.choice(ONE_HOST), rng.uniform(5, 62)
        for_s = rng.choice([3.0, 10.0, 25.0, 60.0]) * rng.uniform(0.8, 1.2)
        if kind is Kind.POWER and gone < (len(hosts) - 1) // 2 and rng.random() < 0.4:
            gone, for_s = gone + 1, NEVER_S
        faults.append(Fault(kind, (host,), at_s, for_s))
        if kind in (Kind.POWER, Kind.CUT) and rng.random() < 0.3:  # and a person comes
            faults.append(Fault(Kind.CONFIRM, (host,), at_s + rng.uniform(8, 30)))
    if rng.random() < 0.25:
        pair = tuple(rng.sample(hosts, 2))
        faults.append(Fault(Kind.MESH, pair, rng.uniform(2, 50), rng.uniform(5, 60)))
    if rng.random() < 0.15:
        half = tuple(rng.sample(hosts, len(hosts) // 2))
        faults.append(Fault(Kind.SPLIT, half, rng.uniform(2, 50), rng.uniform(5, 60)))
    if rng.random() < 0.15:
        faults.append(Fault(Kind.BLACKOUT, hosts, rng.uniform(5, 40), rng.uniform(3, 30)))
    return faults
