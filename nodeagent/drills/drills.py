"""Drills as the API asks for them: what one would be, begin one, end one early, and its report.

A drill is begun by recording it; its observer (`nodeagent.drills.runner`), which is another host than the one that fails,
does the rest. At most one is open in the cluster.
"""

from __future__ import annotations

import asyncio

import msgspec
from msgspec.structs import replace

from core.clock import new_id
from core.errors import ConflictError, InvalidError, PlatformError, UnavailableError
from core.model import (
    VM,
    Bmc,
    Cluster,
    DataStorage,
    Disk,
    Drill,
    DrillKind,
    DrillState,
    Host,
    Lease,
    Mesh,
    PlacementRule,
    Severity,
    Task,
)
from ha.drills.obstacles import DrillView, Wish
from ha.drills.preflight import Plan, preflight
from ha.drills.report import Report, report_of
from ha.placement import overcommits_of
from ha.profile import Profile, profile_of
from nodeagent.drills.target import READY_PATH, AskReady, Ready
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog
from nodeagent.services.health import ClusterHealth
from nodeagent.services.task_journal import ENDED

READY_TIMEOUT_S = 3.0
OPEN = "drill.open/one"
TRIES = 5
ASKED_AT_ONCE = 64
BY_ITS_AGENT = frozenset(DrillKind) - {DrillKind.POWER_OFF, DrillKind.FULL_POWER_LOSS}


class Drills:
    """What is asked of drills, at any agent."""

    def __init__(self, node: Node, health: ClusterHealth) -> None:
        self._node, self._store = node, node.store
        self._health = health
        self._events = EventLog(node)

    def open(self) -> Drill | None:
        """Return the drill that is under way."""
        holder = self._store.claim_holder(OPEN)
        return self._store.get(Drill, holder.removeprefix("drill/")) if holder else None

    def profile(self) -> Profile:
        """Return the cluster's HA profile."""
        return profile_of(self._mesh().ha_profile)

    async def plan(self, wish: Wish, *, itself: Drill | None = None) -> Plan:
        """Return what a drill would be, and what stands in its way; `itself` doesn't."""
        facts = await self._health.facts()
        refusal = await self._refusal(wish) if wish.kind in BY_ITS_AGENT else ""
        too_old = await self._too_old()
        store, open_drill = self._store, self.open()
        if itself is not None and open_drill is not None and open_drill.id == itself.id:
            open_drill = None
        view = DrillView(
            facts=facts,
            profile=self.profile(),
            hosts={host.id: host for host in store.all(Host)},
            vms=tuple(store.all(VM)),
            disks=tuple(store.all(Disk)),
            storages={storage.id: storage for storage in store.all(DataStorage)},
            bmcs={bmc.id: bmc for bmc in store.all(Bmc)},
            open_tasks=tuple(task for task in store.all(Task) if task.state not in ENDED),
            open_drill=open_drill,
            target_refuses=refusal,
            too_old=too_old,
            leases={lease.id: lease for lease in store.all(Lease)},
            cpu_overcommits=overcommits_of(store.all(Cluster)),
            rules=tuple(store.all(PlacementRule)),
        )
        return preflight(view, wish)

    async def start(self, wish: Wish, *, confirm: str, id_: str, request_id: str) -> Drill:
        """Record a drill, for its observer to begin at once.

        Raises:
            InvalidError: `confirm` isn't the host's name, or that of the cluster for a full power loss.
            ConflictError: the cluster can't take it now (code `drill-not-possible`); the message names every obstacle.
        """
        if (before := self._store.get(Drill, id_)) is not None:
            return before
        host = self._store.need(Host, wish.host_id) if wish.host_id else None
        self._check_confirmed(host, confirm)
        plan = await self.plan(wish)
        if plan.obstacles:
            raise not_possible(plan)
        now_ms = self._node.clock.wall_ms()
        label = host.name if host is not None else ""
        drill = Drill(
            id=id_,
            name="-".join(filter(None, (str(wish.kind), label, id_[:8]))),
            created_ms=now_ms,
            kind=wish.kind,
            host_id=wish.host_id,
            host_label=label,
            observer_host_id=plan.observer_id,
            data_storage_id=wish.data_storage_id,
            duration_s=plan.wish.duration_s,
            profile=self.profile().name,
            boots={lease.id: lease.boot_id for lease in self._store.all(Lease)},
            vms=plan.vms,
        )
        about = f"drill {drill.name} begins: {wish.kind} of {label or 'all hosts'}, for real"
        event = self._events.make("drill-begun", drill, about, severity=Severity.WARNING)
        try:
            await self._store.apply(puts=(drill, event), request_id=request_id)
        except ConflictError as error:
            if self.open() is None or error.code != "conflict-claim":
                raise
            raise not_possible(await self.plan(wish)) from None
        return self._store.need(Drill, id_)

    async def abort(self, drill: Drill, reason: str) -> Drill:
        """Ask the observer to end a drill and put right what is broken.

        Raises:
            ConflictError: it has ended.
        """
        for attempt in range(TRIES):
            drill = self._store.need(Drill, drill.id)
            if drill.state is DrillState.ENDED:
                raise ConflictError(f"drill {drill.name} has ended already")
            if drill.abort_reason:
                break
            try:
                await self._store.apply(puts=(replace(drill, abort_reason=reason),))
            except ConflictError as error:
                # Its observer wrote a line at the same moment.
                if error.code != "conflict-guard" or attempt == TRIES - 1:
                    raise
        return self._store.need(Drill, drill.id)

    def report(self, drill: Drill) -> Report:
        """Return the report of a drill."""
        observer = self._store.get(Host, drill.observer_host_id)
        name = observer.name if observer is not None else "The host that led"
        return report_of(drill, profile_of(drill.profile), name)

    def new_id(self) -> str:
        """Return an id for a drill."""
        return new_id(self._node.rng)

    def _check_confirmed(self, host: Host | None, confirm: str) -> None:
        if host is None:
            name, whose = self._mesh().name, "the cluster's"
        else:
            name, whose = host.name, "the host's"
        if confirm != name:
            raise InvalidError(
                f"a drill breaks things for real: confirm must be {whose} name, {name!r}",
                code="drill-not-confirmed",
            )

    def _mesh(self) -> Mesh:
        return self._store.need(Mesh, MESH_ID)

    async def _too_old(self) -> tuple[str, ...]:
        """Return the names of hosts whose agents answer, but don't know drills."""
        turn = asyncio.Semaphore(ASKED_AT_ONCE)
        hosts = [host for host in self._store.all(Host) if host.id != self._node.host_id]
        async with asyncio.TaskGroup() as group:
            asked = {
                host.name: group.create_task(self._knows_drills(host, turn), name="drill-version")
                for host in hosts
            }
        return tuple(name for name, task in asked.items() if not task.result())

    async def _knows_drills(self, host: Host, turn: asyncio.Semaphore) -> bool:
        question = AskReady(kind=DrillKind.AGENT_KILL)
        try:
            async with turn:
                await self._node.mesh.call(
                    host, READY_PATH, question, Ready, timeout_s=READY_TIMEOUT_S
                )
        except UnavailableError:
            return True  # that it is silent is found elsewhere
        except (PlatformError, msgspec.MsgspecError):
            return False
        return True

    async def _refusal(self, wish: Wish) -> str:
        """Ask the host itself whether it could; an agent of before drills doesn't know the question."""
        host = self._store.get(Host, wish.host_id)
        if host is None:
            return "no such host"
        question = AskReady(kind=wish.kind, data_storage_id=wish.data_storage_id)
        try:
            answer = await self._node.mesh.call(
                host, READY_PATH, question, Ready, timeout_s=READY_TIMEOUT_S
            )
        except PlatformError as error:
            return f"its agent doesn't answer, or is of a version without drills: {error.message}"
        return answer.refusal


def not_possible(plan: Plan) -> ConflictError:
    """Return what is said of a drill that the cluster can't take now."""
    reasons = "; ".join(f"{one.what} ({one.advice})" for one in plan.obstacles)
    return ConflictError(f"not now: {reasons}", code="drill-not-possible")
