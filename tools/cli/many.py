"""A verb on several resources at once: what came of each, a line each, and exit code 1 if anything failed.

Used by the commands that take several names. All are begun in one request; then each is waited for.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from core.errors import PlatformError
from tools.cli.collection import Kind
from tools.cli.context import Context
from tools.cli.output import printable, write_value
from tools.cli.waiting import finish, wait_for, warnings_of
from tools.sdk.bodies import Body, EmptyBody
from tools.sdk.items import Item, JsonValue

if TYPE_CHECKING:
    from tools.sdk.client import Outcome

Tell = Callable[[Context, Item, bool], Awaitable[tuple[Item, str]]]
"""Returns the thing as it is when the work is done, and a sentence about it; the flag says that there was nothing to do."""

SOME_FAILED = 1


async def act_on_many(
    args: Namespace,
    ctx: Context,
    kind: Kind,
    verb: str,
    body: Body,
    tell: Tell,
    *,
    refs: Sequence[str] = (),
) -> int:
    """Do it, wait unless told otherwise, and tell of each. Errors go to stderr in one line each."""
    outcomes = await ctx.client.act_on_many(
        kind.plural, refs or args.names, verb, body, callback_url=getattr(args, "callback_url", "")
    )
    told: list[JsonValue] = []
    failed = False
    for outcome in outcomes:
        title = f"{verb} {outcome.item.text('name') or outcome.ref}"
        try:
            told.append(await _ended(args, ctx, outcome, title, tell))
        except PlatformError as error:
            failed = True
            ctx.say(f"kvorum: {printable(_line(title, error))}")
            told.append({"name": outcome.ref, "error": error.message, "code": error.code})
    if ctx.output != "table":
        write_value(ctx, told)
    return SOME_FAILED if failed else 0


async def _ended(
    args: Namespace, ctx: Context, outcome: Outcome, title: str, tell: Tell
) -> JsonValue:
    if outcome.error is not None:
        raise outcome.error
    for warning in warnings_of(outcome.task) if outcome.task is not None else ():
        ctx.say(f"kvorum: warning: {printable(warning)}")
    if outcome.task is not None and not args.wait:
        _say(ctx, f"{outcome.ref}: accepted; kvorum task wait {outcome.task.id}")
        return dict(outcome.task.raw.raw)
    if outcome.task is not None:
        await wait_for(ctx, outcome.task, title)
    item, sentence = await tell(ctx, outcome.item, outcome.task is None)
    _say(ctx, sentence)
    return dict(item.raw)


def _say(ctx: Context, sentence: str) -> None:
    if ctx.output == "table":
        ctx.write(printable(sentence))


async def delete_many(
    args: Namespace, ctx: Context, kind: Kind, refs: Sequence[str], done: str = "deleted"
) -> int:
    """Delete several, by the ids that were shown; `done` is what is said of each."""

    async def tell(ctx: Context, item: Item, already: bool) -> tuple[Item, str]:
        del ctx, already
        name = item.text("name") or item.text("ref")
        return Item({"name": name, done: True}), f"{name}: {done}"

    return await act_on_many(args, ctx, kind, "delete", EmptyBody(), tell, refs=refs)


async def delete_in_turn(
    args: Namespace, ctx: Context, kind: Kind, refs: Sequence[str], done: str = "deleted"
) -> int:
    """Delete several that may be in each other's way, one when the other is gone; the ids that were shown."""
    told: list[JsonValue] = []
    failed = False
    for name, ref in zip(args.names, refs, strict=True):
        title = f"delete {kind.word} {name}"
        try:
            started = await ctx.client.delete(kind.plural, ref, callback_url=args.callback_url)
            if await finish(ctx, started, title, wait=args.wait):
                told.append({"name": name, done: True})
                _say(ctx, f"{name}: {done}")
        except PlatformError as error:
            failed = True
            ctx.say(f"kvorum: {printable(_line(title, error))}")
            told.append({"name": name, "error": error.message, "code": error.code})
    if ctx.output != "table" and args.wait:
        write_value(ctx, told)
    return SOME_FAILED if failed else 0


def _line(title: str, error: PlatformError) -> str:
    """Return an error with what it is about, which some say themselves."""
    return error.message if error.message.startswith(title) else f"{title}: {error.message}"
