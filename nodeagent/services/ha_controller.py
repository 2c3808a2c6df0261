"""Performs failover: on the leader, once a second, decisions of `ha.manager` become guarded transactions.

Acting on "I lead" would be unsafe by itself; every transaction guards the lost host's lease, so a leader that is one
no more, or a host that renews at the last moment, makes it void.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError
from core.model import (
    VM,
    Arming,
    Bmc,
    BmcState,
    Cluster,
    DataStorage,
    Disk,
    Host,
    HostState,
    Lease,
    Mesh,
    PlacementRule,
    Resource,
    Severity,
    Task,
    TaskState,
    key_of,
)
from ha.fencing import Fence, is_movable
from ha.lease import LeaseJudge
from ha.manager import (
    Block,
    Decision,
    EndMigration,
    HAView,
    HostLost,
    HostReturned,
    Recover,
    Suspect,
    Unblock,
    decide,
    remember,
)
from ha.ownership import given_to
from ha.placement import overcommits_of
from ha.profile import profile_in
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.freezes import Freezes
from nodeagent.services.ha_alarms import HaAlarms
from nodeagent.services.host_room import still_room, tried_again
from nodeagent.services.placement_rules import still_allowed
from nodeagent.services.vm_parts import disks_of

log = logging.getLogger(__name__)

ROUND_S = 0.5


@dataclass(frozen=True, slots=True)
class _Recovery:
    """What the recovery of one VM stores, the VM with its new owner among it, and what that guards."""

    vm: VM
    puts: tuple[Resource, ...]
    guards: tuple[Resource, ...]


def in_batches(
    decisions: Iterable[Decision], is_plain: Callable[[Decision], bool]
) -> Iterator[list[Decision]]:
    """Yield the decisions in their order: plain ones that follow each other together, others alone.

    Each transaction costs a write to the disks of a majority. How many there are in a round is bounded (`RECOVERIES_MAX`).
    """
    for plain, run in groupby(decisions, is_plain):
        if plain:
            yield list(run)
        else:
            yield from ([decision] for decision in run)


class HaController:
    """The leader's failover loop; idle on every other node."""

    def __init__(
        self,
        node: Node,
        judge: LeaseJudge,
        events: EventLog,
        fencing_storages: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._node = node
        self._fencing_storages = fencing_storages
        self._store = node.store
        self._judge = judge
        self._events = events
        self._leader_since_s: float | None = None
        self._suspected: frozenset[str] = frozenset()
        self._lost: frozenset[str] = frozenset()
        self._alarms = HaAlarms(node, events)
        self._frozen: frozenset[str] = frozenset()
        self._freezes = Freezes(node.store, events)

    async def run(self) -> None:
        """Decide and act until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            now_s = self._node.clock.monotonic_s()
            if not self._node.engine.is_leader():
                self._leader_since_s = None
                self._alarms.forget()
                continue
            if self._leader_since_s is None:
                self._leader_since_s = now_s
                self._suspected = self._lost = frozenset()
            self._frozen = await self._freezes.look(self._judge.stamps_s(), now_s)
            view = self._view()
            decisions = decide(view, now_s)
            self._suspected, self._lost = remember(view, decisions)
            ruled = {vm_id for rule in view.rules for vm_id in rule.vm_ids}
            for together in in_batches(decisions, partial(self._is_plain, ruled=ruled)):
                if len(together) == 1 or not await self._done_together(together):
                    await self._do_each(together)
            await self._alarms.look(view, now_s)

    async def _do_each(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            try:
                await self._perform(decision)
            except ConflictError as error:
                log.info("a failover decision was overtaken", extra={"error": error.message})
            except PlatformError as error:
                log.warning("a failover decision failed", extra={"error": error.message})

    def _is_plain(self, decision: Decision, ruled: Collection[str]) -> bool:
        """Tell whether a VM's recovery has nothing to do with that of others but the room that they take."""
        if not isinstance(decision, Recover) or decision.other_lease is not None:
            return False
        vm = self._store.get(VM, decision.vm_id)
        return vm is not None and vm.id not in ruled and not vm.migrating_to_host_id

    async def _done_together(self, decisions: Sequence[Decision]) -> bool:
        """Recover VMs in one transaction; False: something stands in the way of one of them, and nothing was changed."""
        puts: dict[str, Resource] = {}
        guards: dict[str, Resource] = {}
        given: dict[str, list[VM]] = {}
        try:
            for decision in decisions:
                assert isinstance(decision, Recover), "only recoveries are plain"
                beside = given.setdefault(decision.to_host, [])
                parts = self._recovery(decision, beside=beside)
                beside.append(parts.vm)
                puts |= {key_of(one): one for one in parts.puts}
                guards |= {key_of(one): one for one in parts.guards}
            await self._store.apply(puts=puts.values(), guards=guards.values())
        except UnavailableError as error:  # nobody knows what became of it: decided anew
            log.warning("failover decisions failed", extra={"error": error.message})
        except PlatformError as error:
            about = {"vms": len(decisions), "error": error.message}
            log.info("VMs are recovered one by one", extra=about)
            return False
        return True

    def _view(self) -> HAView:
        store = self._store
        mesh = store.need(Mesh, MESH_ID)
        return HAView(
            profile=profile_in(mesh),
            leader_since_s=self._leader_since_s,
            hosts={h.id: h for h in store.all(Host)},
            vms={v.id: v for v in store.all(VM)},
            disks={d.id: d for d in store.all(Disk)},
            storages={s.id: s for s in store.all(DataStorage)},
            leases={lease.id: lease for lease in store.all(Lease)},
            stamps_s=self._judge.stamps_s(),
            booted_s=self._judge.booted_s(),
            bmcs={bmc.id: bmc for bmc in store.all(Bmc)},
            fencing_storages=self._fencing_storages(),
            rules=tuple(store.all(PlacementRule)),
            voters=frozenset(peer.id for peer in self._node.engine.voters()),
            up=self._node.engine.connected() | {self._node.host_id},
            suspected=self._suspected,
            lost=self._lost,
            frozen=self._frozen,
            cpu_overcommits=overcommits_of(store.all(Cluster)),
            recovery_enabled=mesh.ha_arming is not Arming.DISARMED,
            recovery_off_why=f"failover is disarmed by {mesh.ha_disarmed_by} ({mesh.ha_disarm_reason}); "
            "it goes on after: kvorum ha arm",
        )

    async def _perform(self, decision: Decision) -> None:
        match decision:
            case Fence():
                await self._fence(decision)
            case Recover():
                await tried_again(lambda: self._recover(decision))
            case EndMigration():
                await self._end_migration(decision)
            case Block(vm_id=vm_id, vm_revision=revision, reason=reason):
                vm = self._vm(vm_id, revision)
                event = self._events.make(
                    "vm-blocked", vm, f"VM {vm.name}: {reason}", severity=Severity.ALARM
                )
                await self._store.apply(puts=(replace(vm, blocked_reason=reason), event))
            case Unblock(vm_id=vm_id, vm_revision=revision):
                await self._store.apply(
                    puts=(replace(self._vm(vm_id, revision), blocked_reason=""),)
                )
            case Suspect(host_id=host_id):
                await self._host_event(
                    "host-suspected", host_id, "does not renew its lease", Severity.WARNING
                )
            case HostLost(host_id=host_id):
                host = self._store.get(Host, host_id)
                if host is not None and host.down_boot_id:
                    what = "is down: it was shut down in order, and its lease has ended"
                    await self._host_event("host-down", host_id, what, Severity.NOTICE)
                else:
                    what = "is lost: its lease has ended"
                    await self._host_event("host-lost", host_id, what, Severity.ALARM)
            case HostReturned(host_id=host_id):
                await self._host_event(
                    "host-returned", host_id, "renews its lease again", Severity.NOTICE
                )

    async def _fence(self, decision: Fence) -> None:
        """Refuse the host's renewals; `nodeagent.services.fencing` and `storage_fencing` do the rest.

        Which storages may refuse the host from now on is known before one is asked, so that none is forgotten later.
        """
        host = self._store.need(Host, decision.host_id)
        if host.revision != decision.host_revision:
            raise ConflictError(f"host {host.name} changed meanwhile")
        lease = self._lease(decision.host_id, decision.lease_revision)
        bmc = self._store.get(Bmc, host.id)
        how = ["its BMC is to take its power away"] if bmc and bmc.state is BmcState.OK else []
        how += ["its data storages are to refuse what it writes"] if decision.storage_ids else []
        message = f"host {host.name} does not renew its lease: {' and '.join(how)}"
        event = self._events.make("host-fencing", host, message, severity=Severity.WARNING)
        refusing = {*host.refusing_storage_ids, *decision.storage_ids}
        fencing = replace(
            host,
            state=HostState.FENCING,
            off_lease_revision=0,
            fenced_storage_ids=(),
            storage_lease_revision=0,
            refusing_storage_ids=tuple(sorted(refusing)),
            fenced_boot_id=lease.boot_id if refusing else "",
        )
        await self._store.apply(
            puts=(fencing, event),
            guards=[lease],
        )

    async def _recover(self, decision: Recover) -> None:
        parts = self._recovery(decision)
        await self._store.apply(puts=parts.puts, guards=parts.guards)

    def _recovery(self, decision: Recover, *, beside: Iterable[VM] = ()) -> _Recovery:
        """Return what a recovery stores, `beside` others that come to the same host.

        Raises:
            ConflictError: what it was decided from isn't so any more.
        """
        vm = self._vm(decision.vm_id, decision.vm_revision)
        target = self._store.need(Host, decision.to_host)
        if target.cluster_id != vm.cluster_id:
            raise ConflictError(f"host {target.name} belongs to another cluster by now")
        lost = self._store.get(Host, decision.from_host)
        guards: list[Resource] = [
            self._lease(decision.from_host, decision.lease_revision),
            target,
            *self._rules(vm, target),
        ]
        if decision.other_lease is not None:
            guards.append(self._lease(decision.other_lease.host_id, decision.other_lease.revision))
        # A living target of a migration may run the guest already, in its present boot; any other host does not.
        arriving = vm.migrating_to_host_id == target.id
        room = () if arriving else (still_room(self._store, vm, target, beside=beside),)
        boot_id = self._store.need(Lease, target.id).boot_id if arriving else ""
        recovered = given_to(vm, target.id, boot_id=boot_id)
        message = (
            f"VM {vm.name} moves from lost host {lost.name if lost else decision.from_host} "
            f"to {target.name} (proof: {decision.proof})"
        )
        event = self._events.make("vm-recovered", vm, message, severity=Severity.WARNING)
        return _Recovery(
            vm=recovered,
            puts=(recovered, event, *room, *self._ended_tasks(vm)),
            guards=tuple(guards),
        )

    def _rules(self, vm: VM, target: Host) -> tuple[Resource, ...]:
        """Return what placement rules went by; a guest that is on its way to the target may run there already, whatever they say."""
        if vm.migrating_to_host_id == target.id:
            return ()

        def leaves(other: VM) -> bool:
            local = any(disk.host_id for disk in disks_of(self._store, other.id))
            return is_movable(other) and not local

        return still_allowed(self._store, vm, target, leaves=leaves)

    async def _end_migration(self, decision: EndMigration) -> None:
        """Take the move off the record, and have the task that works on it look at once: its host ends the move there."""
        vm = self._vm(decision.vm_id, decision.vm_revision)
        owner, lost = (self._store.get(Host, id_) for id_ in (vm.host_id, decision.lost_host))
        task = self._open_task(vm)
        message = (
            f"VM {vm.name} stays on {owner.name if owner else vm.host_id}: {lost.name if lost else decision.lost_host}, "
            f"where it was moving to, is lost (proof: {decision.proof})"
        )
        event = self._events.make("migration-ended", vm, message, severity=Severity.WARNING)
        asked = () if task is None else (replace(task, retries_asked=task.retries_asked + 1),)
        await self._store.apply(
            puts=(replace(vm, migrating_to_host_id=""), event, *asked),
            guards=[self._lease(decision.lost_host, decision.lease_revision)],
        )

    def _open_task(self, vm: VM) -> Task | None:
        holder = self._store.claim_holder(f"task.subject/vm/{vm.id}")
        return self._store.get(Task, holder.removeprefix("task/")) if holder else None

    def _ended_tasks(self, vm: VM) -> list[Task]:
        """End the open task of a VM whose runner died, so that the VM can be worked on at its new host."""
        task = self._open_task(vm)
        if task is None:
            return []
        ended = replace(
            task,
            state=TaskState.FAILED,
            error="the host that worked on it was lost; the VM was taken over by another",
            error_code="host-lost",
            ended_ms=self._node.clock.wall_ms(),
        )
        return [ended]

    async def _host_event(self, code: str, host_id: str, what: str, severity: Severity) -> None:
        host = self._store.get(Host, host_id)
        if host is not None:
            await self._events.record(code, host, f"host {host.name} {what}", severity=severity)

    def _vm(self, vm_id: str, revision: int) -> VM:
        vm = self._store.need(VM, vm_id)
        if vm.revision != revision:
            raise ConflictError(f"VM {vm.name} changed meanwhile")
        return vm

    def _lease(self, host_id: str, revision: int) -> Lease:
        """Return the lease to be guarded at the revision the decision was made from."""
        return replace(self._store.need(Lease, host_id), revision=revision)
