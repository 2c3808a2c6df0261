"""A VM that its host can't start, or whose storage it lost, goes to another: the host gives it away itself, once it is sure that nothing of it runs.

The host's own word is the proof: it is in charge, takes down what may be left, has its guard take the right to run it
back, and only then commits the new owner, unless the VM changed meanwhile. Without libvirt, guard or quorum it keeps the
VM. Hosts are tried in the order of their names, so that each has its turn; the back-off of each grows from visit to visit.
"""

from __future__ import annotations

import logging

from core.errors import ConflictError
from core.model import VM, Host, Severity, VMPhase
from ha.ownership import given_to
from ha.placement import next_in_turn
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.host_room import room_on, tried_again
from nodeagent.services.placement_rules import leaving, still_allowed
from nodeagent.services.placing import Placing
from nodeagent.services.vm_parts import disks_of
from nodeagent.services.vm_power import VmPower

log = logging.getLogger(__name__)

FAILED_STARTS = 2


class NoOtherHostError(ConflictError):
    """No other host can take the VM."""


class MovingOn:
    """Called by the VM controller after a start failed for the VM's own sake, not for want of a lease, or its storage was lost."""

    def __init__(self, node: Node, power: VmPower, placing: Placing, events: EventLog) -> None:
        self._node = node
        self._power = power
        self._placing = placing
        self._events = events
        self._failed: dict[str, int] = {}

    def is_well(self, vm_id: str) -> None:
        """Forget the failures of a VM that runs, or that is not to be started here now."""
        self._failed.pop(vm_id, None)

    async def failed(self, vm_id: str, why: str) -> bool:
        """Count a failed start; give the VM away after the second. Tell whether it was.

        Raises:
            PlatformError: what may be left of the guest can't be taken down, or the change can't be committed: it stays.
        """
        self._failed[vm_id] = self._failed.get(vm_id, 0) + 1
        vm = self._node.store.get(VM, vm_id)
        if self._failed[vm_id] < FAILED_STARTS or vm is None or not vm.ha:
            return False
        if vm.host_id != self._node.host_id or vm.migrating_to_host_id:
            return False
        try:
            await self._give(vm, f"can't start it: {why}")
        except NoOtherHostError:
            return False  # it is tried here again
        self._failed.pop(vm_id, None)
        return True

    async def leave(self, vm_id: str, why: str) -> None:
        """Give a VM away whose guest can't go on here; it is taken down first. `why` goes on after the name of this host.

        Raises:
            PlatformError: nobody else can take it; or as `failed`.
        """
        vm = self._node.store.need(VM, vm_id)
        if not vm.ha:
            raise ConflictError(f"VM {vm.name!r} is not to be started elsewhere: its HA is off")
        if vm.host_id != self._node.host_id or vm.migrating_to_host_id:
            raise ConflictError(f"VM {vm.name!r} goes elsewhere already")
        await self._give(vm, why)

    def _next_host(self, vm: VM) -> str:
        """Return whose turn it is.

        Raises:
            NoOtherHostError: nobody else can take it.
        """
        try:
            return self._placing.choose(
                vm,
                disks_of(self._node.store, vm.id),
                never=vm.host_id,
                prefer=next_in_turn(self._node.host_name),
            )
        except ConflictError as error:
            raise NoOtherHostError(error.message) from None

    async def _give(self, vm: VM, why: str) -> None:
        """Take the guest down and commit the new owner; who that is is judged once more then.

        Raises:
            NoOtherHostError: nobody can take it; before the guest is taken down, unless that has changed meanwhile.
        """
        self._next_host(vm)
        moves = vm.phase is VMPhase.RUNNING  # as the choice was made
        await self._power.destroy(vm.id)

        async def commit() -> None:
            taker, here = self._node.store.need(Host, self._next_host(vm)), self._node.host()
            room = room_on(self._node.store, taker.id)
            leaves = leaving(self._node.store, vm, here)
            rules = still_allowed(self._node.store, vm, taker, leaves=leaves, moves=moves)
            message = f"VM {vm.name} goes to {taker.name}, since {self._node.host_name} {why}"
            event = self._events.make("vm-moved-on", vm, message, severity=Severity.WARNING)
            await self._node.store.apply(
                puts=(given_to(vm, taker.id), room, event), guards=(taker, *rules)
            )

        await tried_again(commit)
        log.warning("a VM that can't run here went to another host", extra={"vm": vm.id})
