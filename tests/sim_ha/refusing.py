"""Storages that can refuse what a boot of a host writes, and the leader that has them do so: whoever leads, or thinks so.

As `nodeagent.services.storage_fencing` does. Storages are honest; they are slow, or fail, before they refuse the host or after.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from core.model import Host, HostState, Lease
from ha.fencing import has_quorum_without
from tests.sim_ha.host import SimHost

if TYPE_CHECKING:
    from tests.sim_ha.world import World

RETRY_S = 5.0
FAILS = 0.2


class Refusing:
    """What the storages refuse, by host, boot and storage."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.refused: set[tuple[str, str, str]] = set()
        self._under_way: set[tuple[str, int, str, str]] = set()

    def can_write(self, host: SimHost, vm_id: str) -> bool:
        """Tell whether a guest on this host can write to any of the VM's disks."""
        return any(
            (host.name, host.boot_id, disk.data_storage_id) not in self.refused
            for disk in self._world.disks.values()
            if disk.vm_id == vm_id
        )

    def tick(self, agent: SimHost) -> None:
        """One look of an agent at what storages are to refuse, or to readmit."""
        leads = self._world.setting.everybody_leads or agent.leads_since_s is not None
        if not agent.agent_runs or not leads:
            return
        for host in list(agent.records.hosts.values()):
            if host.state is HostState.MEMBER:
                self._readmit(agent, host)
            if host.state is HostState.FENCING:
                for storage in host.refusing_storage_ids:
                    self._begin(agent, host, storage)

    def _begin(self, agent: SimHost, host: Host, storage: str) -> None:
        world = self._world
        lease, key = agent.records.leases[host.id], (agent.name, agent.starts, host.id, storage)
        said = host.storage_lease_revision == lease.revision and storage in host.fenced_storage_ids
        if said or key in self._under_way or not world.leadership.serves(agent):
            return
        world.catch_up(agent)
        now, lease = agent.records.hosts[host.id], agent.records.leases[host.id]
        up = world.leadership.up_for(agent)
        spare = has_quorum_without(host.id, voters=frozenset(world.hosts), up=up)
        if now.state is not HostState.FENCING or now.fenced_boot_id != lease.boot_id or not spare:
            return
        self._under_way.add(key)
        over = partial(self._under_way.discard, key)
        soon = world.steps_of(agent)

        def refuse() -> None:
            took = world.healed or world.rng.random() >= FAILS
            if took or world.rng.random() < 0.5:
                self.refused.add((host.id, lease.boot_id, storage))
                world.reached["storages that refuse a boot"] += 1
                world.tell(f"{storage} refuses {lease.boot_id}")
            if took:
                soon(world.pause_s(8.0), say)
            else:
                world.reached["storages that failed to refuse"] += 1
                soon(RETRY_S, over)

        def say() -> None:
            over()
            self._say(agent, lease, storage)

        soon(world.message_s(), refuse)

    def _say(self, agent: SimHost, lease: Lease, storage: str) -> None:
        host = agent.records.hosts[lease.id]
        if host.state is HostState.MEMBER or host.fenced_boot_id != lease.boot_id:
            return
        before = host.fenced_storage_ids if host.storage_lease_revision == lease.revision else ()
        fenced = msgspec.structs.replace(
            host,
            fenced_storage_ids=tuple(sorted({*before, storage})),
            storage_lease_revision=lease.revision,
        )
        if self._world.commit(agent, fenced, guards=(lease,)) is not None:
            self._world.reached["hosts refused by storages"] += 1
            self._world.tell(f"{storage} refuses {host.name}: recorded")

    def _readmit(self, agent: SimHost, host: Host) -> None:
        world = self._world
        if not host.refusing_storage_ids:
            return
        boot_id = agent.records.leases[host.id].boot_id
        if boot_id == host.fenced_boot_id:
            target = world.hosts[host.id]
            if world.healed and target.up and target.boot_id == boot_id:
                world.reached["hosts that a person boots"] += 1
                world.misfortune.power_cycle(target)
            return
        done = msgspec.structs.replace(host, refusing_storage_ids=(), fenced_boot_id="")
        if world.commit(agent, done) is not None:
            world.reached["hosts readmitted by storages"] += 1
