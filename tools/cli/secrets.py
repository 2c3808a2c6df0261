"""`kvorum secrets`: the key by which the cluster's secrets are sealed."""

from __future__ import annotations

from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import Column, text, texts, write_done, write_item
from tools.cli.parser import Parser, Root, add_yes
from tools.sdk.items import Item
from tools.sdk.model import plain


def _state(item: Item) -> str:
    if item.text("next_key_id"):
        return "a new key is being handed out"
    return "in use; some hosts lack the new key" if item.flag("changing") else "in use"


FIELDS = (
    text("KEY", "key_id"),
    Column("STATE", _state),
    text("NEXT KEY", "next_key_id"),
    text("FORMER KEY", "former_key_id"),
    texts("HOSTS WITHOUT NEW KEY", "hosts_without_key"),
)


async def status(args: Namespace, ctx: Context) -> int:
    """Show how a change goes."""
    del args
    write_item(ctx, plain(await ctx.kvorum.secrets.get()), FIELDS)
    return 0


async def rotate(args: Namespace, ctx: Context) -> int:
    """Begin a change."""
    await ctx.confirm(
        "All secrets will be sealed with a new key. Backups of the state that were made before need the key of then.",
        yes=args.yes,
    )
    item = plain(await ctx.kvorum.secrets.rotate())
    write_done(ctx, item, f"new key {item.text('next_key_id')}: see kvorum secrets status")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("secrets")
    verbs.add("status", status, "show which secrets key is in use, and who lacks it")
    begun = verbs.add(
        "rotate",
        rotate,
        "change the secrets key",
        note="Hosts get the new key over the mesh; one that is off gets it when it is back. Make a backup with keys after it.",
    )
    add_yes(begun)


ADD = {"secrets": _add}
