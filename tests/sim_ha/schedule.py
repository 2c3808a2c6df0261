"""The random choice of a world and of its faults.

Related faults on one unlucky host make most of the trouble, so the choice leans that way.
"""

from __future__ import annotations

import random

from tests.sim_ha.ambushes import AMBUSHES
from tests.sim_ha.faults import NEVER_S, Fault, Kind, Setting, names


def random_setting(rng: random.Random) -> Setting:
    count = rng.choice([3, 3, 3, 4, 5])
    unarmed = rng.choice(names(count))
    rough = rng.random() < 0.5
    return Setting(
        hosts=count,
        vms=rng.choice([2, 3, 4]),
        profile=rng.choice(["default", "default", "default", "moonshot", "wide"]),
        rate_spread=rng.choice([0.0, 0.002, 0.005, 0.02]),
        losses=0.1 if rough else 0.01,
        slow=rough,
        everybody_leads=rng.random() < 0.3,
        migrations=rng.choice([0.0, 0.03, 0.08, 0.3]),
        no_watchdog=frozenset({unarmed} if rng.random() < 0.2 else ()),
        boards=frozenset(names(count) if rng.random() < 0.35 else ()),
        nowayout=frozenset(name for name in names(count) if rng.random() < 0.3),
        refusing=frozenset(rng.choice(["", "", "", "s", "s", "st"])),
    )


ONE_HOST = (
    *[Kind.CUT] * 6,
    Kind.CUT_IN,
    Kind.CUT_OUT,
    Kind.LOOP_FROZEN,
    *[Kind.GUARD_FROZEN] * 2,
    Kind.GUARD_KILLED,
    *[Kind.POWER] * 3,
    *[Kind.SHUTDOWN] * 2,
    *[Kind.STUCK] * 2,
    *[Kind.LAG] * 3,
    *[Kind.AGENT] * 2,
    *[Kind.LEADER] * 2,
    *[Kind.GUESTS_DIE] * 2,
    *[Kind.CONFIRM] * 2,
    *[Kind.BOARD_DEAD] * 2,
    Kind.WALL,
)


PROFILE_CHANGES = (Kind.TO_WIDE, Kind.TO_DEFAULT, Kind.TO_MOONSHOT)


def random_faults(rng: random.Random, hosts: tuple[str, ...], safe_s: float) -> list[Fault]:
    """Return some faults. At most a minority of hosts never comes back."""
    faults: list[Fault] = []
    if rng.random() < 0.5:
        faults = rng.choice(AMBUSHES)(rng, hosts, safe_s)
        few = rng.choice([0, 0, 2, 5])
    else:
        few = rng.randint(1, 9)
    unlucky, gone = rng.choice(hosts), 0
    for _ in range(few):
        host = rng.choice([unlucky, unlucky, rng.choice(hosts)])
        kind, at_s = rng.choice(ONE_HOST), rng.uniform(5, 62)
        for_s = rng.choice([3.0, 10.0, 25.0, 60.0]) * rng.uniform(0.8, 1.2)
        if kind is Kind.POWER and gone < (len(hosts) - 1) // 2 and rng.random() < 0.4:
            gone, for_s = gone + 1, NEVER_S
        faults.append(Fault(kind, (host,), at_s, for_s))
        if kind in (Kind.POWER, Kind.CUT) and rng.random() < 0.3:  # and a person comes
            faults.append(Fault(Kind.CONFIRM, (host,), at_s + rng.uniform(8, 30)))
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            faults.append(Fault(rng.choice(PROFILE_CHANGES), (), rng.uniform(5, 62)))
    if rng.random() < 0.4:
        for _ in range(rng.randint(1, 2)):
            at_s = rng.choice([rng.uniform(5, 55), rng.choice(faults).at_s + rng.uniform(-4, 1)])
            faults.append(
                Fault(Kind.DISARM, (), min(max(1.0, at_s), 62.0), rng.choice([2.0, 8.0, 25.0]))
            )
    if rng.random() < 0.25:
        pair = tuple(rng.sample(hosts, 2))
        faults.append(Fault(Kind.MESH, pair, rng.uniform(2, 50), rng.uniform(5, 60)))
    if rng.random() < 0.15:
        half = tuple(rng.sample(hosts, len(hosts) // 2))
        faults.append(Fault(Kind.SPLIT, half, rng.uniform(2, 50), rng.uniform(5, 60)))
    if rng.random() < 0.15:
        faults.append(Fault(Kind.BLACKOUT, hosts, rng.uniform(5, 40), rng.uniform(3, 30)))
    return faults
