"""Keeps the guests of this host as the store wants them (HA-2: a VM that should run is started again).

Woken by changes of the store, by libvirt's events and by a poll; decides with `vm_plan`, acts with `vm_power`. One
operation a VM at a time, VMs in parallel. It never acts on a VM that a workflow is working on.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import PlatformError
from core.model import VM, Event, Lease, Severity, Task, VMPhase
from ha.start_order import StartGate, rank
from nodeagent.compute.hypervisor import IO_ERROR, DomainState
from nodeagent.node import Node
from nodeagent.services.backoff import Backoff
from nodeagent.services.catching_up import caught_up
from nodeagent.services.event_log import EventLog
from nodeagent.services.moving_on import MovingOn
from nodeagent.services.storage_loss import StorageLoss
from nodeagent.services.vm_plan import Action, next_action
from nodeagent.services.vm_power import VmPower

log = logging.getLogger(__name__)

POLL_S = 5.0
QUICK_S = 1.0
LOOKS_SHARE = 0.05
"""The part of the time in which guests are looked at: each look asks libvirt about every guest of the host, and while many are
started, every one of their changes would be a reason to look again."""
PAUSE_S_MAX = 1.0
LEASE_GRACE_S = 30.0  # a host that has just booted has a lease within this, and isn't blocked
COUNTED = (
    Action.START,
    Action.RESUME,
)  # what may fail again at once, so that it waits longer each time
STORAGE_FAILS = "its storage fails"
STARTS_AT_ONCE_MIN, STARTS_AT_ONCE_MAX = 4, 8


def starts_at_once(cpus: int) -> int:
    """Return how many guests a host of so many processor threads starts side by side."""
    return max(STARTS_AT_ONCE_MIN, min(cpus // 4, STARTS_AT_ONCE_MAX))


class VmController:
    """The reconciler of guests."""

    def __init__(
        self,
        node: Node,
        power: VmPower,
        events: EventLog,
        moving_on: MovingOn,
        storage_loss: StorageLoss,
    ) -> None:
        self._node = node
        self._store = node.store
        self._power = power
        self._events = events
        self._moving_on = moving_on
        self._storage_loss = storage_loss
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._backoffs: dict[str, Backoff] = {}
        self._resumes: dict[str, Backoff] = {}
        self._warned: set[str] = set()
        self._gate = StartGate()
        self._no_lease_since_s: dict[str, float] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE_MIN)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await caught_up(self._store)
        self._starts = asyncio.Semaphore(starts_at_once(self._node.host().cpus))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_store(), name="vm-controller-store")
            group.create_task(self._follow_hypervisor(), name="vm-controller-events")
            group.create_task(self._reconcile_forever(group), name="vm-controller")

    async def _follow_store(self) -> None:
        watch = self._store.watch(VM, Task)
        try:
            while True:
                await watch.next()
                self._wake.set()
        finally:
            self._store.unwatch(watch)

    async def _follow_hypervisor(self) -> None:
        async with self._node.hypervisor.events() as events:
            async for _ in events:
                self._wake.set()

    async def _reconcile_forever(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            began_s = self._node.clock.monotonic_s()
            try:
                domains = {d.vm_id: d for d in await self._node.hypervisor.list_domains()}
            except PlatformError as error:
                log.warning("the hypervisor can't be asked", extra={"error": error.message})
                await asyncio.sleep(QUICK_S)
                continue
            waiting = self._reconcile_all(group, domains)
            took_s = self._node.clock.monotonic_s() - began_s
            await asyncio.sleep(min(took_s * (1 / LOOKS_SHARE - 1), PAUSE_S_MAX))
            try:
                async with asyncio.timeout(QUICK_S if waiting else POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _reconcile_all(self, group: asyncio.TaskGroup, domains: dict[str, DomainState]) -> bool:
        """Begin what is due; return True when something waits for its back-off."""
        waiting = False
        vms = {vm.id: vm for vm in sorted(self._store.all(VM), key=rank)}
        now_s = self._node.clock.monotonic_s()
        self._gate.look(vms.values(), {lease.id: lease for lease in self._store.all(Lease)}, now_s)
        for vm_id in (*vms, *(domains.keys() - vms.keys())):
            if vm_id in self._busy:
                continue
            action = self._decide(vms.get(vm_id), domains.get(vm_id))
            if action is Action.START and (
                self._power.closing or not self._gate.may_start(vms[vm_id], now_s)
            ):
                waiting = True
                continue
            if action is Action.AFTER_IO_ERROR:
                waiting = True
                continue
            if action is Action.NOTHING:
                self._backoffs.get(vm_id, Backoff()).note_good(now_s)
                self._resumes.get(vm_id, Backoff()).note_good(now_s)
                self._no_lease_since_s.pop(vm_id, None)
                self._moving_on.is_well(vm_id)
                continue
            history = self._resumes if action is Action.RESUME else self._backoffs
            backoff = history.setdefault(vm_id, Backoff())
            if backoff.is_due(now_s):
                self._busy.add(vm_id)
                group.create_task(self._act(vm_id, action, backoff), name=f"vm-{action}-{vm_id}")
            else:
                waiting = True
        for history in (self._backoffs, self._resumes):
            for gone in history.keys() - vms.keys() - domains.keys():
                del history[gone]
        return waiting

    def _decide(self, vm: VM | None, domain: DomainState | None) -> Action:
        if domain is None and (vm is None or vm.host_id != self._node.host_id):
            return Action.NOTHING
        vm_id = vm.id if vm else domain.vm_id if domain else ""
        has_task = bool(self._store.claim_holder(f"task.subject/vm/{vm_id}"))
        action = next_action(vm, domain, host_id=self._node.host_id, has_task=has_task)
        if action is Action.WARN_UNKNOWN:
            if vm_id not in self._warned:
                self._warned.add(vm_id)
                log.warning("a guest runs here that the cluster does not know", extra={"vm": vm_id})
            return Action.NOTHING
        if action is Action.AFTER_IO_ERROR and vm is not None:
            return self._storage_loss.next_action(vm)
        return action

    async def _act(self, vm_id: str, action: Action, backoff: Backoff) -> None:
        try:
            await self._perform(vm_id, action)
            backoff.note_done(self._node.clock.monotonic_s(), counts=action in COUNTED)
        except PlatformError as error:
            lease_is_missing = error.code.startswith("guard-")
            backoff.note_failed(self._node.clock.monotonic_s(), counts=not lease_is_missing)
            log.warning(
                "a VM could not be brought to what is wanted",
                extra={"vm": vm_id, "action": str(action), "error": error.message},
            )
            if action is Action.LEAVE:
                await self._report_stuck(vm_id, error)
            if action is Action.START:
                await self._start_failed(vm_id, error, lease_is_missing=lease_is_missing)
        finally:
            self._busy.discard(vm_id)
            self._wake.set()

    async def _start_failed(
        self, vm_id: str, error: PlatformError, *, lease_is_missing: bool
    ) -> None:
        """Say why it can't run, or let another host try; a lease that is to come is waited for."""
        now_s = self._node.clock.monotonic_s()
        if lease_is_missing:
            if now_s - self._no_lease_since_s.setdefault(vm_id, now_s) < LEASE_GRACE_S:
                return
        else:
            try:
                if await self._moving_on.failed(vm_id, error.message):
                    return
            except PlatformError as failure:
                about = {"vm": vm_id, "error": failure.message}
                log.info("a VM that can't be started stays here", extra=about)
        await self._report_blocked(vm_id, error)

    async def _perform(self, vm_id: str, action: Action) -> None:
        match action:
            case Action.START:
                async with self._starts:
                    await self._power.start(vm_id, tell=self._started)
            case Action.DESTROY:
                await self._power.destroy(vm_id)
                log.warning("a guest that is not wanted here was stopped", extra={"vm": vm_id})
            case Action.REPORT_RUNNING | Action.CLEAR_MIGRATION:
                await self._power.report_running(vm_id)
            case Action.REPORT_STOPPED:
                await self._power.finish_stop(vm_id)
            case Action.REPORT_PAUSED:
                await self._report_paused(vm_id)
            case Action.RESUME:
                await self._power.go_on(vm_id)
            case Action.LEAVE:
                await self._storage_loss.leave(vm_id)
            case _:
                return

    def _started(self, vm: VM) -> tuple[Event, ...]:
        message = f"VM {vm.name} was started on {self._node.host_name}"
        return (self._events.make("vm-started", vm, message),)

    async def _report_paused(self, vm_id: str) -> None:
        vm = self._store.need(VM, vm_id)
        domain = await self._node.hypervisor.get(vm_id)
        reason = domain.reason if domain else ""
        why = STORAGE_FAILS if reason == IO_ERROR else f"paused on its host ({reason or 'unknown'})"
        await self._store.apply(puts=(replace(vm, phase=VMPhase.PAUSED, blocked_reason=why),))
        await self._events.record(
            "vm-paused", vm, f"VM {vm.name} is paused: {why}", severity=Severity.ALARM
        )

    async def _report_stuck(self, vm_id: str, error: PlatformError) -> None:
        """Say once why a guest that waits for its storage can't go elsewhere."""
        vm = self._store.get(VM, vm_id)
        why = (
            f"{STORAGE_FAILS} on {self._node.host_name}, and it can't go elsewhere: {error.message}"
        )
        if vm is None or vm.phase is not VMPhase.PAUSED or vm.blocked_reason == why:
            return
        event = self._events.make("vm-stuck", vm, f"VM {vm.name}: {why}", severity=Severity.ALARM)
        try:
            await self._store.apply(puts=(replace(vm, blocked_reason=why), event))
        except PlatformError as failure:
            about = {"vm": vm_id, "error": failure.message}
            log.info("a VM that is stuck could not be reported", extra=about)

    async def _report_blocked(self, vm_id: str, error: PlatformError) -> None:
        vm = self._store.get(VM, vm_id)
        mine = vm is not None and vm.host_id == self._node.host_id
        told = vm is not None and vm.phase is VMPhase.BLOCKED and vm.blocked_reason == error.message
        if vm is None or not mine or told:
            return
        blocked = replace(vm, phase=VMPhase.BLOCKED, blocked_reason=error.message)
        try:
            await self._store.apply(puts=(blocked,))
        except PlatformError as failure:
            log.info(
                "a blocked VM could not be reported", extra={"vm": vm_id, "error": failure.message}
            )
