"""What is seen during a drill becomes its timeline: looks at the state in, events and each VM's times out.

Pure: the observer (`nodeagent.drills.observation`) looks several times a second, by its own monotonic clock. All times are
therefore upper bounds, late by a look's distance at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from core.model import (
    NOT_SEEN,
    VM,
    Drill,
    DrillEvent,
    DrillKind,
    DrillPromise,
    DrillVM,
    HostState,
    PowerState,
    VMPhase,
)
from ha.drills.promises import AGENT_BACK_S, TIMED
from ha.profile import Profile

AFTER_BOUND_S = 30.0
SETTLE_S = 3
COULD_RUN = frozenset({VMPhase.RUNNING, VMPhase.PAUSED, VMPhase.MIGRATING})


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. `ages_s` are ages of leases by host; `answers`: whether the target's agent does, None: not asked yet.

    `written_ms`: when the first change since the fault was committed, -1: none yet. `storage_usable`: what the target says of
    the data storage that it is to lose, None: nothing.
    """

    after_ms: int
    leader_id: str
    ages_s: Mapping[str, float]
    boot_id: str
    host_state: HostState
    answers: bool | None
    written_ms: int
    vms: Mapping[str, VM]
    storage_usable: bool | None = None


@dataclass(slots=True)
class Watching:
    """The timeline of one drill as it grows. `others` are the VMs that the fault is not to touch, as they were before."""

    drill: Drill
    profile: Profile
    names: Mapping[str, str]
    leader_before: str
    boot_before: str
    others: Mapping[str, VM]
    events: list[DrillEvent] = field(default_factory=list)
    vms: list[DrillVM] = field(default_factory=list)
    unexpected: str = ""
    damage: bool = False
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.vms = list(self.drill.vms)

    def look(self, seen: Seen) -> None:
        """Note what is new."""
        self._look_at_host(seen)
        self._look_at_leader(seen)
        self.vms = [self._look_at_vm(one, seen) for one in self.vms]
        self._look_for_unexpected(seen)

    def happened(self, code: str) -> bool:
        """Tell whether something has been noted."""
        return code in self._told

    def note(self, after_ms: int, code: str, text: str) -> None:
        """Add a line to the timeline, once for each code."""
        if code not in self._told:
            self._told.add(code)
            self.events.append(DrillEvent(after_ms=after_ms, code=code, text=text))

    def is_done(self, after_ms: int) -> bool:
        """Tell whether all that the fault was to show has been seen, or is overdue by far."""
        kind, after_s = self.drill.kind, after_ms / 1000
        if after_s >= self._limit_s():
            return True
        if self.cut_may_last(after_ms - 1000 * SETTLE_S):
            return False
        if not all(self._is_decided(one) for one in self.vms):
            return False
        match kind:
            case DrillKind.POWER_OFF | DrillKind.GUARD_KILL | DrillKind.NETWORK_CUT:
                moving = any(one.promise is DrillPromise.MOVES for one in self.vms)
                silent = self.happened("lease-ended") or self.happened("fenced")
                return moving or silent or kind is DrillKind.NETWORK_CUT
            case DrillKind.AGENT_KILL:
                return self.happened("agent-back") and after_s >= self._settled_s()
            case DrillKind.LEADER_LOSS:
                back = self.happened("agent-back") and self.happened("writes-back")
                return back and after_s >= self._settled_s()
            case _:
                return True

    def cut_may_last(self, after_ms: float) -> bool:
        """Tell whether a cut that ends by itself may not have: one of a host that lost its power is over."""
        lasts = self.drill.kind in TIMED and after_ms < 1000 * self.drill.duration_s
        return lasts and not self.happened("fenced")

    def _settled_s(self) -> float:
        """Return when a lease that was not renewed since the fault would have ended, and been noticed."""
        return self.profile.ended_s + SETTLE_S

    def _limit_s(self) -> float:
        bounds_s = [one.bound_ms / 1000 for one in self.vms]
        least_s = max(self._settled_s(), AGENT_BACK_S, self.drill.duration_s, self.profile.again_s)
        return max([least_s, *bounds_s]) + AFTER_BOUND_S

    def _is_decided(self, one: DrillVM) -> bool:
        moves = one.promise in (DrillPromise.MOVES, DrillPromise.RETURNS)
        return not moves or one.running_ms != NOT_SEEN or one.stopped_by_user

    def _look_at_host(self, seen: Seen) -> None:
        if not self.drill.host_id:
            return
        name = self.drill.host_label
        age_s = seen.ages_s.get(self.drill.host_id, 0.0)
        if age_s >= 2.5 * self.profile.renew_s:
            self.note(seen.after_ms, "renewal-missed", f"{name} has missed renewals of its lease")
        if age_s >= self.profile.suspect_s:
            self.note(seen.after_ms, "suspected", f"{name} is suspected: four renewals missed")
        if age_s >= self.profile.ended_s:
            self.note(
                seen.after_ms,
                "lease-ended",
                f"the lease of {name} has ended: a guard that works has killed its guests",
            )
        if age_s >= self.profile.safe_s:
            self.note(seen.after_ms, "safe-time", f"T_safe is over: {name} is certainly silent")
        if seen.host_state is HostState.FENCING:
            self.note(seen.after_ms, "fencing", f"{name} is being fenced: its renewals are refused")
        if seen.host_state is HostState.FENCED:
            self.note(seen.after_ms, "fenced", f"{name} is proven to be off")
        if seen.answers is False:
            self.note(seen.after_ms, "agent-silent", f"the agent of {name} doesn't answer")
        elif seen.answers and self.happened("agent-silent"):
            self.note(seen.after_ms, "agent-back", f"the agent of {name} answers again")
        if seen.storage_usable is False:
            self.note(
                seen.after_ms, "storage-lost", f"{name} says that it can't use the data storage"
            )
        elif seen.storage_usable and self.happened("storage-lost"):
            self.note(seen.after_ms, "storage-back", f"{name} can use the data storage again")
        if seen.boot_id != self.boot_before:
            self.note(seen.after_ms, "new-boot", f"{name} renews its lease in a new boot")
        if self.happened("suspected") and self._is_back(seen, age_s):
            self.note(seen.after_ms, "host-back", f"{name} holds a lease again")

    def _is_back(self, seen: Seen, age_s: float) -> bool:
        return age_s < self.profile.suspect_s / 2 and seen.host_state is HostState.MEMBER

    def _look_at_leader(self, seen: Seen) -> None:
        if self.drill.host_id != self.leader_before or not self.leader_before:
            return
        if seen.leader_id != self.leader_before:
            self.note(seen.after_ms, "leader-lost", f"{self.drill.host_label} leads no more")
        if seen.leader_id and self.happened("leader-lost"):
            who = self.names.get(seen.leader_id, seen.leader_id)
            self.note(seen.after_ms, "leader-new", f"{who} leads")
        if seen.written_ms != NOT_SEEN:
            self.note(seen.written_ms, "writes-back", "changes can be made again")

    def _look_at_vm(self, one: DrillVM, seen: Seen) -> DrillVM:
        vm = seen.vms.get(one.vm)
        if vm is None or vm.power is not PowerState.RUNNING or vm.migrating_to_host_id:
            return replace(one, stopped_by_user=True)
        on = self.names.get(vm.host_id, vm.host_id)
        anew = vm.generation != one.generation or on != one.was_on
        if vm.blocked_reason and not one.blocked:
            one = replace(one, blocked=vm.blocked_reason)
            self.note(seen.after_ms, f"blocked/{one.vm}", f"VM {one.name}: {vm.blocked_reason}")
        if anew and one.taken_ms == NOT_SEEN:
            one = replace(one, taken_ms=seen.after_ms, now_on=on)
            what = f"is given to {on}" if on != one.was_on else f"is started anew on {on}"
            self.note(seen.after_ms, f"taken/{one.vm}", f"VM {one.name} {what}")
        if anew and vm.phase is VMPhase.RUNNING and one.running_ms == NOT_SEEN:
            one = replace(one, running_ms=seen.after_ms, now_on=on)
            self.note(seen.after_ms, f"running/{one.vm}", f"VM {one.name} runs on {on}")
        if one.promise is DrillPromise.STAYS and not anew and vm.phase not in COULD_RUN:
            self.note(seen.after_ms, f"down/{one.vm}", f"VM {one.name} is {vm.phase}")
            one = replace(one, taken_ms=seen.after_ms)
        return one

    def _look_for_unexpected(self, seen: Seen) -> None:
        """See whether the fault, or something else at the same time, touches what it was not to."""
        if self.unexpected:
            return
        for host_id, age_s in seen.ages_s.items():
            if host_id != self.drill.host_id and age_s >= self.profile.ended_s:
                self.unexpected = f"host {self.names.get(host_id, host_id)} has lost its lease too"
        for before in self.others.values():
            vm = seen.vms.get(before.id)
            wanted = vm is not None and vm.power is PowerState.RUNNING
            if vm is None or not wanted or before.phase is not VMPhase.RUNNING:
                continue
            if vm.migrating_to_host_id or vm.phase is VMPhase.MIGRATING:
                self.unexpected = f"VM {vm.name} is being moved meanwhile"
            elif (vm.host_id, vm.generation) != (before.host_id, before.generation):
                self.unexpected = (
                    f"VM {vm.name} was started anew, and the fault was not to touch it"
                )
                self.damage = True
        if self.unexpected:
            self.note(seen.after_ms, "unexpected", self.unexpected)
