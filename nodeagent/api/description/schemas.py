"""The JSON schemas (2020-12, as OpenAPI 3.1 uses them) of what the API takes and shows.

Bodies are what msgspec says of their structs. A resource is its struct as `nodeagent.api.views.show` shows it: without
its tag and its secrets, with the names behind its ids.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from core.attributes import attributes_of, structs_in
from core.model import KINDS, LINKS, VM, Link, Resource, Task, kind_of
from nodeagent.api.views import name_field

TEMPLATE = "#/components/schemas/{name}"
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}

SchemaOf = dict[str, Any]

EXTRAS: dict[type[Resource], SchemaOf] = {
    VM: {
        "ips": TEXTS,
        "nics": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": TEXT, "mac": TEXT, "ip": TEXT}},
        },
        "disks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": TEXT, "size_bytes": {"type": "integer"}},
            },
        },
    },
    # Its plan is shown as steps, its log together with its journal.
    Task: {
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "step": TEXT,
                    "inside": TEXTS,
                    "weight": {"type": "integer"},
                    "state": {"enum": ["waiting", "begun", "done", "undone"]},
                },
            },
        },
        "log": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "at_ms": {"type": "integer"},
                    "what": TEXT,
                    "step": TEXT,
                    "inside": TEXTS,
                    "text": TEXT,
                },
            },
        },
    },
}
# Bodies hold these in clear; whoever shows or prints a body leaves them out.
PASSWORDS = frozenset(
    {"password", "old_password", "passphrase", "token", "code", "secret", "secret_key"}
)
NOT_SHOWN: dict[type[Resource], frozenset[str]] = {Task: frozenset({"plan"})}


def schemas_of(types: Iterable[type[msgspec.Struct]]) -> dict[str, SchemaOf]:
    """Return the schemas of structs and of all that they hold, by name."""
    wanted = sorted(set(types), key=lambda type_: type_.__name__)
    _, components = msgspec.json.schema_components(wanted, ref_template=TEMPLATE)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    for type_ in structs_of(wanted):
        properties = components[type_.__name__]["properties"]
        for name, said in attributes_of(type_).items():
            properties[name] |= said.schema()
    for type_ in wanted:
        if issubclass(type_, Resource):
            components[type_.__name__] = _shown(type_, components[type_.__name__])
        else:
            _mark_passwords(components[type_.__name__])
    return dict(sorted(components.items()))


def structs_of(types: Iterable[type[msgspec.Struct]]) -> list[type[msgspec.Struct]]:
    """Return structs and all that they hold, each once."""
    found: dict[type[msgspec.Struct], None] = {}
    waiting = list(types)
    while waiting:
        type_ = waiting.pop()
        if type_ not in found:
            found[type_] = None
            fields = msgspec.structs.fields(type_)
            waiting += [inner for field in fields for inner in structs_in(field.type)]
    return list(found)


def _mark_passwords(schema: SchemaOf) -> None:
    for name, inner in schema.get("properties", {}).items():
        if name in PASSWORDS and inner.get("type") == "string":
            inner["format"] = "password"


def reference_to(type_: type[msgspec.Struct]) -> SchemaOf:
    """Return what stands for a struct's schema wherever it is used."""
    return {"$ref": TEMPLATE.format(name=type_.__name__)}


def _shown(type_: type[Resource], schema: SchemaOf) -> SchemaOf:
    properties = {
        name: inner
        for name, inner in schema["properties"].items()
        if name not in type_.SECRET | NOT_SHOWN.get(type_, frozenset()) and name != "type"
    }
    for relation in type_.RELATIONS:
        field = relation.field
        if field in properties:
            properties[name_field(field)] = (
                {**TEXTS, "description": f"The names behind `{field}`."}
                if relation.many
                else {**TEXT, "description": f"The name behind `{field}`; empty without one."}
            )
    properties |= EXTRAS.get(type_, {})
    return {
        **schema,
        "properties": properties,
        "required": list(properties),
        "x-kvorum-kind": kind_of(type_),
        "x-kvorum-collection": type_.PLURAL,
        "x-kvorum-relations": {link.name: _relation(link) for link in _links(type_)},
    }


def _links(type_: type[Resource]) -> list[Link]:
    """Return the relations that the API lets walk along, those to other collections."""
    links = LINKS[kind_of(type_)].values()
    return sorted((link for link in links if KINDS[link.target].PLURAL), key=lambda link: link.name)


def _relation(link: Link) -> SchemaOf:
    relation = link.relation
    cardinality = relation.cardinality[:: -1 if link.reverse else 1]
    said: SchemaOf = {"to": KINDS[link.target].PLURAL, "cardinality": cardinality}
    if link.reverse:
        return said | {"kept_in": f"{link.target}.{relation.field}"}
    said |= {"kept_in": f"{link.source}.{relation.field}", "required": relation.required}
    if relation.maximum is not None:
        said["maximum"] = relation.maximum
    return said | {"when_target_is_deleted": str(relation.on_delete)}
