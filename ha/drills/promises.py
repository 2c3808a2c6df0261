"""What is promised of VMs when a host fails in a certain way: the measure that drills are judged by (docs/ha.md).

Pure; used before a drill, to tell what will happen, and recorded with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.model import (
    VM,
    Bmc,
    BmcState,
    DataStorage,
    Disk,
    DrillKind,
    DrillPromise,
    DrillVM,
    Host,
    PowerState,
    VMPhase,
)
from ha.fencing import is_movable
from ha.placement import pinned_host_id
from ha.profile import Profile
from ha.start_order import rank

WITH_BOARD_S = 10.0
AFTER_POWER_LOSS_S = 90.0
WAITS_FOR_OTHERS_S = 60.0
AGENT_BACK_S = 30.0
STARTS_AT_ONCE = 4
START_S = 0.5
CUT_S_MAX = 120
STORAGE_LOSS_S, STORAGE_LOSS_S_MAX = 15, 20
"""Shorter than what a guest waits for its storage before it starts elsewhere (`nodeagent.services.storage_loss`)."""
CUT_RETURNS_S = 4.0
BLINK_S = 2.0

TIMED = frozenset({DrillKind.NETWORK_CUT, DrillKind.STORAGE_LOSS})
"""Faults that last for a time that is chosen, and end by themselves."""

ON_HOST = frozenset({VMPhase.RUNNING, VMPhase.PAUSED, VMPhase.STARTING})


def writes_back_s(profile: Profile) -> float:
    """Return within which time changes can be made again when the leader is lost: sooner, leases never grow old."""
    return profile.lease_s / 2


def default_duration_s(kind: DrillKind, profile: Profile) -> int:
    """Return how long a fault lasts if nobody says it; 0: it doesn't end by itself."""
    if kind is DrillKind.NETWORK_CUT:
        return int(profile.safe_s + 15)
    return STORAGE_LOSS_S if kind is DrillKind.STORAGE_LOSS else 0


def short_cut_s(profile: Profile, *, fenced_by_board: bool) -> int:
    """Return the longest cut that is certain to change nothing: renewals go on before anybody takes the host for lost."""
    return int(BLINK_S if fenced_by_board else profile.lease_s - CUT_RETURNS_S)


def long_cut_s(profile: Profile) -> int:
    """Return the shortest cut that is certain to be taken for a loss."""
    return int(profile.safe_s + CUT_RETURNS_S)


def takes_host(kind: DrillKind, duration_s: int, profile: Profile) -> bool:
    """Tell whether the cluster is to take the host for lost."""
    match kind:
        case DrillKind.POWER_OFF | DrillKind.GUARD_KILL:
            return True
        case DrillKind.NETWORK_CUT:
            return duration_s >= long_cut_s(profile)
        case _:
            return False


def board_is_used(host_id: str, bmcs: Mapping[str, Bmc]) -> bool:
    """Tell whether the host would be fenced by its management board."""
    bmc = bmcs.get(host_id)
    return bmc is not None and bmc.state is BmcState.OK


def promised(
    *,
    kind: DrillKind,
    host_id: str,
    duration_s: int,
    profile: Profile,
    hosts: Mapping[str, Host],
    vms: Iterable[VM],
    disks: Iterable[Disk],
    storages: Mapping[str, DataStorage],
) -> tuple[DrillVM, ...]:
    """Return what is promised of each VM that runs on the host, or of all when every host fails; by name."""
    by_vm: dict[str, list[Disk]] = {}
    for disk in disks:
        by_vm.setdefault(disk.vm_id, []).append(disk)
    here = [
        vm
        for vm in vms
        if vm.power is PowerState.RUNNING
        and vm.phase in ON_HOST
        and (vm.host_id == host_id or kind is DrillKind.FULL_POWER_LOSS)
    ]
    lost = takes_host(kind, duration_s, profile)
    moving = [
        vm for vm in here if is_movable(vm) and not pinned_host_id(by_vm.get(vm.id, []), storages)
    ]
    found = []
    for vm in sorted(here, key=lambda vm: (vm.name, vm.id)):
        if kind is DrillKind.FULL_POWER_LOSS:
            promise, bound_s = DrillPromise.RETURNS, AFTER_POWER_LOSS_S + _delay_s(vm, here)
        elif not lost:
            promise, bound_s = DrillPromise.STAYS, 0.0
        elif vm in moving:
            promise = DrillPromise.MOVES
            bound_s = profile.again_s + _batch_s(len(moving)) + _delay_s(vm, moving)
        else:
            promise, bound_s = DrillPromise.WAITS, 0.0
        owner = hosts.get(vm.host_id)
        found.append(
            DrillVM(
                vm=vm.id,
                name=vm.name,
                promise=promise,
                was_on=owner.name if owner is not None else vm.host_id,
                generation=vm.generation,
                bound_ms=round(1000 * bound_s),
            )
        )
    return tuple(found)


def _batch_s(count: int) -> float:
    """Return how much longer the last of many VMs takes: a host starts a few at a time."""
    return max(0, count - STARTS_AT_ONCE) / STARTS_AT_ONCE * START_S


def _delay_s(vm: VM, others: list[VM]) -> float:
    """Return how long a VM may wait for its turn (`ha.start_order`)."""
    waits = vm.start_after_ids or any(rank(other) < rank(vm) for other in others)
    return (WAITS_FOR_OTHERS_S if waits else 0.0) + vm.start_delay_s
