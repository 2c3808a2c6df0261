"""Whether a cluster can take a failure right now, what is wrong if not, and what to do: facts in, verdict out.

Pure. Called by the API (`nodeagent.api.health`) with what `nodeagent.services.health` gathered. Each rule is a function of
`ha.health_cluster_rules`, `ha.health_room_rules`, `ha.health_vip_rules`, `ha.health_arbitration_rules` or
`ha.health_host_rules` and gives findings; the worst of them is the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ha.health_arbitration_rules import ARBITRATION_RULES
from ha.health_cluster_rules import CLUSTER_RULES
from ha.health_facts import ClusterFacts
from ha.health_findings import Finding, Level, Rule, Verdict
from ha.health_host_rules import HOST_RULES
from ha.health_room_rules import ROOM_RULES
from ha.health_vip_rules import VIP_RULES
from ha.health_votes import Votes, votes_of

RULES: tuple[Rule, ...] = (*CLUSTER_RULES, *ROOM_RULES, *VIP_RULES, *ARBITRATION_RULES, *HOST_RULES)

_ORDER = (Level.FAILING, Level.DEGRADED, Level.NOTICE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """`line` is the whole in one line of text, verdict first; the worst findings come first."""

    verdict: Verdict
    line: str
    findings: tuple[Finding, ...]
    votes: Votes


def judge(facts: ClusterFacts, rules: Sequence[Rule] = RULES) -> Judgement:
    """Return the verdict over a cluster."""
    votes = votes_of(facts)
    found = [finding for rule in rules for finding in rule(facts, votes)]
    findings = tuple(sorted(found, key=_place))
    verdict = _worst(findings)
    return Judgement(verdict, _line(facts, votes, verdict, findings), findings, votes)


def _place(finding: Finding) -> tuple[int, str, str]:
    return (_ORDER.index(finding.severity), finding.host_name, finding.code)


def _worst(findings: Sequence[Finding]) -> Verdict:
    levels = {finding.severity for finding in findings}
    if Level.FAILING in levels:
        return Verdict.FAILING
    return Verdict.DEGRADED if Level.DEGRADED in levels else Verdict.OK


def _line(facts: ClusterFacts, votes: Votes, verdict: Verdict, findings: Sequence[Finding]) -> str:
    if verdict is Verdict.OK:
        hosts = "1 host" if len(facts.hosts) == 1 else f"{len(facts.hosts)} hosts"
        left = str(votes.losses_left) if votes.losses_left > 0 else "none"
        return f"ok: {hosts}, {facts.name_of(votes.leader_id)} leads, {left} may fail before writes stop"
    first, *rest = (f for f in findings if f.severity is not Level.NOTICE)
    where = f"{first.host_name}: " if first.host_name else ""
    more = f" (and {len(rest)} more)" if rest else ""
    return f"{verdict}: {where}{first.what}{more}"
