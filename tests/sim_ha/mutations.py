"""Broken rules, one each, with a world that leans towards the schedule which shows it: the simulator must find every one.

Otherwise the world would be too kind to prove anything about the product.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.sim_ha.faults import Fault, Kind, Setting
from tests.sim_ha.guard_parts import (
    ArmedInWords,
    DisarmedAtOnce,
    HungryClock,
    LongAtOnce,
    OldLeaseKept,
    SlowClock,
    WatchdogAtOnce,
)
from tests.sim_ha.rules import PRODUCT, Rules, Stamps
from tests.sim_ha.world import World

ROUGH = Setting(vms=4)
MOVING = Setting(vms=4, migrations=0.3)
CUT = Fault(Kind.CUT, ("h1",), 20.0, 60.0)
START_UNDER_WAY = (
    Fault(Kind.GUESTS_DIE, ("h1",), 10.0),
    Fault(Kind.CUT, ("h1",), 11.0, 26.0),
)
ALL_BEGIN_ANEW = (
    CUT,
    Fault(Kind.POWER, ("h2",), 20.5, 0.5),
    Fault(Kind.POWER, ("h3",), 20.5, 0.5),
)


@dataclass(frozen=True)
class Mutation:
    """A broken rule, and where it shows."""

    name: str
    rules: Rules
    setting: Setting
    faults: tuple[Fault, ...]

    def play(self, seed: int, *, planted: bool) -> World:
        """Play one seed, with the broken rule or with the product's.

        Raises:
            Violation: a law was broken.
        """
        rules = self.rules if planted else PRODUCT
        return World(random.Random(seed), self.setting, self.faults, rules).play()


PROMPT = Setting(vms=4, losses=0.1, slow=False)  # so that little happens between a wish and the cut
DEAF_THEN_CUT = (  # what it says is committed, and it does not learn that
    Fault(Kind.CUT_IN, ("h1",), 20.8, 60.0),
    Fault(Kind.CUT, ("h1",), 23.0, 60.0),
)

MUTATIONS = (
    Mutation(
        "a longer lease counts before it was announced",
        Rules(terms=LongAtOnce),
        PROMPT,
        (Fault(Kind.TO_WIDE, (), 20.0), Fault(Kind.CUT, ("h1",), 20.8, 60.0)),
    ),
    Mutation(
        "a shorter lease is announced while the present one goes on",
        Rules(terms=OldLeaseKept),
        Setting(vms=4, profile="wide", slow=False),
        (Fault(Kind.TO_MOONSHOT, (), 20.0), *DEAF_THEN_CUT),
    ),
    Mutation(
        "the watchdog gets a longer time before that was announced",
        Rules(terms=WatchdogAtOnce),
        PROMPT,
        (
            Fault(Kind.TO_WIDE, (), 20.0),
            Fault(Kind.CUT, ("h1",), 20.7, 60.0),
            Fault(Kind.GUARD_FROZEN, ("h1",), 30.9, 60.0),
        ),
    ),
    Mutation(
        "a host is judged by the profile of the moment",
        Rules(by_what_was_said=False),
        Setting(vms=4, profile="wide"),
        (CUT, Fault(Kind.TO_MOONSHOT, (), 22.0)),
    ),
    Mutation(
        "renewals with terms of before are taken late",
        Rules(refuse_overtaken=False),
        Setting(vms=4, profile="moonshot", losses=0.05),
        (Fault(Kind.TO_WIDE, (), 20.0), Fault(Kind.CUT, ("h1",), 25.0, 60.0)),
    ),
    Mutation(
        "nothing is enforced before that was announced",
        Rules(terms=DisarmedAtOnce),
        PROMPT,
        (Fault(Kind.DISARM, (), 20.0, 5.0), Fault(Kind.CUT, ("h1",), 20.7, 60.0)),
    ),
    Mutation(
        "a guard says that it enforces before it does",
        Rules(terms=ArmedInWords),
        Setting(vms=4, losses=0.1, slow=False, nowayout=frozenset({"h1"})),
        (Fault(Kind.DISARM, (), 10.0, 10.0), *DEAF_THEN_CUT),
    ),
    Mutation(
        "a host that is being fenced is taken for off",
        Rules(fenced_is_off_later=False),
        Setting(vms=4, boards=frozenset({"h1", "h2", "h3"})),
        (CUT,),
    ),
    Mutation(
        "a VM with one disk that isn't refused is taken for free",
        Rules(all_disks_count=False),
        Setting(vms=4, refusing=frozenset("s")),
        (CUT,),
    ),
    Mutation(
        "what storages said of one lease is taken for another",
        Rules(word_for_this_lease=False),
        Setting(vms=6, losses=0.0, migrations=0.0, refusing=frozenset("st")),
        (
            Fault(Kind.CUT, ("h1",), 8.0, 8.0),
            Fault(Kind.POWER, ("h1",), 15.0, 0.5),
            Fault(Kind.CUT, ("h2",), 30.0, 9.0),  # its VMs go to h1, among others
            Fault(Kind.CUT, ("h1",), 54.0, 60.0),
        ),
    ),
    Mutation(
        "a host that goes down gives VMs away whose guests still run",
        Rules(end_before_giving=False),
        ROUGH,
        (Fault(Kind.SHUTDOWN, ("h1",), 20.0, 10.0),),
    ),
    Mutation("the holder kills at 2 L", Rules(clock=SlowClock), ROUGH, (CUT,)),
    Mutation(
        "P-time does not wait for the watchdog",
        Rules(watchdog_counts=False),
        ROUGH,
        (CUT, Fault(Kind.GUARD_FROZEN, ("h1",), 30.5, 60.0)),
    ),
    Mutation(
        "the guard ignores how far the agent has applied",
        Rules(check_index=False),
        ROUGH,
        (*START_UNDER_WAY, Fault(Kind.LAG, ("h1",), 11.0, 59.0)),
    ),
    Mutation(
        "an agent asks for a grant on what it read before it waited",
        Rules(reread_vm=False),
        ROUGH,
        START_UNDER_WAY,
    ),
    Mutation(
        "the watchdog is fed although guests survive the kill",
        Rules(clock=HungryClock),
        ROUGH,
        (CUT, Fault(Kind.STUCK, ("h1",), 20.0, 60.0)),
    ),
    Mutation(
        "a recovery does not look where the VM was migrating to",
        Rules(see_migrations=False),
        MOVING,
        (CUT,),
    ),
    Mutation(
        "a leader trusts that it leads, and guards nothing",
        Rules(guard_lease_revision=False, guard_vm_revision=False),
        Setting(vms=4, everybody_leads=True),
        (Fault(Kind.CUT, ("h1",), 20.0, 19.5),),
    ),
    Mutation(
        "a recovery does not guard the lease's revision",
        Rules(guard_lease_revision=False),
        Setting(vms=4, losses=0.0, migrations=0.0, late=0.9),
        (
            Fault(Kind.GUESTS_DIE, ("h1",), 10.0),
            Fault(Kind.CUT, ("h1",), 11.0, 19.0),
        ),
    ),
    Mutation(
        "a judge that begins anew takes all leases for old",
        Rules(stamps_after_start=Stamps.LONG_AGO),
        ROUGH,
        ALL_BEGIN_ANEW,
    ),
    Mutation(
        "a judge that begins anew trusts stamps saved by the wall clock",
        Rules(stamps_after_start=Stamps.BY_WALL_CLOCK),
        ROUGH,
        (
            *ALL_BEGIN_ANEW,
            Fault(Kind.WALL, ("h2",), 21.0),
            Fault(Kind.WALL, ("h3",), 21.0),
        ),
    ),
)
