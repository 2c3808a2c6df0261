"""The law of the VIP: no two hosts have it at one instant, whatever stands still, is slow, or is elected."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest

from ha.vip import CLAIM_WAIT_S, KERNEL_LATE_S, LEASE_S, Action, Phase, Seen, VipRules, lifetime_s

VIP = "192.0.2.100"
STEP_S = 0.05
HOSTS = 3


@dataclass
class Quorum:
    """Who was elected when. A barrier of a term succeeds if no later term had been elected when it was answered."""

    term: int = 0
    leader: int = -1


@dataclass
class Host:
    """An agent that may stand still at any step but between the kernel's call and its measuring, and its kernel, which doesn't."""

    number: int
    rules: VipRules = field(default_factory=VipRules)
    offset_s: float = 0.0
    term: int = 0
    leads: bool = False
    frozen_until_s: float = 0.0
    ends_s: float = -math.inf
    asked_s: float | None = None
    asked_term: int = 0
    answer_at_s: float = 0.0
    prompt: bool = True
    vetoed: bool = False
    next_s: float = 0.0
    set_at_s: float | None = None
    until_s: float = 0.0


class World:
    """Hosts and elections in virtual time; every host's clock begins elsewhere."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.quorum = Quorum()
        self.hosts = [Host(n, offset_s=self.rng.uniform(-1e6, 1e6)) for n in range(HOSTS)]
        self.now_s = 0.0
        self.held_s = [0.0] * HOSTS
        self.elections: list[float] = []

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP_S)):
            self.now_s += STEP_S
            self._misfortunes()
            for host in self.hosts:
                if self.now_s >= host.frozen_until_s:
                    self._turn(host)
            holders = [host.number for host in self.hosts if self.now_s < host.ends_s]
            assert len(holders) <= 1, f"hosts {holders} have the VIP at {self.now_s:.2f}"
            for number in holders:
                self.held_s[number] += STEP_S

    def _misfortunes(self) -> None:
        rng = self.rng
        # The worst moment to elect another is just after a holder asked, when its answer takes long.
        ticklish = any(
            self.now_s < host.ends_s and host.asked_s is not None and host.answer_at_s > self.now_s
            for host in self.hosts
        )
        if rng.random() < STEP_S / (4 if ticklish else 15) or self.quorum.leader < 0:
            self.quorum.term += 1
            self.elections.append(self.now_s)
            self.quorum.leader = rng.randrange(HOSTS)
            new = self.hosts[self.quorum.leader]
            new.term, new.leads, new.next_s = self.quorum.term, True, self.now_s
            new.prompt = rng.random() < 0.7
        for host in self.hosts:
            if rng.random() < STEP_S / 4:
                host.prompt = not host.prompt
            if host.term < self.quorum.term and rng.random() < STEP_S / 2:
                host.term, host.leads = self.quorum.term, False  # it hears of it at last
            if rng.random() < STEP_S / 15:
                host.frozen_until_s = self.now_s + rng.choice((0.3, 1.0, 3.0, 8.0))
            if rng.random() < STEP_S / (3 if host.vetoed else 40):
                host.vetoed = not host.vetoed
            if rng.random() < STEP_S / 40:  # the agent was killed and starts again
                host.rules, host.asked_s, host.set_at_s = VipRules(), None, None
                host.ends_s = -math.inf if rng.random() < 0.5 else host.ends_s

    def _turn(self, host: Host) -> None:
        """Do the next piece of a round. Between pieces anything may happen."""
        if host.set_at_s is not None:
            self._set(host)
        elif host.asked_s is None:
            if self.now_s >= host.next_s:
                host.asked_s, host.asked_term = self.now_s, host.term
                slow_s = 0.0 if host.prompt else self.rng.choice((0.0, 0.1, 0.6, 1.4, 2.2))
                host.answer_at_s = self.now_s + slow_s
        elif self.now_s >= host.answer_at_s:
            self._decide(host)

    def _decide(self, host: Host) -> None:
        asked_s = host.asked_s
        assert asked_s is not None
        # The majority that answers does so after the question. Of a later election that was over before the question it
        # would know; of one that was held since, it need not.
        later = self.elections[host.asked_term :]
        confirmed = host.leads and not any(at_s <= asked_s for at_s in later)
        leads = host.leads and host.term == host.asked_term
        now_s = self.now_s + host.offset_s
        began_s = asked_s + host.offset_s
        seen = Seen(VIP, leads, host.asked_term, confirmed and leads, began_s, now_s, host.vetoed)
        decision = host.rules.decide(seen)
        host.asked_s, host.next_s = None, self.now_s + 0.5
        if host.vetoed:
            assert decision.action is Action.RELEASE, "whatever else is true"
        match decision.action:
            case Action.RELEASE:
                host.ends_s = -math.inf
            case Action.PROBE:
                host.rules.probed("", now_s)
                host.next_s = self.now_s
            case Action.HOLD:
                host.set_at_s, host.until_s = self.now_s, decision.until_s

    def _set(self, host: Host) -> None:
        left_s = lifetime_s(host.until_s, self.now_s + host.offset_s)
        host.set_at_s = None
        if left_s:
            late_s = self.rng.choice((0.0, 0.1, 0.36, KERNEL_LATE_S - 0.06))
            host.ends_s = self.now_s + left_s + late_s
            host.rules.held(host.until_s, announced_s=None)


@pytest.mark.parametrize("seed", range(120))
def test_no_two_hosts_have_the_vip_at_one_instant(seed: int) -> None:
    world = World(seed)
    world.run(600.0)
    assert sum(world.held_s) > 30.0, "somebody holds it now and then, or the law says nothing"


def test_a_leader_that_is_left_in_peace_holds_it_all_the_time() -> None:
    rules, now_s, held_from_s = VipRules(), 100.0, None
    end_s = -math.inf
    for _ in range(200):
        decision = rules.decide(Seen(VIP, True, 7, True, now_s, now_s + 0.01))
        if decision.action is Action.PROBE:
            rules.probed("", now_s + 0.01)
            continue
        if decision.action is Action.HOLD:
            assert held_from_s is None or now_s < end_s, "it ran out in between"
            held_from_s = held_from_s or now_s
            end_s = now_s + lifetime_s(decision.until_s, now_s + 0.02)
            rules.held(decision.until_s, announced_s=now_s if decision.announce else None)
        now_s += 0.5
    assert held_from_s is not None
    assert CLAIM_WAIT_S <= held_from_s - 100.0 <= CLAIM_WAIT_S + 0.6


@pytest.mark.parametrize(
    ("left_s", "seconds"),
    [(LEASE_S, 2), (1.99, 1), (1.0, 1), (0.99, 0), (0.0, 0), (-5.0, 0), (99.0, 2)],
)
def test_the_kernel_is_told_whole_seconds_and_never_more_than_are_left(
    left_s: float, seconds: int
) -> None:
    assert lifetime_s(1000.0 + left_s, 1000.0) == seconds


def test_the_time_runs_from_the_question_and_not_from_its_answer() -> None:
    rules = VipRules()
    rules.decide(Seen(VIP, True, 7, True, 0.0, 0.0))
    rules.probed("", CLAIM_WAIT_S)
    decision = rules.decide(Seen(VIP, True, 7, True, CLAIM_WAIT_S, CLAIM_WAIT_S + 1.2))
    assert (decision.action, decision.until_s) == (Action.HOLD, CLAIM_WAIT_S + LEASE_S)


def test_a_veto_takes_it_at_once_and_gives_it_back_after_another_look() -> None:
    rules = VipRules()

    def decide(now_s: float, *, vetoed: bool = False) -> Action:
        return rules.decide(Seen(VIP, True, 7, True, now_s, now_s, vetoed)).action

    decide(0.0)
    rules.probed("", CLAIM_WAIT_S)
    assert decide(CLAIM_WAIT_S) is Action.HOLD
    rules.held(CLAIM_WAIT_S + LEASE_S, announced_s=CLAIM_WAIT_S)
    assert decide(4.0, vetoed=True) is Action.RELEASE
    assert rules.phase is Phase.VETOED
    assert decide(30.0, vetoed=True) is Action.RELEASE
    assert decide(30.5) is Action.PROBE, "another machine may have taken it meanwhile"
    assert rules.phase is Phase.WAITING
    rules.probed("", 31.0)
    decision = rules.decide(Seen(VIP, True, 7, True, 31.0, 31.0))
    assert (decision.action, decision.announce) == (Action.HOLD, True)


def test_a_leader_that_was_vetoed_from_the_beginning_waits_once_the_veto_ends() -> None:
    rules = VipRules()
    for now_s in (0.0, 10.0):
        assert rules.decide(Seen(VIP, True, 7, True, now_s, now_s, True)).action is Action.RELEASE
    assert rules.decide(Seen(VIP, True, 7, True, 10.5, 10.5)).action is Action.RELEASE
    late_s = 10.5 + CLAIM_WAIT_S
    assert rules.decide(Seen(VIP, True, 7, True, late_s, late_s)).action is Action.PROBE


def test_another_machine_with_the_address_keeps_it_and_is_looked_for_again() -> None:
    rules = VipRules()

    def decide(now_s: float) -> Action:
        return rules.decide(Seen(VIP, True, 7, True, now_s, now_s)).action

    assert decide(0.0) is Action.RELEASE
    assert decide(4.0) is Action.PROBE
    rules.probed("02:00:00:00:00:99", 4.5)
    assert decide(5.0) is Action.RELEASE
    assert rules.foreign_mac == "02:00:00:00:00:99"
    assert decide(9.6) is Action.PROBE
    rules.probed("", 10.0)
    assert decide(10.0) is Action.HOLD
    assert not rules.foreign_mac
