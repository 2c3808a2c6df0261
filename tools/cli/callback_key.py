"""`kvorum callback-key`: the key by which receivers of callbacks know that the cluster speaks."""

from __future__ import annotations

import json
from argparse import Namespace

from tools.cli.context import Context
from tools.cli.output import text, write_done, write_item
from tools.cli.parser import Parser, Root, add_yes
from tools.sdk.items import item_of

FIELDS = (text("PUBLIC KEY", "public_key"),)


async def show(args: Namespace, ctx: Context) -> int:
    """Show the public key."""
    del args
    reply = await ctx.client.request("GET", "/v1/callback-key")
    write_item(ctx, item_of(json.loads(reply.body)), FIELDS)
    return 0


async def rotate(args: Namespace, ctx: Context) -> int:
    """Change the key."""
    await ctx.confirm(
        "Receivers of callbacks will refuse what they get until they have the new public key.",
        yes=args.yes,
    )
    reply = await ctx.client.request("POST", "/v1/callback-key/actions/rotate")
    item = item_of(json.loads(reply.body))
    write_done(ctx, item, f"new public key {item.text('public_key')}")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("callback-key")
    verbs.add("show", show, "show the public key, with which receivers check signatures")
    changed = verbs.add("rotate", rotate, "sign with a new key from now on")
    add_yes(changed)


ADD = {"callback-key": _add}
