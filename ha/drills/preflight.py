"""Whether a cluster can take a drill now: facts and state in, obstacles out, each with what to do about it.

Pure. Asked before a drill is recorded, and once more by its observer right before the fault (`nodeagent.drills`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.model import Disk, DrillKind, DrillPromise, DrillVM, Host
from core.model.mesh import CPU_OVERCOMMIT
from ha.admission import RoomView, lost_alone
from ha.drills.obstacles import CHECKS, DrillView, Obstacle, Wish, obstacle
from ha.drills.promises import TIMED, board_is_used, default_duration_s, promised, takes_host
from ha.health import judge
from ha.placement import pinned_host_id


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drill would be: `obstacles` forbid it, `warnings` don't. `observer_id` is empty for a full power loss."""

    wish: Wish
    obstacles: tuple[Obstacle, ...]
    warnings: tuple[Obstacle, ...]
    observer_id: str
    vms: tuple[DrillVM, ...]


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
            obstacle(
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


def _room(view: DrillView, wish: Wish, vms: tuple[DrillVM, ...]) -> list[Obstacle]:
    """Put the VMs that have to move onto the other hosts, as failover would."""
    moving = {one.vm for one in vms if one.promise is DrillPromise.MOVES}
    target = view.hosts.get(wish.host_id)
    if target is None or not moving:
        return []
    loss = lost_alone(_cluster_of(view, target), target)
    no_room = [
        obstacle(
            "no-room",
            what=f"VM {vm.name} would find no room on another host",
            advice="make room: stop or move VMs, or add a host; kvorum cluster room",
        )
        for vm in loss.left_out
        if vm.id in moving
    ]
    ruled_out = [
        obstacle(
            "ruled-out",
            what=f"VM {vm.name} would find no other host that its placement rules allow",
            advice="change its rules, or move the VMs that they name: kvorum rule list",
        )
        for vm in loss.ruled_out
        if vm.id in moving
    ]
    return no_room + ruled_out


def _cluster_of(view: DrillView, target: Host) -> RoomView:
    storages: dict[str, set[str]] = {}
    disks: dict[str, list[Disk]] = {}
    for disk in view.disks:
        storages.setdefault(disk.vm_id, set()).add(disk.data_storage_id)
        disks.setdefault(disk.vm_id, []).append(disk)
    cluster_id = target.cluster_id
    return RoomView(
        hosts=tuple(host for host in view.hosts.values() if host.cluster_id == cluster_id),
        vms=tuple(vm for vm in view.vms if vm.cluster_id == cluster_id),
        pinned=frozenset(id_ for id_, of in disks.items() if pinned_host_id(of, view.storages)),
        storages={id_: frozenset(of) for id_, of in storages.items()},
        rules=tuple(rule for rule in view.rules if rule.cluster_id == cluster_id),
        lease_ages_s={h.id: h.lease_age_s for h in view.facts.hosts if h.lease_age_s is not None},
        cpu_overcommit=view.cpu_overcommits.get(cluster_id, CPU_OVERCOMMIT),
        fresh_s=view.profile.lease_s / 2,
    )


def _warnings(view: DrillView, wish: Wish, vms: tuple[DrillVM, ...]) -> Iterable[Obstacle]:
    waiting = [one.name for one in vms if one.promise is DrillPromise.WAITS]
    if waiting:
        yield obstacle(
            "vms-down",
            what=f"down until the host is back: {', '.join(waiting)} (local disks, or HA is off)",
            advice="move or stop them first if that matters",
        )
    if not vms and (wish.kind is DrillKind.FULL_POWER_LOSS or _takes(view, wish)):
        yield obstacle(
            "no-vms",
            what="no VM runs there: the drill will show little",
            advice="start a VM there first: kvorum vm create NAME --host HOST",
        )
    board = board_is_used(wish.host_id, view.bmcs)
    if _takes(view, wish) and not board and wish.kind is not DrillKind.POWER_OFF:
        yield obstacle(
            "no-board",
            what="without a BMC that is relied on, a host that doesn't boot by itself must be switched on by hand",
            advice="be near its power button, or name a BMC: kvorum bmc set",
        )


def _takes(view: DrillView, wish: Wish) -> bool:
    return takes_host(wish.kind, wish.duration_s, view.profile)
