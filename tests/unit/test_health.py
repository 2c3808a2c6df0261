"""The rules by which a cluster's health is judged: each once, from a cluster that is well but for one thing."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from ha.health import RULES, judge
from ha.health_facts import (
    Answering,
    ArbitrationSeen,
    BlockedVM,
    BrokenRule,
    ClusterFacts,
    GuardSeen,
    HostFacts,
    HostReport,
    PeerSeen,
    ShortRoom,
    StorageSeen,
    VipSeen,
)
from ha.health_findings import Level, Verdict

FAILING, DEGRADED, NOTICE = Level.FAILING, Level.DEGRADED, Level.NOTICE


def report(number: int, of: int = 3, **fields) -> HostReport:
    """What host `number` says when all is well; h1 leads."""
    peers = tuple(
        PeerSeen(host_id=f"h{n}", round_trip_ms=1.0, clock_offset_ms=5.0, gossip="alive")
        for n in range(1, of + 1)
        if n != number
    )
    well = {
        "applied": 5000,
        "committed": 5000,
        "term": 3,
        "generation": 1,
        "leads": number == 1,
        "peers": peers,
        "guard": GuardSeen(
            answers=True, phase="held", lease_valid=True, watchdog="device", armed=True
        ),
        "libvirt": Answering(answers=True),
        "storages": (StorageSeen(storage_id="s1", name="local", usable=True),),
    }
    return HostReport(**(well | fields))


def cluster(of: int = 3, voters: int | None = None) -> ClusterFacts:
    """A cluster that is well, asked at h1."""
    votes = of if voters is None else voters
    return ClusterFacts(
        cluster_name="test",
        asked_id="h1",
        index=5000,
        leader_id="h1",
        voter_ids=tuple(f"h{n}" for n in range(1, votes + 1)),
        hosts=tuple(
            HostFacts(
                id=f"h{n}",
                name=f"h{n}",
                votes=n <= votes,
                lease_age_s=0.5,
                lease_fresh=True,
                report=report(n, of),
            )
            for n in range(1, of + 1)
        ),
    )


def change(facts: ClusterFacts, number: int, **fields) -> ClusterFacts:
    """Change what is known of a host."""
    hosts = [replace(h, **fields) if h.id == f"h{number}" else h for h in facts.hosts]
    return replace(facts, hosts=tuple(hosts))


def say(facts: ClusterFacts, number: int, **fields) -> ClusterFacts:
    """Change what a host says of itself."""
    host = facts.host(f"h{number}")
    return change(facts, number, report=replace(host.report, **fields))


def see(facts: ClusterFacts, number: int, peer: int, **fields) -> ClusterFacts:
    """Change how a host sees another."""
    peers = facts.host(f"h{number}").report.peers
    seen = tuple(replace(p, **fields) if p.host_id == f"h{peer}" else p for p in peers)
    return say(facts, number, peers=seen)


def silence(facts: ClusterFacts, *numbers: int) -> ClusterFacts:
    """Take hosts away from all others, as a power cut does; their leases are still fresh."""
    for number in numbers:
        facts = change(facts, number, report=None, silent_why="no answer in time")
    for host in facts.hosts:
        for number in numbers:
            if host.report is not None and host.id != f"h{number}":
                facts = see(facts, int(host.id[1:]), number, round_trip_ms=None, why="no answer")
    return facts


BAD_STORAGE = StorageSeen(storage_id="s1", name="local", usable=False, why="No space left")


@dataclass(frozen=True)
class Case:
    """Facts, the findings that they give and the verdict."""

    name: str
    facts: ClusterFacts
    findings: set[tuple[Level, str, str]] = field(default_factory=set)
    verdict: Verdict = Verdict.OK


def old(host: ClusterFacts, number: int, *, vms: int = 0, age_s: float | None = 40.0):
    return change(host, number, lease_fresh=False, lease_age_s=age_s, running_vms=vms)


def vip(facts: ClusterFacts, number: int, phase: str, **fields):
    """Let there be a VIP, and a host stand so with it."""
    seen = VipSeen(address="192.0.2.100", phase=phase, **fields)
    return say(replace(facts, vip=seen.address), number, vip=seen)


def arbitration(facts: ClusterFacts, states: dict[int, str], **fields):
    """Let there be an arbitration address, and hosts say so of it."""
    for number, state in states.items():
        facts = say(facts, number, arbitration=ArbitrationSeen(state=state, **fields))
    return replace(facts, arbitration_addresses=("192.0.2.254",))


CASES = (
    Case("all is well", cluster()),
    Case("five voters, two lost", silence(cluster(5), 4, 5), {
        (DEGRADED, "", "no-spare-voter"),
        (DEGRADED, "h4", "host-silent"),
        (DEGRADED, "h5", "host-silent"),
    }, Verdict.DEGRADED),
    Case("five voters, one lost", silence(cluster(5), 5), {
        (DEGRADED, "h5", "host-silent"),
    }, Verdict.DEGRADED),
    Case("a voter is lost", silence(cluster(), 3), {
        (DEGRADED, "", "no-spare-voter"),
        (DEGRADED, "h3", "host-silent"),
    }, Verdict.DEGRADED),
    Case("a replica is lost", silence(cluster(4, voters=3), 4), {
        (DEGRADED, "h4", "host-silent"),
    }, Verdict.DEGRADED),
    Case("two voters are lost, so leases can't be renewed either", old(silence(cluster(), 2, 3), 1, vms=1), {
        (FAILING, "", "no-quorum"),
        (DEGRADED, "h2", "host-silent"),
        (DEGRADED, "h3", "host-silent"),
    }, Verdict.FAILING),
    Case("nobody leads", say(replace(cluster(), leader_id=""), 1, leads=False), {
        (FAILING, "", "no-leader"),
    }, Verdict.FAILING),
    Case("the leader that it follows is dead", silence(say(replace(cluster(), leader_id="h3"), 1, leads=False), 3), {
        (FAILING, "", "no-leader"),
        (DEGRADED, "h3", "host-silent"),
    }, Verdict.FAILING),
    Case("this agent follows nobody, but another leads", replace(cluster(), leader_id="")),
    Case("a single host", cluster(1), {(NOTICE, "", "few-voters")}),
    Case("two hosts with one voter", cluster(2, voters=1), {(NOTICE, "", "few-voters")}),
    Case("two voters", cluster(2), {(NOTICE, "", "few-voters")}),
    Case("too little room", replace(cluster(), short_rooms=(
        ShortRoom(cluster_name="default", what="if h1 was lost, …"),
    )), {(DEGRADED, "", "no-failover-room")}, Verdict.DEGRADED),
    Case("a rule that doesn't hold", replace(cluster(), broken_rules=(
        BrokenRule(name="web", mandatory=True, what="a and b are together on h1"),
    )), {(DEGRADED, "", "rule-violated")}, Verdict.DEGRADED),
    Case("a preferred rule that doesn't hold", replace(cluster(), broken_rules=(
        BrokenRule(name="web", mandatory=False, what="a and b are together on h1"),
    )), {(NOTICE, "", "rule-violated")}),
    Case("VMs can't run", replace(cluster(), blocked_count=1, blocked=(
        BlockedVM(name="web1", host_name="h2", reason="no host has room"),
    )), {(DEGRADED, "", "vms-blocked")}, Verdict.DEGRADED),
    Case("an old lease where VMs run", old(cluster(), 2, vms=2), {(FAILING, "h2", "lease-old")}, Verdict.FAILING),
    Case("an old lease where none run", old(cluster(), 2), {(DEGRADED, "h2", "lease-old")}, Verdict.DEGRADED),
    Case("no lease ever", old(cluster(), 2, age_s=None), {(DEGRADED, "h2", "lease-old")}, Verdict.DEGRADED),
    Case("a fenced host", old(change(cluster(), 2, fenced=True), 2), {
        (DEGRADED, "h2", "host-fenced"),
    }, Verdict.DEGRADED),
    Case("failover is disarmed", replace(cluster(), disarmed="ana (new switches)"), {
        (DEGRADED, "", "ha-disarmed"),
    }, Verdict.DEGRADED),
    Case("a network that hardly holds the profile", replace(
        say(cluster(), 2, renewal_gap_s=6.0), lease_s=12.0, profile="default",
    ), {(NOTICE, "h2", "profile-not-held")}),
    Case("a network that holds the profile", replace(say(cluster(), 2, renewal_gap_s=5.9), lease_s=12.0), set()),
    Case("a BMC with a fault", change(cluster(), 2, bmc_fault=True), {(NOTICE, "h2", "bmc-fault")}),
    Case("maintenance", change(cluster(), 2, maintenance=True), {(NOTICE, "h2", "host-in-maintenance")}),
    Case("a host joins", old(change(cluster(4, voters=3), 4, joining=True, report=None), 4, age_s=None), {
        (NOTICE, "h4", "host-joining"),
    }),
    Case("a voter's store takes no part", say(cluster(), 2, store_fault="it differs"), {
        (DEGRADED, "", "no-spare-voter"),
        (DEGRADED, "h2", "store-fault"),
    }, Verdict.DEGRADED),
    Case("a copy is behind", say(cluster(), 2, applied=3000), {(DEGRADED, "h2", "store-behind")}, Verdict.DEGRADED),
    Case("a copy is a little behind", say(cluster(), 2, applied=4990)),
    Case("another generation", say(cluster(), 3, generation=2), {
        (DEGRADED, "h3", "other-generation"),
    }, Verdict.DEGRADED),
    Case("no guard", say(cluster(), 2, guard=GuardSeen(answers=False, why="no answer")), {
        (DEGRADED, "h2", "guard-silent"),
    }, Verdict.DEGRADED),
    Case("no watchdog", say(cluster(), 2, guard=GuardSeen(answers=True, watchdog="none")), {
        (DEGRADED, "h2", "watchdog-not-armed"),
    }, Verdict.DEGRADED),
    Case("a witness without watchdog and libvirt", change(
        say(cluster(), 2, guard=GuardSeen(answers=True), libvirt=None), 2, witness=True
    )),
    Case("libvirtd hangs", say(cluster(), 2, libvirt=Answering(answers=False, why="no answer")), {
        (DEGRADED, "h2", "libvirt-silent"),
    }, Verdict.DEGRADED),
    Case("a plug-in's hypervisor hangs", say(cluster(), 2, hypervisor="other", libvirt=Answering(answers=False)), {
        (DEGRADED, "h2", "hypervisor-silent"),
    }, Verdict.DEGRADED),
    Case("a driver is missing", say(cluster(), 2, driver_fault="it isn't there"), {
        (DEGRADED, "h2", "driver-fault"),
    }, Verdict.DEGRADED),
    Case("locked secrets", say(cluster(), 2, secrets_fault="the HSM is away"), {
        (DEGRADED, "h2", "secrets-locked"),
    }, Verdict.DEGRADED),
    Case("a storage that VMs are on", change(say(cluster(), 2, storages=(BAD_STORAGE,)), 2, vms_by_storage={"s1": 1}), {
        (FAILING, "h2", "storage-unusable"),
    }, Verdict.FAILING),
    Case("a storage that no VM there is on", change(say(cluster(), 2, storages=(BAD_STORAGE,)), 2, vms_by_storage={"s1": 0}), {
        (DEGRADED, "h2", "storage-unusable"),
    }, Verdict.DEGRADED),
    Case("two hosts don't reach each other", see(
        see(cluster(), 2, 3, round_trip_ms=None, why="timeout"), 3, 2, round_trip_ms=None, why="timeout"
    ), {
        (DEGRADED, "h2", "peer-unreachable"),
        (DEGRADED, "h3", "peer-unreachable"),
    }, Verdict.DEGRADED),
    Case("only the asked host doesn't reach one", see(
        change(cluster(), 3, report=None, silent_why="no answer in time"), 1, 3, round_trip_ms=None
    ), {(DEGRADED, "h3", "host-silent")}, Verdict.DEGRADED),
    Case("gossip misses a host that answers", see(cluster(), 1, 2, gossip="failed"), {
        (DEGRADED, "h2", "gossip-misses"),
    }, Verdict.DEGRADED),
    Case("the leader holds the VIP", vip(cluster(), 1, "held")),
    Case("there was no time yet to take the VIP", vip(cluster(), 1, "waiting"), {
        (DEGRADED, "h1", "vip-unheld"),
    }, Verdict.DEGRADED),
    Case("nobody leads, so nobody can hold the VIP", vip(say(replace(cluster(), leader_id=""), 1, leads=False), 1, "none"), {
        (FAILING, "", "no-leader"),
    }, Verdict.FAILING),
    Case("another machine has the VIP", vip(cluster(), 1, "conflict", foreign_mac="02:00:00:00:00:99"), {
        (DEGRADED, "h1", "vip-conflict"),
    }, Verdict.DEGRADED),
    Case("an imported certificate is not for the VIP", vip(cluster(), 1, "held", uncovered=True), {
        (NOTICE, "h1", "vip-certificate"),
    }),
    Case("the leader may not hold the VIP", vip(arbitration(cluster(), {1: "lost", 2: "reached"}), 1, "vetoed"), {
        (DEGRADED, "h1", "vip-unheld"), (DEGRADED, "h1", "arbitration-lost"),
    }, Verdict.DEGRADED),
    Case("all reach the arbitration address, or can't know yet", arbitration(cluster(), {1: "reached", 2: "unknown"})),
    Case("nobody reaches the arbitration address", arbitration(cluster(), {1: "lost", 2: "lost", 3: "unknown"}), {
        (DEGRADED, "", "arbitration-dead"),
    }, Verdict.DEGRADED),
    Case("a host can't ping", arbitration(cluster(), {2: "unknown"}, why="not permitted"), {
        (DEGRADED, "h2", "arbitration-lost"),
    }, Verdict.DEGRADED),
    Case("what was lost doesn't count when the address is cleared", replace(
        arbitration(cluster(), {1: "lost"}), arbitration_addresses=()
    )),
    Case("a clock is off", see(cluster(), 1, 3, clock_offset_ms=-1500.0), {(NOTICE, "h3", "clock-off")}),
    Case("a clock is a little off", see(cluster(), 1, 3, clock_offset_ms=900.0)),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_facts_give_these_findings_and_this_verdict(case):
    found = judge(case.facts)
    shown = {(f.severity, f.host_name, f.code) for f in found.findings}
    assert (shown, found.verdict) == (case.findings, case.verdict)
    assert found.line.startswith(f"{case.verdict}: ") and "\n" not in found.line
    assert all(f.what and f.advice and "\n" not in f.what + f.advice for f in found.findings)


def test_every_finding_is_explained_with_its_severities_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "health.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([a-zA-Z, ]+) \|", page, re.MULTILINE))
    found = {(code, severity) for case in CASES for severity, _, code in case.findings}
    assert all(severity in rows.get(code, "") for code, severity in found), found
    assert {code for code, _ in found} <= rows.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_without_any_one_rule_a_case_fails(rule):
    others = [one for one in RULES if one is not rule]
    missed = [
        case for case in CASES if len(judge(case.facts, others).findings) < len(case.findings)
    ]
    assert missed, f"no case needs {rule.__name__}"


def test_the_worst_comes_first_and_the_line_says_it_and_how_many_more():
    facts = old(silence(cluster(), 3), 3, vms=2)
    found = judge(facts)
    assert [f.code for f in found.findings] == ["lease-old", "no-spare-voter", "host-silent"]
    assert found.line == (
        "failing: h3: its last lease renewal is 40 s old: 2 VMs there may be lost (and 2 more)"
    )


def test_a_well_cluster_says_who_leads_and_how_many_may_fail():
    assert judge(cluster()).line == "ok: 3 hosts, h1 leads, 1 may fail before writes stop"
    assert judge(cluster(5)).line == "ok: 5 hosts, h1 leads, 2 may fail before writes stop"
    assert judge(cluster(1)).line == "ok: 1 host, h1 leads, none may fail before writes stop"


@pytest.mark.parametrize(
    ("voters", "lost", "left"),
    [(1, (), 0), (2, (), 0), (3, (), 1), (3, (3,), 0), (3, (2, 3), -1), (5, (5,), 1), (7, (), 3)],
)
def test_losses_that_are_left_are_counted_from_the_voters_that_are_up(voters, lost, left):
    assert judge(silence(cluster(voters), *lost)).votes.losses_left == left


def test_a_host_that_only_others_reach_keeps_its_vote_and_the_advice_names_both_ends():
    facts = see(
        change(cluster(), 3, report=None, silent_why="no answer in time"), 1, 3, round_trip_ms=None
    )
    found = judge(facts)
    assert found.votes.losses_left == 1
    (silent,) = found.findings
    assert "its agent is up" in silent.what and "between h1 and h3" in silent.advice


def test_of_two_that_say_they_lead_the_one_of_the_higher_term_does():
    facts = say(say(cluster(), 2, leads=True, term=4), 1, leads=True)
    assert judge(facts).votes.leader_id == "h2"


def test_blocked_vms_are_named_with_their_reasons_and_the_rest_is_counted():
    blocked = tuple(BlockedVM(name=f"web{n}", host_name="", reason="no room") for n in (1, 2))
    (finding,) = judge(replace(cluster(), blocked_count=7, blocked=blocked)).findings
    assert finding.what == "7 VMs can't run (web1: no room; web2: no room and 5 more)"
    (finding,) = judge(replace(cluster(), blocked_count=7)).findings
    assert finding.what == "7 VMs can't run"
