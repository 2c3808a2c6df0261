"""`kvorum event`: what happened in the cluster, as a list or as it happens."""

from __future__ import annotations

import json
from argparse import Namespace
from contextlib import aclosing

from tools.cli.collection import Kind, add_list
from tools.cli.context import Context
from tools.cli.output import Column, moment, printable, text
from tools.cli.parser import Parser, Root
from tools.sdk.items import Item


def _subject(event: Item) -> str:
    subject = event.text("subject", "-")
    name = event.text("subject_name")
    return f"{subject.partition('/')[0]} {name}" if name else subject


KIND = Kind(
    noun="event",
    plural="events",
    word="event",
    columns=(
        moment("TIME", "created_ms"),
        text("SEVERITY", "severity"),
        Column("ON", _subject),
        text("CODE", "code"),
        text("MESSAGE", "message"),
    ),
    tagged=False,
)


async def follow(args: Namespace, ctx: Context) -> int:
    """Print events as they happen, until interrupted."""
    async with aclosing(ctx.client.follow_events(args.after)) as events:
        async for event in events:
            if ctx.output == "table":
                ctx.write("  ".join(printable(column.value(event)) for column in KIND.columns))
            elif ctx.output == "json":
                ctx.write(json.dumps(dict(event.raw), ensure_ascii=False))
            else:
                _write_document(ctx, event)
            ctx.out.flush()
    return 0


def _write_document(ctx: Context, event: Item) -> None:
    import yaml

    ctx.out.write("---\n" + yaml.safe_dump(dict(event.raw), sort_keys=False, allow_unicode=True))


def _add(root: Root, parser: Parser) -> None:
    verbs = root.verbs_of("event")
    add_list(verbs, KIND)
    followed = verbs.add(
        "follow",
        follow,
        "print events as they happen",
        example="kvorum event follow\nkvorum event follow --after 1234 -o json",
        note="With -o json each event is one line. When its agent dies, another one is asked and no\n"
        "event is lost.",
    )
    followed.add_argument(
        "--after", default="", metavar="INDEX", help="begin after this index (default: now)"
    )


ADD = {"event": _add}
