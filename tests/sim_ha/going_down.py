"""Orderly shutdowns: what `nodeagent.services.host_shutdown` does, with any wait between two steps, then the power goes.

Guests are taken down, the guard has the right to run them back, and only then their VMs are given away, or have to wait.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from core.model import VM, Cluster, PowerState, VMPhase
from ha.ownership import given_to
from ha.placement import PlacementError, PlacementRequest, PlacementView, choose_host
from ha.shutdown import frozen_hosts
from tests.sim_ha.faults import HEAL_S
from tests.sim_ha.host import SimHost

if TYPE_CHECKING:
    from tests.sim_ha.world import World

GOING_S = 6.0
FREEZE_S = 25


class Shutdowns:
    """Every host's way down and back."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, host: SimHost, off_s: float) -> None:
        """Do what can be done, then switch it off; a host whose agent doesn't run just goes."""
        world, frozen = self._world, self._world.rng.random() < 0.5
        if host.agent_runs and world.timeline.now_s < HEAL_S - GOING_S:
            host.closing = True
            record = host.records.hosts[host.name]
            going = msgspec.structs.replace(record, down_boot_id=host.boot_id, frozen=frozen)
            world.commit(host, going)
            soon = world.steps_of(host)
            for vm_id in host.guests:
                soon(world.pause_s(GOING_S / 2), partial(self._end, host, vm_id, frozen=frozen))
        boots = host.boots

        def off() -> None:
            if host.up and host.boots == boots:
                world.misfortune.power_cycle(host, off_s)

        world.timeline.after(min(GOING_S, max(0.0, HEAL_S - world.timeline.now_s)), off)

    def _end(self, host: SimHost, vm_id: str, *, frozen: bool) -> None:
        world = self._world
        vm = host.records.vms[vm_id]
        if vm.host_id != host.name or vm.migrating_to_host_id or vm_id in host.working_on:
            return
        if world.rules.end_before_giving:
            if host.stuck or not host.guard_works:
                return  # it can't be taken down, or the guard doesn't answer: it is left as it is
            host.guests.pop(vm_id, None)
            host.guard.handle({"op": "revoke", "vm_id": vm_id}, host.clock.boottime_s())
        soon = world.steps_of(host)
        soon(world.pause_s(GOING_S / 2), partial(self._record, host, vm_id, frozen=frozen))

    def _record(self, host: SimHost, vm_id: str, *, frozen: bool) -> None:
        vm = host.records.vms[vm_id]
        if vm.host_id != host.name or vm.migrating_to_host_id or vm.power is PowerState.STOPPED:
            return
        taker = None if frozen else self._taker(host, vm)
        if taker is None:
            waits = msgspec.structs.replace(
                vm, phase=VMPhase.STOPPED, blocked_reason=f"{host.name} is down"
            )
            if self._world.commit(host, waits) is not None:
                self._world.reached["VMs that wait for a shutdown"] += 1
            return
        given = given_to(vm, taker)
        if self._world.commit(host, given, guards=(host.records.hosts[taker],)) is not None:
            self._world.reached["VMs given away at a shutdown"] += 1

    def _taker(self, host: SimHost, vm: VM) -> str | None:
        records, judge = host.records, host.judge
        view = PlacementView(
            hosts=tuple(records.hosts.values()),
            vms=tuple(records.vms.values()),
            lease_ages_s={
                id_: age for id_ in records.hosts if (age := judge.age_s(id_)) is not None
            },
            cpu_overcommits={},
            fresh_s=self._world.profile.lease_s / 2,
        )
        request = PlacementRequest(
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            vm_id=vm.id,
            cluster_id=vm.cluster_id,
            except_host_ids=frozenset({host.name}),
        )
        try:
            return choose_host(request, view).host_id
        except PlacementError:
            return None

    def come_back(self, host: SimHost) -> None:
        """Say that the host is back, once the cluster knows of its boot."""
        record, lease = host.records.hosts[host.name], host.records.leases.get(host.name)
        if not record.down_boot_id or host.closing or not host.guard_works:
            return
        if lease is None or lease.boot_id != host.boot_id:
            return
        if host.guard.clock.remaining_s(host.clock.boottime_s()) > 0:
            back = msgspec.structs.replace(record, down_boot_id="", frozen=False)
            self._world.commit(host, back)

    def frozen_for(self, host: SimHost) -> frozenset[str]:
        """Return the hosts that VMs wait for, as this one sees it."""
        hosts, now_s = host.records.hosts.values(), host.clock.monotonic_s()
        clusters = {
            one.cluster_id: Cluster(
                id=one.cluster_id, name="c", data_center_id="d", freeze_s_max=FREEZE_S
            )
            for one in hosts
        }
        ages_s = {id_: now_s - stamp_s for id_, stamp_s in host.judge.stamps_s().items()}
        return frozen_hosts(hosts, clusters, host.records.leases, ages_s)
