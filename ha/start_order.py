"""In which order guests are started that nobody asked for one by one: after a host, or all power, was lost.

The rules of a cold start: VMs of a high priority first, a VM after those that it names, and nobody waits for ever: what is
blocked isn't waited for, and after a minute everything else may start. The VM controller of each host asks for its own
VMs; what users start waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.model import VM, Lease, PowerState, VMPhase, VMPriority

WAIT_S_MAX = 60.0

_RANK = {VMPriority.HIGH: 0, VMPriority.MEDIUM: 1, VMPriority.LOW: 2}
_RUNS = (VMPhase.RUNNING, VMPhase.PAUSED, VMPhase.MIGRATING, VMPhase.STOPPING)
_NOT_TO_COME = (VMPhase.BLOCKED, VMPhase.CREATING, VMPhase.DELETING)


def rank(vm: VM) -> int:
    """Return 0 for a VM that comes first; the larger, the later."""
    return _RANK[vm.priority]


def recovery_order(vm: VM) -> tuple[int, int, str, str]:
    """Return what lost VMs are sorted by when they look for room: high priority first, then the largest, which fit worst."""
    return (rank(vm), -vm.memory_mib, vm.name, vm.id)


def runs(vm: VM, leases: Mapping[str, Lease]) -> bool:
    """Tell whether a VM runs, as far as is recorded: in the present boot of its host."""
    lease = leases.get(vm.host_id)
    return vm.phase in _RUNS and lease is not None and lease.boot_id == vm.boot_id


def expected(vms: Iterable[VM], leases: Mapping[str, Lease]) -> dict[str, VM]:
    """Return the VMs, by id, that should run soon, but don't yet."""
    return {
        vm.id: vm
        for vm in vms
        if vm.power is PowerState.RUNNING
        and vm.host_id
        and vm.phase not in _NOT_TO_COME
        and not vm.blocked_reason
        and not runs(vm, leases)
    }


class StartGate:
    """Holds back the VMs of one host whose turn has not come. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._asked_s: dict[str, float] = {}
        self._came_up_s: dict[str, float] = {}
        self._expected: dict[str, VM] = {}

    def look(self, vms: Iterable[VM], leases: Mapping[str, Lease], now_s: float) -> None:
        """Take in what is true now; before `may_start`, each time."""
        there = {vm.id: vm for vm in vms}
        before, self._expected = self._expected, expected(there.values(), leases)
        came_up = self._came_up_s | dict.fromkeys(before.keys() - self._expected.keys(), now_s)
        self._came_up_s = {
            id_: at_s for id_, at_s in came_up.items() if id_ in there and id_ not in self._expected
        }
        # What runs, went elsewhere or is blocked waits no more: its next wait is a new one.
        self._asked_s = {id_: at_s for id_, at_s in self._asked_s.items() if id_ in self._expected}

    def may_start(self, vm: VM, now_s: float) -> bool:
        """Tell whether it is the VM's turn. It has waited since it was first asked for, and still was to come."""
        asked_s = self._asked_s.setdefault(vm.id, now_s)
        if now_s - asked_s < WAIT_S_MAX and any(
            rank(other) < rank(vm) or other.id in vm.start_after_ids
            for other in self._expected.values()
        ):
            return False
        came_up_s = [self._came_up_s[id_] for id_ in vm.start_after_ids if id_ in self._came_up_s]
        return not came_up_s or now_s - max(came_up_s) >= vm.start_delay_s
