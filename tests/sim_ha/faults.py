"""What can go wrong, one record each, and what a world is before anything does. `misfortune` brings it about."""

from __future__ import annotations

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
    SHUTDOWN = "orderly shutdown of a host"
    BLACKOUT = "power loss of all hosts"
    STUCK = "guests survive the kill"
    LAG = "log applied late"
    AGENT = "agent down"
    WALL = "wall clock set wrong"
    LEADER = "another leads"
    GUESTS_DIE = "guests die by themselves"
    CONFIRM = "operator confirms off"
    BOARD_DEAD = "management board dead"
    TO_WIDE = "profile wide"
    TO_DEFAULT = "profile default"
    TO_MOONSHOT = "profile moonshot"
    DISARM = "disarmed"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with some hosts for a while. Two hosts of MESH, one half of SPLIT; elsewhere one.

    What operators change for the whole mesh names no host. DISARM is over when they arm again.
    """

    kind: Kind
    hosts: tuple[str, ...]
    at_s: float
    for_s: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What a world is before anything goes wrong. `nowayout`: hosts whose watchdog can't be disarmed. `late`: how often, if `slow`, a start waits after its claim, or a decision.
    `refusing`: storages that can refuse a host; all VMs have a disk on `s`, every second one another on `t`."""

    hosts: int = 3
    vms: int = 2
    profile: str = "default"
    rate_spread: float = 0.002
    losses: float = 0.1
    slow: bool = True
    late: float = 0.25
    everybody_leads: bool = False
    migrations: float = 0.05
    no_watchdog: frozenset[str] = frozenset()
    boards: frozenset[str] = frozenset()
    nowayout: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()


def names(count: int) -> tuple[str, ...]:
    """Return the names of so many hosts."""
    return tuple(f"h{number}" for number in range(1, count + 1))
