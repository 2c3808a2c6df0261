"""`kvorum snapshot`: what the disks of stopped VMs held at a moment, and going back to it."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.many import delete_in_turn
from tools.cli.output import moment, size, text, write_done
from tools.cli.parser import Parser, Root, Verbs, add_callback, add_wait, add_yes
from tools.cli.waiting import finish
from tools.sdk.bodies import EmptyBody, SnapshotBody

KIND = Kind(
    noun="snapshot",
    plural="snapshots",
    word="snapshot",
    columns=(
        text("NAME", "name"),
        text("DISK", "disk_name", "disk_id"),
        text("STATE", "state"),
        text("PARENT", "parent_name", "parent_id"),
        size("STORED", "stored_bytes"),
        moment("TAKEN", "created_ms"),
    ),
    fields=(
        text("name", "name"),
        text("id", "id"),
        text("disk", "disk_name", "disk_id"),
        text("state", "state"),
        text("parent", "parent_name", "parent_id"),
        size("disk size", "size_bytes"),
        size("stored", "stored_bytes"),
        text("description", "description"),
        moment("taken", "created_ms"),
    ),
    empty="no snapshots: kvorum snapshot create VM NAME",
)
CREATE_NOTE = """\
The VM has to be stopped (kvorum vm stop VM), and its disk on a data storage of the product's own kinds.
A snapshot lies beside the disk: it is lost with it, and is no backup. Each one makes the disk a little
slower; a disk may go on from 128 at most."""
REVERT_NOTE = """\
The VM has to be stopped. What was written since the snapshot that the disk goes on from now is lost;
all snapshots stay, so one can go back and forth between them. Take one first to keep what is there now."""


async def create(args: Namespace, ctx: Context) -> int:
    """Take a snapshot and wait for it."""
    body = SnapshotBody(vm=args.vm, name=args.name or UNSET, description=args.description or UNSET)
    started = await ctx.client.take_snapshot(body, callback_url=args.callback_url)
    if await finish(ctx, started, f"snapshot of {args.vm}", wait=args.wait):
        taken = await ctx.client.get(KIND.plural, started.item.text("id"))
        write_done(ctx, taken, f"{taken.text('name')}: taken")
    return 0


async def revert(args: Namespace, ctx: Context) -> int:
    """Go back to a snapshot and wait for it."""
    ref = args.name
    if ctx.interactive and not args.yes:
        snapshot = await ctx.client.get(KIND.plural, args.name)
        ref = snapshot.text("id", args.name)
        disk = snapshot.text("disk_name") or snapshot.text("disk_id")
        await ctx.confirm(
            f"This will take disk {disk} back to snapshot {args.name}; what was written to it since its last snapshot is lost.",
            yes=False,
        )
    started = await ctx.client.act(
        KIND.plural, ref, "revert", EmptyBody(), callback_url=args.callback_url
    )
    if await finish(ctx, started, f"revert {args.name}", wait=args.wait):
        snapshot = await ctx.client.get(KIND.plural, ref)
        disk = snapshot.text("disk_name") or snapshot.text("disk_id")
        write_done(ctx, snapshot, f"{snapshot.text('name')}: disk {disk} goes on from it")
    return 0


def _add_create(verbs: Verbs) -> None:
    taken = verbs.add(
        "create",
        create,
        "take a snapshot of a stopped VM",
        example="kvorum snapshot create web1 before-upgrade\nkvorum snapshot create web1",
        note=CREATE_NOTE,
    )
    taken.add_argument("vm", metavar="VM", names_of="vms", help="name or id of the VM")
    taken.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        default="",
        help="its name (default: that of the VM and the moment)",
    )
    taken.add_argument("--description", default="", metavar="TEXT", help="a note for people")
    add_wait(taken)
    add_callback(taken)


def _add_revert(verbs: Verbs) -> None:
    back = verbs.add(
        "revert",
        revert,
        "have a VM's disk hold again what it held then",
        example="kvorum snapshot revert before-upgrade --yes",
        note=REVERT_NOTE,
    )
    add_name(back, KIND)
    add_yes(back)
    add_wait(back)
    add_callback(back)


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("snapshot")
    _add_create(verbs)
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    _add_revert(verbs)
    add_delete(verbs, KIND, many=delete_in_turn, starts_tasks=True)


ADD = {"snapshot": _add}
