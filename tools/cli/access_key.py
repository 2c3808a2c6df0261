"""`kvorum access-key`: keys with which programs of others sign their requests to the API."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list, add_name, add_show
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, moment, text, write_done
from tools.cli.parser import Parser, Root
from tools.cli.units import duration_s, shown_time
from tools.sdk.bodies import AccessKeyBody, AccessKeyPatch
from tools.sdk.items import Item


def _expires(item: Item) -> str:
    expires_ms = item.integer("expires_ms")
    return shown_time(expires_ms) if expires_ms else "never"


def _rights(item: Item) -> str:
    account = item.text("account_name") or item.text("account_id")
    return f"account {account}" if account else ", ".join(item.texts("role_ids")) or "-"


COLUMNS = (
    text("NAME", "name"),
    text("KEY", "id"),
    Column("DISABLED", lambda item: "yes" if item.flag("disabled") else "no"),
    Column("EXPIRES", _expires),
    Column("RIGHTS OF", _rights),
    text("DESCRIPTION", "description"),
)
KIND = Kind(
    noun="access-key",
    plural="access-keys",
    word="access key",
    columns=COLUMNS,
    fields=(*COLUMNS, moment("CREATED", "created_ms")),
    empty="no access keys: kvorum access-key create NAME --role ROLE",
)


async def create(args: Namespace, ctx: Context) -> int:
    """Print the id of a new key and its secret, a line each, and nothing else on stdout."""
    body = AccessKeyBody(
        name=args.name,
        account=args.account or UNSET,
        roles=tuple(args.role) or UNSET,
        ttl_s=args.ttl,
        description=args.description,
    )
    _write_secret(ctx, await ctx.client.create_access_key(body))
    return 0


async def rotate(args: Namespace, ctx: Context) -> int:
    """Print the id of a key and its new secret; the former one has ended."""
    _write_secret(ctx, (await ctx.client.act("access-keys", args.name, "rotate")).item)
    return 0


async def disable(args: Namespace, ctx: Context) -> int:
    """Refuse a key everywhere from now on."""
    return await _set_disabled(args, ctx, disabled=True)


async def enable(args: Namespace, ctx: Context) -> int:
    """Let a key in again."""
    return await _set_disabled(args, ctx, disabled=False)


async def _set_disabled(args: Namespace, ctx: Context, *, disabled: bool) -> int:
    body = AccessKeyPatch(disabled=disabled)
    changed = await ctx.client.update("access-keys", args.name, body)
    write_done(ctx, changed, f"{args.name}: {'disabled' if disabled else 'enabled'}")
    return 0


def _write_secret(ctx: Context, made: Item) -> None:
    if ctx.output == "table":
        ctx.write(made.text("id"))
        ctx.write(made.text("secret"))
        if ctx.err.isatty() and not ctx.quiet:
            ctx.say("key and secret; the secret is shown only now")
    else:
        write_done(ctx, made, "")


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("access-key")
    made = verbs.add(
        "create",
        create,
        "make an access key, and print its id and its secret",
        example="kvorum access-key create billing --role viewer\n"
        "kvorum access-key create backup-tool --account robot --ttl 90d",
        note="The secret is shown once. How requests are signed with it is in docs/identity.md.",
    )
    made.add_argument("name", metavar="NAME", help="what it is for")
    made.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE",
        help="it may do what this role allows; may be given several times",
    )
    made.add_argument(
        "--account",
        default="",
        metavar="ACCOUNT",
        help="it may do what this account may; instead of roles",
    )
    made.add_argument(
        "--ttl",
        type=duration_s,
        default=0,
        metavar="TIME",
        help="how long it lives (default: for ever)",
    )
    made.add_argument("--description", default="", metavar="TEXT", help="who uses it")
    add_list(verbs, KIND)
    add_show(verbs, KIND)
    for verb, run, summary in (
        ("disable", disable, "refuse a key everywhere from now on"),
        ("enable", enable, "let a key in again"),
        (
            "rotate",
            rotate,
            "give a key a new secret and print both; the former secret ends at once",
        ),
    ):
        add_name(verbs.add(verb, run, summary, example=f"kvorum access-key {verb} billing"), KIND)
    add_delete(verbs, KIND, many=delete_many)


ADD = {"access-key": _add}
