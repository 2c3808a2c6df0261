"""What the facts say of the cluster's votes: who is up, who leads, whether writes go on, and how long they would.

Pure; used by the rules of `ha.health` and by whoever shows it. All of it is as the asked agent can tell from where it is:
an agent that is cut off sees no quorum, and for it there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ha.health_facts import ClusterFacts, HostFacts
from raftstate.voters import losses_survived, quorum


@dataclass(frozen=True, slots=True)
class Votes:
    """`up` and `down` are ids of voters; `needed` so many must be up. `leader_id` is empty when there is no leader.

    `losses_left`: how many more hosts may fail, whichever they are, before writes stop; -1 when they have stopped.
    """

    up: tuple[str, ...]
    down: tuple[str, ...]
    needed: int
    leader_id: str
    losses_left: int

    @property
    def total(self) -> int:
        """How many hosts vote."""
        return len(self.up) + len(self.down)

    @property
    def quorum(self) -> bool:
        """Whether changes can be made."""
        return len(self.up) >= self.needed and bool(self.leader_id)


def reached(facts: ClusterFacts) -> frozenset[str]:
    """Return the hosts that are up: they answered this agent, or one that did."""
    answered = {host.id for host in facts.hosts if host.report is not None}
    seen = {
        peer.host_id
        for host in facts.hosts
        if host.report is not None
        for peer in host.report.peers
        if peer.round_trip_ms is not None
    }
    return frozenset(answered | seen)


def votes_of(facts: ClusterFacts) -> Votes:
    """Count the votes."""
    here = reached(facts)
    up = tuple(id_ for id_ in facts.voter_ids if id_ in here and _votes_well(facts.host(id_)))
    down = tuple(id_ for id_ in facts.voter_ids if id_ not in up)
    needed = quorum(len(facts.voter_ids)) if facts.voter_ids else 1
    leader = _leader(facts, here) if len(up) >= needed else ""
    left = len(up) - needed if leader else -1
    return Votes(up, down, needed, leader, left)


def could_survive(votes: Votes) -> int:
    """Return how many losses the cluster survives when all its voters are up."""
    return losses_survived(votes.total) if votes.total else 0


def _votes_well(host: HostFacts | None) -> bool:
    return host is None or host.report is None or not host.report.store_fault


def _leader(facts: ClusterFacts, here: frozenset[str]) -> str:
    """Return who says that it leads, in the highest term; else whom this agent follows, if it is up."""
    leading = [h for h in facts.hosts if h.report is not None and h.report.leads]
    if leading:
        return max(leading, key=lambda h: (h.report.term if h.report else 0, h.id)).id
    return facts.leader_id if facts.leader_id in here else ""
