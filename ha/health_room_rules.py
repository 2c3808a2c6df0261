"""Rules of `ha.health` about room: could the cluster bear the loss of hosts, as its admission control is set?"""

from __future__ import annotations

from collections.abc import Iterable

from ha.health_facts import ClusterFacts
from ha.health_findings import Finding, Level, Rule
from ha.health_votes import Votes


def room_is_short(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Highly available VMs would find no room if hosts were lost."""
    del votes
    for short in facts.short_rooms:
        yield Finding(
            severity=Level.DEGRADED,
            code="no-failover-room",
            what=f"cluster {short.cluster_name}: {short.what}",
            advice="stop VMs or add a host or memory; kvorum cluster room shows each loss; VMs of high priority get "
            "room first (kvorum vm update --priority)",
        )


ROOM_RULES: tuple[Rule, ...] = (room_is_short,)
