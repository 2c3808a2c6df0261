"""`kvorum drill`: rehearse failures on the living cluster, watch them, and read what they showed."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from core.errors import UnavailableError
from tools.cli.collection import Kind, add_list, add_show
from tools.cli.context import Context
from tools.cli.output import Column, moment, printable, text, write_done, write_rows, write_value
from tools.cli.parser import Parser, Root, UsageError, add_wait
from tools.cli.units import positive
from tools.sdk.bodies import AbortDrillBody, CheckDrillBody, RunDrillBody
from tools.sdk.items import Item

KINDS = (
    "agent-kill",
    "guard-kill",
    "network-cut",
    "power-off",
    "leader-loss",
    "storage-loss",
    "full-power-loss",
)
ALL_HOSTS = "full-power-loss"
FORMATS = ("text", "markdown", "json")
POLL_S = 0.7
ENDED, PASSED = "ended", "passed"

RUN_NOTE = """\
This breaks the host for real: its guests die as in a true failure, where the kind says so (docs/drills.md). Before, the
cluster is checked, and every obstacle is named with what to do; --dry-run shows only that, and what would happen. Another host
watches, measures what follows by its clock, puts right what was broken, and judges. One drill at a time.

Kinds: agent-kill and leader-loss (no guest is touched), guard-kill (the watchdog resets the host), network-cut (--for),
power-off (by the host's BMC), storage-loss (--data-storage, NFS only), full-power-loss (you pull the plug of all hosts).

Exit codes: 0 the promise was kept, 1 it was not, or that can't be told; the report is on stdout."""


def _about(item: Item) -> str:
    return item.text("host_label") or "all hosts"


def _state(item: Item) -> str:
    return item.text("verdict") if item.text("state") == ENDED else item.text("state", "-")


COLUMNS = (
    text("NAME", "name"),
    text("KIND", "kind"),
    Column("HOST", _about),
    Column("STATE", _state),
    moment("BEGUN", "created_ms"),
    text("WHY", "why"),
)
KIND = Kind(
    noun="drill",
    plural="drills",
    word="drill",
    columns=COLUMNS,
    fields=(
        *COLUMNS,
        text("OBSERVER", "observer_host_name", "observer_host_id"),
        text("LEFT TO DO", "left_to_do"),
        moment("ENDED", "ended_ms"),
        text("ID", "id"),
    ),
    empty="no drills: kvorum drill run agent-kill HOST --dry-run shows what one would be",
)


async def run(args: Namespace, ctx: Context) -> int:
    """Check, ask, begin, and follow a drill to its end."""
    body = CheckDrillBody(
        kind=args.kind,
        host=args.host,
        duration_s=args.duration,
        data_storage=args.data_storage,
    )
    plan = await ctx.client.check_drill(body)
    if args.dry_run:
        if ctx.output != "table":
            write_value(ctx, dict(plan.raw))
        else:
            _write_plan(ctx, plan)
        return 0 if plan.flag("possible") else 1
    confirm = await _confirmed(args, ctx, plan)
    drill = await ctx.client.create(
        "drills",
        RunDrillBody(
            kind=args.kind,
            host=args.host,
            duration_s=args.duration,
            data_storage=args.data_storage,
            confirm=confirm,
        ),
    )
    name = drill.text("name")
    if args.kind == ALL_HOSTS:
        ctx.say("Now take the power from ALL hosts, wait ten seconds, and give it back to all.")
        ctx.say(f"When they are back: kvorum drill report {name}")
    if args.kind == ALL_HOSTS or not args.wait:
        write_done(ctx, drill, f"{name}: begun")
        return 0
    ended = await _followed(ctx, name)
    await _write_report(ctx, name, "text" if ctx.output == "table" else "json")
    return 0 if ended.text("verdict") == PASSED else 1


async def _confirmed(args: Namespace, ctx: Context, plan: Item) -> str:
    """Return the name that was typed, or given; the agent knows whether it is right."""
    given: str = args.confirm
    if not given and ctx.interactive:
        _write_plan(ctx, plan)
        if not plan.flag("possible"):
            raise UsageError("nothing was broken: see the obstacles above")
        whose = "cluster's" if args.kind == ALL_HOSTS else "host's"
        given = await ctx.ask(f"This is done for real. Type the {whose} name to begin: ")
    wanted = args.host or "CLUSTER"
    if not given or (args.host and given not in (args.host, plan.text("host_name"))):
        raise UsageError(f"nothing was broken: confirm with --confirm {wanted}")
    return given


async def _followed(ctx: Context, name: str) -> Item:
    """Say what happens until the drill has ended; an agent that is gone for a while is part of it."""
    said = 0
    while True:
        try:
            drill = await ctx.client.get("drills", name)
        except UnavailableError as error:
            ctx.say(printable(f"         (nobody answers: {error.message})"))
            await asyncio.sleep(POLL_S)
            continue
        events = drill.items("events")
        for event in events[said:]:
            if not ctx.quiet:
                after_s = event.integer("after_ms") / 1000
                ctx.say(printable(f"{after_s:+8.1f} s  {event.text('text')}"))
        said = len(events)
        if drill.text("state") == ENDED:
            return drill
        await asyncio.sleep(POLL_S)


def _write_plan(ctx: Context, plan: Item) -> None:
    where = plan.text("host_name") or "all hosts"
    duration_s = plan.integer("duration_s")
    lasts = f" for {duration_s} s" if duration_s else ""
    watcher = plan.text("observer_name") or "whoever leads then"
    ctx.write(printable(f"{plan.text('kind')} of {where}{lasts}, watched by {watcher}"))
    for title, key in (("OBSTACLE", "obstacles"), ("KNOW", "warnings")):
        for one in plan.items(key):
            ctx.write(printable(f"{title}  {one.text('what')} [{one.text('code')}]"))
            ctx.write(printable(f"          do: {one.text('advice')}"))
    rows = [(one.text("name"), one.text("was_on"), _promise(one)) for one in plan.items("vms")]
    if rows:
        write_rows(ctx, [("VM", "ON", "PROMISE"), *(tuple(map(printable, row)) for row in rows)])
    ctx.write("it can begin" if plan.flag("possible") else "it can't begin now")


def _promise(one: Item) -> str:
    bound = f" within {one.integer('bound_ms') / 1000:g} s"
    return {
        "stays": "is not touched",
        "moves": f"runs elsewhere{bound}",
        "returns": f"runs again{bound}",
        "waits": "is down until its host is back",
    }.get(one.text("promise"), one.text("promise"))


async def report(args: Namespace, ctx: Context) -> int:
    """Print a drill's report."""
    wanted = args.format or ("text" if ctx.output == "table" else "json")
    await _write_report(ctx, args.name, wanted)
    return 0


async def _write_report(ctx: Context, name: str, wanted: str) -> None:
    found = await ctx.client.drill_report(name)
    if wanted == "json":
        drill = await ctx.client.get("drills", name)
        parts = {k: v for k, v in found.raw.items() if k not in ("text", "markdown")}
        write_value(
            ctx, {**parts, "timeline": drill.raw.get("events"), "vms": drill.raw.get("vms")}
        )
        return
    for line in found.text(wanted).splitlines():
        ctx.write(printable(line))


async def abort(args: Namespace, ctx: Context) -> int:
    """End a drill early."""
    body = AbortDrillBody(reason=args.reason)
    started = await ctx.client.act("drills", args.name, "abort", body)
    done = "what is broken is put right, then it ends"
    write_done(ctx, started.item, f"{args.name}: {done}; follow it: kvorum drill show {args.name}")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("drill")
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    made = verbs.add(
        "run",
        run,
        "rehearse a failure, for real",
        example="kvorum drill run power-off h2 --dry-run\n"
        "kvorum drill run agent-kill h2 --confirm h2\n"
        "kvorum drill run network-cut h2 --for 30",
        note=RUN_NOTE,
    )
    made.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    made.add_argument(
        "host", metavar="HOST", nargs="?", default="", names_of="hosts", help="the host that fails"
    )
    made.add_argument("--dry-run", action="store_true", help="only check, and say what would be")
    made.add_argument(
        "--confirm", default="", metavar="NAME", help="the host's name once more, or the cluster's"
    )
    made.add_argument(
        "--for",
        dest="duration",
        type=positive,
        default=0,
        metavar="SECONDS",
        help="how long a cut lasts",
    )
    made.add_argument(
        "--data-storage", default="", metavar="NAME", help="what is lost, for storage-loss"
    )
    add_wait(made)
    shown = verbs.add(
        "report",
        report,
        "show what a drill has shown",
        example="kvorum drill report NAME\nkvorum drill report NAME --format markdown >drill.md",
    )
    shown.add_argument("name", metavar="NAME", names_of="drills", help="name or id")
    shown.add_argument("--format", choices=FORMATS, default="", help="how (default: text)")
    ended = verbs.add(
        "abort",
        abort,
        "end a drill early: what it broke is put right",
        example='kvorum drill abort NAME --reason "not today"',
    )
    ended.add_argument("name", metavar="NAME", names_of="drills", help="name or id")
    ended.add_argument("--reason", default="", metavar="TEXT", help="why, for the report")


ADD = {"drill": _add}
