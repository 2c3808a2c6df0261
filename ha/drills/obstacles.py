"""What can stand in the way of a drill: one check for each, over what is known of the cluster, and what to do about it.

Pure. `CHECKS` are all of them; the pre-flight check (`ha.drills.preflight`) asks each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from core.model import (
    VM,
    Bmc,
    BmcState,
    DataStorage,
    Disk,
    Drill,
    DrillKind,
    Host,
    Lease,
    PlacementRule,
    Task,
    VMPhase,
)
from ha.drills.promises import (
    CUT_S_MAX,
    STORAGE_LOSS_S_MAX,
    board_is_used,
    long_cut_s,
    short_cut_s,
)
from ha.health import judge
from ha.health_facts import ClusterFacts, HostFacts
from ha.health_findings import Level
from ha.profile import Profile

IN_STEP = 200
BUSY = frozenset({VMPhase.CREATING, VMPhase.DELETING, VMPhase.MIGRATING})


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Why a drill can't begin, or what should be known of it before. `code` stays."""

    code: str
    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Wish:
    """Which drill is wanted. `host_id` is empty for a full power loss; `duration_s` 0: as long as is usual."""

    kind: DrillKind
    host_id: str = ""
    duration_s: int = 0
    data_storage_id: str = ""


@dataclass(frozen=True, slots=True)
class DrillView:
    """What the pre-flight check is made from. `target_refuses` is what the host's own agent said against it; empty: nothing.
    `too_old` are names of hosts whose agents know no drills. `cpu_overcommits` as in `PlacementView`."""

    facts: ClusterFacts
    profile: Profile
    hosts: Mapping[str, Host]
    vms: tuple[VM, ...]
    disks: tuple[Disk, ...]
    storages: Mapping[str, DataStorage]
    bmcs: Mapping[str, Bmc]
    open_tasks: tuple[Task, ...] = ()
    open_drill: Drill | None = None
    target_refuses: str = ""
    too_old: tuple[str, ...] = ()
    leases: Mapping[str, Lease] = field(default_factory=dict)
    cpu_overcommits: Mapping[str, int] = field(default_factory=dict)
    rules: tuple[PlacementRule, ...] = ()


Check = Callable[[DrillView, Wish], Iterable[Obstacle]]


def obstacle(code: str, *, what: str, advice: str) -> Obstacle:
    """Return an obstacle."""
    return Obstacle(code=code, what=what, advice=advice)


def _one_at_a_time(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    del wish
    if view.open_drill is not None:
        name = view.open_drill.name
        yield obstacle(
            "drill-open",
            what=f"drill {name} is under way, and there is one at a time",
            advice=f"wait for it (kvorum drill show {name}), or end it: kvorum drill abort {name}",
        )


def _one_profile(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    """The promise is that of the profile: a guard that keeps to other times keeps another."""
    del wish
    for host_id, lease in view.leases.items():
        if view.profile.of(lease) != view.profile:
            yield obstacle(
                "profile-changing",
                what=f"the guard of {name_of(view, host_id)} doesn't keep to the times of the profile yet",
                advice="wait until it does: kvorum ha status",
            )


def _armed(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    del wish
    if view.facts.disarmed:
        yield obstacle(
            "ha-disarmed",
            what=f"failover is disarmed by {view.facts.disarmed}",
            advice="arm it when the work is done: kvorum ha arm",
        )


def _quorum(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    votes = judge(view.facts).votes
    if not votes.quorum:
        yield obstacle(
            "no-quorum",
            what="the cluster has no quorum, or no leader",
            advice="see kvorum health",
        )
    elif wish.kind is DrillKind.FULL_POWER_LOSS:
        return
    elif len([id_ for id_ in votes.up if id_ != wish.host_id]) < votes.needed:
        yield obstacle(
            "vote-needed",
            what=f"without {name_of(view, wish.host_id)} too few hosts that vote are up: "
            f"{votes.needed} are needed of {votes.total}",
            advice="bring back the hosts that are down, or add one (a witness will do)",
        )


def _all_hosts_well(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    for host in view.facts.hosts:
        if (why := _not_well(host)) is not None:
            yield obstacle(
                "host-not-well",
                what=f"host {host.name} {why[0]}",
                advice=why[1],
            )
    for one in view.hosts.values():
        if one.down_boot_id:
            yield obstacle(
                "host-not-well",
                what=f"host {one.name} is being shut down, or isn't back from it",
                advice="wait until it is back",
            )
    for finding in judge(view.facts).findings:
        if finding.severity is Level.FAILING:
            where = f"host {finding.host_name}: " if finding.host_name else ""
            yield obstacle("unhealthy", what=where + finding.what, advice=finding.advice)


def _not_well(host: HostFacts) -> tuple[str, str] | None:
    report = host.report
    if host.joining:
        return "is still joining", "wait until it is a member"
    if host.fenced:
        return "is fenced", f"bring it back: kvorum host show {host.name}"
    if report is None:
        return f"does not answer: {host.silent_why}", "bring it back: kvorum health says more"
    if report.store_fault:
        return f"takes no part: {report.store_fault}", "see kvorum health"
    if host.maintenance:
        return "is in maintenance", "end its maintenance first"
    if not host.witness and not host.lease_fresh:
        return "does not hold a fresh lease", "see that kvorum-guard runs on it: kvorum health"
    return None


def _all_know_drills(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    """Any of them may have to observe, or to put right what another left."""
    del wish
    for name in view.too_old:
        yield obstacle(
            "version",
            what=f"the agent of {name} is of a version without drills",
            advice="upgrade it",
        )


def _target_ready(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    if wish.kind is DrillKind.FULL_POWER_LOSS:
        return
    facts = view.facts.host(wish.host_id)
    of_agent = wish.kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS)
    if facts is not None and facts.witness and not of_agent:
        yield obstacle(
            "witness",
            what=f"{facts.name} is a witness: it holds no lease and runs no VMs to measure by",
            advice="choose agent-kill, or another host",
        )
        return
    if view.target_refuses:
        yield obstacle(
            "target-refuses",
            what=f"host {name_of(view, wish.host_id)} can't do it: {view.target_refuses}",
            advice="choose another host or drill, or put right what it names",
        )
    needs_guard = wish.kind in (DrillKind.POWER_OFF, DrillKind.GUARD_KILL, DrillKind.NETWORK_CUT)
    if facts is None or facts.report is None or not needs_guard:
        return
    guard = facts.report.guard
    if not guard.answers or not guard.lease_valid:
        yield obstacle(
            "no-guard",
            what=f"the guard of {facts.name} doesn't hold a lease: {guard.why or guard.phase}",
            advice="see that kvorum-guard runs on it",
        )
    elif not guard.armed:
        yield obstacle(
            "watchdog-not-armed",
            what=f"the watchdog of {facts.name} is not armed: nothing would prove that it is silent",
            advice="load a watchdog driver (softdog will do) and restart the host: docs/ha.md",
        )


def _nothing_in_flight(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    full = wish.kind is DrillKind.FULL_POWER_LOSS
    concerned = {vm.id for vm in view.vms if full or wish.host_id in _places(vm)}
    for task in view.open_tasks:
        vm_id = task.subject.removeprefix("vm/")
        if full or task.runner_host_id == wish.host_id or vm_id in concerned:
            yield obstacle(
                "task-open",
                what=f"task {task.id} ({task.workflow} of {task.subject_name or task.subject}) is under way",
                advice=f"wait for it, or cancel it: kvorum task cancel {task.id}",
            )
    for vm in view.vms:
        if vm.phase in BUSY and vm.id in concerned:
            yield obstacle(
                "vm-busy", what=f"VM {vm.name} is {vm.phase}", advice="wait until it is done"
            )
        elif vm.blocked_reason and vm.id in concerned:
            yield obstacle(
                "vm-blocked",
                what=f"VM {vm.name} is blocked: {vm.blocked_reason}",
                advice="put that right first, or stop the VM",
            )


def _places(vm: VM) -> set[str]:
    return {vm.host_id, vm.migrating_to_host_id} - {""}


def _kind_of_its_own(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    name = name_of(view, wish.host_id)
    match wish.kind:
        case DrillKind.POWER_OFF:
            bmc = view.bmcs.get(wish.host_id)
            if bmc is None:
                yield obstacle(
                    "no-bmc",
                    what=f"host {name} has no BMC to take its power, and to give it back",
                    advice=f"name one: kvorum bmc set {name} --address ADDRESS --user NAME",
                )
            elif bmc.state is not BmcState.OK:
                yield obstacle(
                    "bmc-not-ok",
                    what=f"the BMC of {name} is not relied on: {bmc.why or bmc.state}",
                    advice=f"put it right, then ask it: kvorum bmc power {name}",
                )
        case DrillKind.LEADER_LOSS:
            yield from _leader_and_follower(view, wish)
        case DrillKind.NETWORK_CUT:
            yield from _cut_of_a_clear_length(view, wish)
        case DrillKind.STORAGE_LOSS:
            if not wish.data_storage_id:
                yield obstacle(
                    "no-storage",
                    what="nobody said which data storage is to be lost",
                    advice="name it: --data-storage NAME",
                )
            if not 1 <= wish.duration_s <= STORAGE_LOSS_S_MAX:
                yield _too_long(STORAGE_LOSS_S_MAX)


def _leader_and_follower(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    leader_id = judge(view.facts).votes.leader_id
    if leader_id and wish.host_id != leader_id:
        leader = name_of(view, leader_id)
        yield obstacle(
            "not-leader",
            what=f"host {name_of(view, wish.host_id)} doesn't lead, {leader} does",
            advice=f"kvorum drill run leader-loss {leader}",
        )
    committed = max((h.report.committed for h in view.facts.hosts if h.report), default=0)
    in_step = [
        h
        for h in view.facts.hosts
        if h.votes and h.id != wish.host_id and h.report and committed - h.report.applied < IN_STEP
    ]
    if not in_step:
        yield obstacle(
            "no-follower-in-step",
            what="no other host that votes is in step with the leader",
            advice="wait until one has caught up: kvorum health shows the lag",
        )


def _cut_of_a_clear_length(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    if not 1 <= wish.duration_s <= CUT_S_MAX:
        yield _too_long(CUT_S_MAX)
        return
    board = board_is_used(wish.host_id, view.bmcs)
    short_s = short_cut_s(view.profile, fenced_by_board=board)
    long_s = long_cut_s(view.profile)
    if short_s < wish.duration_s < long_s:
        yield obstacle(
            "cut-unclear",
            what=f"a cut of {wish.duration_s} s may pass unnoticed or cost the host its lease: "
            "nothing could be promised",
            advice=f"choose --for {short_s} or less (nothing may happen), or {long_s} or more (VMs move)",
        )


def _too_long(most_s: int) -> Obstacle:
    return obstacle(
        "duration-out-of-bounds",
        what=f"such a fault lasts 1 to {most_s} seconds",
        advice=f"choose --for between 1 and {most_s}",
    )


def name_of(view: DrillView, host_id: str) -> str:
    """Return what people call a host; its id when it is gone."""
    host = view.hosts.get(host_id)
    return host.name if host is not None else host_id


CHECKS: tuple[Check, ...] = (
    _one_at_a_time,
    _armed,
    _one_profile,
    _quorum,
    _all_hosts_well,
    _all_know_drills,
    _target_ready,
    _nothing_in_flight,
    _kind_of_its_own,
)
