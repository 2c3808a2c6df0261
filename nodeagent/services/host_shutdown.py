"""An orderly shutdown of this host: its guests leave or end first, by the policy, and no other host has to wait for proof.

Told by the unit that systemd stops before all others when the machine goes down (`nodeagent.shutdown_hook`), never by a stop
or an upgrade of the agent. The proof is this host's own word, VM by VM: the guest is gone, the guard has the right to run
it back, and only then the new owner is committed, unless the VM changed meanwhile. Whatever can't be done in time, or
without a quorum, is left as it is: then the host is one that was lost, and failover waits for its proofs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from core.errors import PlatformError, TemporaryError
from core.model import (
    VM,
    Cluster,
    Host,
    Lease,
    PowerState,
    Severity,
    ShutdownPolicy,
    Task,
    TaskState,
    Unmovable,
    VMPhase,
)
from ha.ownership import given_to
from ha.placement import PlacementError
from ha.shutdown import Going, policy_for
from ha.start_order import rank
from nodeagent.node import Node
from nodeagent.services.admission import Ages, pinned_vms
from nodeagent.services.catching_up import caught_up
from nodeagent.services.event_log import EventLog
from nodeagent.services.host_room import room_on
from nodeagent.services.maintenance import enter, leave
from nodeagent.services.placement_rules import rule_guards
from nodeagent.services.vm_parts import disks_of
from nodeagent.services.vm_power import VmPower
from nodeagent.services.vm_service import Placer
from raftstate.store import ROOM_TAKEN

log = logging.getLogger(__name__)

MIGRATE_S_MAX = 600.0
GUEST_S_MAX = 90.0
STARTS_S_MAX = 20.0
AT_ONCE = 8
TRIES = 8
POLL_S = 0.5
GIVEN_UP_S = 1800.0
"""A host that still runs so long after its shutdown was to be over isn't going down: it is as before."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, as names of VMs. `given`: to other hosts; `waiting`: until this host is back; `left`: as they were."""

    policy: str
    given: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class HostShutdown:
    """One an agent. `run` makes a host that is back one like all others."""

    def __init__(
        self, node: Node, power: VmPower, placer: Placer, ages: Ages, events: EventLog
    ) -> None:
        self._node = node
        self._store = node.store
        self._power = power
        self._placer = placer
        self._ages = ages
        self._events = events
        self._begun = asyncio.Event()
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Come back: this agent runs, so the host is not down. Once more if it was told to go down, and didn't."""
        await caught_up(self._store)
        while True:
            if not self._begun.is_set():
                await self._until_back()
            await self._begun.wait()
            await asyncio.sleep(GIVEN_UP_S)
            async with self._turn:
                log.warning("this host was told to go down, and still runs: it takes VMs again")
                self._power.closing = False
                self._begun.clear()

    async def shut_down(self, going: Going) -> Outcome:
        """Do all that is to be done before the machine goes down; takes up to a quarter of an hour. Repeatable; never raises for one VM."""
        async with self._turn:
            host = self._node.host()
            cluster = self._store.need(Cluster, host.cluster_id)
            policy = policy_for(cluster, host, going)
            log.warning("this host goes down", extra={"policy": str(policy), "going": str(going)})
            if host.witness:
                return Outcome(policy=str(policy))
            self._power.closing = True
            self._begun.set()
            try:
                boot_id = (await self._node.guard.status()).boot_id
                await self._announce(boot_id, policy, going)
                if policy is ShutdownPolicy.MIGRATE:
                    await self._move_away()
            except PlatformError as error:
                log.warning("shutting down without the cluster", extra={"error": error.message})
            await self._wait(lambda: not self._power.is_starting(), STARTS_S_MAX)
            return await self._end_guests(policy)

    # -- going

    async def _announce(self, boot_id: str, policy: ShutdownPolicy, going: Going) -> None:
        frozen = policy is ShutdownPolicy.FREEZE

        def going_down(host: Host) -> Host:
            return replace(host, down_boot_id=boot_id, frozen=frozen)

        await self._change_host(going_down)
        host = self._node.host()
        message = f"host {host.name} goes down in order ({going}): {policy}"
        await self._events.record("host-going-down", host, message, severity=Severity.NOTICE)

    async def _move_away(self) -> None:
        """Have the leader empty this host, as for a maintenance that ends when the host is back."""
        host = self._node.host()
        if not host.maintenance:
            await self._change_host(lambda host: replace(host, maintenance_for_shutdown=True))
            await enter(self._node, self._ages, self._node.host(), Unmovable.KEEP)
        await self._wait(lambda: self._node.host().maintenance_ready, MIGRATE_S_MAX)

    async def _end_guests(self, policy: ShutdownPolicy) -> Outcome:
        """Shut all guests down, some side by side, those of low priority first, and say of each what it waits for."""
        mine = [
            vm
            for vm in self._store.all(VM)
            if vm.host_id == self._node.host_id and vm.phase is not VMPhase.STOPPED
        ]
        given: list[str] = []
        waiting: list[str] = []
        left: list[str] = []
        turn = asyncio.Semaphore(AT_ONCE)
        pinned = pinned_vms(self._store)

        async def end(vm: VM) -> None:
            async with turn:
                try:
                    goes = policy is not ShutdownPolicy.FREEZE and vm.id not in pinned
                    (given if await self._end(vm, goes=goes) else waiting).append(vm.name)
                except PlatformError as error:
                    left.append(vm.name)
                    about = {"vm": vm.id, "error": error.message}
                    log.warning("a VM is left as it is at the shutdown", extra=about)

        async with asyncio.TaskGroup() as group:
            for vm in sorted(mine, key=lambda vm: (-rank(vm), vm.name)):
                group.create_task(end(vm), name=f"end-{vm.name}")
        return Outcome(
            policy=str(policy),
            given=tuple(sorted(given)),
            waiting=tuple(sorted(waiting)),
            left=tuple(sorted(left)),
        )

    async def _end(self, vm: VM, *, goes: bool) -> bool:
        """End a guest, then give its VM away or have it wait; True when it was given away."""
        if self._store.need(VM, vm.id).migrating_to_host_id:
            return False  # a move that takes too long ends as it can
        if not await self._power.shut_down(vm.id, timeout_s=GUEST_S_MAX):
            log.warning("a guest didn't shut down in time", extra={"vm": vm.id})
        await self._power.destroy(vm.id)  # from here on nothing of it runs here, nor can
        for attempt in range(TRIES):
            now = self._store.get(VM, vm.id)
            if now is None or now.host_id != self._node.host_id or now.migrating_to_host_id:
                return False  # somebody else's by now; a move that is under way ends by itself
            if now.power is PowerState.STOPPED or now.phase in (VMPhase.CREATING, VMPhase.DELETING):
                return False  # what works on it records that
            try:
                return await self._record(now, goes=goes and now.ha)
            except PlatformError as error:
                if error.code not in ("conflict-guard", ROOM_TAKEN) or attempt == TRIES - 1:
                    raise
        return False

    async def _record(self, vm: VM, *, goes: bool) -> bool:
        here = self._node.host_name
        taker = self._taker(vm) if goes else None
        if taker is None:
            waits = replace(
                vm,
                phase=VMPhase.STOPPED,
                blocked_reason=f"{here} is down: it starts when it is back",
            )
            await self._store.apply(puts=(waits,))
            return False
        message = f"VM {vm.name} goes from {here}, which is shut down, to {taker.name}"
        event = self._events.make("vm-handed-over", vm, message)
        guards = (taker, *rule_guards(self._store, vm))
        room = room_on(self._store, taker.id)
        await self._store.apply(
            puts=(given_to(vm, taker.id), room, event, *self._ended_task(vm)), guards=guards
        )
        return True

    def _ended_task(self, vm: VM) -> tuple[Task, ...]:
        """Return the open task of a VM that is given away, ended: the taker acts on a VM without one only."""
        holder = self._store.claim_holder(f"task.subject/vm/{vm.id}")
        task = self._store.get(Task, holder.removeprefix("task/")) if holder else None
        if task is None:
            return ()
        ended = replace(
            task,
            state=TaskState.FAILED,
            error=f"host {self._node.host_name}, which worked on it, was shut down",
            error_code="host-shutting-down",
            ended_ms=self._node.clock.wall_ms(),
        )
        return (ended,)

    def _taker(self, vm: VM) -> Host | None:
        try:
            disks = disks_of(self._store, vm.id)
            return self._store.need(Host, self._placer.choose(vm, disks, never=self._node.host_id))
        except PlacementError as error:
            log.warning("no host takes a VM", extra={"vm": vm.id, "error": error.message})
            return None

    # -- and back

    async def _come_back(self) -> None:
        host = self._node.host()
        if not (host.down_boot_id or host.frozen or host.maintenance_for_shutdown):
            return
        status, lease = await self._node.guard.status(), self._store.get(Lease, host.id)
        if not status.lease_valid or lease is None or lease.boot_id != status.boot_id:
            # As long as the cluster doesn't know of this boot, the record is what keeps its VMs here.
            raise TemporaryError("this host holds no lease yet")
        if host.maintenance_for_shutdown and host.maintenance:
            await leave(self._node, host, move_back=True)
        await self._change_host(
            lambda host: replace(
                host, down_boot_id="", frozen=False, maintenance_for_shutdown=False
            )
        )

    # -- parts

    async def _change_host(self, change: Callable[[Host], Host]) -> None:
        for attempt in range(TRIES):
            host = self._node.host()
            if change(host) == host:
                return
            try:
                await self._store.apply(puts=(change(host),))
            except PlatformError as error:
                if error.code != "conflict-guard" or attempt == TRIES - 1:
                    raise
            else:
                return

    async def _until_back(self) -> None:
        while True:
            try:
                await self._come_back()
            except PlatformError as error:
                log.info("this host can't say yet that it is back", extra={"error": error.message})
                await asyncio.sleep(POLL_S)
            else:
                return

    async def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            log.warning("going on with the shutdown")
