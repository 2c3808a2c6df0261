"""Live migrations, as `nodeagent.workflows.migrate_steps` runs them: reserve, prepare, move, hand over, or take back.

The source asks again and again where the guest is until it knows; it goes on where an agent before it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from core.model import VM, VMPhase
from ha.profile import profile_in
from tests.sim_ha.faults import HEAL_S
from tests.sim_ha.host import Guest, SimHost

if TYPE_CHECKING:
    from tests.sim_ha.world import World


class Migrations:
    """Begins and ends migrations."""

    def __init__(self, world: World) -> None:
        self._world = world

    def maybe(self, source: SimHost, vm: VM) -> None:
        """Begin to move a guest away, now and then, to any other host."""
        world = self._world
        if world.timeline.now_s > HEAL_S or world.rng.random() >= world.setting.migrations:
            return
        fresh_s = profile_in(source.records.mesh).lease_s / 2
        fresh = [
            name
            for name in world.hosts
            if name != source.name
            and (source.judge.age_s(name) or 0.0) < fresh_s
            and name in source.records.leases
        ]
        if not fresh:
            return
        target = world.hosts[world.rng.choice(fresh)]
        reserved = msgspec.structs.replace(
            vm, migrating_to_host_id=target.name, phase=VMPhase.MIGRATING
        )
        index = world.commit(source, reserved, guards=(source.records.hosts[target.name],))
        if index is not None:
            source.working_on.add(vm.id)
            reserved = msgspec.structs.replace(reserved, revision=index)
            _Move(world, source, target, reserved).prepare_soon()

    def settle(self, source: SimHost, reserved: VM) -> None:
        """Find out where the guest is: hand over when it runs there, else take back what was prepared."""
        world, target = self._world, self._world.hosts[reserved.migrating_to_host_id]
        source.working_on.add(reserved.id)
        soon = world.steps_of(source)

        def ask() -> None:
            vm = source.records.vms[reserved.id]
            reserved_still = (
                vm.host_id == source.name
                and vm.migrating_to_host_id == target.name
                and vm.generation == reserved.generation
            )
            if not reserved_still:
                source.working_on.discard(vm.id)  # someone else settled it
                return
            joined = target.agent_runs and world.links.both_ways(source.name, target.name)
            known = world.leadership.serves(source) and not source.lags
            if not joined or not known or not self._end(source, target, vm):
                soon(1.0, ask)
                return
            source.working_on.discard(vm.id)

        soon(0.1, ask)

    def _end(self, source: SimHost, target: SimHost, vm: VM) -> bool:
        world = self._world
        arrived = target.guests.get(vm.id)
        if vm.id not in source.guests and arrived is not None and not arrived.paused:
            world.catch_up(source)
            boot_id = source.records.leases[target.name].boot_id
            moved = {"host_id": target.name, "boot_id": boot_id}
        else:
            if target.records.vms[vm.id].host_id != source.name:
                return False  # the target knows better
            world.agents.destroy(target, vm.id)
            moved = {}
        ended = msgspec.structs.replace(vm, migrating_to_host_id="", phase=VMPhase.RUNNING, **moved)
        return world.commit(source, ended) is not None


class _Move:
    """One migration under way, from the committed reservation until the source asks where the guest is."""

    def __init__(self, world: World, source: SimHost, target: SimHost, reserved: VM) -> None:
        self._world, self._source, self._target, self._vm = world, source, target, reserved
        self._soon = world.steps_of(source)

    def prepare_soon(self) -> None:
        self._soon(self._world.pause_s(10.0), self._prepare)

    def _joined(self) -> bool:
        """Tell whether the agents of both hosts reach each other."""
        links = self._world.links
        return self._target.agent_runs and links.both_ways(self._source.name, self._target.name)

    def _leave(self) -> None:
        self._world.migrations.settle(self._source, self._vm)

    def _prepare(self) -> None:
        known, applied = self._target.records.vms[self._vm.id], self._target.records.index
        there = (
            known.host_id == self._source.name
            and known.migrating_to_host_id == self._target.name
            and known.generation == self._vm.generation
        )
        if not self._joined() or applied < self._vm.revision or not there:
            return self._leave()
        self._world.agents.destroy(self._target, self._vm.id)
        return self._soon(self._world.pause_s(2.0), lambda: self._be_granted(applied))

    def _be_granted(self, applied: int) -> None:
        granted = self._target.agent_runs and self._world.agents.grant(
            self._target, self._vm.id, generation=self._vm.generation, applied_index=applied
        )
        if not granted:
            return self._leave()
        return self._soon(self._world.pause_s(10.0), self._arrive)

    def _arrive(self) -> None:
        """QEMU of the target comes up, if the hook lets it."""
        allowed = self._world.agents.ask_guard(
            self._target, "check", self._vm.id, generation=self._vm.generation
        )
        if not self._target.agent_runs or not allowed or self._vm.id in self._target.guests:
            return self._leave()
        self._target.guests[self._vm.id] = Guest(self._vm.generation, arriving=True)
        return self._soon(self._world.rng.uniform(0.5, 15), self._switch)

    def _switch(self) -> None:
        """The guest goes on at the target, or all stays as it is."""
        here = self._source.guests.get(self._vm.id)
        there = self._target.guests.get(self._vm.id)
        whole = here is not None and not (here.killed or here.paused)
        if self._joined() and whole and there is not None and there.arriving and not there.killed:
            del self._source.guests[self._vm.id]
            there.paused = there.arriving = False
            self._world.reached["migrations"] += 1
            self._world.guest_runs(self._target, self._vm.id)
        self._soon(self._world.pause_s(30.0), self._leave)
