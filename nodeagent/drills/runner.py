"""The observer of a drill: orders the fault, watches and records what follows, puts right what was broken, and judges.

Runs on every agent; only the one that a drill names does anything. It begins a drill that came up while it runs, and no other:
whatever it finds half-done, because it or another observer died, it only puts right and ends. Where the observer is
lost, the leader takes its place for that. So no drill is begun twice, and none leaves a host off or cut.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError, UnavailableError, first_in
from core.mesh.client import Nothing
from core.model import (
    FAULT,
    NOT_SEEN,
    VM,
    Arming,
    Bmc,
    Drill,
    DrillEvent,
    DrillKind,
    DrillPromise,
    DrillState,
    Host,
    HostState,
    Lease,
    Mesh,
    PowerState,
    Severity,
)
from ha.drills.preflight import Wish
from ha.drills.promises import TIMED
from ha.drills.verdict import judged
from ha.drills.watching import Seen, Watching
from ha.health_facts import HostReport
from ha.profile import profile_of
from nodeagent.drills.drills import Drills
from nodeagent.drills.target import BEGIN_PATH, BeginFault, FaultBegun
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.bmcs import Bmcs
from nodeagent.services.event_log import EventLog
from nodeagent.services.health import LeaseAges
from nodeagent.services.self_look import HEALTH_PATH, PING_PATH, Pong

log = logging.getLogger(__name__)

LOOK_S = 0.2
PING_S, PING_TIMEOUT_S, REPORT_TIMEOUT_S = 0.25, 1.0, 3.0
WRITE_TIMEOUT_S, WRITE_RETRY_S = 2.0, 0.3
FIRST_WRITE_MS = 500
BEGIN_TIMEOUT_S = 8.0
IDLE_S = 1.0
ENDING_TRIES_S = 120.0
UNDO_HOST_S, UNDO_AGENT_S = 180.0, 60.0
BOARD_AGAIN_S = 5.0
FENCING_MAY_TAKE_S = 30.0
CUT_SLACK_S = 10.0
ORPHAN_AFTER_S = 900.0
FRESH_MS = 120_000
STALE = "nothing was broken: it was asked for more than two minutes ago, or the clocks of two hosts differ as much"
LOST = "its observer was lost or restarted: what was broken was put right, times are missing"


class _OvertakenError(ConflictError):
    """Another agent conducts the drill now, or it has ended."""


@dataclass(slots=True)
class _Run:
    """One drill under way. `answers`: what the target's agent did when it was asked last."""

    drill: Drill
    watching: Watching
    began_s: float
    answers: bool | None = None
    storage_usable: bool | None = None
    written_ms: int = NOT_SEEN
    written: tuple[object, ...] = field(default_factory=tuple)


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
        except _OvertakenError as error:
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
        run = _Run(begun, watching, self._now_s())
        watching.events[:] = begun.events
        trouble = await self._take_power(run) if drill.kind is DrillKind.POWER_OFF else ""
        log.warning("a drill's fault was ordered", extra={"drill": drill.name})
        await self._watch_and_end(run, trouble)

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

    async def _take_power(self, run: _Run) -> str:
        """Return what went wrong, if anything; the power may be off all the same."""
        try:
            await self._bmcs.switch_off(self._store.need(Host, run.drill.host_id))
        except PlatformError as error:
            return f"the BMC failed: {error.message}"
        return ""

    async def _end_unbegun(self, drill: Drill, why: str) -> None:
        ended = judged(drill, profile_of(drill.profile), cut_short=why)
        vms = tuple(
            replace(one, verdict=ended.verdict, why="nothing was broken") for one in drill.vms
        )
        await self._end(replace(ended, vms=vms), guard=True)

    # -- watching

    async def _watch_and_end(self, run: _Run, trouble: str) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._keep_asking(run), name="drill-ping"),
                    group.create_task(self._keep_writing(run), name="drill-record"),
                ]
                why = trouble or await self._watch(run)
                run.drill = replace(run.drill, state=DrillState.UNDOING)
                left = await self._undo(run)
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as errors:
            if (error := first_in(errors, PlatformError)) is not None:
                raise error from errors
            raise
        self._take_in(run)
        run.drill = replace(run.drill, left_to_do=left)
        damage = run.watching.damage
        await self._end(
            judged(run.drill, run.watching.profile, cut_short=why, damage=damage), guard=False
        )

    async def _watch(self, run: _Run) -> str:
        """Look until everything was seen; return why it was cut short, if it was."""
        while not run.watching.is_done(self._after_ms(run)):
            await asyncio.sleep(LOOK_S)
            self._look(run)
            stored = self._store.get(Drill, run.drill.id)
            if stored is None or stored.observer_host_id != self._node.host_id:
                raise _OvertakenError("another agent conducts it")
            if stored.abort_reason:
                run.drill = replace(run.drill, abort_reason=stored.abort_reason)
                run.watching.note(
                    self._after_ms(run), "abort", f"ended early: {stored.abort_reason}"
                )
                return stored.abort_reason
            if self._store.need(Mesh, MESH_ID).ha_arming is Arming.DISARMED:
                return "failover was disarmed meanwhile"
            if run.watching.unexpected:
                return run.watching.unexpected
        return ""

    def _look(self, run: _Run) -> None:
        run.watching.look(self._seen(run))
        self._take_in(run)

    def _take_in(self, run: _Run) -> None:
        watching = run.watching
        run.drill = replace(run.drill, events=tuple(watching.events), vms=tuple(watching.vms))

    def _seen(self, run: _Run) -> Seen:
        store, host_id = self._store, run.drill.host_id
        host, lease = store.get(Host, host_id), store.get(Lease, host_id)
        return Seen(
            after_ms=self._after_ms(run),
            leader_id=str(self._node.engine.leader() or ""),
            ages_s={lease.id: self._leases.age_s(lease.id) for lease in store.all(Lease)},
            boot_id=lease.boot_id if lease is not None else run.watching.boot_before,
            host_state=host.state if host is not None else HostState.MEMBER,
            answers=run.answers,
            written_ms=run.written_ms,
            vms={vm.id: vm for vm in store.all(VM)},
            storage_usable=run.storage_usable,
        )

    async def _keep_asking(self, run: _Run) -> None:
        """Ask the target's agent whether it is there, again and again."""
        while True:
            host = self._store.get(Host, run.drill.host_id)
            if host is not None:
                run.answers = await self._answers(host)
                if run.drill.kind is DrillKind.STORAGE_LOSS:
                    run.storage_usable = await self._storage_usable(host, run.drill.data_storage_id)
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

    async def _keep_writing(self, run: _Run) -> None:
        """Commit what is new of the drill, as soon as that is possible."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = (run.drill.state, run.drill.events, run.drill.vms)
            first = run.written_ms == NOT_SEEN and self._after_ms(run) >= FIRST_WRITE_MS
            if now == run.written and not first:
                continue
            try:
                await self._write(run.drill)
            except _OvertakenError:
                raise
            except PlatformError as error:
                log.info("a drill can't be recorded now", extra={"error": error.message})
                await asyncio.sleep(WRITE_RETRY_S)
                continue
            run.written = now
            if first:
                run.written_ms = self._after_ms(run)

    async def _write(self, drill: Drill, *, timeout_s: float = WRITE_TIMEOUT_S) -> None:
        stored = self._store.need(Drill, drill.id)
        if stored.observer_host_id != self._node.host_id or stored.state is DrillState.ENDED:
            raise _OvertakenError("another agent conducts it, or it has ended")
        merged = replace(
            drill, revision=stored.revision, abort_reason=stored.abort_reason, tags=stored.tags
        )
        await self._store.apply(puts=(merged,), timeout_s=timeout_s)

    # -- putting right

    async def _undo(self, run: _Run) -> str:
        """Wait until all is as before, and help; return what is left to do by hand, if anything."""
        kind = run.drill.kind
        if kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS):
            limit_s, by_hand = (
                UNDO_AGENT_S,
                "start its agent: systemctl start kvorum-agent on {host}",
            )
        else:
            limit_s, by_hand = UNDO_HOST_S, "switch {host} on, see kvorum health"
        began_s, asked_s = self._now_s(), float("-inf")
        while not self._is_as_before(run, self._now_s() - began_s):
            now_s = self._now_s()
            if now_s - began_s >= limit_s + self._cut_left_s(run):
                return self._by_hand(run, by_hand)
            if now_s - asked_s >= BOARD_AGAIN_S and self._may_switch_on(run, now_s - began_s):
                asked_s = now_s
                await self._power_on(run)
            await asyncio.sleep(LOOK_S)
            self._look(run)
        return ""

    def _by_hand(self, run: _Run, words: str) -> str:
        host = run.drill.host_label
        if self._store.get(Bmc, run.drill.host_id) is not None and "switch" in words:
            return f"kvorum bmc power-on {host}"
        return words.format(host=host)

    def _cut_left_s(self, run: _Run) -> float:
        """Return how long a cut may still last: it ends by itself, and nobody can reach the host to end it sooner."""
        if run.drill.kind not in TIMED:
            return 0.0
        return max(0.0, run.drill.duration_s + CUT_SLACK_S - self._after_ms(run) / 1000)

    def _is_as_before(self, run: _Run, undoing_s: float) -> bool:
        host = self._store.get(Host, run.drill.host_id)
        if host is None:
            return True  # removed from the cluster meanwhile
        if not run.answers:
            return False
        if run.drill.kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS):
            return True
        if run.watching.cut_may_last(self._after_ms(run)):
            return False
        if run.storage_usable is False:
            return False
        fresh = self._leases.age_s(host.id) < run.watching.profile.suspect_s / 2
        if host.state is not HostState.MEMBER or not fresh:
            return False
        lease = self._store.get(Lease, host.id)
        same_boot = lease is not None and lease.boot_id == run.watching.boot_before
        takes_boot = run.drill.kind in (DrillKind.POWER_OFF, DrillKind.GUARD_KILL)
        if takes_boot and same_boot and undoing_s < run.watching.profile.safe_s:
            return False  # its last renewal may be just that: nobody has missed it yet
        waiting = (one for one in run.watching.vms if one.promise is DrillPromise.WAITS)
        return all(one.running_ms != NOT_SEEN or one.stopped_by_user for one in waiting)

    def _may_switch_on(self, run: _Run, undoing_s: float) -> bool:
        """Tell whether its board may be asked to switch it on: not while the cluster takes its power for certain."""
        if run.drill.kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS, DrillKind.STORAGE_LOSS):
            return False
        host = self._store.get(Host, run.drill.host_id)
        if host is None or self._store.get(Bmc, host.id) is None:
            return False
        return host.state is not HostState.FENCING or undoing_s >= FENCING_MAY_TAKE_S

    async def _power_on(self, run: _Run) -> None:
        host = self._store.get(Host, run.drill.host_id)
        if host is None or self._bmcs.is_certainly_on(host):
            return
        try:
            board = self._bmcs.board(self._bmcs.of(host))
            if not await self._bmcs.driver.is_on(board):
                await self._bmcs.driver.turn_on(board)
                after_ms = self._after_ms(run)
                run.watching.note(
                    after_ms, "power-on", f"the BMC of {host.name} is told to switch it on"
                )
        except PlatformError as error:
            log.warning("a drill can't switch a host on", extra={"error": error.message})

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
        run = _Run(drill, self._watching(drill), self._now_s())
        run.watching.events[:] = drill.events
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._keep_asking(run), name="drill-ping")
            left = await self._undo(run)
            asking.cancel()
        await self._end(
            judged(replace(drill, left_to_do=left), run.watching.profile, cut_short=LOST),
            guard=False,
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

    async def _end(self, drill: Drill, *, guard: bool) -> None:
        """Commit that a drill has ended. `guard`: only if it is as it was read, so that nobody has begun it since."""
        ended = replace(drill, state=DrillState.ENDED, ended_ms=self._node.clock.wall_ms())
        if guard:
            await self._store.apply(puts=(ended,))
        else:
            await self._write_patiently(ended)
        log.warning("a drill has ended", extra={"drill": drill.name, "verdict": drill.verdict})
        severity = Severity.ALARM if drill.left_to_do else Severity.NOTICE
        message = f"drill {drill.name} {drill.verdict}: {drill.why}"
        if drill.left_to_do:
            message += f"; to be done by hand: {drill.left_to_do}"
        await self._events.record("drill-ended", ended, message, severity=severity)

    async def _write_patiently(self, drill: Drill) -> None:
        end_s = self._now_s() + ENDING_TRIES_S
        while True:
            try:
                await self._write(drill)
            except _OvertakenError:
                raise
            except PlatformError:
                if self._now_s() >= end_s:
                    raise
                await asyncio.sleep(WRITE_RETRY_S)
            else:
                return

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()

    def _after_ms(self, run: _Run) -> int:
        return round(1000 * (self._now_s() - run.began_s))
