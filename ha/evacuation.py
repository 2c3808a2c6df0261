"""Which VMs must leave a host that is in maintenance, which can't, and when it is empty enough. Pure.

Used by what begins a maintenance, by the leader that empties the host, and by what shows how far that is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from core.model import VM, Host, PowerState, Unmovable, VMPhase
from ha.admission import RoomView, left_out_elsewhere
from ha.start_order import rank

NO_ROOM = "no other host has room for it"
NO_ROOM_BY_RULES = "no other host has room for it that its placement rules allow"


class Standing(StrEnum):
    """How a VM on the host stands to its maintenance.

    `MOVES`: it runs and can be moved. `SOON`: it is starting, stopping or on its way, look again. `STUCK`: it can't leave
    alive. `RESTS`: it is stopped, so it is in nobody's way; it is started elsewhere if its disks allow that.
    """

    MOVES = "moves"
    SOON = "soon"
    STUCK = "stuck"
    RESTS = "rests"


@dataclass(frozen=True, slots=True)
class Judged:
    """A VM and how it stands; `why` it is stuck."""

    vm: VM
    standing: Standing
    why: str = ""


def judged(vm: VM, *, pinned: bool) -> Judged:
    """Judge a VM by itself; `pinned`: a disk of it is on one host only."""
    if vm.phase is VMPhase.DELETING:
        return Judged(vm, Standing.SOON)
    if vm.power is PowerState.STOPPED:
        at_rest = vm.phase is VMPhase.STOPPED
        return Judged(vm, Standing.RESTS if at_rest else Standing.SOON)
    if pinned:
        return Judged(vm, Standing.STUCK, "its disks are on local storage")
    match vm.phase:
        case VMPhase.RUNNING:
            return Judged(vm, Standing.MOVES)
        case VMPhase.PAUSED | VMPhase.BLOCKED:
            why = f"it is {vm.phase}" + (f": {vm.blocked_reason}" if vm.blocked_reason else "")
            return Judged(vm, Standing.STUCK, why)
        case _:
            return Judged(vm, Standing.SOON)


def in_order(vms: Iterable[VM], pinned: frozenset[str]) -> list[Judged]:
    """Judge VMs; those of high priority come first, they are safe soonest."""
    ordered = sorted(vms, key=lambda vm: (rank(vm), vm.name, vm.id))
    return [judged(vm, pinned=vm.id in pinned) for vm in ordered]


def in_the_way(view: RoomView, host: Host) -> list[Judged]:
    """Return the VMs that could not leave the host alive if its maintenance began now."""
    on_it = in_order((vm for vm in view.vms if vm.host_id == host.id), view.pinned)
    stuck = [one for one in on_it if one.standing is Standing.STUCK]
    running = [
        one.vm
        for one in on_it
        if one.standing in (Standing.MOVES, Standing.SOON) and one.vm.power is PowerState.RUNNING
    ]
    without = left_out_elsewhere(view, host, running) if running else ()
    ruled = {vm_id for rule in view.rules for vm_id in rule.vm_ids}
    return stuck + [
        Judged(vm, Standing.STUCK, NO_ROOM_BY_RULES if vm.id in ruled else NO_ROOM)
        for vm in without
    ]


def is_ready(host: Host, on_it: Iterable[Judged], *, arriving: bool) -> bool:
    """Tell whether nothing has to leave the host any more; `arriving`: a VM is still on its way to it."""
    keeps = host.maintenance_unmovable is Unmovable.KEEP
    return not arriving and all(
        one.standing is Standing.RESTS or (keeps and one.standing is Standing.STUCK)
        for one in on_it
    )
