"""Failover: whoever leads, or thinks so, decides with `ha.manager` and performs each decision as a guarded commit, maybe late.

And the operator, who says that a host is off. Mistaken or not, the product must hold as long as the guard works.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from core.model import VM, Arming, Disk, Host, HostState, Lease
from ha.cold_start import waited_for
from ha.fencing import Fence
from ha.manager import (
    Block,
    Decision,
    EndMigration,
    HAView,
    HostLost,
    Recover,
    Suspect,
    Unblock,
    decide,
    remember,
)
from ha.ownership import given_to
from ha.profile import profile_in
from tests.sim_ha.faults import HEAL_S
from tests.sim_ha.host import SimHost

if TYPE_CHECKING:
    from tests.sim_ha.world import World


class Managers:
    """Every host's failover loop, as `nodeagent.services.ha_controller` is."""

    def __init__(self, world: World) -> None:
        self._world = world
        # When a leader waited last for hosts that are missing after a cold start.
        self.waited_s = 0.0

    def tick(self, host: SimHost) -> None:
        """One round."""
        world = self._world
        now_s = host.clock.monotonic_s()
        since_s = now_s - 100 if world.setting.everybody_leads else host.leads_since_s
        if not host.agent_runs or since_s is None:
            return
        records = host.records
        view = HAView(
            profile=world.wishes.profile(host),
            leader_since_s=since_s,
            hosts=records.hosts
            if world.rules.word_for_this_lease
            else _with_words_for_any_lease(records.hosts, records.leases),
            vms=records.vms if world.rules.see_migrations else _without_migrations(records.vms),
            disks=world.disks
            if world.rules.all_disks_count
            else _refusing_disks(world.disks, world.setting.refusing),
            storages=world.storages,
            leases=records.leases,
            stamps_s=host.judge.stamps_s(),
            booted_s=host.judge.booted_s(),
            bmcs=world.boards.records,
            fencing_storages=world.setting.refusing,
            voters=frozenset(world.hosts),
            up=world.leadership.up_for(host),
            suspected=host.suspected,
            lost=host.lost,
            frozen=world.shutdowns.frozen_for(host),
            recovery_enabled=records.mesh.ha_arming is not Arming.DISARMED,
        )
        if waited_for(view.hosts.values(), view.booted_s, now_s):
            world.reached["rounds that wait for missing hosts"] += 1
            self.waited_s = world.timeline.now_s
        decisions = decide(view, now_s)
        host.suspected, host.lost = remember(view, decisions)
        soon = world.steps_of(host)
        for decision in decisions:
            soon(world.pause_s(8.0, world.setting.late), partial(self._perform, host, decision))

    def _perform(self, host: SimHost, decision: Decision) -> None:
        world = self._world
        match decision:
            case Suspect():
                world.reached["hosts suspected"] += 1
            case HostLost(host_id=host_id):
                world.reached["hosts lost"] += 1
                world.tell(f"{host.name} calls {host_id} lost")
            case Fence():
                world.boards.fence(host, decision)
            case Recover():
                self._recover(host, decision)
            case EndMigration():
                vm = self._vm(host, decision)
                lease = self._lease(host, decision.lost_host, decision.lease_revision)
                guards = (lease,) if world.rules.guard_lease_revision else ()
                self._put(host, vm, guards, "migrations ended", migrating_to_host_id="")
            case Block(reason=reason):
                self._put(host, self._vm(host, decision), (), "blocked", blocked_reason=reason)
            case Unblock():
                self._put(host, self._vm(host, decision), (), "unblocked", blocked_reason="")
            case _:
                pass

    def _recover(self, host: SimHost, decision: Recover) -> None:
        vm, target = self._vm(host, decision), host.records.hosts[decision.to_host]
        leases = [self._lease(host, decision.from_host, decision.lease_revision)]
        if decision.other_lease is not None:
            other = decision.other_lease
            leases.append(self._lease(host, other.host_id, other.revision))
        arriving = vm.migrating_to_host_id == target.id
        guards = (target, *(leases if self._world.rules.guard_lease_revision else ()))
        boot_id = host.records.leases[target.id].boot_id if arriving else ""
        owned = given_to(vm, target.id, boot_id=boot_id)
        self._propose(host, vm, owned, guards, f"recoveries by {decision.proof}")

    def _put(
        self, host: SimHost, vm: VM, guards: tuple[object, ...], what: str, **changes: object
    ) -> None:
        self._propose(host, vm, msgspec.structs.replace(vm, **changes), guards, what)

    def _propose(
        self, host: SimHost, vm: VM, changed: VM, guards: tuple[object, ...], what: str
    ) -> None:
        changes = {
            name: value
            for name in VM.__struct_fields__
            if (value := getattr(changed, name)) != getattr(vm, name)
        }
        self._world.tell(f"{host.name} proposes: {vm.id} of {vm.host_id}, {what} {changes}")
        if self._world.commit(host, changed, guards=guards) is not None:  # type: ignore[arg-type]
            self._world.reached[what] += 1
        else:
            self._world.reached["decisions overtaken"] += 1

    def _vm(self, host: SimHost, decision: Recover | EndMigration | Block | Unblock) -> VM:
        """Return the VM at the revision that was decided upon."""
        vm = host.records.vms[decision.vm_id]
        revision = decision.vm_revision
        if isinstance(decision, Recover) and not self._world.rules.guard_vm_revision:
            revision = self._world.log.state.vms[vm.id].revision
        return msgspec.structs.replace(vm, revision=revision)

    def _lease(self, host: SimHost, host_id: str, revision: int) -> Lease:
        return msgspec.structs.replace(host.records.leases[host_id], revision=revision)


class Operator:
    """A person who comes, looks at a host and says that it is off."""

    def __init__(self, world: World) -> None:
        self._world = world

    def confirm(self, name: str) -> None:
        """Try it for a while: the cluster refuses as long as the lease may hold."""
        world, host = self._world, self._world.hosts[name]
        world.reached["operator came"] += 1
        until_s = min(world.timeline.now_s + 30.0, HEAL_S)

        def say() -> None:
            if world.timeline.now_s > until_s:
                return
            if not (self._may_be_said_of(host) and self._fence(host)):
                world.timeline.after(2.0, say)

        say()

    def _may_be_said_of(self, host: SimHost) -> bool:
        """It is off, or it looks so and its guard works: more no one promises."""
        works = host.guard_works and not host.stuck and host.guard.clock.enforced
        return not host.up or (works and not host.guests)

    def _fence(self, host: SimHost) -> bool:
        world = self._world
        for agent in world.hosts.values():
            age_s = agent.judge.age_s(host.name)
            if agent is host or age_s is None or not world.leadership.serves(agent):
                continue
            record, lease = agent.records.hosts[host.name], agent.records.leases[host.name]
            if age_s < profile_in(agent.records.mesh).of(lease).ended_s:
                continue
            fenced = msgspec.structs.replace(record, state=HostState.FENCED, off_lease_revision=0)
            if world.commit(agent, fenced, guards=(lease,)) is not None:
                world.reached["fenced while on" if host.up else "fenced while off"] += 1
                world.tell(f"an operator says that {host.name} is off")
                return True
        return False


def _without_migrations(vms: dict[str, VM]) -> dict[str, VM]:
    """Return the VMs as one sees them who knows of no migration."""
    return {name: msgspec.structs.replace(vm, migrating_to_host_id="") for name, vm in vms.items()}


def _refusing_disks(disks: dict[str, Disk], refusing: frozenset[str]) -> dict[str, Disk]:
    """Return the disks as one sees them who asks of some of them only whether they can be written."""
    return {name: disk for name, disk in disks.items() if disk.data_storage_id in refusing}


def _with_words_for_any_lease(hosts: dict[str, Host], leases: dict[str, Lease]) -> dict[str, Host]:
    """Return the hosts as one sees them who takes what storages said once as said of the present lease."""
    return {
        name: msgspec.structs.replace(
            host,
            storage_lease_revision=leases[name].revision,
            fenced_boot_id=leases[name].boot_id,
        )
        if host.storage_lease_revision and name in leases
        else host
        for name, host in hosts.items()
    }
