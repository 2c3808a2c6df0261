"""Whether a cluster can take a drill now: facts and state in, obstacles out, each with what to do about it.

Pure. Asked before a drill is recorded, and once more by its observer right before the fault (`nodeagent.drills`).
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
    DrillPromise,
    DrillVM,
    Host,
    HostState,
    Lease,
    Task,
    VMPhase,
)
from ha.drills.promises import (
    CUT_S_MAX,
    STORAGE_LOSS_S_MAX,
    TIMED,
    board_is_used,
    default_duration_s,
    long_cut_s,
    promised,
    short_cut_s,
    takes_host,
)
from ha.health import judge
from ha.health_facts import ClusterFacts, HostFacts
from ha.health_findings import Level
from ha.placement import (
    PlacementError,
    PlacementRequest,
    PlacementView,
    add_load,
    choose_host,
    loads_of,
)
from ha.profile import Profile
from ha.start_order import recovery_order

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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drill would be: `obstacles` forbid it, `warnings` don't. `observer_id` is empty for a full power loss."""

    wish: Wish
    obstacles: tuple[Obstacle, ...]
    warnings: tuple[Obstacle, ...]
    observer_id: str
    vms: tuple[DrillVM, ...]


Check = Callable[[DrillView, Wish], Iterable[Obstacle]]


def preflight(view: DrillView, wish: Wish) -> Plan:
    """Return what stands in the way of a drill, and what it would be."""
    if wish.kind in TIMED and not wish.duration_s:
        duration_s = default_duration_s(wish.kind, view.profile)
        wish = Wish(wish.kind, wish.host_id, duration_s, wish.data_storage_id)
    vms = promised(
        kind=wish.kind,
        host_id=wish.host_id,
        duration_s=wish.duration_s,
        profile=view.profile,
        hosts=view.hosts,
        vms=view.vms,
        disks=view.disks,
        storages=view.storages,
    )
    obstacles = [found for check in CHECKS for found in check(view, wish)]
    obstacles += _room(view, wish, vms)
    observer = "" if wish.kind is DrillKind.FULL_POWER_LOSS else _observer(view, wish)
    if not observer and wish.kind is not DrillKind.FULL_POWER_LOSS:
        obstacles.append(
            _obstacle(
                "no-observer",
                what="no other host is there to watch the drill and put things right",
                advice="join further hosts: a drill needs three that vote",
            )
        )
    warnings = tuple(_warnings(view, wish, vms))
    return Plan(wish, tuple(obstacles), warnings, observer, vms)


def _observer(view: DrillView, wish: Wish) -> str:
    """Return who conducts: the leader unless it fails, else a voter that is well, the first by name."""
    votes = judge(view.facts).votes
    able = [
        host.id
        for host in sorted(view.facts.hosts, key=lambda host: (not host.votes, host.name))
        if host.id != wish.host_id and host.report is not None and not host.joining
    ]
    return votes.leader_id if votes.leader_id in able else (able[0] if able else "")


def _one_at_a_time(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    del wish
    if view.open_drill is not None:
        name = view.open_drill.name
        yield _obstacle(
            "drill-open",
            what=f"drill {name} is under way, and there is one at a time",
            advice=f"wait for it (kvorum drill show {name}), or end it: kvorum drill abort {name}",
        )


def _one_profile(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    """The promise is that of the profile: a guard that keeps to other times keeps another."""
    del wish
    for host_id, lease in view.leases.items():
        if view.profile.of(lease) != view.profile:
            yield _obstacle(
                "profile-changing",
                what=f"the guard of {_name(view, host_id)} doesn't keep to the times of the profile yet",
                advice="wait until it does: kvorum ha status",
            )


def _armed(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    del wish
    if view.facts.disarmed:
        yield _obstacle(
            "ha-disarmed",
            what=f"failover is disarmed by {view.facts.disarmed}",
            advice="arm it when the work is done: kvorum ha arm",
        )


def _quorum(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    votes = judge(view.facts).votes
    if not votes.quorum:
        yield _obstacle(
            "no-quorum",
            what="the cluster has no quorum, or no leader",
            advice="see kvorum health",
        )
    elif wish.kind is DrillKind.FULL_POWER_LOSS:
        return
    elif len([id_ for id_ in votes.up if id_ != wish.host_id]) < votes.needed:
        yield _obstacle(
            "vote-needed",
            what=f"without {_name(view, wish.host_id)} too few hosts that vote are up: "
            f"{votes.needed} are needed of {votes.total}",
            advice="bring back the hosts that are down, or add one (a witness will do)",
        )


def _all_hosts_well(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    for host in view.facts.hosts:
        if (why := _not_well(host)) is not None:
            yield _obstacle(
                "host-not-well",
                what=f"host {host.name} {why[0]}",
                advice=why[1],
            )
    for one in view.hosts.values():
        if one.down_boot_id:
            yield _obstacle(
                "host-not-well",
                what=f"host {one.name} is being shut down, or isn't back from it",
                advice="wait until it is back",
            )
    for finding in judge(view.facts).findings:
        if finding.severity is Level.FAILING:
            where = f"host {finding.host_name}: " if finding.host_name else ""
            yield _obstacle("unhealthy", what=where + finding.what, advice=finding.advice)


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
        yield _obstacle(
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
        yield _obstacle(
            "witness",
            what=f"{facts.name} is a witness: it holds no lease and runs no VMs to measure by",
            advice="choose agent-kill, or another host",
        )
        return
    if view.target_refuses:
        yield _obstacle(
            "target-refuses",
            what=f"host {_name(view, wish.host_id)} can't do it: {view.target_refuses}",
            advice="choose another host or drill, or put right what it names",
        )
    needs_guard = wish.kind in (DrillKind.POWER_OFF, DrillKind.GUARD_KILL, DrillKind.NETWORK_CUT)
    if facts is None or facts.report is None or not needs_guard:
        return
    guard = facts.report.guard
    if not guard.answers or not guard.lease_valid:
        yield _obstacle(
            "no-guard",
            what=f"the guard of {facts.name} doesn't hold a lease: {guard.why or guard.phase}",
            advice="see that kvorum-guard runs on it",
        )
    elif not guard.armed:
        yield _obstacle(
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
            yield _obstacle(
                "task-open",
                what=f"task {task.id} ({task.workflow} of {task.subject_name or task.subject}) is under way",
                advice=f"wait for it, or cancel it: kvorum task cancel {task.id}",
            )
    for vm in view.vms:
        if vm.phase in BUSY and vm.id in concerned:
            yield _obstacle(
                "vm-busy", what=f"VM {vm.name} is {vm.phase}", advice="wait until it is done"
            )
        elif vm.blocked_reason and vm.id in concerned:
            yield _obstacle(
                "vm-blocked",
                what=f"VM {vm.name} is blocked: {vm.blocked_reason}",
                advice="put that right first, or stop the VM",
            )


def _places(vm: VM) -> set[str]:
    return {vm.host_id, vm.migrating_to_host_id} - {""}


def _kind_of_its_own(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    name = _name(view, wish.host_id)
    match wish.kind:
        case DrillKind.POWER_OFF:
            bmc = view.bmcs.get(wish.host_id)
            if bmc is None:
                yield _obstacle(
                    "no-bmc",
                    what=f"host {name} has no BMC to take its power, and to give it back",
                    advice=f"name one: kvorum bmc set {name} --address ADDRESS --user NAME",
                )
            elif bmc.state is not BmcState.OK:
                yield _obstacle(
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
                yield _obstacle(
                    "no-storage",
                    what="nobody said which data storage is to be lost",
                    advice="name it: --data-storage NAME",
                )
            if not 1 <= wish.duration_s <= STORAGE_LOSS_S_MAX:
                yield _too_long(STORAGE_LOSS_S_MAX)


def _leader_and_follower(view: DrillView, wish: Wish) -> Iterable[Obstacle]:
    leader_id = judge(view.facts).votes.leader_id
    if leader_id and wish.host_id != leader_id:
        leader = _name(view, leader_id)
        yield _obstacle(
            "not-leader",
            what=f"host {_name(view, wish.host_id)} doesn't lead, {leader} does",
            advice=f"kvorum drill run leader-loss {leader}",
        )
    committed = max((h.report.committed for h in view.facts.hosts if h.report), default=0)
    in_step = [
        h
        for h in view.facts.hosts
        if h.votes and h.id != wish.host_id and h.report and committed - h.report.applied < IN_STEP
    ]
    if not in_step:
        yield _obstacle(
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
        yield _obstacle(
            "cut-unclear",
            what=f"a cut of {wish.duration_s} s may pass unnoticed or cost the host its lease: "
            "nothing could be promised",
            advice=f"choose --for {short_s} or less (nothing may happen), or {long_s} or more (VMs move)",
        )


def _too_long(most_s: int) -> Obstacle:
    return _obstacle(
        "duration-out-of-bounds",
        what=f"such a fault lasts 1 to {most_s} seconds",
        advice=f"choose --for between 1 and {most_s}",
    )


def _room(view: DrillView, wish: Wish, vms: tuple[DrillVM, ...]) -> list[Obstacle]:
    """Pack the VMs that have to move onto the other hosts, as recovery would."""
    moving = {one.vm for one in vms if one.promise is DrillPromise.MOVES}
    loads = loads_of(view.vms)
    where = PlacementView(
        hosts=tuple(host for host in view.hosts.values() if host.state is HostState.MEMBER),
        vms=(),
        lease_ages_s={h.id: h.lease_age_s for h in view.facts.hosts if h.lease_age_s is not None},
        cpu_overcommits=view.cpu_overcommits,
        fresh_s=view.profile.lease_s / 2,
    )
    found = []
    storages: dict[str, set[str]] = {}
    for disk in view.disks:
        storages.setdefault(disk.vm_id, set()).add(disk.data_storage_id)
    for vm in sorted((vm for vm in view.vms if vm.id in moving), key=recovery_order):
        request = PlacementRequest(
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            vm_id=vm.id,
            cluster_id=vm.cluster_id,
            except_host_ids=frozenset({wish.host_id}),
            storage_ids=frozenset(storages.get(vm.id, ())),
        )
        try:
            host_id = choose_host(request, where, loads).host_id
        except PlacementError as error:
            found.append(
                _obstacle(
                    "no-room",
                    what=f"VM {vm.name} would find no place: {error.message}",
                    advice="make room: stop or move VMs, or add a host",
                )
            )
        else:
            add_load(loads, host_id, cpus=vm.cpus, memory_mib=vm.memory_mib)
    return found


def _warnings(view: DrillView, wish: Wish, vms: tuple[DrillVM, ...]) -> Iterable[Obstacle]:
    waiting = [one.name for one in vms if one.promise is DrillPromise.WAITS]
    if waiting:
        yield _obstacle(
            "vms-down",
            what=f"down until the host is back: {', '.join(waiting)} (local disks, or HA is off)",
            advice="move or stop them first if that matters",
        )
    if not vms and (wish.kind is DrillKind.FULL_POWER_LOSS or _takes(view, wish)):
        yield _obstacle(
            "no-vms",
            what="no VM runs there: the drill will show little",
            advice="start a VM there first: kvorum vm create NAME --host HOST",
        )
    board = board_is_used(wish.host_id, view.bmcs)
    if _takes(view, wish) and not board and wish.kind is not DrillKind.POWER_OFF:
        yield _obstacle(
            "no-board",
            what="without a BMC that is relied on, a host that doesn't boot by itself must be switched on by hand",
            advice="be near its power button, or name a BMC: kvorum bmc set",
        )


def _obstacle(code: str, *, what: str, advice: str) -> Obstacle:
    return Obstacle(code=code, what=what, advice=advice)


def _takes(view: DrillView, wish: Wish) -> bool:
    return takes_host(wish.kind, wish.duration_s, view.profile)


def _name(view: DrillView, host_id: str) -> str:
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
