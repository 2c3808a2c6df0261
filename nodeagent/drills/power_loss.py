"""The drill of a full power loss: people pull the plug of all hosts, and the first leader after that measures what returns.

No host can switch itself on, so nothing is broken by software here. The drill waits in the replicated state, with the boot
that each host was in; whoever leads once hosts renew their leases in other boots goes on with it. Times are from when
that agent first saw itself lead, by its own clock: before that, nobody was there to measure.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import PlatformError
from core.model import (
    FAULT,
    NOT_SEEN,
    VM,
    Drill,
    DrillEvent,
    DrillKind,
    DrillState,
    DrillVerdict,
    DrillVM,
    Host,
    Lease,
    PowerState,
    Severity,
    VMPhase,
)
from ha.drills.verdict import judged
from ha.profile import profile_of
from nodeagent.drills.drills import Drills
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

ROUND_S = 0.5
WAITS_FOR_PLUG_S = 1800.0
WAITS_FOR_HOSTS_S = 180.0
AFTER_BOUND_S = 30.0
ASK = "asked to take the power from ALL hosts, wait ten seconds, and give it back to all of them"


class PowerLossWatch:
    """The leader's loop; idle on every other node, and while no such drill is open."""

    def __init__(self, node: Node, drills: Drills, events: EventLog) -> None:
        self._node, self._store = node, node.store
        self._drills = drills
        self._events = events
        self._led_since_s: float | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if not self._node.engine.is_leader():
                self._led_since_s = None
                continue
            drill = self._drills.open()
            if drill is None or drill.kind is not DrillKind.FULL_POWER_LOSS:
                self._led_since_s = None
                continue
            if self._led_since_s is None:
                self._led_since_s = self._node.clock.monotonic_s()
            try:
                await self._go_on(drill)
            except PlatformError as error:
                log.info("a drill goes on later", extra={"error": error.message})

    async def _go_on(self, drill: Drill) -> None:
        assert self._led_since_s is not None, "set by run"
        after_s = self._node.clock.monotonic_s() - self._led_since_s
        now = self._grown(drill, round(1000 * after_s))
        booted = self._booted(drill)
        if drill.abort_reason:
            await self._end(now, cut_short=drill.abort_reason)
        elif not booted:
            if after_s >= WAITS_FOR_PLUG_S:
                await self._end(now, cut_short="nobody took the power away within half an hour")
            elif now != drill:
                await self._store.apply(puts=(now,))
        elif self._is_over(now, booted, after_s):
            missing = ", ".join(sorted(self._names(drill.boots.keys() - booted)))
            cut_short = (
                f"not all hosts lost their power, or came back: {missing}" if missing else ""
            )
            await self._end(now, cut_short=cut_short)
        elif now != drill:
            await self._store.apply(puts=(now,))

    def _booted(self, drill: Drill) -> frozenset[str]:
        """Return the hosts that renewed their lease in another boot than before."""
        leases = {lease.id: lease.boot_id for lease in self._store.all(Lease)}
        return frozenset(id_ for id_, boot in drill.boots.items() if leases.get(id_, boot) != boot)

    def _is_over(self, drill: Drill, booted: frozenset[str], after_s: float) -> bool:
        decided = all(one.running_ms != NOT_SEEN or one.stopped_by_user for one in drill.vms)
        if booted >= drill.boots.keys() and decided:
            return True
        bounds_s = [one.bound_ms / 1000 for one in drill.vms]
        return after_s >= max([WAITS_FOR_HOSTS_S, *bounds_s]) + AFTER_BOUND_S

    def _grown(self, drill: Drill, after_ms: int) -> Drill:
        """Return the drill with what is new: which hosts came back, and which VMs run."""
        events, told = list(drill.events), {event.code for event in drill.events}

        def note(code: str, text: str) -> None:
            if code not in told:
                events.append(DrillEvent(after_ms=after_ms, code=code, text=text))

        state = drill.state
        if state is DrillState.PREPARED:
            state = DrillState.STARTING
            note("ask", ASK)
        booted = self._booted(drill)
        if booted:
            state = DrillState.WATCHING
            note(FAULT, f"{self._node.host_name} leads after the power came back")
        for id_ in sorted(booted):
            (name,) = self._names({id_})
            note(f"booted/{id_}", f"{name} holds a lease in a new boot")
        if booted and booted >= drill.boots.keys():
            note("all-booted", "all hosts are back")
        vms = list(drill.vms)
        if booted:
            vms = [self._grown_vm(one, after_ms) for one in drill.vms]
            for before, one in zip(drill.vms, vms, strict=True):
                if one.running_ms != NOT_SEEN and before.running_ms == NOT_SEEN:
                    note(f"running/{one.vm}", f"VM {one.name} runs on {one.now_on}")
        return replace(drill, state=state, events=tuple(events), vms=tuple(vms))

    def _grown_vm(self, one: DrillVM, after_ms: int) -> DrillVM:
        vm = self._store.get(VM, one.vm)
        if vm is None or vm.power is not PowerState.RUNNING:
            return replace(one, stopped_by_user=True)
        if vm.blocked_reason:
            one = replace(one, blocked=vm.blocked_reason)
        anew = vm.generation != one.generation
        if anew and one.taken_ms == NOT_SEEN:
            one = replace(one, taken_ms=after_ms)
        if anew and vm.phase is VMPhase.RUNNING and one.running_ms == NOT_SEEN:
            (on,) = self._names({vm.host_id})
            one = replace(one, running_ms=after_ms, now_on=on)
        return one

    def _names(self, ids: set[str] | frozenset[str]) -> list[str]:
        hosts = {host.id: host.name for host in self._store.all(Host)}
        return [hosts.get(id_, id_) for id_ in ids]

    async def _end(self, drill: Drill, *, cut_short: str) -> None:
        ended = judged(drill, profile_of(drill.profile), cut_short=cut_short)
        ended = replace(ended, state=DrillState.ENDED, ended_ms=self._node.clock.wall_ms())
        if not self._booted(drill):
            vms = tuple(
                replace(one, verdict=DrillVerdict.INCONCLUSIVE, why="its host kept its power")
                for one in ended.vms
            )
            verdict = DrillVerdict.ABORTED if drill.abort_reason else DrillVerdict.INCONCLUSIVE
            ended = replace(ended, vms=vms, verdict=verdict, why=cut_short)
        event = self._events.make(
            "drill-ended",
            ended,
            f"drill {ended.name} {ended.verdict}: {ended.why}",
            severity=Severity.NOTICE,
        )
        await self._store.apply(puts=(ended, event))
