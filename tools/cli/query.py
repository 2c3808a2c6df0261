"""`kvorum query`: ask for any resources by any of their attributes, also through relations."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from collections.abc import Sequence

from tools.cli.collection import Kind
from tools.cli.context import Context
from tools.cli.output import Column, text, write_list, write_rows, write_value
from tools.cli.parser import NOUNS, Parser, Root, UsageError, finish
from tools.cli.query_language import QueryError, parse_query
from tools.cli.units import positive
from tools.sdk.items import Item

PLAIN = (text("NAME", "name"), text("ID", "id"))


async def query(args: Namespace, ctx: Context) -> int:
    """Run a query, or count or explain it."""
    try:
        asked = parse_query(" ".join(args.query))
    except QueryError as error:
        raise UsageError(str(error)) from None
    if args.explain:
        _write_plan(
            ctx, await ctx.client.explain(asked.plural, query=asked.conditions, sort=args.sort)
        )
        return 0
    if args.count:
        count = await ctx.client.count(asked.plural, query=asked.conditions)
        ctx.write(str(count)) if ctx.output == "table" else write_value(ctx, {"count": count})
        return 0
    fields = _fields(args.fields)
    page = await ctx.client.list_all(
        asked.plural, query=asked.conditions, sort=args.sort, limit=args.limit, fields=fields
    )
    columns = [_column(field) for field in fields] or columns_of(asked.plural)
    write_list(ctx, page.items, columns, f"no {asked.plural} match")
    return 0


def columns_of(plural: str) -> Sequence[Column]:
    """Return the columns of the list command of a collection, or of any."""
    noun = {"join-tokens": "token"}.get(plural, plural.removesuffix("s"))
    if noun not in NOUNS:
        return PLAIN
    kind = getattr(importlib.import_module(NOUNS[noun][0]), "KIND", None)
    return kind.columns if isinstance(kind, Kind) and kind.plural == plural else PLAIN


def _fields(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",")) if given else ()
    if "" in names:
        raise UsageError(
            f"--fields {given!r}: write attributes with commas between, e.g. name,host.name"
        )
    return names


def _column(field: str) -> Column:
    """Return a column that shows whatever the attribute is."""

    def value(item: Item) -> str:
        found = item.raw.get(field)
        if isinstance(found, list) and all(isinstance(one, str | int) for one in found):
            return ", ".join(str(one) for one in found) or "-"
        if isinstance(found, list | dict):
            return json.dumps(found, ensure_ascii=False)
        return item.text(field) or "-"

    return Column(field.upper(), value)


def _write_plan(ctx: Context, plan: Item) -> None:
    if ctx.output != "table":
        write_value(ctx, {"plan": plan.raw.get("plan"), "reads_rows": plan.integer("reads_rows")})
        return
    rows = [(step.text("step"), step.text("reads_rows")) for step in plan.items("plan")]
    write_rows(ctx, [("STEP", "READS ROWS"), *rows, ("all", plan.text("reads_rows", "0"))])


def _add(root: Root, parser: Parser) -> None:
    del root
    parser.add_argument(
        "query",
        metavar="QUERY",
        nargs="+",
        help="COLLECTION where ATTRIBUTE = VALUE and ...; in quotes",
    )
    parser.add_argument(
        "--sort",
        default="",
        metavar="ATTRIBUTE",
        help="order by an attribute; --sort=-NAME backwards",
    )
    parser.add_argument("--limit", type=positive, default=0, metavar="N", help="at most N")
    parser.add_argument(
        "--fields", default="", metavar="A,B,...", help="show these attributes, e.g. name,host.name"
    )
    parser.add_argument("--count", action="store_true", help="only say how many match")
    parser.add_argument(
        "--explain", action="store_true", help="say how the query would be run, and don't run it"
    )
    finish(
        parser,
        query,
        example="kvorum query 'vms where host.cluster.name = prod and memory_mib >= 8GiB'\n"
        "kvorum query 'hosts where vms.name like web*' --fields name,vms.name\n"
        "kvorum query 'disks where vm is null' --count",
        note="Operators: = != > >= < <= like (~=, with * and ?) in (a, b), not in (a, b), is null,\n"
        "is not null. Through a relation to several, a condition asks whether one of them meets it.",
    )


ADD = {"query": _add}
