"""Rules of `ha.health` about the management address (VIP): whether the leader has it, and its callers are answered well."""

from __future__ import annotations

from collections.abc import Iterable

from ha.health_facts import ClusterFacts
from ha.health_findings import Finding, Level, Rule
from ha.health_votes import Votes
from ha.vip import CLAIM_WAIT_S, Phase


def vip_holder_name(facts: ClusterFacts) -> str:
    """Return the name of the host that has the VIP, empty when none said so."""
    for host in facts.hosts:
        vip = host.report.vip if host.report is not None else None
        if vip is not None and (vip.address, vip.phase) == (facts.vip, Phase.HELD):
            return host.name
    return ""


def vip_is_elsewhere(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Another machine has the address, so no host takes it."""
    del votes
    for host in facts.hosts:
        vip = host.report.vip if host.report is not None else None
        if vip is not None and vip.phase == Phase.CONFLICT:
            yield _finding(
                host.name,
                "vip-conflict",
                f"the VIP {vip.address} is not taken: the machine with MAC {vip.foreign_mac} has that address",
                "find that machine (the switches know its port) and give it another address, or the cluster another "
                "VIP (kvorum vip set); the leader looks again every few seconds",
            )


def vip_is_unheld(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """There is a leader, and it doesn't have the address; without a leader that is said already."""
    leader = facts.host(votes.leader_id) if votes.leader_id else None
    if not facts.vip or leader is None or leader.report is None or vip_holder_name(facts):
        return
    vip = leader.report.vip
    if vip is not None and vip.phase == Phase.CONFLICT:
        return
    why = vip.why if vip is not None else ""
    if vip is not None and vip.phase == Phase.VETOED:
        yield _finding(
            leader.name,
            "vip-unheld",
            f"nobody holds the VIP {facts.vip}: {why}",
            "mend the network of that host, or restart its agent so that another leads; kvorum arbitration clear ends the "
            "veto; every host's own address works meanwhile",
        )
        return
    yield _finding(
        leader.name,
        "vip-unheld",
        f"nobody holds the VIP {facts.vip}" + (f": {why}" if why else ""),
        f"a new leader takes it within {CLAIM_WAIT_S + 1:g} s: ask again; if it stays so, look at journalctl -u "
        "kvorum-agent on the leader, and whether its agent is of this version; every host's own address works meanwhile",
    )


def vip_is_not_in_certificate(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Clients that call the VIP and check names refuse what this host shows them. Those that call it by a DNS name that is in there don't."""
    del votes
    for host in facts.hosts:
        vip = host.report.vip if host.report is not None else None
        if vip is not None and vip.uncovered:
            yield _finding(
                host.name,
                "vip-certificate",
                f"the API's certificate there is not for the VIP {vip.address}: clients that check it refuse to talk",
                "import one that names the VIP, too (kvorum certificate import), or call the VIP by a name that it has; "
                "certificates issued by the cluster get the VIP by themselves within a minute",
                Level.NOTICE,
            )


def _finding(
    host_name: str, code: str, what: str, advice: str, severity: Level = Level.DEGRADED
) -> Finding:
    return Finding(severity=severity, code=code, host_name=host_name, what=what, advice=advice)


VIP_RULES: tuple[Rule, ...] = (vip_is_elsewhere, vip_is_unheld, vip_is_not_in_certificate)
