"""The JSON schemas (2020-12, as OpenAPI 3.1 uses them) of what the API takes and shows.

Bodies are what msgspec says of their structs. A resource is its struct as `nodeagent.api.views.show` shows it: without
its tag and its secrets, with the names behind its ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from core.model import VM, Resource, Task
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
    for type_ in wanted:
        if issubclass(type_, Resource):
            components[type_.__name__] = _shown(type_, components[type_.__name__])
        else:
            _mark_passwords(components[type_.__name__])
    return dict(sorted(components.items()))


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
    return {**schema, "properties": properties, "required": list(properties)}
