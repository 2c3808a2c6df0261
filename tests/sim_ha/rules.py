"""The rules a world is played with. The defaults are the product's; tests break one at a time and must see it found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stamps(StrEnum):
    """What a judge believes of leases after its host started again."""

    NOW = "all were renewed now"  # the product
    LONG_AGO = "all were renewed long ago"
    BY_WALL_CLOCK = "what was saved before, by the wall clock"


@dataclass(frozen=True)
class Rules:
    """One field a rule. `holder_leases` is how many L the holder takes; `watchdog_counts` whether P-time waits for W,
    `fenced_is_off_later` whether a host that is being fenced counts as off only when its board said so,
    `end_before_giving` whether a host that goes down takes a guest down before it gives the VM away."""

    holder_leases: float = 1.0
    watchdog_counts: bool = True
    check_index: bool = True
    feed_while_killing: bool = False
    see_migrations: bool = True
    reread_vm: bool = True
    guard_lease_revision: bool = True
    guard_vm_revision: bool = True
    fenced_is_off_later: bool = True
    end_before_giving: bool = True
    stamps_after_start: Stamps = Stamps.NOW


PRODUCT = Rules()
