"""Conducts a drill: orders the fault, has it observed (`observation`) and put right (`putting_right`), and judges.

Runs on every agent; only the one that a drill names does anything. It begins a drill that came up while it runs, and no other:
whatever it finds half-done, because it or another observer died, it only puts right and ends. Where the observer is
lost, the leader takes its place for that. So no drill is begun twice, and none leaves a host off or cut.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, first_in
from core.model import (
    FAULT,
    VM,
    Drill,
    DrillEvent,
    DrillKind,
    DrillState,
    Host,
    PowerState,
    Severity,
)
from ha.drills.obstacles import Wish
from ha.drills.verdict import judged
from ha.drills.watching import Watching
from ha.profile import profile_of
from nodeagent.drills.drills import Drills
from nodeagent.drills.observation import Observation, OvertakenError
from nodeagent.drills.putting_right import PuttingRight
from nodeagent.drills.target import BEGIN_PATH, BeginFault, FaultBegun
from nodeagent.node import Node
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.event_log import EventLog
from nodeagent.services.health import LeaseAges

log = logging.getLogger(__name__)

BEGIN_TIMEOUT_S = 8.0
IDLE_S = 1.0
ORPHAN_AFTER_S = 900.0
FRESH_MS = 120_000
STALE = "nothing was broken: it was asked for more than two minutes ago, or the clocks of two hosts differ as much"
LOST = "its observer was lost or restarted: what was broken was put right, times are missing"


class DrillRunner:
    """Conducts drills of which this host is the observer."""

    def __init__(
        self, node: Node, drills: Drills, leases: LeaseAges, bmcs: Bmcs, events: EventLog
    ) -> None:
        self._node, self._store = node, node.store
        self._drills = drills
        self._leases = leases
        self._bmcs = bmcs
        self._events = events
        self._putting_right = PuttingRight(node, leases, bmcs)
        self._not_mine_to_begin: set[str] = set()
        self._first_seen_s: dict[str, float] = {}

    async def run(self) -> None:
        """Conduct until cancelled."""
        self._not_mine_to_begin |= {drill.id for drill in self._store.all(Drill)}
        watch = self._store.watch(Drill)
        try:
            while True:
                try:
                    async with asyncio.timeout(IDLE_S):
                        await watch.next()
                except TimeoutError:
                    pass
                if (drill := self._drills.open()) is not None:
                    await self._attend(drill)
        finally:
            self._store.unwatch(watch)

    async def _attend(self, drill: Drill) -> None:
        self._first_seen_s.setdefault(drill.id, self._now_s())
        if drill.kind is DrillKind.FULL_POWER_LOSS:
            return
        try:
            if drill.observer_host_id != self._node.host_id:
                await self._take_over_if_lost(drill)
            elif drill.id in self._not_mine_to_begin or drill.state is not DrillState.PREPARED:
                await self._clean_up(drill)
            elif abs(self._node.clock.wall_ms() - drill.created_ms) > FRESH_MS:
                await self._end_unbegun(drill, STALE)
            else:
                self._not_mine_to_begin.add(drill.id)
                await self._conduct(drill)
        except OvertakenError as error:
            log.warning("a drill was overtaken", extra={"drill": drill.name, "why": error.message})
        except PlatformError as error:
            log.warning("a drill goes on later", extra={"drill": drill.name, "why": error.message})
            await asyncio.sleep(IDLE_S)

    # -- a drill from its beginning

    async def _conduct(self, drill: Drill) -> None:
        wish = Wish(drill.kind, drill.host_id, drill.duration_s, drill.data_storage_id)
        plan = await self._drills.plan(wish, itself=drill)
        if plan.obstacles:
            why = "; ".join(one.what for one in plan.obstacles)
            await self._end_unbegun(drill, f"nothing was broken, the cluster can't take it: {why}")
            return
        watching = self._watching(replace(drill, vms=plan.vms))
        await self._store.apply(puts=(replace(drill, state=DrillState.STARTING, vms=plan.vms),))
        drill = self._store.need(Drill, drill.id)
        begun = await self._begin_fault(drill)
        if begun is None:
            return
        seen = Observation(self._node, self._leases, begun, watching)
        watching.events[:] = begun.events
        trouble = await self._take_power(seen) if drill.kind is DrillKind.POWER_OFF else ""
        log.warning("a drill's fault was ordered", extra={"drill": drill.name})
        await self._watch_and_end(seen, trouble)

    def _watching(self, drill: Drill) -> Watching:
        store, about = self._store, {one.vm for one in drill.vms}
        return Watching(
            drill=drill,
            profile=profile_of(drill.profile),
            names={host.id: host.name for host in store.all(Host)},
            leader_before=str(self._node.engine.leader() or ""),
            boot_before=drill.boots.get(drill.host_id, ""),
            others={
                vm.id: vm
                for vm in store.all(VM)
                if vm.id not in about and vm.power is PowerState.RUNNING
            },
        )

    async def _begin_fault(self, drill: Drill) -> Drill | None:
        """Have it committed that the fault is done; None when it isn't and never will be."""
        host = self._store.need(Host, drill.host_id)
        failure = ""
        try:
            if drill.kind is DrillKind.POWER_OFF:
                await self._commit_power_off(drill)
            else:
                await self._node.mesh.call(
                    host,
                    BEGIN_PATH,
                    BeginFault(drill_id=drill.id),
                    FaultBegun,
                    timeout_s=BEGIN_TIMEOUT_S,
                )
        except PlatformError as error:
            failure = error.message
        await self._store.barrier()
        now = self._store.need(Drill, drill.id)
        if now.state is DrillState.WATCHING:
            return now
        # Ended under its revision: whatever of the order is still on its way is refused.
        why = failure or now.abort_reason or "the host didn't do it"
        await self._end_unbegun(now, f"nothing was broken: {why}")
        return None

    async def _commit_power_off(self, drill: Drill) -> None:
        await self._store.barrier()
        now = self._store.need(Drill, drill.id)
        if now.state is not DrillState.STARTING or now.abort_reason:
            raise ConflictError(now.abort_reason or f"the drill is {now.state}")
        text = f"the BMC of {drill.host_label} is told to take its power away"
        event = DrillEvent(after_ms=0, code=FAULT, text=text)
        await self._store.apply(
            puts=(replace(now, state=DrillState.WATCHING, events=(*now.events, event)),)
        )

    async def _take_power(self, seen: Observation) -> str:
        """Return what went wrong, if anything; the power may be off all the same."""
        try:
            await self._bmcs.switch_off(self._store.need(Host, seen.drill.host_id))
        except PlatformError as error:
            return f"the BMC failed: {error.message}"
        return ""

    async def _end_unbegun(self, drill: Drill, why: str) -> None:
        ended = judged(drill, profile_of(drill.profile), cut_short=why)
        vms = tuple(
            replace(one, verdict=ended.verdict, why="nothing was broken") for one in drill.vms
        )
        await self._end(replace(ended, vms=vms), None)

    async def _watch_and_end(self, seen: Observation, trouble: str) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(seen.keep_asking(), name="drill-ping"),
                    group.create_task(seen.keep_writing(), name="drill-record"),
                ]
                why = trouble or await seen.watch()
                seen.drill = replace(seen.drill, state=DrillState.UNDOING)
                left = await self._putting_right.until_as_before(seen)
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as errors:
            if (error := first_in(errors, PlatformError)) is not None:
                raise error from errors
            raise
        seen.take_in()
        seen.drill = replace(seen.drill, left_to_do=left)
        damage = seen.watching.damage
        await self._end(
            judged(seen.drill, seen.watching.profile, cut_short=why, damage=damage), seen
        )

    # -- what somebody else left behind

    async def _clean_up(self, drill: Drill) -> None:
        """Put right what a drill broke whose observer died, and end it."""
        if drill.state in (DrillState.PREPARED, DrillState.STARTING):
            await self._end_unbegun(
                drill, "nothing was broken: its observer was lost before it began"
            )
            return
        if drill.state is DrillState.WATCHING:
            await self._store.apply(puts=(replace(drill, state=DrillState.UNDOING),))
        drill = self._store.need(Drill, drill.id)
        seen = Observation(self._node, self._leases, drill, self._watching(drill))
        seen.watching.events[:] = drill.events
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(seen.keep_asking(), name="drill-ping")
            left = await self._putting_right.until_as_before(seen)
            asking.cancel()
        await self._end(
            judged(replace(drill, left_to_do=left), seen.watching.profile, cut_short=LOST),
            seen,
        )

    async def _take_over_if_lost(self, drill: Drill) -> None:
        """As the leader, become the observer of a drill whose observer is lost."""
        if not self._node.engine.is_leader():
            return
        observer = self._store.get(Host, drill.observer_host_id)
        seen_s = self._now_s() - self._first_seen_s[drill.id]
        safe_s = profile_of(drill.profile).safe_s
        silent = observer is None or self._leases.age_s(observer.id) >= safe_s
        orphan_s = ORPHAN_AFTER_S + max((one.bound_ms / 1000 for one in drill.vms), default=0.0)
        if (silent and seen_s >= safe_s) or seen_s >= orphan_s:
            self._not_mine_to_begin.add(drill.id)
            await self._store.apply(puts=(replace(drill, observer_host_id=self._node.host_id),))

    # -- the end

    async def _end(self, drill: Drill, seen: Observation | None) -> None:
        """Commit that a drill has ended. Unobserved: only if it is as it was read, so that nobody has begun it since."""
        ended = replace(drill, state=DrillState.ENDED, ended_ms=self._node.clock.wall_ms())
        if seen is None:
            await self._store.apply(puts=(ended,))
        else:
            await seen.write_patiently(ended)
        log.warning("a drill has ended", extra={"drill": drill.name, "verdict": drill.verdict})
        severity = Severity.ALARM if drill.left_to_do else Severity.NOTICE
        message = f"drill {drill.name} {drill.verdict}: {drill.why}"
        if drill.left_to_do:
            message += f"; to be done by hand: {drill.left_to_do}"
        await self._events.record("drill-ended", ended, message, severity=severity)

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()
