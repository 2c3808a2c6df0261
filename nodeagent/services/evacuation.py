"""Empties hosts that are in maintenance and brings their VMs back afterwards: a loop of the leader, idle on every other node.

All that it goes by is in the state (`Host.maintenance*`, `VM.home_host_id`), so a new leader, a crash or a reboot of the
host in between lose nothing but the pauses between tries. Each motion is a task of its own, a live migration or a stop, that
the VM's host runs; a VM has one open task at a time, so two that think they lead can't move it twice.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from core.clock import new_ordered_id
from core.errors import ConflictError, PlatformError
from core.model import (
    VM,
    Host,
    HostState,
    Mesh,
    PowerState,
    Resource,
    Task,
    Unmovable,
    VMPhase,
)
from ha.evacuation import Judged, Standing, in_order, is_ready
from ha.placement import PlacementError
from ha.profile import profile_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.admission import Ages, pinned_vms
from nodeagent.services.event_log import EventLog
from nodeagent.services.vm_requests import StopVM
from nodeagent.services.vm_service import VmService

log = logging.getLogger(__name__)

ROUND_S = 1.0
AT_ONCE = 2
"""So many VMs leave a host, or come back to it, at a time: more would only share the same network."""
RETRY_S_MIN, RETRY_S_MAX = 5.0, 60.0
NO_ROOM_S = 30.0
"""For so long there must be no room for a VM, with all other hosts up, before it is stopped where that was asked for."""
BACK_S_MAX = 900.0
"""A VM that couldn't go back for so long stays where it is."""
NAMESPACE = uuid.UUID("6f2b7c1e-54ad-4c39-9f0e-0f3d1f1c9a25")


class Ids:
    """Ids of one motion that nobody asked for through the API."""

    def __init__(self, node: Node) -> None:
        self._key = new_ordered_id(node.rng, node.clock.wall_ms())

    @property
    def request_id(self) -> str:
        """The id of its one transaction."""
        return f"evacuation/{self._key}"

    def id_for(self, purpose: str) -> str:
        """Return the id of what it makes."""
        return str(uuid.uuid5(NAMESPACE, f"{self._key}\n{purpose}"))

    def beside(self, task: Task) -> tuple[tuple[Resource, ...], tuple[Resource, ...]]:
        """Nobody is called back."""
        del task
        return (), ()


@dataclass(slots=True)
class _Try:
    """How often something was tried with a VM, when it is due again, and since when it isn't possible."""

    since_s: float
    count: int = 0
    due_s: float = 0.0
    no_room_since_s: float | None = None


_Key = tuple[str, str, bool]
"""A VM, where it is, and whether it shall go back from there."""


class Evacuation:
    """One instance an agent."""

    def __init__(self, node: Node, ages: Ages, vms: VmService, events: EventLog) -> None:
        self._node = node
        self._store = node.store
        self._ages = ages
        self._vms = vms
        self._events = events
        self._tries: dict[_Key, _Try] = {}

    async def run(self) -> None:
        """Work every second until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if not self._node.engine.is_leader():
                self._tries.clear()
                continue
            await self.round()

    async def round(self) -> None:
        """Do what is due now for all hosts."""
        hosts = {host.id: host for host in self._store.all(Host)}
        in_maintenance = [host for host in hosts.values() if host.maintenance]
        every = self._store.all(VM)
        away = [vm for vm in every if vm.home_host_id or vm.starts_after_maintenance]
        if not in_maintenance and not away:
            self._tries.clear()
            return
        for host in sorted(in_maintenance, key=lambda host: host.name):
            await self._guarded(host.name, partial(self._empty, host, every))
        ended = [
            vm
            for vm in away
            if (home := hosts.get(vm.home_host_id)) is None or not home.maintenance
        ]
        moving: dict[str, int] = {}
        for vm in sorted(ended, key=lambda vm: (vm.home_host_id, vm.name)):
            home = hosts.get(vm.home_host_id)
            await self._guarded(vm.name, partial(self._bring_back, vm, home, moving))
        known = {(vm.id, vm.host_id, back) for vm in every for back in (False, True)}
        for past in self._tries.keys() - known:
            del self._tries[past]

    async def _guarded(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Let nothing that fails for one hold up the others; it is tried again in the next round."""
        try:
            await work()
        except ConflictError as error:
            log.info("maintenance was overtaken", extra={"about": name, "error": error.message})
        except PlatformError as error:
            log.warning("maintenance waits", extra={"about": name, "error": error.message})

    # -- away

    async def _empty(self, host: Host, every: list[VM]) -> None:
        on_it = in_order((vm for vm in every if vm.host_id == host.id), pinned_vms(self._store))
        at_work = {one.vm.id for one in on_it if self._task_of(one.vm) is not None}
        stops = host.maintenance_unmovable is Unmovable.STOP
        slots = AT_ONCE - len(at_work) if self._is_up(host) else 0
        for one in on_it:
            if one.vm.id in at_work:
                continue
            if one.standing is Standing.MOVES and slots > 0 and self._is_due(one.vm):
                slots -= await self._move_away(host, one.vm)
            elif one.standing is Standing.STUCK and stops and slots > 0 and self._is_due(one.vm):
                slots -= await self._stop(one.vm)
        await self._tell_ready(host, on_it, every)

    async def _move_away(self, host: Host, vm: VM) -> bool:
        attempt = self._tried(vm)
        try:
            await self._vms.evacuate(vm, Ids(self._node))
        except PlacementError as error:
            log.info("a VM finds no room", extra={"vm": vm.id, "error": error.message})
            now_s, since_s = self._node.clock.monotonic_s(), attempt.no_room_since_s
            if not self._others_are_up(host):
                attempt.no_room_since_s = None
            elif since_s is None:
                attempt.no_room_since_s = now_s
            elif now_s - since_s >= NO_ROOM_S and host.maintenance_unmovable is Unmovable.STOP:
                return await self._stop(vm)
            return False
        attempt.no_room_since_s = None
        return True

    async def _stop(self, vm: VM) -> bool:
        self._tried(vm)
        marked = replace(
            vm, home_host_id=vm.home_host_id or vm.host_id, starts_after_maintenance=True
        )
        opened = await self._vms.stop(marked, StopVM(), Ids(self._node))
        return opened.task is not None

    async def _tell_ready(self, host: Host, on_it: list[Judged], every: list[VM]) -> None:
        arriving = any(vm.migrating_to_host_id == host.id for vm in every)
        ready = is_ready(host, on_it, arriving=arriving)
        if ready == host.maintenance_ready:
            return
        changed = replace(host, maintenance_ready=ready)
        what = "is empty" if all(one.standing is Standing.RESTS for one in on_it) else "is ready"
        event = self._events.make(
            "host-maintenance-ready",
            host,
            f"host {host.name} {what}: what had to leave it for its maintenance has left",
        )
        await self._store.apply(puts=(changed, event) if ready else (changed,))

    def _others_are_up(self, host: Host) -> bool:
        return all(
            other.state is HostState.MEMBER and self._is_up(other)
            for other in self._store.all(Host)
            if other.id != host.id
            and other.cluster_id == host.cluster_id
            and not other.witness
            and not other.maintenance
        )

    def _is_up(self, host: Host) -> bool:
        """Tell whether a host renews its lease: one that is off does nothing, and failover sees to its VMs."""
        age_s = self._ages.age_s(host.id)
        profile = profile_of(self._store.need(Mesh, MESH_ID).ha_profile)
        return age_s is not None and age_s < profile.lease_s / 2

    # -- and back

    async def _bring_back(self, vm: VM, home: Host | None, moving: dict[str, int]) -> None:
        task = self._task_of(vm)
        if task is not None:
            await self._wait_for(vm, home, task, moving)
            return
        if vm.starts_after_maintenance and vm.power is PowerState.STOPPED:
            if vm.phase is VMPhase.STOPPED and self._is_due(vm, back=True):
                self._tried(vm, back=True)
                await self._vms.start_again(vm, Ids(self._node))
            return
        if (
            home is None
            or vm.host_id == home.id
            or not home.maintenance_back
            or vm.power is PowerState.STOPPED
        ):
            await self._stays(vm)
            return
        attempt = self._tries.get((vm.id, vm.host_id, True)) or self._tried(
            vm, back=True, counts=False
        )
        if self._node.clock.monotonic_s() - attempt.since_s >= BACK_S_MAX:
            await self._stays(
                vm, f"VM {vm.name} stays where it is: it couldn't go back to {home.name}"
            )
            return
        if (
            vm.phase is VMPhase.RUNNING
            and moving.get(home.id, 0) < AT_ONCE
            and self._is_due(vm, back=True)
        ):
            self._tried(vm, back=True)
            await self._vms.bring_home(vm, Ids(self._node))
            moving[home.id] = moving.get(home.id, 0) + 1

    async def _wait_for(
        self, vm: VM, home: Host | None, task: Task, moving: dict[str, int]
    ) -> None:
        """Count a motion that is under way; one that was to empty the host is asked to end, as nobody needs it any more."""
        if home is None or task.workflow != "migrate-vm":
            return
        moving[home.id] = moving.get(home.id, 0) + 1
        if vm.host_id == home.id and not task.cancel_requested:
            await self._store.apply(puts=(replace(task, cancel_requested=True),))

    async def _stays(self, vm: VM, why: str = "") -> None:
        self._tries.pop((vm.id, vm.host_id, True), None)
        settled = replace(vm, home_host_id="", starts_after_maintenance=False)
        event = self._events.make("vm-stays", vm, why) if why else None
        await self._store.apply(puts=(settled, event) if event is not None else (settled,))

    # -- parts

    def _task_of(self, vm: VM) -> Task | None:
        holder = self._store.claim_holder(f"task.subject/vm/{vm.id}")
        return self._store.get(Task, holder.removeprefix("task/")) if holder else None

    def _is_due(self, vm: VM, *, back: bool = False) -> bool:
        attempt = self._tries.get((vm.id, vm.host_id, back))
        return attempt is None or self._node.clock.monotonic_s() >= attempt.due_s

    def _tried(self, vm: VM, *, back: bool = False, counts: bool = True) -> _Try:
        """Note that something is tried; the next try waits, longer each time."""
        now_s = self._node.clock.monotonic_s()
        attempt = self._tries.setdefault((vm.id, vm.host_id, back), _Try(now_s))
        if counts:
            attempt.due_s = now_s + min(RETRY_S_MIN * 2 ** min(attempt.count, 8), RETRY_S_MAX)
            attempt.count += 1
        return attempt
