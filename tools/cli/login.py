"""`kvorum login`, `logout` and `whoami`. The session is kept in a file that only its owner can read."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from core.errors import ConflictError, UnauthenticatedError
from tools.cli.account import password_from
from tools.cli.context import Context
from tools.cli.output import write_done
from tools.cli.parser import Parser, Root, UsageError, finish
from tools.cli.units import shown_time
from tools.sdk.bodies import LoginBody
from tools.sdk.items import Item


async def log_in(args: Namespace, ctx: Context) -> int:
    """Log in, and keep the session for the commands that follow."""
    if ctx.session_file is None:
        raise UsageError(
            "root needs no log-in on a host: set KVORUM_ADDRESS to log in from elsewhere"
        )
    password = await password_from(ctx, f"Password of {args.name}: ")
    if ctx.interactive:
        code = await ctx.ask("Code of the authenticator app (empty if there is none): ")
    else:
        code = ctx.stdin.readline().strip()
    session = await ctx.client.log_in(LoginBody(name=args.name, password=password, code=code))
    write_private(ctx.session_file, session.text("token"))
    until = shown_time(session.integer("expires_ms"))
    done = Item({"name": args.name, "expires_ms": session.integer("expires_ms")})
    write_done(ctx, done, f"logged in as {args.name} until {until}")
    return 0


async def log_out(args: Namespace, ctx: Context) -> int:
    """End the session everywhere and forget it."""
    if ctx.session_file is None or not ctx.session_file.exists():
        raise UsageError("nobody has logged in here")
    try:
        await ctx.client.log_out()
    except (UnauthenticatedError, ConflictError):
        ctx.say("the session had ended already")
    ctx.session_file.unlink(missing_ok=True)
    write_done(ctx, Item({"logged_out": True}), "logged out")
    return 0


async def who_am_i(args: Namespace, ctx: Context) -> int:
    """Print who the credentials are."""
    who = await ctx.client.who_am_i()
    write_done(ctx, who, f"{who.text('name')} ({who.text('via')})")
    return 0


def write_private(path: Path, content: str) -> None:
    """Put a file in place that only its owner can read, whatever was there before."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(content + "\n")
    fresh.replace(path)


def _add_login(root: Root, parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="the account")
    finish(
        parser,
        log_in,
        example="KVORUM_ADDRESS=host1 kvorum login alice",
        note="Password and code are asked for, or are the first two lines of stdin. The session is kept in\n"
        "~/.config/kvorum/session (mode 0600) and lasts 12 hours.",
    )


def _add_logout(root: Root, parser: Parser) -> None:
    finish(parser, log_out, example="kvorum logout")


def _add_whoami(root: Root, parser: Parser) -> None:
    finish(parser, who_am_i, example="kvorum whoami -o json")


ADD = {"login": _add_login, "logout": _add_logout, "whoami": _add_whoami}
