"""Schemas as Python types: which structs there are, what their attributes are, and how a type is written.

Bodies leave out what the caller leaves out, so that the agent's defaults apply. Of answers only the id has to be there: an
older agent doesn't have every attribute, and what it leaves out has the default that the description says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tools.sdk.generate.document import Document, Schema, name_of
from tools.sdk.generate.words import attribute, class_name, paragraphs, sentence

PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
ZERO = {"str": '""', "int": "0", "float": "0.0", "bool": "False", "bytes": 'b""'}
ALWAYS_THERE = "id"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a struct. `default` is written as it stands, empty for none."""

    name: str
    wire: str
    type: str
    default: str
    doc: str
    hidden: bool


@dataclass(frozen=True, slots=True)
class Struct:
    """A class with attributes."""

    name: str
    doc: str
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """A closed set of texts, open to newer agents."""

    name: str
    doc: str
    values: tuple[str, ...]


@dataclass(slots=True)
class Shapes:
    """Types of a document. `bodies` and `answers` name the components that each side reaches."""

    document: Document
    bodies: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()
    inline: dict[str, tuple[Schema, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bodies = [o.body for o in self.document.operations if o.body is not None]
        answers = [a[1] for o in self.document.operations for a in o.answers.values() if a]
        self.bodies = frozenset(_reached(self.document, bodies))
        self.answers = frozenset(_reached(self.document, answers))

    def type_of(self, schema: Schema, owner: str, *, body: bool) -> str:
        """Return how the type of a schema is written; `owner` names an object that has no name of its own."""
        if (name := name_of(schema)) is not None:
            return class_name(name)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self._union(schema[several], owner, body=body)
        if "enum" in schema or "const" in schema:
            return _literal(schema, body=body)
        kind = schema.get("type")
        if isinstance(kind, list):
            parts = [{**schema, "type": one} for one in kind]
            return self._union(parts, owner, body=body)
        if kind == "array":
            return f"tuple[{self.type_of(schema.get('items', {}), owner, body=body)}, ...]"
        if kind == "object":
            return self._object(schema, owner, body=body)
        if kind == "string" and schema.get("contentEncoding") == "base64":
            return "bytes"
        return PLAIN.get(str(kind), "Any")

    def struct_of(self, name: str, schema: Schema, *, body: bool, shared: bool) -> Struct:
        """Return the class of an object; `shared` by bodies and answers it has the defaults that the agents have."""
        required = set(schema.get("required", ()))
        attributes = []
        for wire, inner in schema.get("properties", {}).items():
            type_ = self.type_of(inner, class_name(name, _one_of(wire, inner)), body=body)
            default = self._default(wire, inner, type_, required, body=body, shared=shared)
            if default == "UNSET":
                type_ = f"{type_.removesuffix(' | None')} | UnsetType" + (
                    " | None" if type_.endswith(" | None") else ""
                )
            hidden = _is_password(inner)
            doc = described(inner, with_default=default == "UNSET")
            attributes.append(Attribute(attribute(wire), wire, type_, default, doc, hidden))
        return Struct(name, paragraphs(schema.get("description", "")), tuple(attributes))

    def _default(
        self,
        wire: str,
        schema: Schema,
        type_: str,
        required: set[str],
        *,
        body: bool,
        shared: bool,
    ) -> str:
        if body and not shared:
            return "" if wire in required else "UNSET"
        if wire == ALWAYS_THERE or (shared and wire in required):
            return ""
        if "default" in schema:
            return self._written(schema["default"], schema, type_)
        if self.is_words(schema):
            return f'{type_}("")'
        if " | None" in type_ or type_ in {"Any", "None"}:
            return "None"
        if type_.startswith("tuple["):
            return "()"
        if type_.startswith("dict["):
            return "field(default_factory=dict)"
        return ZERO.get(type_, "")  # an object can't be made up

    def _written(self, value: object, schema: Schema, type_: str) -> str:
        if self.is_words(schema):
            return f"{type_}({value!r})"
        if isinstance(value, list):
            plain = all(isinstance(one, str | int | float) for one in value)
            return (
                repr(tuple(value)) if plain and name_of(schema.get("items", {})) is None else "()"
            )
        if isinstance(value, Mapping):
            if type_.startswith("dict["):
                return (
                    f"field(default_factory=lambda: {dict(value)!r})"
                    if value
                    else "field(default_factory=dict)"
                )
            return f"field(default_factory=lambda: {type_}())" if self._can_be_empty(schema) else ""
        return repr(value)

    def is_words(self, schema: Schema) -> bool:
        """Tell whether a schema refers to a set of words."""
        return name_of(schema) is not None and "enum" in self.document.resolve(schema)

    def _can_be_empty(self, schema: Schema) -> bool:
        """Tell whether an object can be made of defaults alone."""
        properties = self.document.resolve(schema).get("properties", {})
        return ALWAYS_THERE not in properties and all(
            self._can_be_empty(inner)
            for inner in properties.values()
            if name_of(inner) is not None and "default" not in inner and not self.is_words(inner)
        )

    def _union(self, parts: Sequence[Schema], owner: str, *, body: bool) -> str:
        objects = [p for p in parts if self.document.resolve(p).get("type") == "object"]
        if len(objects) > 1:  # nothing in the answer tells which one it is
            return "dict[str, Any]"
        types = dict.fromkeys(self.type_of(part, owner, body=body) for part in parts)
        if "Any" in types:
            return "Any"
        ordered = [one for one in types if one != "None"] + (["None"] if "None" in types else [])
        return " | ".join(ordered)

    def _object(self, schema: Schema, owner: str, *, body: bool) -> str:
        if not schema.get("properties"):
            more = schema.get("additionalProperties")
            inner = self.type_of(more, owner, body=body) if isinstance(more, Mapping) else "Any"
            return f"dict[str, {inner}]"
        name = class_name(schema.get("title", owner))
        while name in self.document.schemas or (
            name in self.inline and self.inline[name][0] != schema
        ):
            name += "_"
        self.inline.setdefault(name, (schema, body))
        return name


def described(schema: Schema, *, with_default: bool) -> str:
    """Return what is said about a value: its meaning, its bounds, and what the agent takes when it is left out."""
    parts = [sentence(schema.get("description", ""))]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        parts.append(f"{'' if low is None else low}..{'' if high is None else high}.")
    if "maxLength" in schema:
        parts.append(f"At most {schema['maxLength']} characters.")
    if "enum" in schema:
        parts.append(f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.")
    if with_default and schema.get("default") not in (None, "", [], {}):
        parts.append(f"Default: `{schema['default']}`.")
    return sentence(" ".join(part for part in parts if part))


def _is_password(schema: Schema) -> bool:
    inner = schema.get("items", schema)
    return inner.get("format") == "password" or bool(schema.get("writeOnly"))


def _one_of(wire: str, schema: Schema) -> str:
    return wire.removesuffix("s") if schema.get("type") == "array" else wire


def _literal(schema: Schema, *, body: bool) -> str:
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    if body and all(isinstance(value, str | int) for value in values):
        return f"Literal[{', '.join(map(repr, values))}]"
    types = {PLAIN.get(_kind(value), "Any") for value in values}
    return types.pop() if len(types) == 1 else "Any"


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
    return ""


def _reached(document: Document, schemas: list[Schema]) -> set[str]:
    """Return the components that schemas refer to, also through others."""
    found: set[str] = set()
    waiting: list[object] = list(schemas)
    while waiting:
        for name in _references(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(document.schemas[name])
    return found


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
