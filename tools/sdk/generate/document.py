"""The OpenAPI document as the generator reads it: only what it needs, and nothing it doesn't know makes it fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"
FILE = "application/octet-stream"
PREVIEW = "DeletionPlan"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter; `place` is path, query or header."""

    name: str
    place: str
    required: bool
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path. `answers` are its successes by status: media and schema, None without a body.

    `takes_s` is how long it may take by itself, 0 when that isn't said.
    """

    method: str
    path: str
    group: str
    name: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    body: Schema | None
    file: bool
    answers: Mapping[int, tuple[str, Schema] | None]
    takes_s: float

    def parameters_in(self, place: str) -> tuple[Parameter, ...]:
        """Return the parameters of one place, in order."""
        return tuple(p for p in self.parameters if p.place == place)

    @property
    def previewed(self) -> bool:
        """Whether it can be asked what it would do."""
        return any(p.name == "dry_run" for p in self.parameters_in("query"))


@dataclass(frozen=True, slots=True)
class Document:
    """The whole description."""

    schemas: Mapping[str, Schema]
    operations: tuple[Operation, ...]

    def resolve(self, schema: Schema) -> Schema:
        """Return what a reference stands for; anything else as it is."""
        if (name := name_of(schema)) is not None:
            return self.schemas[name]
        return schema


def document_of(raw: Mapping[str, Any]) -> Document:
    """Return the document, without what is between hosts."""
    found = tuple(
        _operation(method, path, described)
        for path, methods in sorted(raw["paths"].items())
        for method, described in methods.items()
        if method in METHODS and not described.get("x-internal")
    )
    ordered = sorted(found, key=lambda o: (o.group, o.path, METHODS.index(o.method)))
    return Document(raw.get("components", {}).get("schemas", {}), tuple(ordered))


def name_of(schema: Schema) -> str | None:
    """Return the name of the component that a schema refers to, also when it says more beside."""
    reference = schema.get("$ref")
    if reference is None and len(schema.get("allOf", ())) == 1:
        return name_of(schema["allOf"][0])
    return str(reference).rpartition("/")[2] if reference is not None else None


def _operation(method: str, path: str, raw: Mapping[str, Any]) -> Operation:
    group, _, name = str(raw["operationId"]).rpartition(".")
    content = raw.get("requestBody", {}).get("content", {})
    return Operation(
        method=method,
        path=path,
        group=group,
        name=name,
        summary=raw.get("summary", ""),
        description=raw.get("description", ""),
        parameters=tuple(
            Parameter(
                p["name"],
                p["in"],
                p.get("required", False),
                p.get("description", ""),
                p.get("schema", {}),
            )
            for p in raw.get("parameters", ())
        ),
        body=content[JSON]["schema"] if JSON in content else None,
        file=FILE in content,
        answers=dict(_answers(raw["responses"])),
        takes_s=float(raw.get("x-takes-s", 0)),
    )


def _answers(raw: Mapping[str, Any]) -> Iterator[tuple[int, tuple[str, Schema] | None]]:
    for status, answer in raw.items():
        if not status.isdigit() or not 200 <= int(status) < 300:
            continue
        contents = answer.get("content", {})
        if not contents:
            yield int(status), None
        for media, content in list(contents.items())[:1]:
            yield int(status), (media, content.get("schema", {}))
