"""What the observer of a drill sees while it is under way, and what it records of that.

All times are by the observer's own monotonic clock, from the moment it knew that the fault was done.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError
from core.mesh.client import Nothing
from core.model import (
    NOT_SEEN,
    VM,
    Arming,
    Drill,
    DrillKind,
    DrillState,
    Host,
    HostState,
    Lease,
    Mesh,
)
from ha.drills.watching import Seen, Watching
from ha.health_facts import HostReport
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.health import LeaseAges
from nodeagent.services.self_look import HEALTH_PATH, PING_PATH, Pong

log = logging.getLogger(__name__)

LOOK_S = 0.2
PING_S, PING_TIMEOUT_S, REPORT_TIMEOUT_S = 0.25, 1.0, 3.0
WRITE_TIMEOUT_S, WRITE_RETRY_S = 2.0, 0.3
FIRST_WRITE_MS = 500
ENDING_TRIES_S = 120.0


class OvertakenError(ConflictError):
    """Another agent conducts the drill now, or it has ended."""


class Observation:
    """One drill under way. `answers`: what the target's agent did when it was asked last; None: it wasn't yet."""

    def __init__(self, node: Node, leases: LeaseAges, drill: Drill, watching: Watching) -> None:
        self._node, self._store, self._leases = node, node.store, leases
        self._began_s = node.clock.monotonic_s()
        self._written_ms = NOT_SEEN
        self._written: tuple[object, ...] = ()
        self.drill = drill
        self.watching = watching
        self.answers: bool | None = None
        self.storage_usable: bool | None = None

    def after_ms(self) -> int:
        """Return the milliseconds since the observation began."""
        return round(1000 * (self._node.clock.monotonic_s() - self._began_s))

    async def watch(self) -> str:
        """Look until everything was seen; return why it was cut short, if it was."""
        while not self.watching.is_done(self.after_ms()):
            await asyncio.sleep(LOOK_S)
            self.look()
            stored = self._store.get(Drill, self.drill.id)
            if stored is None or stored.observer_host_id != self._node.host_id:
                raise OvertakenError("another agent conducts it")
            if stored.abort_reason:
                self.drill = replace(self.drill, abort_reason=stored.abort_reason)
                self.watching.note(self.after_ms(), "abort", f"ended early: {stored.abort_reason}")
                return stored.abort_reason
            if self._store.need(Mesh, MESH_ID).ha_arming is Arming.DISARMED:
                return "failover was disarmed meanwhile"
            if self.watching.unexpected:
                return self.watching.unexpected
        return ""

    def look(self) -> None:
        """See what changed since the last look."""
        self.watching.look(self._seen())
        self.take_in()

    def take_in(self) -> None:
        """Carry what was seen over into the drill's record."""
        watching = self.watching
        self.drill = replace(self.drill, events=tuple(watching.events), vms=tuple(watching.vms))

    def _seen(self) -> Seen:
        store, host_id = self._store, self.drill.host_id
        host, lease = store.get(Host, host_id), store.get(Lease, host_id)
        return Seen(
            after_ms=self.after_ms(),
            leader_id=str(self._node.engine.leader() or ""),
            ages_s={lease.id: self._leases.age_s(lease.id) for lease in store.all(Lease)},
            boot_id=lease.boot_id if lease is not None else self.watching.boot_before,
            host_state=host.state if host is not None else HostState.MEMBER,
            answers=self.answers,
            written_ms=self._written_ms,
            vms={vm.id: vm for vm in store.all(VM)},
            storage_usable=self.storage_usable,
        )

    async def keep_asking(self) -> None:
        """Ask the target's agent whether it is there, again and again."""
        while True:
            host = self._store.get(Host, self.drill.host_id)
            if host is not None:
                self.answers = await self._answers(host)
                if self.drill.kind is DrillKind.STORAGE_LOSS:
                    self.storage_usable = await self._storage_usable(
                        host, self.drill.data_storage_id
                    )
            await asyncio.sleep(PING_S)

    async def _answers(self, host: Host) -> bool:
        try:
            await self._node.mesh.call(host, PING_PATH, Nothing(), Pong, timeout_s=PING_TIMEOUT_S)
        except UnavailableError:
            return False
        except PlatformError:
            return True  # refused, so it was reached
        return True

    async def _storage_usable(self, host: Host, data_storage_id: str) -> bool | None:
        """Return what a host says of a data storage; None: nothing."""
        try:
            report = await self._node.mesh.call(
                host, HEALTH_PATH, Nothing(), HostReport, timeout_s=REPORT_TIMEOUT_S
            )
        except PlatformError:
            return None
        return next((s.usable for s in report.storages if s.storage_id == data_storage_id), None)

    async def keep_writing(self) -> None:
        """Commit what is new of the drill, as soon as that is possible."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = (self.drill.state, self.drill.events, self.drill.vms)
            first = self._written_ms == NOT_SEEN and self.after_ms() >= FIRST_WRITE_MS
            if now == self._written and not first:
                continue
            try:
                await self._write(self.drill)
            except OvertakenError:
                raise
            except PlatformError as error:
                log.info("a drill can't be recorded now", extra={"error": error.message})
                await asyncio.sleep(WRITE_RETRY_S)
                continue
            self._written = now
            if first:
                self._written_ms = self.after_ms()

    async def _write(self, drill: Drill) -> None:
        stored = self._store.need(Drill, drill.id)
        if stored.observer_host_id != self._node.host_id or stored.state is DrillState.ENDED:
            raise OvertakenError("another agent conducts it, or it has ended")
        merged = replace(
            drill, revision=stored.revision, abort_reason=stored.abort_reason, tags=stored.tags
        )
        await self._store.apply(puts=(merged,), timeout_s=WRITE_TIMEOUT_S)

    async def write_patiently(self, drill: Drill) -> None:
        """Commit the drill, and try again for two minutes while that fails.

        Raises:
            OvertakenError: another agent conducts it, or it has ended.
            PlatformError: it couldn't be committed in all that time.
        """
        end_s = self._node.clock.monotonic_s() + ENDING_TRIES_S
        while True:
            try:
                await self._write(drill)
            except OvertakenError:
                raise
            except PlatformError:
                if self._node.clock.monotonic_s() >= end_s:
                    raise
                await asyncio.sleep(WRITE_RETRY_S)
            else:
                return
