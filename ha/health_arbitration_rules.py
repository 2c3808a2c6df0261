"""Rules of `ha.health` about the arbitration addresses: whether hosts reach them."""

from __future__ import annotations

from collections.abc import Iterable

from core.model import Arbitration
from ha.health_facts import ArbitrationSeen, ClusterFacts
from ha.health_findings import Finding, Level, Rule
from ha.health_votes import Votes


def arbitration_is_lost(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host reaches none while another does, or can't ping."""
    del votes
    if not _is_dead(facts):
        for host_name, seen in _said(facts):
            if seen.why or seen.state == Arbitration.LOST:
                yield _finding(
                    host_name,
                    "arbitration-lost",
                    f"it can't tell whether it reaches {_named(facts)}: {seen.why}"
                    if seen.why
                    else f"it doesn't reach {_named(facts)}, which another host does: it may not hold the VIP",
                    "look at its network, its switch and its way to that address; the VIP is with a host that reaches it, if "
                    "one of those leads",
                )


def arbitration_is_dead(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """No host reaches any of them, so they say nothing about a host."""
    del votes
    if _is_dead(facts):
        yield _finding(
            "",
            "arbitration-dead",
            f"no host reaches {_named(facts)}: nothing is vetoed until one answers again",
            "look at what has that address and whether it answers a ping; or choose another (kvorum arbitration set)",
        )


def _is_dead(facts: ClusterFacts) -> bool:
    """Tell whether some hosts say that they reach none, and all others say nothing."""
    states = {seen.state for _, seen in _said(facts)}
    return Arbitration.LOST in states and Arbitration.REACHED not in states


def _said(facts: ClusterFacts) -> list[tuple[str, ArbitrationSeen]]:
    if not facts.arbitration_addresses:
        return []
    return [
        (host.name, host.report.arbitration)
        for host in facts.hosts
        if host.report is not None and host.report.arbitration is not None
    ]


def _named(facts: ClusterFacts) -> str:
    return " or ".join(facts.arbitration_addresses)


def _finding(host_name: str, code: str, what: str, advice: str) -> Finding:
    return Finding(
        severity=Level.DEGRADED, code=code, host_name=host_name, what=what, advice=advice
    )


ARBITRATION_RULES: tuple[Rule, ...] = (arbitration_is_lost, arbitration_is_dead)
