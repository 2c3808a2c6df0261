"""`kvorum recover`: what to do on a host, its agent stopped, when voters or its own state were destroyed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from core.clock import SystemClock, system_random
from core.errors import ConflictError
from core.paths import Paths
from raftstate.consensus.generation import shown
from raftstate.rescue.asking import Others
from raftstate.rescue.facts import Facts, best_of, facts_of, read_facts
from raftstate.rescue.force_quorum import force_quorum
from raftstate.rescue.known import other_members, read_record
from raftstate.rescue.rejoin import Standing, begin_to_follow, standing
from raftstate.rescue.swap import compact_time
from tools.cli.context import Context
from tools.cli.offline import add_confirm, add_state_directory, confirm_name, stopped_host, was_kept
from tools.cli.output import printable, write_done, write_rows, write_value
from tools.cli.parser import Parser, Root, add_yes
from tools.cli.units import shown_time
from tools.sdk.items import Item

FORCE_NOTE = """\
For when most voters were destroyed and none of them can come back. The agent of this host must be stopped, and so must
be those of the other survivors. Run 'kvorum recover show -o json > h2.json' on each survivor first, and hand the files
to this command on any of them: it refuses where another survivor holds more.

This host becomes the only voter of a new generation. Everything in its log stays, committed or not. What only the
destroyed hosts had is lost, even if it was acknowledged. Hosts of the old generation can't write to the new one: replicas
follow by themselves, voters with 'kvorum recover rejoin' on them."""

AFTER_FORCE = """\
Next:
  1. systemctl start kvorum-agent       here
  2. kvorum status                      this host leads; replicas come back by themselves
  3. kvorum recover rejoin              on each surviving voter, with its agent stopped; then start it
  4. kvorum host confirm-off NAME       for each destroyed host, so that its VMs start elsewhere
  5. kvorum host remove NAME            for each destroyed host, once no VM is on it"""

REJOIN_NOTE = """\
For a host whose state is damaged or differs, or that voted in an older generation. The agent of this host must be
stopped. Identity and name stay. Other members are asked first: if this host votes, its vote ends, which takes a quorum
of the others. Then state and log are moved aside, and the agent fetches both anew from the cluster at its next start."""


async def show(args: Namespace, ctx: Context) -> int:
    """Show what this host holds."""
    with stopped_host(args) as paths:
        facts = facts_of(paths)
    if ctx.output != "table":
        write_value(ctx, msgspec.to_builtins(facts))
    else:
        write_rows(ctx, [(title, printable(value)) for title, value in _rows(facts)])
    return 0


async def force(args: Namespace, ctx: Context) -> int:
    """Make this host the only voter."""
    clock = SystemClock()
    with stopped_host(args) as paths:
        facts, others = facts_of(paths), read_facts(args.survivor)
        _refuse_needless(facts)
        _refuse_worse(facts, others)
        await _refuse_alive(paths, facts)
        if not ctx.quiet:
            _announce(ctx, facts, others)
        await confirm_name(args, ctx, "the cluster's name", facts.cluster_name)
        done = force_quorum(paths, when=compact_time(clock.wall_ms()), rng=system_random())
    item = Item(
        {
            "host_name": facts.host_name,
            "cluster_name": facts.cluster_name,
            "generation": done.generation,
            "index": done.index,
            "applied_now": done.applied_now,
            "kept": str(done.kept or ""),
        }
    )
    write_done(
        ctx,
        item,
        f"{facts.host_name} is the only voter of {facts.cluster_name}, generation {shown(done.generation)}; "
        f"{done.applied_now} entries of its log were applied" + was_kept(done.kept),
    )
    if not ctx.quiet:
        ctx.say(AFTER_FORCE)
    return 0


async def rejoin(args: Namespace, ctx: Context) -> int:
    """Drop this host's state and follow the cluster anew."""
    clock = SystemClock()
    with stopped_host(args) as paths:
        record, stands = read_record(paths), standing(paths)
        await ctx.confirm(_stands(stands), yes=args.yes)
        async with Others(paths) as others:
            answer = await others.ask_to_rejoin(stands)
        kept = begin_to_follow(paths, answer.members, when=compact_time(clock.wall_ms()))
    item = Item(
        {
            "host_name": record.host_name,
            "generation": answer.generation,
            "had_vote": answer.had_vote,
            "kept": str(kept or ""),
        }
    )
    vote = "its vote was ended, " if answer.had_vote else ""
    write_done(
        ctx,
        item,
        f"{record.host_name}: {vote}it will follow generation {shown(answer.generation)}"
        + was_kept(kept),
    )
    if not ctx.quiet:
        ctx.say("Next: systemctl start kvorum-agent")
    return 0


def _stands(stands: Standing) -> str:
    state = stands.damage or f"its state is sound, of generation {shown(stands.generation)}"
    return f"This host will drop its state and fetch it from the cluster ({state})."


def _rows(facts: Facts) -> list[tuple[str, str]]:
    voters = [f"{voter.name or voter.id} ({voter.address})" for voter in facts.voters]
    return [
        ("host", f"{facts.host_name} of {facts.cluster_name}"),
        ("role", "voter" if facts.votes else "replica"),
        ("generation", shown(facts.generation)),
        ("last entry", f"index {facts.index}, term {facts.last_term}"),
        ("applied", str(facts.applied)),
        ("snapshot", str(facts.snapshot)),
        ("term", str(facts.term)),
        ("last written", shown_time(facts.written_ms)),
        ("voters", ", ".join(voters)),
    ]


def _refuse_needless(facts: Facts) -> None:
    if [voter.id for voter in facts.voters] == [facts.host_id]:
        raise ConflictError(
            f"{facts.host_name} is the only voter already: start its agent ('systemctl start kvorum-agent')"
        )


def _refuse_worse(facts: Facts, others: Sequence[Facts]) -> None:
    best = best_of([facts, *others])
    if best.rank > facts.rank:
        raise ConflictError(
            f"{best.host_name} holds more (generation {shown(best.generation)}, term {best.last_term}, index "
            f"{best.index}) than {facts.host_name} (generation {shown(facts.generation)}, term {facts.last_term}, "
            f"index {facts.index}): run this on {best.host_name}"
        )


async def _refuse_alive(paths: Paths, facts: Facts) -> None:
    """Refuse if, with this host, most voters are there: then starting its agent is all it takes."""
    voters = {voter.id for voter in facts.voters}
    members = [m for m in other_members(paths, read_record(paths)) if m.id in voters]
    async with Others(paths) as others:
        alive = await others.look(members)
    answering = [one.member.name for one in alive if one.about.generation >= facts.generation]
    newer = [one for one in alive if one.about.generation > facts.generation]
    if newer:
        raise ConflictError(
            f"{newer[0].member.name} is of a newer generation, {shown(newer[0].about.generation)}: the cluster began anew "
            "there, and this host comes back with 'kvorum recover rejoin'"
        )
    if 2 * (len(answering) + facts.votes) > len(voters):
        raise ConflictError(
            f"{', '.join(answering)} {'answers' if len(answering) == 1 else 'answer'}: with this host most voters are there. "
            "Start its agent ('systemctl start kvorum-agent')"
        )


def _announce(ctx: Context, facts: Facts, others: Sequence[Facts]) -> None:
    rows = [("HOST", "GENERATION", "TERM", "INDEX", "APPLIED", "WRITTEN")]
    rows += [
        (
            f"{one.host_name}{' (here)' if one is facts else ''}",
            shown(one.generation),
            str(one.last_term),
            str(one.index),
            str(one.applied),
            shown_time(one.written_ms),
        )
        for one in (facts, *others)
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        ctx.say(printable(line.rstrip()))
    gone = [
        printable(voter.name or voter.id) for voter in facts.voters if voter.id != facts.host_id
    ]
    ctx.say("")
    ctx.say(
        f"You confirm that most of the voters are destroyed and won't come back: {', '.join(gone)}."
    )
    ctx.say("")
    ctx.say(FORCE_NOTE)
    ctx.say("")


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("recover")
    shows = verbs.add(
        "show",
        show,
        "show how much this host holds, to compare survivors",
        example="kvorum recover show\nkvorum recover show -o json > h2.json",
        note="The agent of this host must be stopped.",
    )
    add_state_directory(shows)
    forces = verbs.add(
        "force-quorum",
        force,
        "make this host the only voter, after most were destroyed",
        example="kvorum recover force-quorum --survivor h2.json --survivor h4.json",
        note=FORCE_NOTE,
    )
    forces.add_argument(
        "--survivor",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what `kvorum recover show -o json` printed on another survivor; may be repeated",
    )
    add_confirm(forces, "the cluster's name")
    add_state_directory(forces)
    rejoins = verbs.add(
        "rejoin",
        rejoin,
        "drop this host's state and follow the cluster anew",
        example="systemctl stop kvorum-agent && kvorum recover rejoin && systemctl start kvorum-agent",
        note=REJOIN_NOTE,
    )
    add_yes(rejoins)
    add_state_directory(rejoins)


ADD: dict[str, Callable[[Root, Parser], None]] = {"recover": _add}
