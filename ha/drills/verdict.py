"""Whether a drill has shown that a promise is kept: what was seen in, verdict and reasons out. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from core.model import (
    NOT_SEEN,
    Drill,
    DrillKind,
    DrillPromise,
    DrillVerdict,
    DrillVM,
)
from ha.drills.promises import AGENT_BACK_S, TIMED, takes_host, writes_back_s
from ha.profile import Profile

_V = DrillVerdict


def seconds(ms: int) -> str:
    """Return a time as people read it, `6.4 s`."""
    return f"{ms / 1000:.1f} s"


def judged(drill: Drill, profile: Profile, *, cut_short: str = "", damage: bool = False) -> Drill:
    """Return the drill with verdicts. `cut_short`: why it ended early; `damage`: what was not to be touched was.

    A promise that was broken before the drill was cut short stays broken.
    """
    vms = tuple(_judged_vm(one, cut_short=bool(cut_short)) for one in drill.vms)
    drill = replace(drill, vms=vms)
    broken = [f"VM {one.name}: {one.why}" for one in vms if one.verdict is _V.FAILED]
    broken += [] if cut_short else _broken_by_host(drill, profile)
    if damage:
        broken.insert(0, cut_short)
    if broken:
        return replace(drill, verdict=_V.FAILED, why=_several(broken))
    if cut_short:
        verdict = _V.ABORTED if drill.abort_reason else _V.INCONCLUSIVE
        return replace(drill, verdict=verdict, why=cut_short)
    if not _was_felt(drill, profile):
        why = "nobody noticed the fault: it seems that it didn't happen"
        return replace(drill, verdict=_V.INCONCLUSIVE, why=why)
    unclear = [f"VM {one.name}: {one.why}" for one in vms if one.verdict is _V.INCONCLUSIVE]
    if unclear:
        return replace(drill, verdict=_V.INCONCLUSIVE, why=_several(unclear))
    return replace(drill, verdict=_V.PASSED, why=_kept(drill, profile))


def _judged_vm(one: DrillVM, *, cut_short: bool) -> DrillVM:
    verdict, why = _verdict_of(one)
    if cut_short and verdict is _V.FAILED and one.promise is not DrillPromise.STAYS:
        late = one.running_ms > one.bound_ms
        if not late:
            verdict, why = _V.INCONCLUSIVE, "the drill ended before its time was over"
    return replace(one, verdict=verdict, why=why)


def _verdict_of(one: DrillVM) -> tuple[DrillVerdict, str]:
    if one.stopped_by_user:
        return _V.INCONCLUSIVE, "a user stopped, moved or deleted it meanwhile"
    if one.promise is DrillPromise.STAYS:
        if one.taken_ms == NOT_SEEN:
            return _V.PASSED, "it was not touched"
        return _V.FAILED, f"it was not to be touched, but was after {seconds(one.taken_ms)}"
    if one.promise is DrillPromise.WAITS:
        if one.running_ms == NOT_SEEN:
            return _V.INCONCLUSIVE, "it didn't run again while the drill was watched"
        return _V.PASSED, f"it ran again after {seconds(one.running_ms)}, with its host"
    if one.running_ms == NOT_SEEN:
        blocked = f": {one.blocked}" if one.blocked else ""
        return _V.FAILED, f"it didn't run again{blocked}"
    if one.running_ms > one.bound_ms:
        return _V.FAILED, f"{seconds(one.running_ms)}, and {seconds(one.bound_ms)} is promised"
    return _V.PASSED, f"{seconds(one.running_ms)} of {seconds(one.bound_ms)}"


def _time_of(drill: Drill, code: str) -> int:
    return next((event.after_ms for event in drill.events if event.code == code), NOT_SEEN)


def _broken_by_host(drill: Drill, profile: Profile) -> list[str]:
    found = []
    if drill.kind in (DrillKind.AGENT_KILL, DrillKind.LEADER_LOSS):
        silent, back = _time_of(drill, "agent-silent"), _time_of(drill, "agent-back")
        if silent != NOT_SEEN and not 0 <= back <= 1000 * AGENT_BACK_S:
            late = "never" if back == NOT_SEEN else f"after {seconds(back)}"
            found.append(f"the agent came back {late}, not within {AGENT_BACK_S:g} s")
    if drill.kind is DrillKind.LEADER_LOSS and _time_of(drill, "agent-silent") != NOT_SEEN:
        back, bound_s = _time_of(drill, "writes-back"), writes_back_s(profile)
        if not 0 <= back <= 1000 * bound_s:
            late = "not" if back == NOT_SEEN else f"only after {seconds(back)}"
            found.append(f"changes could {late} be made again; {bound_s:g} s is promised")
    if drill.left_to_do:
        found.append(f"not all was put right: {drill.left_to_do}")
    return found


def _was_felt(drill: Drill, profile: Profile) -> bool:
    """Tell whether the fault showed at all."""
    if drill.kind is DrillKind.FULL_POWER_LOSS:
        return _time_of(drill, "all-booted") != NOT_SEEN
    if takes_host(drill.kind, drill.duration_s, profile):
        return _time_of(drill, "suspected") != NOT_SEEN or _time_of(drill, "fenced") != NOT_SEEN
    if drill.kind is DrillKind.STORAGE_LOSS:
        return _time_of(drill, "storage-lost") != NOT_SEEN
    return _time_of(drill, "agent-silent") != NOT_SEEN


def _kept(drill: Drill, profile: Profile) -> str:
    moved = [one for one in drill.vms if one.promise in (DrillPromise.MOVES, DrillPromise.RETURNS)]
    if moved:
        last = max(moved, key=lambda one: one.running_ms)
        return (
            f"{_count(len(moved))} ran again after {seconds(last.running_ms)} at most; "
            f"{seconds(last.bound_ms)} is promised"
        )
    if drill.kind is DrillKind.LEADER_LOSS:
        back = _time_of(drill, "writes-back")
        return (
            f"changes could be made again after {seconds(back)}, and {writes_back_s(profile):g} s is promised; "
            f"{_untouched(drill.vms)}"
        )
    if drill.kind is DrillKind.AGENT_KILL:
        return f"the agent was back after {seconds(_time_of(drill, 'agent-back'))}; {_untouched(drill.vms)}"
    if not drill.vms:
        return "the loss was noticed and the host came back; no VM ran on it"
    return _untouched(drill.vms) if drill.kind in TIMED else "what had to wait ran again"


def _untouched(vms: Iterable[DrillVM]) -> str:
    count = sum(1 for one in vms if one.promise is DrillPromise.STAYS)
    return f"none of {_count(count)} there was touched" if count else "no VM ran there"


def _count(number: int) -> str:
    return "1 VM" if number == 1 else f"{number} VMs"


def _several(reasons: list[str]) -> str:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more
