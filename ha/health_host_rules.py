"""Rules of `ha.health` about single hosts: silence, leases, what each says of itself and of its way to others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ha.health_facts import ClusterFacts, HostFacts, HostReport
from ha.health_findings import Finding, Level, Rule, listed, plural
from ha.health_votes import Votes, reached
from raftstate.voters import LAG_READY

CLOCK_OFFSET_MS_MAX = 1_000.0


def _told(facts: ClusterFacts) -> Iterator[tuple[HostFacts, HostReport]]:
    """Yield the hosts that said something of themselves, with it."""
    for host in facts.hosts:
        if host.report is not None:
            yield host, host.report


def host_is_silent(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's agent didn't answer the asked one."""
    del votes
    here = reached(facts)
    for host in facts.hosts:
        if host.report is not None or host.joining:
            continue
        asker = facts.name_of(facts.asked_id)
        if host.id in here:
            what, advice = (
                f"its agent is up, but told {asker} nothing of its health: {host.silent_why}",
                f"look at the network between {asker} and {host.name}, at the load of {host.name}, and whether its "
                "agent is of this version (kvorum members)",
            )
        else:
            what, advice = (
                f"its agent doesn't answer: {host.silent_why}",
                "look at its power, its network and systemctl status kvorum-agent there; only if you see that it is off and "
                f"it stays so, kvorum host confirm-off {host.name}, then kvorum host remove {host.name}",
            )
        yield _finding(host, Level.DEGRADED, "host-silent", what, advice)


def lease_is_old(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host doesn't renew its lease; without quorum nobody can, and that is said once."""
    for host in facts.hosts:
        if host.lease_fresh or host.joining or host.fenced or not votes.quorum:
            continue
        age = "never came" if host.lease_age_s is None else f"is {host.lease_age_s:.0f} s old"
        vms = host.running_vms
        yield _finding(
            host,
            Level.FAILING if vms else Level.DEGRADED,
            "lease-old",
            f"its last lease renewal {age}"
            + (f": {plural(vms, 'VM')} there may be lost" if vms else ": no VM can start there"),
            "look at kvorum-guard there and at its way to any agent (port 7444); HA VMs start elsewhere when it is "
            "certain that they stopped; if its watchdog wasn't armed, that takes kvorum host confirm-off "
            + host.name,
        )


def host_is_fenced(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Its renewals are refused, and it has not come back."""
    del votes
    for host in facts.hosts:
        if host.fenced:
            yield _finding(
                host,
                Level.DEGRADED,
                "host-fenced",
                "it is fenced: its lease isn't renewed, no VM starts there, and others take its HA VMs over",
                f"start the host (kvorum bmc power-on {host.name}, where it has a BMC), or kvorum-guard on it; it returns by "
                "itself when it has booted, or its guard reports that its guests are gone",
            )


def bmc_is_at_fault(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's management board can't be relied on: if the host is lost, time decides, which takes longer."""
    del votes
    for host in facts.hosts:
        if host.bmc_fault:
            yield _finding(
                host,
                Level.NOTICE,
                "bmc-fault",
                "its BMC can't be relied on, so if it is lost, its VMs wait longer",
                f"kvorum bmc list says why; name the board anew with kvorum bmc set {host.name}",
            )


def host_is_in_maintenance(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Somebody wants it to get no VMs."""
    del votes
    for host in facts.hosts:
        if host.maintenance:
            how_far = (
                "what had to leave it has left"
                if host.maintenance_ready
                else f"it is being emptied (kvorum host maintenance {host.name})"
            )
            yield _finding(
                host,
                Level.NOTICE,
                "host-in-maintenance",
                f"it is in maintenance and gets no new VMs; {how_far}",
                f"when the work on it is done: kvorum host leave-maintenance {host.name}",
            )


def host_is_joining(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """It was admitted and isn't in yet."""
    del votes
    for host in facts.hosts:
        if host.joining:
            yield _finding(
                host,
                Level.NOTICE,
                "host-joining",
                "it was admitted, but doesn't have the state yet",
                "if it stays so, run kvorum join there again, or remove it (kvorum host remove)",
            )


def store_takes_no_part(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's copy of the state can't be used."""
    del votes
    for host, report in _told(facts):
        if report.store_fault:
            yield _finding(
                host,
                Level.DEGRADED,
                "store-fault",
                f"its copy of the state takes no part: {report.store_fault}",
                "see docs/recovery.md: a damaged host comes back with kvorum recover rejoin",
            )


def store_is_behind(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's copy of the state is older than what was committed."""
    del votes
    committed = committed_index(facts)
    for host, report in _told(facts):
        lag = committed - report.applied
        if lag > LAG_READY and not host.joining:
            yield _finding(
                host,
                Level.DEGRADED,
                "store-behind",
                f"its copy of the state is {lag} entries behind",
                "it catches up by itself; if it doesn't, look at its disk, its load and its network",
            )


def generation_differs(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host has a state of the cluster that was given up, or this one has."""
    del votes
    asked = facts.asked()
    own = asked.report.generation if asked is not None and asked.report is not None else 0
    for host, report in _told(facts):
        if report.generation != own and own and report.generation:
            yield _finding(
                host,
                Level.DEGRADED,
                "other-generation",
                f"it is of another generation of the cluster than {facts.name_of(facts.asked_id)}",
                "see docs/recovery.md: what was left behind comes back with kvorum recover rejoin",
            )


def guard_is_silent(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's guard doesn't answer its agent."""
    del votes
    for host, report in _told(facts):
        if not report.guard.answers:
            yield _finding(
                host,
                Level.DEGRADED,
                "guard-silent",
                f"its guard doesn't answer: {report.guard.why}",
                "systemctl status kvorum-guard there; without it the lease ends, and no VM starts",
            )


def watchdog_is_not_armed(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """If this host hangs, nothing resets it, so its VMs wait for people. A witness has no VMs."""
    del votes
    for host, report in _told(facts):
        if report.guard.answers and not report.guard.armed and not host.witness:
            yield _finding(
                host,
                Level.DEGRADED,
                "watchdog-not-armed",
                f"its watchdog (kind {report.guard.watchdog or 'none'}) is not armed: if it is lost, its VMs don't start "
                "elsewhere by themselves",
                "give it a watchdog device (modprobe softdog where the machine has none) and restart kvorum-guard there "
                "while it runs no VMs",
            )


def libvirt_is_silent(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's libvirtd doesn't answer. Guests run on."""
    del votes
    for host, report in _told(facts):
        if report.libvirt is None or report.libvirt.answers:
            continue
        if report.hypervisor != "libvirt":
            yield _finding(
                host,
                Level.DEGRADED,
                "hypervisor-silent",
                f"its hypervisor {report.hypervisor} doesn't answer: {report.libvirt.why}",
                "look at what the plug-in's driver works with there, and at kvorum plugin list; running guests are left alone",
            )
        else:
            yield _finding(
                host,
                Level.DEGRADED,
                "libvirt-silent",
                f"its libvirtd doesn't answer: {report.libvirt.why}",
                "systemctl restart libvirtd there; running guests don't mind",
            )


def driver_cannot_be_used(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's settings name a driver that can't be used. What runs there runs on, and nothing new starts."""
    del votes
    for host, report in _told(facts):
        if report.driver_fault:
            yield _finding(
                host,
                Level.DEGRADED,
                "driver-fault",
                f"no VM starts on it: {report.driver_fault}",
                "kvorum plugin list says what its agent has; mend it, or the setting, and restart the agent there; guests "
                "that run there are left alone meanwhile",
            )


def secrets_are_locked(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host can't open what is sealed."""
    del votes
    for host, report in _told(facts):
        if report.secrets_fault:
            yield _finding(
                host,
                Level.DEGRADED,
                "secrets-locked",
                f"it can't open the cluster's secrets: {report.secrets_fault}",
                "kvorum secrets status; other hosts do what needs them meanwhile",
            )


def storage_is_unusable(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host can't use a data storage."""
    del votes
    for host, report in _told(facts):
        for storage in report.storages:
            if storage.usable:
                continue
            vms = host.vms_by_storage.get(storage.storage_id, 0)
            yield _finding(
                host,
                Level.FAILING if vms else Level.DEGRADED,
                "storage-unusable",
                f"data storage {storage.name} can't be used: {storage.why}"
                + (f"; disks of {plural(vms, 'VM')} there are on it" if vms else ""),
                "look at its mount there, at its server, and at the space that is left",
            )


def peer_is_not_reached(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Two hosts that are up don't reach each other."""
    del votes
    here = reached(facts)
    for host, report in _told(facts):
        missed = {
            facts.name_of(peer.host_id): peer.why
            for peer in report.peers
            if peer.round_trip_ms is None
            and peer.host_id in here
            and not _told_of(facts, host, peer.host_id)
        }
        if missed:
            yield _finding(
                host,
                Level.DEGRADED,
                "peer-unreachable",
                f"it doesn't reach {listed(missed)}, which others do: {next(iter(missed.values()))}",
                f"look at the network and the firewall (port 7444) between {host.name} and {listed(missed)}",
            )


def gossip_misses_a_host(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """Gossip at the asked host calls a host dead that answers: it gets no work."""
    del votes
    asked = facts.asked()
    views = {p.host_id: p.gossip for p in asked.report.peers} if asked and asked.report else {}
    for host, _ in _told(facts):
        if views.get(host.id) in ("failed", "left") and not host.joining:
            yield _finding(
                host,
                Level.DEGRADED,
                "gossip-misses",
                f"gossip at {facts.name_of(facts.asked_id)} calls it {views[host.id]}, though its agent answers: it gets no "
                "new work",
                "systemctl status kvorum-serf on both; the gossip's port must be open (7946, TCP and UDP)",
            )


def clock_is_off(facts: ClusterFacts, votes: Votes) -> Iterable[Finding]:
    """A host's clock differs from the asked host's. Safety doesn't hang on it, log lines and certificates do."""
    del votes
    asked = facts.asked()
    peers = asked.report.peers if asked is not None and asked.report is not None else ()
    for peer in peers:
        host = facts.host(peer.host_id)
        offset_ms = peer.clock_offset_ms
        if host is None or offset_ms is None or abs(offset_ms) <= CLOCK_OFFSET_MS_MAX:
            continue
        ahead = "ahead of" if offset_ms > 0 else "behind"
        yield _finding(
            host,
            Level.NOTICE,
            "clock-off",
            f"its clock is {abs(offset_ms) / 1000:.1f} s {ahead} that of {facts.name_of(facts.asked_id)}",
            "let NTP set both; failover doesn't rest on clocks, but times in events and logs do",
        )


def committed_index(facts: ClusterFacts) -> int:
    """Return the highest index known to be committed: the leader's, or the best that anybody knows."""
    return max((report.committed for _, report in _told(facts)), default=facts.index)


def _told_of(facts: ClusterFacts, host: HostFacts, peer_id: str) -> bool:
    """Tell whether `host-silent` says already that the asked host doesn't reach it."""
    peer = facts.host(peer_id)
    return host.id == facts.asked_id and peer is not None and peer.report is None


def _finding(host: HostFacts, severity: Level, code: str, what: str, advice: str) -> Finding:
    return Finding(severity=severity, code=code, what=what, advice=advice, host_name=host.name)


HOST_RULES: tuple[Rule, ...] = (
    host_is_silent,
    lease_is_old,
    host_is_fenced,
    bmc_is_at_fault,
    host_is_in_maintenance,
    host_is_joining,
    store_takes_no_part,
    store_is_behind,
    generation_differs,
    guard_is_silent,
    watchdog_is_not_armed,
    libvirt_is_silent,
    driver_cannot_be_used,
    secrets_are_locked,
    storage_is_unusable,
    peer_is_not_reached,
    gossip_misses_a_host,
    clock_is_off,
)
