"""Voters under random deaths, returns, joins, pins and hand-overs: never below quorum, and settled where one can be had."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from core.model import Host, Vote
from raftstate.consensus.engine import Progress
from raftstate.voters import (
    LAG_USABLE,
    Policy,
    Situation,
    Step,
    dead,
    may_vote,
    note_lost,
    plan,
    quorum,
    voters_for,
    wished,
)

IDS = [f"h{n:02d}" for n in range(12)]
INDEX = 100_000
REPLACE_AFTER_S = 600.0
STEPS_MAX = 40
SETTINGS = settings(max_examples=300, stateful_step_count=40, deadline=None)


class VotersSettleAndNeverLoseTheirQuorum(RuleBasedStateMachine):
    @initialize(
        hosts=st.integers(1, 9), most=st.sampled_from([1, 3, 5, 7]), racks=st.integers(0, 4)
    )
    def begin(self, hosts, most, racks):
        self.racks = racks
        self.hosts = {id_: self._host(id_, n) for n, id_ in enumerate(IDS[:hosts])}
        self.policy = Policy(voters_max=most, replace_after_s=REPLACE_AFTER_S)
        self.voters = frozenset({IDS[0]})
        self.leader = IDS[0]
        self.down: set[str] = set()
        self.lags: dict[str, int] = {}
        self.lost: dict[str, float] = {}
        self.now_s = 0.0

    def _host(self, id_: str, number: int, **fields) -> Host:
        rack = f"r{number % self.racks}" if self.racks and number % 3 else ""
        return Host(id=id_, name=id_, cluster_id="c", address=id_, failure_domain=rack, **fields)

    # -- what happens to a cluster

    @rule(id_=st.sampled_from(IDS), witness=st.booleans())
    def join(self, id_, witness):
        if id_ not in self.hosts and id_ not in self.voters:
            self.hosts[id_] = self._host(id_, IDS.index(id_), witness=witness)
            self.down.discard(id_)

    @rule(id_=st.sampled_from(IDS))
    def die(self, id_):
        self.down.add(id_)
        self._elect()

    @rule(id_=st.sampled_from(IDS))
    def come_back(self, id_):
        self.down.discard(id_)
        self._elect()

    @rule(id_=st.sampled_from(IDS), vote=st.sampled_from(list(Vote)))
    def pin(self, id_, vote):
        if id_ in self.hosts:
            self.hosts[id_] = replace(self.hosts[id_], vote=vote)

    @rule(id_=st.sampled_from(IDS), lag=st.sampled_from([0, 5_000, LAG_USABLE + 1]))
    def fall_behind(self, id_, lag):
        self.lags[id_] = lag

    @rule(id_=st.sampled_from(IDS))
    def lose_its_record(self, id_):
        if id_ != self.leader and len(self.hosts) > 1:
            self.hosts.pop(id_, None)

    @rule(most=st.sampled_from([1, 3, 5, 7]))
    def change_the_policy(self, most):
        self.policy = Policy(voters_max=most, replace_after_s=REPLACE_AFTER_S)

    @rule(seconds=st.floats(0.1, 700.0))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule()
    def one_step(self):
        self._step()

    @precondition(lambda self: self._has_quorum())
    @rule()
    def everybody_waits(self):
        """Without new trouble the voters become the wished ones, and then nothing is proposed any more."""
        self._look()
        self.now_s += REPLACE_AFTER_S
        for lag in self.lags:
            self.lags[lag] = 0 if self.lags[lag] <= LAG_USABLE else self.lags[lag]
        for _ in range(STEPS_MAX):
            if not self._step():
                break
        else:
            raise AssertionError("the voters never settle")
        at = self._look()
        wish = wished(at, self.policy, self.now_s)
        free = sum(may_vote(h) for h in self.hosts.values())
        wanted = voters_for(free, self.policy.voters_max)
        usable = {v for v in wish if v not in self.down}
        led = self.leader in self.hosts  # else whoever has removed it takes its vote away
        if led and len(usable) >= wanted and len(at.voters & at.live) == len(at.voters):
            assert self.voters == wish, (sorted(self.voters), sorted(wish))
            assert len(self.voters) == wanted or self.voters == {self.leader}

    # -- the leader, again and again

    def _has_quorum(self) -> bool:
        return len(self.voters - self.down) >= quorum(len(self.voters))

    def _elect(self) -> None:
        """A leader that died is followed by another living voter, which begins to count silence anew.

        Not by one without a record while there are others: its links are cut, so nobody would vote for it.
        """
        if self._has_quorum() and (self.leader in self.down or self.leader not in self.voters):
            living = self.voters - self.down
            self.leader = min(living & self.hosts.keys() or living)
            self.lost = {}

    def _look(self) -> Situation:
        live = frozenset((set(self.hosts) | self.voters) - self.down)
        self.lost = note_lost(self.lost, self.voters, live, self.now_s)
        progress = {id_: Progress(INDEX - self.lags.get(id_, 0), 1, self.now_s) for id_ in live}
        return Situation(
            leader=self.leader,
            hosts=self.hosts,
            voters=self.voters,
            live=live,
            lost_since_s=self.lost,
            progress=progress,
            index=INDEX,
        )

    def _step(self) -> bool:
        if not self._has_quorum() or self.leader in self.down:
            return False
        at = self._look()
        change = plan(at, self.policy, self.now_s)
        if change is None:
            return False
        before = self.voters
        match change.step:
            case Step.ADD:
                assert change.host_id in self.hosts and change.host_id not in self.down
                assert self.hosts[change.host_id].vote is not Vote.NEVER
                self.voters = before | {change.host_id}
                rest = self.voters - self.down - {change.host_id}
                assert len(rest) >= quorum(len(self.voters)) or len(before) == 1, (
                    "a newcomer that dies at once must not stop the cluster"
                )
            case Step.REMOVE:
                assert change.host_id != self.leader
                silent_long = change.host_id in dead(at, self.policy, self.now_s)
                assert change.dead == silent_long
                self.voters = before - {change.host_id}
            case Step.HAND_OVER:
                assert change.host_id == self.leader
                living = before - self.down - {self.leader}
                self.leader = min(living & self.hosts.keys() or living)
                self.lost = {}
        assert self._has_quorum(), (change, sorted(self.voters), sorted(self.down))
        assert len(self.voters) <= max(len(before), len(wished(at, self.policy, self.now_s)) + 1)
        return True

    @invariant()
    def a_reached_wish_is_wished_again(self):
        """Nothing flaps: whatever set is wished, once it votes it is wished by any leader of its own."""
        if not self._has_quorum() or self.leader in self.down:
            return
        at = self._look()
        wish = wished(at, self.policy, self.now_s)
        assert wish
        if self.leader in wish and wish <= at.live:
            there = Situation(
                **{
                    **{name: getattr(at, name) for name in at.__dataclass_fields__},
                    "voters": wish,
                }
            )
            assert wished(there, self.policy, self.now_s) == wish
            assert plan(there, self.policy, self.now_s) is None


@pytest.mark.timeout(180)  # a counterexample must have the time to be made small and shown
def test_voters_settle_and_never_lose_their_quorum():
    run_state_machine_as_test(VotersSettleAndNeverLoseTheirQuorum, settings=SETTINGS)
