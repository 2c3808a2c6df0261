"""What every kind of resource can do: list, show, delete.

The module of a noun describes its kind and adds these verbs; what is special it adds itself.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tools.cli.context import Context
from tools.cli.deleting import preview
from tools.cli.output import Column, texts, write_done, write_item, write_list
from tools.cli.parser import Parser, UsageError, Verbs, add_callback, add_wait, add_yes
from tools.cli.units import positive
from tools.cli.waiting import finish
from tools.sdk.items import Item

Consequences = Callable[[Context, Item], Awaitable[list[str]]]
"""Says what a deletion means beside what it takes along, a line each."""


TAGS, TAGS_FIELD = texts("TAGS", "tags"), texts("tags", "tags")
DeleteMany = Callable[[Namespace, Context, "Kind", Sequence[str], str], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource on the command line. `tagged`: it can carry tags."""

    noun: str
    plural: str
    word: str
    columns: tuple[Column, ...]
    fields: tuple[Column, ...] = ()
    empty: str = ""
    tagged: bool = True

    @property
    def words(self) -> str:
        """What several of them are called."""
        return self.word + ("es" if self.word.endswith("ch") else "s")


def add_name(parser: Parser, kind: Kind) -> None:
    """Add the NAME argument of an existing resource."""
    parser.add_argument("name", metavar="NAME", names_of=kind.plural, help="name or id")


def add_names(parser: Parser, kind: Kind) -> None:
    """Add the NAME arguments of one or several existing resources."""
    parser.add_argument(
        "names", metavar="NAME", nargs="+", names_of=kind.plural, help="names or ids"
    )


def add_list(verbs: Verbs, kind: Kind) -> None:
    """Add `list`."""

    async def run(args: Namespace, ctx: Context) -> int:
        page = await ctx.client.list_all(
            kind.plural, query=queries(args.query), sort=args.sort, limit=args.limit
        )
        columns = (*kind.columns, TAGS) if kind.tagged and args.tags else kind.columns
        write_list(ctx, page.items, columns, kind.empty or f"no {kind.words}")
        return 0

    parser = verbs.add(
        "list",
        run,
        f"list {kind.words}",
        example=f"kvorum {kind.noun} list\nkvorum {kind.noun} list -q name=web1 -o json\n"
        f"kvorum {kind.noun} list --where 'name~=web*' --sort=-created_ms --limit 10",
    )
    add_query(parser)
    if kind.tagged:
        parser.add_argument("--tags", action="store_true", help="with a column of tags")


def add_query(parser: Parser) -> None:
    """Add the options that choose and order a list."""
    parser.add_argument(
        "-q",
        "--query",
        "--where",
        action="append",
        default=[],
        dest="query",
        metavar="CONDITION",
        help="only those of which this is true, e.g. name=web1; may be given several times",
    )
    parser.add_argument("--sort", default="", metavar="ATTRIBUTE", help="order by an attribute")
    parser.add_argument("--limit", type=positive, default=0, metavar="N", help="at most N")


def queries(texts: list[str]) -> list[str]:
    """Return the conditions when each compares something.

    Raises:
        UsageError: one does not.
    """
    for text in texts:
        if not text[:1].isalpha() or not any(sign in text for sign in "=<>:"):
            raise UsageError(f"query {text!r} is no condition such as name=web1")
    return texts


def add_show(verbs: Verbs, kind: Kind) -> None:
    """Add `show`."""

    async def run(args: Namespace, ctx: Context) -> int:
        item = await ctx.client.get(kind.plural, args.name)
        fields = kind.fields or kind.columns
        write_item(ctx, item, (*fields, TAGS_FIELD) if item.texts("tags") else fields)
        return 0

    parser = verbs.add(
        "show", run, f"show one {kind.word}", example=f"kvorum {kind.noun} show NAME -o yaml"
    )
    add_name(parser, kind)


def add_delete(
    verbs: Verbs,
    kind: Kind,
    *,
    verb: str = "delete",
    consequences: Consequences | None = None,
    many: DeleteMany | None = None,
    starts_tasks: bool = False,
) -> None:
    """Add `delete`, or the same by another name; on a terminal it shows what goes along, and asks. `many` deletes several.

    `starts_tasks`: each deletion is a task, whose end can be told to a URL.
    """
    done = {"delete": "deleted", "remove": "removed", "revoke": "revoked"}[verb]

    async def run(args: Namespace, ctx: Context) -> int:
        names = args.names if many is not None else [args.name]
        title = f"{verb} {kind.word} {', '.join(names)}"
        refs = list(names)
        if ctx.interactive and not args.yes:
            lines: list[str] = []
            for place, name in enumerate(names):
                item = await ctx.client.get(kind.plural, name)
                lines += await consequences(ctx, item) if consequences is not None else []
                # What was shown goes, whatever has its name when the answer comes.
                refs[place] = item.text("id", name)
                lines += await preview(ctx, kind.plural, refs[place])
            first = f"This will {title}" + (" with:" if lines else ".")
            await ctx.confirm("\n  ".join([first, *lines]), yes=False)
        if many is not None and len(refs) > 1:
            return await many(args, ctx, kind, refs, done)
        (name,), (ref,) = names, refs
        url = args.callback_url if starts_tasks else ""
        started = await ctx.client.delete(kind.plural, ref, callback_url=url)
        if await finish(ctx, started, title, wait=args.wait):
            write_done(ctx, Item({"name": name, done: True}), f"{name}: {done}")
        return 0

    parser = verbs.add(
        verb, run, f"{verb} a {kind.word}", example=f"kvorum {kind.noun} {verb} NAME --yes"
    )
    (add_names if many is not None else add_name)(parser, kind)
    add_yes(parser)
    add_wait(parser)
    if starts_tasks:
        add_callback(parser)


async def related(ctx: Context, plural: str, key: str, value: str) -> tuple[Item, ...]:
    """Return the resources whose attribute `key` is `value`."""
    return (await ctx.client.list_all(plural, query=(f"{key}={value}",))).items
