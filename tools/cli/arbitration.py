"""`kvorum arbitration`: addresses that every host pings, for a veto on the VIP."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import Column, write_done, write_item
from tools.cli.parser import Parser, Root
from tools.sdk.items import Item
from tools.sdk.model import plain

NOTE = """\
Every host pings them once a second. A leader that reaches none of them while another host does may not hold the
VIP. It is a veto, not a vote: it decides neither who leads nor where VMs run, and a cluster of two hosts still
needs a witness. Take addresses that are not of the cluster and answer always, such as the router's. See docs/vip.md."""


def _hosts(item: Item) -> str:
    rows = item.items("hosts")
    return "; ".join(f"{it.text('host_name')} {it.text('state') or 'says nothing'}" for it in rows)


SHOWN = (
    Column(
        "addresses",
        lambda item: (
            " ".join(item.texts("addresses")) or "none is set (kvorum arbitration set ADDRESS)"
        ),
    ),
    Column("hosts", lambda item: _hosts(item) or "-"),
    Column("problems", lambda item: "; ".join(item.texts("problems")) or "none"),
)


async def show(args: Namespace, ctx: Context) -> int:
    """Show the addresses and who reaches them."""
    del args
    write_item(ctx, plain(await ctx.kvorum.members.get_arbitration()), SHOWN)
    return 0


async def set_(args: Namespace, ctx: Context) -> int:
    """Set the addresses."""
    found = plain(await ctx.kvorum.members.update_arbitration(addresses=args.addresses))
    write_done(ctx, found, f"every host pings {' and '.join(found.texts('addresses'))} from now on")
    return 0


async def clear(args: Namespace, ctx: Context) -> int:
    """Have none."""
    del args
    found = plain(await ctx.kvorum.members.update_arbitration(addresses=[]))
    write_done(ctx, found, "there is no arbitration address any more")
    return 0


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("arbitration")
    verbs.add(
        "show",
        show,
        "show the arbitration addresses and which host reaches them",
        example="kvorum arbitration show",
    )
    chosen = verbs.add(
        "set",
        set_,
        "set the arbitration addresses, in place of those that are set",
        example="kvorum arbitration set 10.0.0.1\nkvorum arbitration set 10.0.0.1 10.0.0.2",
        note=NOTE,
    )
    chosen.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="+",
        help="an IPv4 or IPv6 address that is not of the cluster; three at most",
    )
    verbs.add(
        "clear", clear, "have no arbitration address any more", example="kvorum arbitration clear"
    )


ADD = {"arbitration": _add}
