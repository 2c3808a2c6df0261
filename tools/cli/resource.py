"""`kvorum resource`: list, show, create, change and delete resources of any kind, by what the API says of it.

For kinds that plug-ins bring, of which this command knows nothing beforehand: it asks the agent what attributes there are.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from tools.cli.collection import add_query, queries
from tools.cli.context import Context
from tools.cli.output import Column, text, write_done, write_item, write_list
from tools.cli.parser import Parser, Root, UsageError, add_wait, add_yes
from tools.cli.waiting import finish
from tools.sdk.items import Item, JsonValue

YES_NO = {"yes": True, "true": True, "no": False, "false": False}
PLAIN = (text("NAME", "name"), text("ID", "id"))
HIDDEN = frozenset({"id", "name", "revision", "created_ms"})

Schema = Mapping[str, Any]


async def list_(args: Namespace, ctx: Context) -> int:
    """List resources of a collection."""
    page = await ctx.client.list_all(
        args.collection, query=queries(args.query), sort=args.sort, limit=args.limit
    )
    columns = _columns(page.items)
    write_list(ctx, page.items, columns, f"no {args.collection}")
    return 0


async def show(args: Namespace, ctx: Context) -> int:
    """Show one."""
    item = await ctx.client.get(args.collection, args.name)
    write_item(ctx, item, [_column(key) for key in item.raw])
    return 0


async def create(args: Namespace, ctx: Context) -> int:
    """Create one of the attributes given."""
    given = await _given(ctx, "post", f"/v1/{args.collection}", args)
    made = await ctx.client.create_declared(args.collection, {"name": args.name, **given})
    write_done(ctx, made, f"{made.text('name', args.name)}: created")
    return 0


async def change(args: Namespace, ctx: Context) -> int:
    """Change the attributes given."""
    given = await _given(ctx, "patch", f"/v1/{args.collection}/{{ref}}", args)
    changed = await ctx.client.update_declared(args.collection, args.name, given)
    write_done(ctx, changed, f"{changed.text('name', args.name)}: changed")
    return 0


async def delete(args: Namespace, ctx: Context) -> int:
    """Delete one."""
    title = f"delete {args.name} of {args.collection}"
    await ctx.confirm(f"This will {title}.", yes=args.yes)
    started = await ctx.client.delete(args.collection, args.name)
    if await finish(ctx, started, title, wait=args.wait):
        write_done(ctx, Item({"name": args.name, "deleted": True}), f"{args.name}: deleted")
    return 0


async def _given(ctx: Context, method: str, path: str, args: Namespace) -> dict[str, JsonValue]:
    """Return the attributes as the API takes them."""
    document: Mapping[str, Any] = (await ctx.client.description()).raw
    schemas = document.get("components", {}).get("schemas", {})
    operation = document.get("paths", {}).get(path, {}).get(method)
    if operation is None:
        raise UsageError(
            f"{args.collection} can't be changed this way: see kvorum explain {args.collection}"
        )
    body = _resolved(schemas, operation["requestBody"]["content"]["application/json"]["schema"])
    given: dict[str, JsonValue] = {}
    for assignment in args.attributes:
        name, sign, value = assignment.partition("=")
        if not sign:
            raise UsageError(f"{assignment!r} is no ATTRIBUTE=VALUE")
        if name not in body["properties"]:
            known = ", ".join(body["properties"])
            raise UsageError(f"{args.collection} have no {name!r} to be given: there are {known}")
        given[name] = _value(name, value, _resolved(schemas, body["properties"][name]))
    return given


def _resolved(schemas: Mapping[str, Schema], schema: Schema) -> Schema:
    if "$ref" in schema:
        found: Schema = schemas[str(schema["$ref"]).rpartition("/")[2]]
        return found
    return schema


def _value(name: str, given: str, schema: Schema) -> JsonValue:
    kind = schema.get("type")
    if kind == "integer":
        try:
            return int(given)
        except ValueError:
            raise UsageError(f"{name} is a number, not {given!r}") from None
    if kind == "boolean":
        if given not in YES_NO:
            raise UsageError(f"{name} is yes or no, not {given!r}")
        return YES_NO[given]
    if kind == "array" and schema.get("items", {}).get("type") == "string":
        return [one for one in given.split(",") if one]
    if kind == "string" or "enum" in schema:
        return given
    try:
        value: JsonValue = json.loads(given)
    except ValueError:
        raise UsageError(f"{name} is a structure: give it as JSON") from None
    return value


def _columns(items: Sequence[Item]) -> Sequence[Column]:
    """Return columns of the plain attributes; names in the place of ids."""
    if not items:
        return PLAIN
    first = items[0].raw
    plain = [
        key
        for key, value in first.items()
        if key not in HIDDEN and not isinstance(value, dict) and not key.endswith(("_id", "_ids"))
    ]
    return (text("NAME", "name"), *(_column(key, title=key.upper()) for key in plain))


def _column(key: str, *, title: str = "") -> Column:
    def value(item: Item) -> str:
        found = item.raw.get(key)
        if isinstance(found, list) and all(isinstance(one, str | int) for one in found):
            return ", ".join(str(one) for one in found) or "-"
        if isinstance(found, list | dict):
            return json.dumps(found, ensure_ascii=False)
        if isinstance(found, bool):
            return "yes" if found else "no"
        return item.text(key) or "-"

    return Column(title or key, value)


def _add(root: Root, parser: Parser) -> None:
    del parser
    verbs = root.verbs_of("resource")
    listed = verbs.add(
        "list",
        list_,
        "list resources of a collection",
        example="kvorum resource list licences -q vm.name=web1",
    )
    _add_collection(listed)
    add_query(listed)
    shown = verbs.add(
        "show", show, "show one resource", example="kvorum resource show licences gold -o yaml"
    )
    _add_collection(shown)
    _add_resource(shown)
    made = verbs.add(
        "create",
        create,
        "create a resource",
        example="kvorum resource create licences gold product=editor seats=5 vm=web1",
        note="Attributes and relations are as `kvorum explain KIND` says; lists have commas between,\n"
        "and where an id belongs a name is given.",
    )
    _add_collection(made)
    made.add_argument("name", metavar="NAME", help="its name")
    _add_attributes(made, "*")
    changed = verbs.add(
        "set",
        change,
        "change a resource",
        example="kvorum resource set licences gold seats=6 name=gold2",
    )
    _add_collection(changed)
    _add_resource(changed)
    _add_attributes(changed, "+")
    deleted = verbs.add(
        "delete",
        delete,
        "delete a resource",
        example="kvorum resource delete licences gold --yes",
    )
    _add_collection(deleted)
    _add_resource(deleted)
    add_yes(deleted)
    add_wait(deleted)


def _add_collection(parser: Parser) -> None:
    parser.add_argument(
        "collection", metavar="COLLECTION", help="e.g. licences; see kvorum explain"
    )


def _add_resource(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name or id")


def _add_attributes(parser: Parser, nargs: str) -> None:
    parser.add_argument(
        "attributes", metavar="ATTRIBUTE=VALUE", nargs=nargs, help="e.g. seats=5 vm=web1"
    )


ADD = {"resource": _add}
