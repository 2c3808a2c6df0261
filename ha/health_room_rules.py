"""Rules of `ha.health` about where VMs may be: could the cluster bear the loss of hosts, and do placement rules hold?"""

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


def rule_is_broken(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """VMs run where a placement rule doesn't want them: it was made, or its hosts were lost, after they were placed."""
    del votes
    for rule in facts.broken_rules:
        yield _found(
            Level.DEGRADED if rule.mandatory else Level.NOTICE,
            "rule-violated",
            f"placement rule {rule.name} doesn't hold: {rule.what}",
            "nothing is moved by itself: kvorum vm migrate NAME looks for a host that keeps to the rules; a stopped "
            "VM keeps to them when it is started; kvorum rule check shows all",
        )


def _found(severity: Level, code: str, what: str, advice: str) -> Finding:
    return Finding(severity=severity, code=code, what=what, advice=advice)


ROOM_RULES: tuple[Rule, ...] = (room_is_short, rule_is_broken)
