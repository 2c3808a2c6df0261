"""`kvorum token`: single-use tokens for hosts that shall join."""

from __future__ import annotations

from argparse import Namespace

from msgspec import UNSET

from tools.cli.collection import Kind, add_delete, add_list
from tools.cli.context import Context
from tools.cli.many import delete_many
from tools.cli.output import Column, moment, text, write_done
from tools.cli.parser import Parser, Root
from tools.cli.units import duration_s, positive, shown_duration
from tools.sdk.bodies import JoinTokenBody
from tools.sdk.items import Item


def _used_by(item: Item) -> str:
    return item.text("used_by_host_name") or item.text("used_by_host_id") or "not used"


KIND = Kind(
    noun="token",
    plural="join-tokens",
    word="join token",
    columns=(
        text("ID", "id"),
        moment("EXPIRES", "expires_ms"),
        Column("USED BY", _used_by),
        text("CLUSTER", "cluster_name"),
    ),
    empty="no join tokens: kvorum token create",
)


async def create(args: Namespace, ctx: Context) -> int:
    """Print new tokens, one a line and nothing else on stdout."""
    body = JoinTokenBody(count=args.count, ttl_s=args.ttl, cluster=args.cluster or UNSET)
    made = await ctx.client.create_join_tokens(body)
    if ctx.output != "table":
        write_done(ctx, made, "")
        return 0
    for token in made.texts("tokens"):
        ctx.write(token)
    if ctx.err.isatty() and not ctx.quiet:
        ctx.say(f"for one host each, within {shown_duration(args.ttl)}; there: kvorum join TOKEN")
    return 0


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("token")
    made = verbs.add(
        "create",
        create,
        "make join tokens and print them, one a line",
        example="kvorum token create\nkvorum token create --count 2 --ttl 30m",
        note="Each token lets one host join. It is shown once; the cluster keeps only its hash.",
    )
    made.add_argument(
        "--count", type=positive, default=1, metavar="N", help="how many (default: 1)"
    )
    made.add_argument(
        "--ttl",
        type=duration_s,
        default=10800,
        metavar="TIME",
        help="how long they live (default: 3h)",
    )
    made.add_argument(
        "--cluster",
        default="",
        metavar="NAME",
        names_of="clusters",
        help="the cluster that they join into (default: the first)",
    )
    add_list(verbs, KIND)
    add_delete(verbs, KIND, verb="revoke", many=delete_many)


ADD = {"token": _add}
