"""`kvorum vip`: the one address at which the cluster is managed, whichever host leads."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import Column, write_done, write_item
from tools.cli.parser import Parser, Root
from tools.sdk.model import plain

NOTE = """\
The host that leads holds the address, beside its own; when that host is lost another takes it within about six
seconds. All hosts must be in one network (layer 2). The cluster's own certificates get the address by themselves;
an imported one must name it. See docs/vip.md."""

SHOWN = (
    Column("address", lambda item: item.text("address") or "none is set (kvorum vip set ADDRESS)"),
    Column("held by", lambda item: item.text("holder_name") or "nobody"),
    Column("problems", lambda item: "; ".join(item.texts("problems")) or "none"),
)


async def show(args: Namespace, ctx: Context) -> int:
    """Show the address and who holds it."""
    del args
    write_item(ctx, plain(await ctx.kvorum.members.get_vip()), SHOWN)
    return 0


async def set_(args: Namespace, ctx: Context) -> int:
    """Set the address."""
    found = plain(await ctx.kvorum.members.update_vip(address=args.address))
    write_done(
        ctx, found, f"{found.text('address')} is the VIP: the leader takes it in a few seconds"
    )
    return 0


async def clear(args: Namespace, ctx: Context) -> int:
    """Have no VIP."""
    del args
    found = plain(await ctx.kvorum.members.update_vip(address=""))
    write_done(ctx, found, "there is no VIP any more")
    return 0


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("vip")
    verbs.add("show", show, "show the VIP and who holds it", example="kvorum vip show")
    chosen = verbs.add(
        "set",
        set_,
        "set or change the VIP",
        example="kvorum vip set 10.0.0.9\nkvorum vip set 10.0.0.9/24",
        note=NOTE,
    )
    chosen.add_argument(
        "address",
        metavar="ADDRESS[/PREFIX]",
        help="a free IPv4 address of the hosts' network; the prefix is only compared with that network",
    )
    verbs.add("clear", clear, "have no VIP any more", example="kvorum vip clear")


ADD = {"vip": _add}
