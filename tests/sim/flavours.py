"""What kind of bad day a seed gets: how many nodes, how big the limits, which misfortunes how often.

`raft_chaos` plays it. A flavour leans towards one family of schedules; each is also met by the real code in ordinary
seeds. The families that found the engine's known defects are `duel` (repeated messages against small batches) and
`stale` (answers that are stuck while others rule).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

EVERYTHING = {
    "crash": 2.5,
    "kill": 2,
    "all_off": 0.5,
    "start": 12,
    "power_cut": 4,
    "cut": 2,
    "isolate": 2,
    "split": 1.5,
    "scatter": 1.5,
    "hold": 2.5,
    "strand": 1,
    "depose": 1,
    "lag": 3,
    "reset": 3,
    "heal": 9,
    "release": 2,
    "freeze": 1.5,
    "jump": 1.5,
    "slow_disk": 1.5,
    "full_disk": 1.5,
    "hand_over": 1,
    "follow": 1,
}


@dataclass(frozen=True)
class Flavour:
    """`append_bytes` bounds one AppendEntries, `entry_bytes` what is packed into one entry, `chunk_bytes` one piece of a snapshot; `pace_s` is between misfortunes."""

    name: str = "storm"
    nodes: int = 3
    spares: int = 0
    quick: bool = True
    append_bytes: int = 8 << 20  # more than any one entry, or PySyncObj would cut that into pieces
    entry_bytes: int = 200
    chunk_bytes: int = 600
    payload_bytes: tuple[int, ...] = (0, 0, 300)
    clients: int = 3
    pace_s: float = 0.55
    chaos_s: float = 16.0
    silent: bool = False  # a cut swallows packets instead of breaking connections
    ambush: float = 0.0  # how often a new leader gets all that is stuck on its way to it
    misfortunes: dict[str, float] = field(default_factory=lambda: dict(EVERYTHING))


STORM = Flavour()
# Entries bigger than a batch, links that break, and a follower that is slow to answer: leaders repeat themselves.
DUEL = Flavour(
    name="duel",
    append_bytes=350,
    payload_bytes=(0, 100, 180),
    pace_s=0.25,
    chaos_s=10.0,
    misfortunes={"lag": 5, "reset": 6, "hold": 3, "release": 4, "heal": 2, "cut": 1, "crash": 0.5}
    | {"power_cut": 3, "kill": 0.5, "start": 3, "isolate": 0.5},
)
# A leader is left alone with one follower whose answers are stuck; the others elect; later the old leader returns.
STALE = Flavour(
    name="stale",
    nodes=5,
    silent=True,
    ambush=0.7,
    append_bytes=350,
    payload_bytes=(0,),
    clients=6,
    pace_s=0.3,
    chaos_s=12.0,
    misfortunes={"strand": 2, "depose": 2, "hand_over": 6},
)
# Nodes that die in the middle of a write, and come back at once.
POWER = Flavour(
    name="power",
    pace_s=0.25,
    chaos_s=10.0,
    misfortunes={
        "power_cut": 8,
        "crash": 2,
        "kill": 1,
        "start": 10,
        "lag": 1,
        "heal": 3,
        "isolate": 1,
    }
    | {"slow_disk": 1},
)


def of_seed(seed: int) -> Flavour:
    """Return what an ordinary seed gets."""
    spares = (0, 1, 2, 3)[seed // 4 % 4]
    match seed % 8:
        case 0:
            return replace(POWER, spares=spares % 2)
        case 4 if seed // 8 % 2:
            return replace(STORM, name="silent storm", silent=True, spares=spares)
        case 4:
            return replace(STORM, spares=spares)
        case 1:
            return replace(STORM, nodes=5, spares=spares, chaos_s=12.0)
        case 2:
            return replace(DUEL, spares=spares % 2)
        case 3:
            return STALE
        case 5:
            return replace(STORM, name="patient", quick=False, spares=spares % 3, chaos_s=20.0)
        case 6:
            return replace(STORM, nodes=1 + seed // 8 % 4, spares=2, pace_s=0.8)
        case _:
            return replace(
                STORM, name="small-batches", append_bytes=350, payload_bytes=(0, 180), spares=spares
            )
