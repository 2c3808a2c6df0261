"""`kvorum api`: any request, for what has no command yet and for looking closely."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from tools.cli.context import Context
from tools.cli.output import write_value
from tools.cli.parser import Parser, Root, UsageError, finish

METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")


async def call(args: Namespace, ctx: Context) -> int:
    """Send a request and print the answer."""
    path = args.path if args.path.startswith("/") else f"/v1/{args.path}"
    if not path.isascii() or not path.isprintable() or " " in path:
        raise UsageError(f"path {args.path!r} must be quoted as in a URL (a space is %20)")
    reply = await ctx.client.request(args.method, path, _body(args.data, ctx))
    if not reply.body.strip():
        return 0
    try:
        value = json.loads(reply.body)
    except ValueError:
        ctx.out.write(reply.body.decode("utf-8", "replace"))
        return 0
    write_value(ctx, value)
    return 0


def _body(given: str, ctx: Context) -> bytes:
    if not given:
        return b""
    if given == "-":
        given = ctx.stdin.read()
    elif given.startswith("@"):
        try:
            given = Path(given[1:]).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {given[1:]}: {error}") from None
    try:
        return json.dumps(json.loads(given)).encode()
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from None


def _add(root: Root, parser: Parser) -> None:
    parser.add_argument(
        "method", metavar="METHOD", choices=METHODS, type=str.upper, help="e.g. GET"
    )
    parser.add_argument("path", metavar="PATH", help="e.g. vms/web1 or /v1/vms?q=name=web1")
    parser.add_argument(
        "--data", default="", metavar="JSON", help="body: JSON, @FILE, or - for stdin"
    )
    finish(
        parser,
        call,
        example='kvorum api GET vms\nkvorum api PATCH vms/web1 --data \'{"description": "front"}\'',
        note="Changes carry an Idempotency-Key, so that a retry after a lost answer does no harm.",
    )


ADD = {"api": _add}
