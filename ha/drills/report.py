"""The report of a drill, for somebody who has never seen one: verdict first, then what was done, seen, and is to be done.

Pure; the same sections as text for a terminal and as Markdown for a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from core.model import (
    FAULT,
    NOT_SEEN,
    Drill,
    DrillKind,
    DrillPromise,
    DrillState,
    DrillVerdict,
    DrillVM,
)
from ha.drills.promises import takes_host, writes_back_s
from ha.drills.verdict import seconds
from ha.profile import Profile

WHAT = {
    DrillKind.AGENT_KILL: "The agent of {host} was killed (SIGKILL). Its supervisor starts it again.",
    DrillKind.GUARD_KILL: "The guard of {host} was killed (SIGKILL), so that its watchdog resets the host.",
    DrillKind.NETWORK_CUT: "{host} was cut off from all other hosts for {duration} s.",
    DrillKind.POWER_OFF: "The power of {host} was taken away by its BMC, without warning.",
    DrillKind.LEADER_LOSS: "The agent of {host}, which led the cluster, was killed (SIGKILL).",
    DrillKind.STORAGE_LOSS: "{host} was cut off from the server of a data storage for {duration} s.",
    DrillKind.FULL_POWER_LOSS: "All hosts lost their power, and got it back.",
}
PROMISED = {
    DrillPromise.STAYS: "is not touched",
    DrillPromise.MOVES: "runs elsewhere",
    DrillPromise.RETURNS: "runs again",
    DrillPromise.WAITS: "waits for its host",
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A drill's report. `text` is for a terminal, `markdown` for a file; both say the same."""

    drill: str
    kind: DrillKind
    state: DrillState
    verdict: DrillVerdict
    line: str
    meaning: str
    to_do: str
    text: str
    markdown: str


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the report: sentences, or a table whose first row is its head."""

    title: str
    sentences: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def report_of(drill: Drill, profile: Profile, observer: str) -> Report:
    """Return the report; of a drill that is under way, as far as it is."""
    line, meaning, to_do = _line(drill), _meaning(drill), _to_do(drill)
    sections = (
        _Section("What was done", _done(drill, observer)),
        _Section("What is promised", (_promise(drill, profile),)),
        _Section(f"Timeline ({_origin(drill)})", rows=_timeline(drill)),
        _Section("VMs", rows=_vms(drill.vms)),
        _Section("What it means", (meaning,)),
        _Section("What to do", (to_do,)),
    )
    return Report(
        drill=drill.name,
        kind=drill.kind,
        state=drill.state,
        verdict=drill.verdict,
        line=line,
        meaning=meaning,
        to_do=to_do,
        text=_as_text(line, sections),
        markdown=_as_markdown(drill.name, line, sections),
    )


def _line(drill: Drill) -> str:
    if drill.state is not DrillState.ENDED:
        return f"UNDER WAY ({drill.state}): {drill.kind} {drill.host_label}".rstrip()
    return f"{drill.verdict.upper()}: {f'{drill.kind} {drill.host_label}'.rstrip()}: {drill.why}"


def _done(drill: Drill, observer: str) -> tuple[str, ...]:
    begun = any(event.code == FAULT for event in drill.events)
    what = WHAT[drill.kind].format(host=drill.host_label, duration=drill.duration_s)
    if not begun and drill.state is DrillState.ENDED:
        what = f"Nothing was broken. Wanted was: {what}"
    who = f"{observer} watched, and all times are by its clock, each late by a fraction of a second at most."
    return (what, who)


def _origin(drill: Drill) -> str:
    if drill.kind is DrillKind.FULL_POWER_LOSS:
        return "seconds after a host led again that has the drill; before, nobody could measure"
    return "seconds after the fault"


def _promise(drill: Drill, profile: Profile) -> str:
    numbers = (
        f"HA profile {profile.name}: lease {profile.lease_s:g} s, watchdog {profile.watchdog_s:g} s, "
        f"T_safe {profile.safe_s:g} s."
    )
    match drill.kind:
        case DrillKind.LEADER_LOSS:
            said = f"Changes can be made again within {writes_back_s(profile):g} s. No guest is touched."
        case DrillKind.AGENT_KILL:
            said = "The agent comes back by itself. No guest is touched."
        case DrillKind.STORAGE_LOSS:
            said = "Guests on it wait, and go on when it is back. None is started twice."
        case DrillKind.FULL_POWER_LOSS:
            said = "What ran runs again when the power is back, without anyone's help."
        case DrillKind.NETWORK_CUT if not takes_host(drill.kind, drill.duration_s, profile):
            said = "A cut as short as this one changes nothing."
        case _:
            said = (
                f"VMs that others can start run elsewhere within {profile.again_s:g} s, and with a BMC that has power "
                "usually within 10 s."
            )
    return f"{said} {numbers}"


def _timeline(drill: Drill) -> tuple[tuple[str, ...], ...]:
    rows = [(f"{event.after_ms / 1000:+.1f}", event.text) for event in drill.events]
    return (("SECONDS", "WHAT"), *rows) if rows else ()


def _vms(vms: Sequence[DrillVM]) -> tuple[tuple[str, ...], ...]:
    rows = [
        (
            one.name,
            one.was_on,
            PROMISED[one.promise],
            seconds(one.bound_ms) if one.bound_ms else "-",
            seconds(one.running_ms) if one.running_ms != NOT_SEEN else "-",
            _now_on(one),
            str(one.verdict),
            one.why,
        )
        for one in vms
    ]
    head = ("VM", "WAS ON", "PROMISE", "WITHIN", "RAN AFTER", "NOW ON", "VERDICT", "WHY")
    return (head, *rows) if rows else ()


def _now_on(one: DrillVM) -> str:
    """Return who runs it, as far as that was seen."""
    return one.now_on or (one.was_on if one.promise is DrillPromise.STAYS else "-")


def _meaning(drill: Drill) -> str:
    match drill.verdict:
        case DrillVerdict.PASSED:
            return "The cluster kept its promise. If this failure comes for real, expect the same times."
        case DrillVerdict.FAILED:
            return "The cluster did NOT keep its promise. A real failure of this kind would go the same way."
        case DrillVerdict.ABORTED:
            return "The drill was ended early. It says nothing of the promise."
        case DrillVerdict.INCONCLUSIVE:
            return "The drill shows neither that the promise is kept nor that it isn't."
        case DrillVerdict.OPEN:
            return "The drill is under way."


def _to_do(drill: Drill) -> str:
    said = f"First: {drill.left_to_do} " if drill.left_to_do else ""
    again = f"kvorum drill run {drill.kind} {drill.host_label}".rstrip()
    match drill.verdict:
        case DrillVerdict.PASSED:
            then = "Nothing. Repeat it after changes of hardware, network or version."
        case DrillVerdict.FAILED:
            then = (
                "Look at kvorum health and kvorum event list, put right what the reasons above name, "
                f"and repeat it: {again}"
            )
        case DrillVerdict.OPEN:
            then = f"Wait, or end it: kvorum drill abort {drill.name}"
        case _:
            then = f"Put right what the reason names, then repeat it: {again}"
    return said + then


def _as_text(line: str, sections: tuple[_Section, ...]) -> str:
    lines = [line]
    for section in sections:
        if not section.sentences and not section.rows:
            continue
        lines += ["", section.title]
        lines += [f"  {sentence}" for sentence in section.sentences]
        widths = [max(map(len, column)) for column in zip(*section.rows, strict=True)]
        for row in section.rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines) + "\n"


def _as_markdown(name: str, line: str, sections: tuple[_Section, ...]) -> str:
    lines = [f"# Drill {name}", "", f"**{_escaped(line)}**"]
    for section in sections:
        if not section.sentences and not section.rows:
            continue
        lines += ["", f"## {section.title}", ""]
        lines += [_escaped(sentence) for sentence in section.sentences]
        for place, row in enumerate(section.rows):
            lines.append(f"| {' | '.join(map(_escaped, row))} |")
            if place == 0:
                lines.append(f"|{' --- |' * len(row)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\|*_`<>[]#" else c for c in text)
