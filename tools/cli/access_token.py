"""`kvorum access-token`: tokens with which people and programs use the API from anywhere."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, moment, text, write_done
from tools.cli.parser import Parser, Root
from tools.cli.units import duration_s, shown_time
from tools.sdk.bodies import AccessTokenBody
from tools.sdk.items import Item


def _expires(item: Item) -> str:
    expires_ms = item.integer("expires_ms")
    return shown_time(expires_ms) if expires_ms else "never"


def _rights(item: Item) -> str:
    account = item.text("account_name") or item.text("account_id")
    return f"account {account}" if account else ", ".join(item.texts("role_ids")) or "admin"


KIND = Kind(
    noun="access-token",
    plural="access-tokens",
    word="access token",
    columns=(
        text("NAME", "name"),
        text("ID", "id"),
        moment("CREATED", "created_ms"),
        Column("EXPIRES", _expires),
        Column("RIGHTS OF", _rights),
    ),
    empty="no access tokens: kvorum access-token create NAME",
)


async def create(args: Namespace, ctx: Context) -> int:
    """Print a new token and nothing else on stdout."""
    body = AccessTokenBody(
        name=args.name,
        ttl_s=args.ttl,
        account=args.account or UNSET,
        roles=tuple(args.role) or UNSET,
    )
    made = await ctx.client.create_access_token(body)
    write_done(ctx, made, made.text("token"))
    if ctx.output == "table" and ctx.err.isatty() and not ctx.quiet:
        ctx.say("shown only now: keep it in ~/.config/kvorum/token (mode 0600) or KVORUM_TOKEN")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("access-token")
    made = verbs.add(
        "create",
        create,
        "make an access token and print it",
        example="kvorum access-token create ci --ttl 30d > ~/.config/kvorum/token",
        note="It is shown once; the cluster keeps only its hash.",
    )
    made.add_argument("name", metavar="NAME", help="what it is for")
    made.add_argument(
        "--ttl",
        type=duration_s,
        default=0,
        metavar="TIME",
        help="how long it lives (default: for ever)",
    )
    made.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE",
        help="it may do what this role allows (default: everything); may be given several times",
    )
    made.add_argument(
        "--account", default="", metavar="ACCOUNT", help="it may do what this account may"
    )
    add_list(verbs, KIND)
    add_delete(verbs, KIND, verb="revoke", many=delete_many)


ADD = {"access-token": _add}
