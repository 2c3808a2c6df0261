"""Live migrations, as `nodeagent.workflows.migrate_steps` runs them: reserve, prepare, move, hand over, or take back.

The source asks again and again where the guest is until it knows; it goes on where an agent before it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from core.model import VM, VMPhase
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
        fresh = [
            name
            for name in world.hosts
            if name != source.name
            and (source.judge.age_s(name) or 0.0) < world.profile.lease_s / 2
            and name in source.records.leases
        ]
        if not fresh:
            return
        target = world.hosts[world.rng.choice(fresh)]
        reserved = msgspec.structs.replace(
            vm, migrating_to_host_id=target.name, phase=VMPhase.MIGRATING
        )
        index = world.commit(source, reserved, guards=(source.records.hosts[target.name],))
        if index is None:
            return
        source.working_on.add(vm.id)
        soon = world.steps_of(source)

        def leave() -> None:
            self.settle(source, msgspec.structs.replace(reserved, revision=index))

        def prepare() -> None:
            known = target.records.vms[vm.id]
            reached = target.agent_runs and world.links.both_ways(source.name, target.name)
            there = known.host_id == source.name and known.migrating_to_host_id == target.name
            if not reached or target.records.index < index or not there:
                return leave()
            if known.generation != vm.generation:
                return leave()
            world.agents.destroy(target, vm.id)
            applied = target.records.index
            return soon(world.pause_s(2.0), lambda: be_granted(applied))

        def be_granted(applied: int) -> None:
            if not target.agent_runs or not world.agents.grant(
                target, vm.id, generation=vm.generation, applied_index=applied
            ):
                return leave()
            return soon(world.pause_s(10.0), arrive)

        def arrive() -> None:
            """QEMU of the target comes up, if the hook lets it."""
            allowed = world.agents.ask_guard(target, "check", vm.id, generation=vm.generation)
            if not target.agent_runs or not allowed or vm.id in target.guests:
                return leave()
            target.guests[vm.id] = Guest(vm.generation, arriving=True)
            return soon(world.rng.uniform(0.5, 15), switch)

        def switch() -> None:
            here, there = source.guests.get(vm.id), target.guests.get(vm.id)
            joined = target.agent_runs and world.links.both_ways(source.name, target.name)
            whole = here is not None and not (here.killed or here.paused)
            if joined and whole and there is not None and there.arriving and not there.killed:
                del source.guests[vm.id]
                there.paused = there.arriving = False
                world.reached["migrations"] += 1
                world.guest_runs(target, vm.id)
            soon(world.pause_s(30.0), leave)

        soon(world.pause_s(10.0), prepare)

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
