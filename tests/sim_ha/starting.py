"""The agent of a host: what `nodeagent.services.vm_plan` says, done in the order of `vm_power`, with any wait between two steps.

Every step looks whether its agent still is the one that began; an agent that was killed in the middle leaves what it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from core.model import VM, VMPhase
from ha.guard.lease_clock import Refusal
from nodeagent.compute.hypervisor import DomainState, DomainStatus
from nodeagent.services.vm_plan import Action, next_action
from tests.sim_ha.host import Guest, SimHost

if TYPE_CHECKING:
    from tests.sim_ha.world import World


class Agents:
    """Every host's reconciler."""

    def __init__(self, world: World) -> None:
        self._world = world

    def tick(self, host: SimHost) -> None:
        """Look at all VMs once."""
        world = self._world
        if not host.agent_runs:
            return
        if world.leadership.hears(host) and not host.lags:
            world.catch_up(host)
            host.caught_up = True
        if not host.caught_up:
            return
        world.shutdowns.come_back(host)
        for vm in list(host.records.vms.values()):
            guest = host.guests.get(vm.id)
            mine = vm.host_id == host.name
            if vm.id in host.working_on or not (mine or guest):
                continue
            if mine and vm.migrating_to_host_id:
                world.migrations.settle(host, vm)
            else:
                self._act(host, vm, guest)

    def _act(self, host: SimHost, vm: VM, guest: Guest | None) -> None:
        match next_action(vm, _domain(vm.id, guest), host_id=host.name, has_task=False):
            case Action.START if host.closing:
                pass
            case Action.START:
                self._start(host, vm, guest)
            case Action.DESTROY:
                self.destroy(host, vm.id)
            case Action.REPORT_RUNNING | Action.CLEAR_MIGRATION:
                self._report_running(host, vm.id)
            case Action.NOTHING:
                if guest is not None and not guest.paused and vm.phase is VMPhase.RUNNING:
                    self._world.migrations.maybe(host, vm)
            case action:
                raise AssertionError(f"{action} has no place in this world")

    def destroy(self, host: SimHost, vm_id: str) -> None:
        """Cut a guest's power, and tell the guard if it listens."""
        self._world.laws.destroyed(host, vm_id)
        if host.guests.pop(vm_id, None) is not None:
            self._world.reached["guests destroyed by agents"] += 1
        if host.guard_works:
            host.guard.handle({"op": "revoke", "vm_id": vm_id}, host.clock.boottime_s())

    def ask_guard(self, host: SimHost, op: str, vm_id: str, **more: object) -> bool:
        """Ask the guard for something; False when it refuses, or does not answer."""
        if not host.guard_works:
            return False
        try:
            request = {"op": op, "vm_id": vm_id, **more}
            host.guard.handle(request, host.clock.boottime_s())
        except Refusal as refusal:
            self._world.reached[f"{op} refused: {refusal.code}"] += 1
            return False
        return True

    def grant(self, host: SimHost, vm_id: str, *, generation: int, applied_index: int) -> bool:
        """Ask the guard to allow a guest."""
        index = applied_index if self._world.rules.check_index else 10**9
        return self.ask_guard(
            host, "grant", vm_id, generation=generation, lease_bound=True, applied_index=index
        )

    def _start(self, host: SimHost, vm: VM, guest: Guest | None) -> None:
        if guest is not None and guest.generation == vm.generation:
            if not self.ask_guard(host, "check", vm.id, generation=vm.generation):
                return None
            if not guest.arriving:
                host.working_on.add(vm.id)
                return _Start(self._world, self, host, vm.id, vm.generation).resume_soon(guest)
        if guest is not None:
            self.destroy(host, vm.id)
        clock = host.guard.clock
        if not host.guard_works or clock.remaining_s(host.clock.boottime_s()) <= 0:
            return None
        claimed = msgspec.structs.replace(
            vm,
            generation=vm.generation + 1,
            boot_id=host.boot_id,
            phase=VMPhase.STARTING,
            migrating_to_host_id="",
        )
        index = self._world.commit(host, claimed)
        if index is not None:
            host.working_on.add(vm.id)
            _Start(self._world, self, host, vm.id, claimed.generation).go_on_at(index)
        return None

    def _report_running(self, host: SimHost, vm_id: str) -> None:
        vm = host.records.vms[vm_id]
        done = vm.phase is VMPhase.RUNNING and not vm.blocked_reason and not vm.migrating_to_host_id
        if vm.host_id == host.name and not done:
            self._world.commit(
                host,
                msgspec.structs.replace(
                    vm, phase=VMPhase.RUNNING, blocked_reason="", migrating_to_host_id=""
                ),
            )


class _Start:
    """One start under way, from the commit of its generation to the running guest."""

    def __init__(
        self, world: World, agents: Agents, host: SimHost, vm_id: str, generation: int
    ) -> None:
        self._world, self._agents, self._host = world, agents, host
        self._vm_id, self._generation = vm_id, generation
        self._soon = world.steps_of(host)

    def go_on_at(self, index: int) -> None:
        """Go on when this host has applied its own claim."""
        self._world.when_applied(
            self._host,
            index,
            lambda: self._soon(
                self._world.pause_s(45.0, self._world.setting.late), self._ask_for_grant
            ),
            self._give_up,
        )

    def _ask_for_grant(self) -> None:
        records = self._host.records
        now = records.vms[self._vm_id]
        mine = now.host_id == self._host.name and now.generation == self._generation
        if self._world.rules.reread_vm and not mine:
            return self._give_up()
        index = records.index
        return self._soon(self._world.pause_s(3.0), lambda: self._be_granted(index))

    def _be_granted(self, index: int) -> None:
        granted = self._agents.grant(
            self._host, self._vm_id, generation=self._generation, applied_index=index
        )
        if not granted:
            return self._give_up()
        return self._soon(self._world.pause_s(20.0), self._hook)

    def _hook(self) -> None:
        """libvirt's hook asks the guard, and then QEMU comes up, paused."""
        if not self._allowed():
            return self._give_up()
        return self._soon(self._world.pause_s(5.0), self._appear)

    def _appear(self) -> None:
        if self._vm_id in self._host.guests:
            return self._give_up()
        guest = self._host.guests[self._vm_id] = Guest(self._generation)
        return self._soon(self._world.pause_s(20.0), lambda: self._check(guest))

    def _check(self, guest: Guest) -> None:
        if not self._allowed():
            return self._give_up()
        return self.resume_soon(guest)

    def resume_soon(self, guest: Guest) -> None:
        self._soon(self._world.pause_s(20.0), lambda: self._resume(guest))

    def _resume(self, guest: Guest) -> None:
        if self._host.guests.get(self._vm_id) is not guest or guest.killed:
            return self._give_up()
        guest.paused = False
        self._host.working_on.discard(self._vm_id)
        return self._world.guest_runs(self._host, self._vm_id)

    def _allowed(self) -> bool:
        return self._agents.ask_guard(self._host, "check", self._vm_id, generation=self._generation)

    def _give_up(self) -> None:
        """Take down what this start has left, as `VmPower` does: not a guest that arrived while it hung."""
        guest = self._host.guests.get(self._vm_id)
        if guest is not None and guest.generation != self._generation:
            self._world.reached["late starts that left a newer guest alone"] += 1
        else:
            self._agents.destroy(self._host, self._vm_id)
        self._host.working_on.discard(self._vm_id)


def _domain(vm_id: str, guest: Guest | None) -> DomainState | None:
    if guest is None:
        return None
    return DomainState(
        vm_id=vm_id,
        generation=guest.generation,
        status=DomainStatus.PAUSED if guest.paused else DomainStatus.RUNNING,
        reason="migration" if guest.arriving else "user",
        migrating_in=guest.arriving,
    )
