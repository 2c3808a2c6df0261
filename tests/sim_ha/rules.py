"""The rules a world is played with. The defaults are the product's; tests break one at a time and must see it found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ha.guard.lease_clock import LeaseClock
from ha.guard.terms import Terms


class Stamps(StrEnum):
    """What a judge believes of leases after its host started again."""

    NOW = "all were renewed now"  # the product
    LONG_AGO = "all were renewed long ago"
    BY_WALL_CLOCK = "what was saved before, by the wall clock"


@dataclass(frozen=True)
class Rules:
    """One field a rule. `clock` and `terms` are what the guard has; `watchdog_counts` whether P-time waits for W,
    `fenced_is_off_later` whether a host that is being fenced counts as off only when its board said so,
    `by_what_was_said` whether a host is judged by the times in its lease, `refuse_overtaken` whether a renewal of older
    terms is refused, `all_disks_count` whether a VM is
    free only when all storages of its disks refuse its host, `word_for_this_lease` whether their word counts for one lease only, `end_before_giving` whether a host that goes down takes a guest down before it gives the VM away."""

    clock: type[LeaseClock] = LeaseClock
    terms: type[Terms] = Terms
    by_what_was_said: bool = True
    refuse_overtaken: bool = True
    watchdog_counts: bool = True
    check_index: bool = True
    see_migrations: bool = True
    reread_vm: bool = True
    guard_lease_revision: bool = True
    guard_vm_revision: bool = True
    fenced_is_off_later: bool = True
    end_before_giving: bool = True
    all_disks_count: bool = True
    word_for_this_lease: bool = True
    stamps_after_start: Stamps = Stamps.NOW


PRODUCT = Rules()
