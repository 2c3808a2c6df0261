"""Who shall vote: pure decisions, one small change at a time. Called by the leader's `nodeagent.services.voter_controller`.

`wished` says which hosts should be the voters, `plan` the next step on the way there, with its reason as text.

How many: 1 for one or two hosts, 3 for three or four, 5 for five or more (7 where the policy allows). Two voters are no
better than one, because both are needed; so even numbers occur only on the way. Which: those an operator wants, then
witnesses, then one of each failure domain before a second of any; among equals those that vote already, the leader
before all, then by id. The choice is greedy over a fixed order in which present voters win every tie, so a wished set
that has been reached is wished again: nothing flaps.

The order of steps. A *dead* voter is removed first, and then its successor is added. With 3 voters of which one is dead,
2 of 3 are needed and there: no more may fail. Removed first: 2 of 2. Added first: 3 of 4. So either way the step between
tolerates no failure; but when added first, a successor that dies at once leaves 2 of 4, and the cluster stands still
until a dead machine is repaired. When removed first, it is simply not added. The same holds for 5 and 7.
A *living* voter that shall give its place away goes the other way: its successor is added first (4 of which 3 are needed
tolerate as much as 3 of which 2 are), since nobody is missing.

No step is proposed after which the living voters would be fewer than the new quorum; nor, except from a single voter to
its second, one that needs the newcomer itself for its quorum. The first of two additions waits until both newcomers are
ready, because between them stands an even number. A leader that shall not vote hands over; the next one removes it.

Fewer than three voters are never left because hosts died: that would trade copies of acknowledged writes for
availability behind the operator's back. Five with two dead and no successor do become three: three living voters
tolerate a failure, three of five don't.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import nsmallest

from core.model import Host, HostState, Vote
from raftstate.consensus.engine import NodeId, Progress

VOTERS_MAX_CHOICES = (1, 3, 5, 7)
LAG_READY = 1_000
LAG_USABLE = 10_000


class Step(StrEnum):
    """What a change does."""

    ADD = "add"
    REMOVE = "remove"
    HAND_OVER = "hand-over"


@dataclass(frozen=True, slots=True)
class Change:
    """The next step: what, with which host, and why. `dead`: the host gives its vote up because it is silent."""

    step: Step
    host_id: NodeId
    reason: str
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator may set, and the feature level below which no host can read the log."""

    voters_max: int = 5
    replace_after_s: float = 600.0
    feature_level: int = 1


@dataclass(frozen=True, slots=True)
class Situation:
    """What the leader knows. All ids are host ids.

    `live` are the voters with a link to the leader and the other hosts that answer or are believed to. `lost_since_s`
    holds the voters without a link and since when (see `note_lost`). `progress` are hosts known to keep up or not; a
    host without it can't become a voter yet. `index` is the leader's commit index.
    """

    leader: NodeId
    hosts: Mapping[NodeId, Host]
    voters: frozenset[NodeId]
    live: frozenset[NodeId]
    lost_since_s: Mapping[NodeId, float]
    progress: Mapping[NodeId, Progress]
    index: int

    def lag(self, host: NodeId) -> int | None:
        """Return how many entries a host is behind; None when nothing is known of it."""
        progress = self.progress.get(host)
        return None if progress is None else max(0, self.index - progress.applied)


def voters_for(hosts: int, voters_max: int) -> int:
    """Return how many voters a cluster of so many hosts should have."""
    fitting = 1 if hosts < 3 else 3 if hosts < 5 else 5 if hosts < 7 else 7
    return min(fitting, voters_max)


def may_vote(host: Host) -> bool:
    """Tell whether a host counts for the number of voters: it is in, and no operator is against it."""
    return host.vote is not Vote.NEVER and not host.joining


def note_lost(
    before: Mapping[NodeId, float],
    voters: frozenset[NodeId],
    live: frozenset[NodeId],
    now_s: float,
) -> dict[NodeId, float]:
    """Return since when each voter has had no link to this leader, as this leader has seen it itself."""
    return {voter: before.get(voter, now_s) for voter in voters - live}


def dead(situation: Situation, policy: Policy, now_s: float) -> frozenset[NodeId]:
    """Return the voters that have been silent for too long."""
    since = situation.lost_since_s
    return frozenset(
        voter
        for voter in situation.voters - situation.live
        if voter in since and now_s - since[voter] >= policy.replace_after_s
    )


def wished(situation: Situation, policy: Policy, now_s: float) -> frozenset[NodeId]:
    """Return the hosts that should vote, as far as that can be had now."""
    hosts, voters = situation.hosts, situation.voters
    gone = dead(situation, policy, now_s)
    kept = frozenset(v for v in voters if v in hosts and may_vote(hosts[v]))
    usable = kept - gone | _newcomers(situation, policy)
    pool = usable | kept
    wanted = voters_for(sum(map(may_vote, hosts.values())), policy.voters_max)
    sizes = [n for n in (1, 3, 5, 7) if n <= wanted and n <= len(pool) and (n >= 3 or wanted == 1)]
    if not sizes:  # hosts are missing: stay as it is
        return kept or _choose(situation, pool, gone, 1) or frozenset({situation.leader})
    size = max(sizes, key=lambda n: (min(n, len(usable)) - quorum(n), n))
    return _choose(situation, pool, gone, size)


def plan(situation: Situation, policy: Policy, now_s: float) -> Change | None:
    """Return the next change of the voters, None when there is nothing to do or nothing can be done safely."""
    voters, live = situation.voters, situation.live
    if situation.leader not in voters or situation.leader not in situation.hosts:
        return None  # founding, or the leader is just being removed
    if len(voters & live) < quorum(len(voters)):
        return None  # nothing can be committed
    wish = wished(situation, policy, now_s)
    gone = dead(situation, policy, now_s)
    for change in _steps(situation, policy, wish, gone):
        if _is_safe(situation, change):
            return change
    return None


def quorum(voters: int) -> int:
    """Return how many of so many voters must agree."""
    return voters // 2 + 1


def losses_survived(voters: int) -> int:
    """Return how many of so many living voters may fail."""
    return voters - quorum(voters)


def _newcomers(situation: Situation, policy: Policy) -> frozenset[NodeId]:
    """Return the hosts that don't vote but could."""
    return frozenset(
        id_
        for id_, host in situation.hosts.items()
        if id_ not in situation.voters
        and id_ in situation.live
        and may_vote(host)
        and host.state is HostState.MEMBER
        and not host.maintenance
        and (lag := situation.lag(id_)) is not None
        and lag <= LAG_USABLE
        and situation.progress[id_].level >= policy.feature_level
    )


def _choose(
    situation: Situation, pool: frozenset[NodeId], gone: frozenset[NodeId], size: int
) -> frozenset[NodeId]:
    """Choose greedily: living, wanted, witness, rarest failure domain, leader, present voter, id."""
    chosen: list[NodeId] = []
    domains: Counter[str] = Counter()

    def rank(id_: NodeId) -> tuple[bool, bool, bool, bool, int, bool, bool, str]:
        host = situation.hosts[id_]
        return (
            id_ in gone,
            host.vote is not Vote.ALWAYS,
            size == 1 and id_ != situation.leader,  # a lone vote moves only where it must
            not host.witness,
            domains[_domain(host)],
            id_ != situation.leader,
            id_ not in situation.voters,
            id_,
        )

    # Hosts of one domain, and hosts that have none, differ by what never changes here: more than `size` are never needed.
    kinds: defaultdict[str, list[NodeId]] = defaultdict(list)
    for id_ in pool:
        kinds[situation.hosts[id_].failure_domain].append(id_)
    left = {id_ for kind in kinds.values() for id_ in nsmallest(size, kind, key=rank)}
    while left and len(chosen) < size:
        best = min(left, key=rank)
        left.remove(best)
        chosen.append(best)
        domains[_domain(situation.hosts[best])] += 1
    return frozenset(chosen)


def _domain(host: Host) -> str:
    return f"domain/{host.failure_domain}" if host.failure_domain else f"host/{host.id}"


def _steps(
    situation: Situation, policy: Policy, wish: frozenset[NodeId], gone: frozenset[NodeId]
) -> list[Change]:
    """Return the steps that lead to the wish, the one to take first at the front."""
    voters, live = situation.voters, situation.live
    surplus = sorted(voters - wish)
    absent = [v for v in surplus if v not in live or v not in situation.hosts]
    spare = [v for v in surplus if v not in absent and v != situation.leader]
    missing = sorted(wish - voters)
    ready = [id_ for id_ in missing if (lag := situation.lag(id_)) is not None and lag <= LAG_READY]
    steps = [
        Change(Step.REMOVE, v, _why_removed(situation, policy, v, gone), dead=v in gone)
        for v in absent
        if _is_replaced(situation, v, wish, ready)
    ]
    growing = len(wish) > len(voters)
    lonely = growing and len(voters) % 2 == 1 and len(ready) < 2
    crowded = len(voters) > len(wish)
    if ready and not lonely and not crowded:
        steps.append(Change(Step.ADD, ready[0], _why_added(situation, wish, ready[0])))
    if not missing or crowded:
        steps += [Change(Step.REMOVE, v, _why_removed(situation, policy, v, gone)) for v in spare]
        if situation.leader in surplus and not spare and len(voters) > 1:
            reason = _why_removed(situation, policy, situation.leader, gone)
            steps.append(Change(Step.HAND_OVER, situation.leader, f"{reason}; another leads first"))
    return steps


def _is_replaced(
    situation: Situation, voter: NodeId, wish: frozenset[NodeId], ready: list[NodeId]
) -> bool:
    """Tell whether a silent voter may go now: nobody shall follow it, or a successor is ready."""
    host = situation.hosts.get(voter)
    unwanted = host is None or not may_vote(host)
    return unwanted or len(wish) < len(situation.voters) or bool(ready)


def _is_safe(situation: Situation, change: Change) -> bool:
    voters, live = situation.voters, situation.live
    if change.step is Step.ADD:
        others = len(voters & live)
        return others >= quorum(len(voters) + 1) or len(voters) == 1
    if change.step is Step.REMOVE:
        rest = voters - {change.host_id}
        return len(rest & live) >= quorum(len(rest))
    return len(voters & live) > 1


def _why_added(situation: Situation, wish: frozenset[NodeId], id_: NodeId) -> str:
    host, hosts = situation.hosts[id_], situation.hosts
    if host.vote is Vote.ALWAYS:
        return "an operator wants it to vote"
    if len(wish) > len(situation.voters):
        counted = sum(map(may_vote, hosts.values()))
        return f"a cluster of {counted} hosts has {len(wish)} voters"
    if host.witness:
        return "witnesses vote before other hosts"
    return "it takes the place of a voter that goes, and spreads the votes best"


def _why_removed(situation: Situation, policy: Policy, id_: NodeId, gone: frozenset[NodeId]) -> str:
    host = situation.hosts.get(id_)
    if host is None:
        return "it belongs to the cluster no more"
    if host.vote is Vote.NEVER:
        return "an operator wants it not to vote"
    if id_ in gone:
        return f"it has been silent for more than {policy.replace_after_s:g} s"
    counted = sum(map(may_vote, situation.hosts.values()))
    if len(situation.voters) > voters_for(counted, policy.voters_max):
        return f"a cluster of {counted} hosts has {voters_for(counted, policy.voters_max)} voters"
    return "another host votes in its place"


def assuming(situation: Situation, hosts: frozenset[NodeId], level: int) -> Situation:
    """Return the situation as it would be if these hosts kept up: whom of them to ask is who is wished then."""
    best = Progress(applied=situation.index, level=level, heard_s=0.0)
    return replace(situation, progress={**dict.fromkeys(hosts, best), **situation.progress})
