"""`kvorum tag`: names and key=value pairs on any resource, to find and group it, and system tags that change behaviour."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

from tools.cli.collection import queries
from tools.cli.context import Context
from tools.cli.output import text, write_done, write_list
from tools.cli.parser import Parser, Root, RunVerb, UsageError, Verbs
from tools.sdk.items import Item

NOTE = """\
A tag is a name (prod), a key with one value (env=test), or a system tag such as smbios::serial::ABC-1, which
changes how the resource behaves: 'kvorum tag system' lists those. Adding what is there is no error."""


def plural_of(kind: str) -> str:
    """Return the collection of a kind as it is typed: `vm`, `data-storage`, or the collection itself."""
    return kind if kind.endswith("s") else f"{kind}s"


def _change(verb: str) -> RunVerb:
    async def run(args: Namespace, ctx: Context) -> int:
        plural = plural_of(args.kind)
        names, tags = await _named(args, ctx, plural)
        add, remove = ((), tags) if verb == "remove" else (tags, ())
        for ref, name in names:
            now = await ctx.client.change_tags(plural, ref, add=add, remove=remove)
            done = Item({"name": name, "tags": list(now)})
            write_done(ctx, done, f"{name}: {', '.join(now) or 'no tags'}")
        if not names:
            ctx.say(f"no {plural} match")
        return 0

    return run


async def _named(
    args: Namespace, ctx: Context, plural: str
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Return what to tag, by what it is found and called, and tags: all words are, where a condition chooses."""
    words = tuple(args.words)
    if args.query:
        page = await ctx.client.list_all(plural, query=queries(args.query), fields=("id", "name"))
        return [(item.text("id"), item.text("name")) for item in page.items], words
    if len(words) < 2:
        raise UsageError(f"write the {args.kind}'s name and at least one tag")
    return [(words[0], words[0])], words[1:]


async def show(args: Namespace, ctx: Context) -> int:
    """List the tags of one resource, or those in use in a collection."""
    plural = plural_of(args.kind)
    if args.name:
        tags = await ctx.client.tags(plural, args.name)
        write_list(ctx, [Item({"tag": tag}) for tag in tags], (text("TAG", "tag"),), "no tags")
        return 0
    page = await ctx.client.list_all(plural, query=["tag!is:null"], fields=("tags",))
    counts = Counter(tag for item in page.items for tag in item.texts("tags"))
    items = [Item({"tag": tag, plural: counts[tag]}) for tag in sorted(counts)]
    write_list(ctx, items, (text("TAG", "tag"), text(plural.upper(), plural)), "no tags")
    return 0


async def system(args: Namespace, ctx: Context) -> int:
    """List the patterns of system tags."""
    del args
    page = await ctx.client.list("system-tags")
    columns = (text("NAME", "name"), text("MEANING", "description"))
    write_list(ctx, page.items, columns, "no system tags")
    return 0


def _add_change(verbs: Verbs, verb: str, summary: str, example: str) -> None:
    parser = verbs.add(verb, _change(verb), summary, example=example, note=NOTE)
    parser.add_argument("kind", metavar="KIND", help="e.g. vm, host, image, data-storage")
    parser.add_argument(
        "words", metavar="NAME TAG", nargs="+", help="name or id (not with --where), then tags"
    )
    parser.add_argument(
        "-q",
        "--query",
        "--where",
        action="append",
        default=[],
        dest="query",
        metavar="CONDITION",
        help="all of which this is true, e.g. host.name=h1; may be given several times",
    )


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("tag")
    _add_change(
        verbs,
        "add",
        "tag a resource, or all that match",
        "kvorum tag add vm web1 prod env=test\n"
        "kvorum tag add vm --where 'host.name=h1' rack=r1\n"
        "kvorum tag add vm web1 smbios::serial::ABC-1",
    )
    _add_change(
        verbs,
        "remove",
        "take tags away",
        "kvorum tag remove vm web1 prod\nkvorum tag remove vm --where tag=old old",
    )
    listed = verbs.add(
        "list",
        show,
        "list the tags of a resource, or those in use",
        example="kvorum tag list vm web1\nkvorum tag list vm\nkvorum query 'vms where tag = prod'",
    )
    listed.add_argument("kind", metavar="KIND", help="e.g. vm, host, image, data-storage")
    listed.add_argument("name", metavar="NAME", nargs="?", default="", help="name or id")
    verbs.add("system", system, "list the system tags that are known", example="kvorum tag system")


ADD = {"tag": _add}
