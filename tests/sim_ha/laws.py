"""The laws, judged from ground truth: what really runs where, apart from anything that the product believes.

I1 no VM runs on two hosts. I2 an owner changes only when no other host runs the VM. I3 what runs is what is committed.
I4 a guard that works, and whose renewals the network carries, loses no guest. At the end: what should run, runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from core.model import VM, HostState, VMPhase
from ha.guard.lease_clock import Phase
from ha.manager import REASON
from tests.sim_ha.host import SimHost
from tests.sim_ha.log import Record, Records

SLACK_S = 0.5


class Violation(Exception):
    """A law is broken; the text begins with its name."""


class Laws:
    """`state` is the log's end. A guest none of whose disks takes what it writes doesn't count as running."""

    def __init__(
        self,
        hosts: Mapping[str, SimHost],
        state: Records,
        can_write: Callable[[SimHost, str], bool],
    ) -> None:
        self._hosts, self._state, self._can_write = hosts, state, can_write

    def _running(self, vm_id: str) -> list[SimHost]:
        return [
            host
            for host in self._hosts.values()
            if (guest := host.guests.get(vm_id)) is not None
            and not guest.paused
            and self._can_write(host, vm_id)
        ]

    def guest_runs(self, host: SimHost, vm_id: str) -> None:
        """A guest begins to run on this host."""
        where = [other.name for other in self._running(vm_id)]
        if len(where) > 1:
            raise Violation(f"I1: {vm_id} runs on {' and '.join(where)}")
        vm, generation = self._state.vms[vm_id], host.guests[vm_id].generation
        at_home = host.name in (vm.host_id, vm.migrating_to_host_id)
        current = at_home and generation == vm.generation
        if not current and self._can_write(host, vm_id):
            raise Violation(
                f"I3: {vm_id} begins to run on {host.name} in generation {generation}; "
                f"committed is {vm.host_id} in {vm.generation}"
            )

    def committed(self, puts: tuple[Record, ...]) -> None:
        """These are committed now: who runs a VM must be its owner, or where it migrates to."""
        for vm in puts:
            if not isinstance(vm, VM):
                continue
            for host in self._running(vm.id):
                if host.name not in (vm.host_id, vm.migrating_to_host_id):
                    raise Violation(
                        f"I2: {vm.id} belongs to {vm.host_id} now, and still runs on {host.name}"
                    )

    def lease_ended(self, host: SimHost) -> None:
        """A working guard gives up its lease."""
        lasts_s = host.kept_s / host.clock.rate
        age_s = host.timeline.now_s - host.carried_s
        if age_s < lasts_s - 0.01:
            raise Violation(
                f"I4: {host.name} loses its lease {age_s:.1f} s after a renewal that was carried"
            )

    def reset(self, host: SimHost) -> None:
        """The watchdog resets a host."""
        idle_s = host.timeline.now_s - host.hindered_s
        starved = host.guard.clock.phase is Phase.ENDED
        if idle_s > host.watchdog_s + SLACK_S and not starved:
            raise Violation(f"I4: {host.name} is reset although its guard works")

    def destroyed(self, host: SimHost, vm_id: str) -> None:
        """An agent is about to destroy a guest."""
        vm, guest = self._state.vms[vm_id], host.guests.get(vm_id)
        if guest is None or guest.paused or guest.killed or guest.generation != vm.generation:
            return
        if host.name in (vm.host_id, vm.migrating_to_host_id):
            raise Violation(f"I4: the agent of {host.name} destroys {vm_id}, which runs rightly")

    # ---- the end

    def missing(self) -> list[str]:
        """Return what is not as it should be once all faults have healed for long enough."""
        return [why for vm in self._state.vms.values() if (why := self._why_not_well(vm))]

    def _why_not_well(self, vm: VM) -> str:
        guest = self._hosts[vm.host_id].guests.get(vm.id)
        if self._waits_for_a_person(vm.host_id):
            told = vm.blocked_reason.startswith(REASON)
            return "" if told else f"{vm.id} waits for {vm.host_id}, and nobody is told"
        if vm.migrating_to_host_id and self._waits_for_a_person(vm.migrating_to_host_id):
            told = vm.blocked_reason.startswith(REASON)
            return "" if told else f"{vm.id} may be on {vm.migrating_to_host_id}: nobody is told"
        if guest is None or guest.paused:
            return f"{vm.id} does not run on {vm.host_id}"
        moves = vm.migrating_to_host_id or vm.phase is VMPhase.MIGRATING
        if guest.generation != vm.generation or moves:
            return f"{vm.id} is unsettled on {vm.host_id}"
        return f"{vm.id} is blocked: {vm.blocked_reason}" if vm.blocked_reason else ""

    def _waits_for_a_person(self, host_id: str) -> bool:
        """A host that never comes back, without an armed watchdog: there is no proof but an operator's word."""
        lease = self._state.leases.get(host_id)
        gone = self._hosts[host_id].never_returns
        fenced = self._state.hosts[host_id].state is HostState.FENCED
        return gone and not fenced and (lease is None or lease.disarmed or not lease.watchdog_armed)
