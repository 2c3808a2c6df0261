"""`kvorum host enter-maintenance`, `maintenance` and `leave-maintenance`: empty a host, and fill it again."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from core.errors import PlatformError
from tools.cli.collection import Kind, add_name
from tools.cli.context import Context
from tools.cli.output import Column, text, write_done, write_item, write_list
from tools.cli.parser import Verbs
from tools.cli.progress import Progress
from tools.sdk.bodies import EnterMaintenanceBody, LeaveMaintenanceBody
from tools.sdk.items import Item
from tools.sdk.model import plain

POLL_S = 1.0
CHOICES = ("ask", "stop", "keep")

ENTER_NOTE = """\
It gets no new VMs, and those that run on it are moved live to others, of high priority first, two at a
time. It goes on by itself, through crashes, elections and reboots of the host, until it is empty or you
end it: kvorum host leave-maintenance NAME also takes back one that isn't complete.
VMs that can't be moved (local disks, paused, no room elsewhere) are named, and nothing is begun, unless
you say what becomes of them: 'stop' shuts them down and starts them again afterwards; 'keep' lets them
run where they are, and they go down with the host. Stopped VMs stay as they are."""

LEAVE_NOTE = """\
VMs that were moved away for it come back, live, two at a time; those that were stopped for it are started.
A VM that you moved yourself meanwhile stays, and so does one that can't go back within a quarter of an hour."""


def _doing(vm: Item) -> str:
    return {"migrate-vm": "moves", "stop-vm": "stops"}.get(
        vm.text("work"), vm.text("work") or vm.text("standing")
    )


VMS = (
    text("VM", "name"),
    text("PHASE", "phase"),
    Column("NOW", _doing),
    text("WHY", "why"),
)


def _state(now: Item) -> str:
    if not now.flag("maintenance"):
        away = now.integer("away")
        return "in no maintenance" + (f"; {away} of its VMs still come back" if away else "")
    if now.flag("ready"):
        return "in maintenance, and what had to leave has left"
    return "being emptied for its maintenance"


FIELDS = (
    text("host", "host"),
    Column("state", _state),
    text("unmovable VMs", "unmovable"),
    text("VMs still to go", "left"),
    text("VMs elsewhere for it", "away"),
)


async def enter(args: Namespace, ctx: Context) -> int:
    """Begin, ask what to do with VMs that can't be moved, and wait until the host is empty."""
    chosen = "refuse" if args.unmovable == "ask" else args.unmovable
    try:
        now = await _enter(ctx, args.name, chosen)
    except PlatformError as error:
        if error.code != "unmovable-vms" or args.unmovable != "ask" or not ctx.interactive:
            raise
        ctx.say(f"kvorum: {error.message}")
        answer = await ctx.ask("Type stop or keep to go on, anything else to leave all as it is: ")
        if answer.strip() not in CHOICES[1:]:
            raise
        now = await _enter(ctx, args.name, answer.strip())
    if args.wait:
        now = await _until_ready(ctx, args.name, now)
    write_done(ctx, now, f"{now.text('host')}: {_state(now)}")
    return 0


async def _enter(ctx: Context, name: str, unmovable: str) -> Item:
    body = EnterMaintenanceBody(unmovable=unmovable)
    return (await ctx.client.act("hosts", name, "enter-maintenance", body)).item


async def _now(ctx: Context, name: str) -> Item:
    return plain(await ctx.kvorum.hosts.get_maintenance(name))


async def _until_ready(ctx: Context, name: str, now: Item) -> Item:
    """Show how far it is until all has left, or until somebody ends the maintenance."""
    most = max(1, now.integer("left"))
    told: set[tuple[str, str]] = set()
    with Progress(ctx, f"empty {now.text('host', name)}") as progress:
        try:
            while now.flag("maintenance") and not now.flag("ready"):
                left = now.integer("left")
                most = max(most, left)
                progress.show(100 * (most - left) // most, f"{left} VMs to go")
                for vm in now.items("vms"):
                    problem = (vm.text("name"), vm.text("why"))
                    if problem[1] and problem not in told:
                        told.add(problem)
                        ctx.say(f"kvorum: {problem[0]}: {problem[1]}")
                await asyncio.sleep(POLL_S)
                now = await _now(ctx, name)
        except asyncio.CancelledError:
            ctx.say(
                f"\nkvorum: it goes on: kvorum host maintenance {name}; to take it back: "
                f"kvorum host leave-maintenance {name}"
            )
            raise
    return now


async def show(args: Namespace, ctx: Context) -> int:
    """Show how far it is."""
    now = await _now(ctx, args.name)
    write_item(ctx, now, FIELDS)
    if ctx.output == "table" and now.items("vms"):
        write_list(ctx, now.items("vms"), VMS, "")
    return 0


async def leave(args: Namespace, ctx: Context) -> int:
    """End it."""
    body = LeaveMaintenanceBody(move_back=args.move_back)
    now = (await ctx.client.act("hosts", args.name, "leave-maintenance", body)).item
    write_done(ctx, now, f"{now.text('host')}: {_state(now)}")
    return 0


def add_maintenance(verbs: Verbs, kind: Kind) -> None:
    """Add the verbs."""
    begun = verbs.add(
        "enter-maintenance",
        enter,
        "move all VMs away from a host and give it no new ones",
        example="kvorum host enter-maintenance h1\nkvorum host enter-maintenance h1 --unmovable stop",
        note=ENTER_NOTE,
    )
    add_name(begun, kind)
    begun.add_argument(
        "--unmovable",
        choices=CHOICES,
        default="ask",
        help="what becomes of VMs that can't be moved (default: ask, or refuse where nobody can be asked)",
    )
    begun.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        help="return as soon as it has begun, not when the host is empty",
    )
    shown = verbs.add(
        "maintenance",
        show,
        "show how far the maintenance of a host is",
        example="kvorum host maintenance h1",
    )
    add_name(shown, kind)
    ended = verbs.add(
        "leave-maintenance",
        leave,
        "end the maintenance of a host; its VMs come back",
        example="kvorum host leave-maintenance h1\nkvorum host leave-maintenance h1 --no-move-back",
        note=LEAVE_NOTE,
    )
    add_name(ended, kind)
    ended.add_argument(
        "--no-move-back",
        dest="move_back",
        action="store_false",
        help="VMs that were moved away stay where they are",
    )
