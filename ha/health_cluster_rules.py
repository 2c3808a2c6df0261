"""Rules of `ha.health` about the cluster as a whole: votes, leader, VMs that can't run."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from ha.arming import GAPS, holds
from ha.health_facts import ClusterFacts
from ha.health_findings import Finding, Level, Rule, listed, plural
from ha.health_votes import Votes, could_survive

SPARE_FROM = 3
"""So many voters can lose one; fewer can't, however well they are."""


def quorum_is_lost(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Too few voters are up: nothing can be changed, no lease be renewed."""
    if len(votes.up) < votes.needed:
        yield _finding(
            Level.FAILING,
            "no-quorum",
            f"{len(votes.up)} of {plural(votes.total, 'voter')} can be reached, {votes.needed} are needed: nothing "
            "can be changed, and hosts without a quorum kill the VMs that others could start when their leases end",
            f"bring back {listed(map(facts.name_of, votes.down))}, or the network to them; if most voters are "
            "destroyed for good, see kvorum recover --help",
        )


def leader_is_missing(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Voters are up, but nobody leads them."""
    del facts
    if len(votes.up) >= votes.needed and not votes.leader_id:
        yield _finding(
            Level.FAILING,
            "no-leader",
            "the voters have no leader: nothing can be changed until they elect one",
            "an election takes a few seconds: ask again; if it stays, look at the mesh between the voters (port "
            "7444) and at journalctl -u kvorum-agent there",
        )


def no_voter_to_spare(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Writes go on, but the next voter that is lost ends them, although there are enough for better."""
    if votes.losses_left == 0 and could_survive(votes) > 0:
        yield _finding(
            Level.DEGRADED,
            "no-spare-voter",
            f"{len(votes.up)} of {votes.total} voters are up: if one more is lost, writes stop",
            f"bring back {listed(map(facts.name_of, votes.down))}; a voter that is silent for long gives its place "
            "to another host by itself (kvorum members policy)",
        )


def too_few_voters(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A small cluster can't do without any of its voters: it is so, and nothing is wrong."""
    if 0 < votes.total < SPARE_FROM:
        hosts = sum(not host.joining for host in facts.hosts)
        advice = (
            "for a cluster that takes the loss of a host, have three hosts, or two and a witness (kvorum token create)"
            if hosts < SPARE_FROM
            else "voters are added by themselves within a minute unless that was forbidden (kvorum members policy)"
        )
        yield _finding(
            Level.NOTICE,
            "few-voters",
            f"the cluster has {plural(votes.total, 'voter')}: it can't take the loss of "
            f"{listed(map(facts.name_of, (*votes.up, *votes.down)))}",
            advice,
        )


def vms_are_blocked(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """VMs that shall run and can't."""
    del votes
    if facts.blocked_count:
        named = "; ".join(f"{vm.name}: {vm.reason}" for vm in facts.blocked)
        left = facts.blocked_count - len(facts.blocked)
        more = f" and {left} more" if named and left else ""
        yield _finding(
            Level.DEGRADED,
            "vms-blocked",
            f"{plural(facts.blocked_count, 'VM')} can't run{f' ({named}{more})' if named else ''}",
            "the reason says what is missing; blocked VMs are tried again by themselves (kvorum vm list "
            "-q phase=blocked)",
        )


def failover_is_disarmed(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """An operator switched failover off, and may have forgotten it."""
    del votes
    if facts.disarmed:
        yield _finding(
            Level.DEGRADED,
            "ha-disarmed",
            f"failover is disarmed by {facts.disarmed}: VMs of a lost host are started nowhere else",
            "when the work is done: kvorum ha arm",
        )


def network_is_too_slow(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Leases nearly ended although their hosts are well: the next election or jam may kill guests."""
    del votes
    for host in facts.hosts:
        gap_s = host.report.renewal_gap_s if host.report is not None else None
        if facts.lease_s and not holds(facts.lease_s, gap_s):
            found = _finding(
                Level.NOTICE,
                "profile-not-held",
                f"its lease was not renewed for {gap_s:.1f} s within the last ten minutes, and the profile "
                f"{facts.profile} holds less than {facts.lease_s / GAPS:g} s",
                "look at the network and the disks of the voters, or use a profile with longer leases "
                "(kvorum ha profile wide)",
            )
            yield replace(found, host_name=host.name)


def _finding(severity: Level, code: str, what: str, advice: str) -> Finding:
    return Finding(severity=severity, code=code, what=what, advice=advice)


CLUSTER_RULES: tuple[Rule, ...] = (
    quorum_is_lost,
    leader_is_missing,
    no_voter_to_spare,
    too_few_voters,
    vms_are_blocked,
    failover_is_disarmed,
    network_is_too_slow,
)
