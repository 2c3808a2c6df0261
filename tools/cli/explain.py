"""`kvorum explain`: what a kind of resource is, or one attribute of it, also along relations.

Says what the agent that answers has in its description of the API, so types of plug-ins are explained like all others.
"""

from __future__ import annotations

import difflib
import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import NotFoundError
from tools.cli.context import Context
from tools.cli.output import printable, write_rows, write_value
from tools.cli.parser import Parser, Root, UsageError, finish

TYPES = {"string": "text", "integer": "number", "number": "number", "boolean": "yes or no"}
KIND, COLLECTION, RELATIONS = "x-kvorum-kind", "x-kvorum-collection", "x-kvorum-relations"

Schema = Mapping[str, Any]


async def explain(args: Namespace, ctx: Context) -> int:
    """Explain a kind, or what a path from it leads to."""
    schemas = _schemas((await ctx.client.description()).raw)
    if not args.what:
        rows = [(s[KIND], s[COLLECTION], _first(s)) for s in _kinds(schemas)]
        if ctx.output != "table":
            write_value(ctx, [{"kind": k, "collection": c, "about": a} for k, c, a in rows])
            return 0
        _rows(ctx, [("KIND", "COLLECTION", "WHAT IT IS"), *rows])
        return 0
    word, *path = args.what.split(".")
    schema, name = _kind(schemas, word), word
    for step in path:
        schema, name = _step(schemas, schema, name, step), step
    if ctx.output != "table":
        write_value(ctx, json.loads(json.dumps(schema)))
    elif "properties" in (struct := _resolved(schemas, schema)):
        _write_struct(ctx, schemas, schema, struct, args.what)
    else:
        _write_attribute(ctx, schemas, schema, args.what)
    return 0


def _schemas(document: Mapping[str, Any]) -> Mapping[str, Schema]:
    components = document.get("components")
    schemas = components.get("schemas") if isinstance(components, dict) else None
    if not isinstance(schemas, dict) or not any(KIND in schema for schema in schemas.values()):
        raise NotFoundError("the agent that answered can't explain kinds: upgrade its host")
    return schemas


def _kinds(schemas: Mapping[str, Schema]) -> list[Schema]:
    found = [schema for schema in schemas.values() if KIND in schema]
    return sorted(found, key=lambda schema: str(schema[KIND]))


def _kind(schemas: Mapping[str, Schema], word: str) -> Schema:
    """Return the schema of a kind, by its name or its collection's."""
    kinds = _kinds(schemas)
    for schema in kinds:
        if word in (schema[KIND], schema[COLLECTION]):
            return schema
    names = [str(schema[KIND]) for schema in kinds]
    raise UsageError(f"there is no kind {word!r}: {_hint(word, names)}")


def _step(schemas: Mapping[str, Schema], schema: Schema, name: str, step: str) -> Schema:
    """Return what an attribute or a relation of a schema leads to."""
    struct = _resolved(schemas, schema)
    properties, relations = struct.get("properties", {}), struct.get(RELATIONS, {})
    if step in properties:
        found: Schema = properties[step]
        return found
    if step in relations:
        return _kind(schemas, relations[step]["to"])
    if not properties:
        raise UsageError(f"{name!r} is one value: there is no {step!r} in it")
    raise UsageError(f"{name!r} has no {step!r}: {_hint(step, [*properties, *relations])}")


def _hint(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _resolved(schemas: Mapping[str, Schema], schema: Schema) -> Schema:
    """Return the struct that a schema is, or is a list of; itself for anything else."""
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        schema = schema["items"]
    if "$ref" in schema:
        return schemas.get(str(schema["$ref"]).rpartition("/")[2], schema)
    return schema


def _type(schemas: Mapping[str, Schema], schema: Schema) -> str:
    if schema.get("type") == "array":
        return f"list of {_type(schemas, schema.get('items', {}))}"
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        values = schemas.get(name, {}).get("enum")
        return " / ".join(map(str, values)) if values else name
    if "enum" in schema:
        return " / ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_type(schemas, one) for one in schema["anyOf"])
    return TYPES.get(str(schema.get("type")), "structure")


def _bounds(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    said = []
    if least is not None and most is not None:
        said.append(f"{least} to {most}")
    elif least is not None:
        said.append(f"{least} or more")
    elif most is not None:
        said.append(f"{most} or less")
    for key, text in (("maxLength", "up to {} characters"), ("maxItems", "up to {}")):
        if key in schema:
            said.append(text.format(schema[key]))
    if "pattern" in schema:
        said.append(str(schema["pattern"]))
    return ", ".join(said)


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return "-"
    value = schema["default"]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _first(schema: Schema) -> str:
    return str(schema.get("description", "")).partition("\n")[0]


def _write_struct(
    ctx: Context, schemas: Mapping[str, Schema], schema: Schema, struct: Schema, what: str
) -> None:
    title = f"{struct[KIND]} ({struct[COLLECTION]})" if KIND in struct else what
    ctx.write(printable(title))
    for part in dict.fromkeys((schema.get("description", ""), struct.get("description", ""))):
        for line in str(part).splitlines():
            ctx.write(printable(line))
    rows = [
        (
            name,
            ", ".join(t for t in (_type(schemas, one), _bounds(one)) if t),
            str(one.get("x-kvorum-unit", "")) or "-",
            _default(one) or "empty",
            str(one.get("x-kvorum-written-by", "-")),
            str(one.get("description", "")),
        )
        for name, one in struct["properties"].items()
    ]
    ctx.write("")
    _rows(ctx, [("ATTRIBUTE", "TYPE", "UNIT", "DEFAULT", "WRITTEN BY", "MEANING"), *rows])
    relations = struct.get(RELATIONS, {})
    if relations:
        ctx.write("")
        _rows(ctx, [_RELATION_TITLES, *(_relation(n, one) for n, one in relations.items())])


_RELATION_TITLES = ("RELATION", "LEADS TO", "HOW MANY", "KEPT IN", "WHEN THE TARGET IS DELETED")
_DELETED = {
    "refuse": "refused",
    "along": "deleted along with it",
    "detach": "loses the relation",
    "keep": "keeps the id as a memory",
}


def _relation(name: str, said: Schema) -> tuple[str, ...]:
    many = str(said.get("cardinality", "-"))
    if said.get("required"):
        many += ", at least one"
    if "maximum" in said:
        many += f", at most {said['maximum']}"
    deleted = str(said.get("when_target_is_deleted", ""))
    kept_in = str(said.get("kept_in", "-"))
    return (name, str(said.get("to", "-")), many, kept_in, _DELETED.get(deleted, deleted or "-"))


def _write_attribute(
    ctx: Context, schemas: Mapping[str, Schema], schema: Schema, what: str
) -> None:
    rows = [
        ("attribute", what),
        ("meaning", str(schema.get("description", "-"))),
        ("type", _type(schemas, schema)),
        ("bounds", _bounds(schema) or "-"),
        ("unit", str(schema.get("x-kvorum-unit", "-"))),
        ("default", _default(schema) or "empty"),
        ("written by", str(schema.get("x-kvorum-written-by", "-"))),
    ]
    _rows(ctx, rows)


def _rows(ctx: Context, rows: Sequence[tuple[str, ...]]) -> None:
    write_rows(ctx, [tuple(printable(cell) for cell in row) for row in rows])


def _add(root: Root, parser: Parser) -> None:
    del root
    parser.add_argument(
        "what",
        metavar="KIND[.ATTRIBUTE]",
        nargs="?",
        default="",
        help="e.g. vm, vm.memory_mib, vm.host.cluster; without it all kinds are named",
    )
    finish(
        parser,
        explain,
        example="kvorum explain\nkvorum explain vm\nkvorum explain vm.memory_mib\n"
        "kvorum explain security-group.rules.cidr\nkvorum explain vm.host.cluster -o json",
        note="Says what an attribute means, its unit, bounds and default, who writes it, and\n"
        "which relations lead on from a kind, as `kvorum query` takes them.",
    )


ADD = {"explain": _add}
