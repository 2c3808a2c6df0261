"""Writes `models.py`: a class for every object that the API takes or shows, and one for every set of words."""

from __future__ import annotations

from collections.abc import Iterator

from tools.sdk.generate.shapes import Shapes, Struct, Words
from tools.sdk.generate.words import class_name, constant, docstring, paragraphs

HEAD = '''\
"""What the API takes and shows, as classes. Made by `make sdk` from the description of the API: don't edit.

What programs give (`Create…`, `Change…`) leaves out what is `UNSET`, so that the agent's defaults apply.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import UNSET, UnsetType, field

from tools.sdk.model import Model, OpenEnum
'''


def models_text(shapes: Shapes) -> str:
    """Return the module. Objects without a name of their own are those that `shapes` has met by then."""
    words, structs = _components(shapes)
    done: set[str] = set()
    while inline := {n: s for n, s in shapes.inline.items() if n not in done}:
        for name, (schema, body) in inline.items():
            done.add(name)
            structs.append(shapes.struct_of(name, schema, body=body, shared=False))
    lines = [HEAD]
    for one in sorted(words, key=lambda w: w.name):
        lines += _words(one)
    for struct in sorted(structs, key=lambda s: s.name):
        lines += _struct(struct)
    return "\n".join(lines) + "\n"


def _components(shapes: Shapes) -> tuple[list[Words], list[Struct]]:
    words: list[Words] = []
    structs: list[Struct] = []
    for name in sorted(shapes.bodies | shapes.answers):
        schema = shapes.document.schemas[name]
        if "enum" in schema:
            doc = paragraphs(schema.get("description", ""))
            words.append(Words(class_name(name), doc, tuple(map(str, schema["enum"]))))
        else:
            body, shared = name in shapes.bodies, name in shapes.bodies & shapes.answers
            structs.append(shapes.struct_of(class_name(name), schema, body=body, shared=shared))
    return words, structs


def _words(words: Words) -> Iterator[str]:
    yield f"\n\nclass {words.name}(OpenEnum):"
    yield from docstring(words.doc or "A set of words.", "    ")
    yield ""
    for value in words.values:
        yield f"    {constant(value)} = {value!r}"


def _struct(struct: Struct) -> Iterator[str]:
    yield f"\n\nclass {struct.name}(Model, frozen=True, kw_only=True):"
    yield from docstring(struct.doc or "An object of the API.", "    ")
    hidden = sorted(a.name for a in struct.attributes if a.hidden)
    if hidden:
        yield f"\n    HIDDEN: ClassVar[frozenset[str]] = frozenset({{{', '.join(map(repr, hidden))}}})"
    yield ""
    for one in struct.attributes:
        yield f"    {one.name}: {one.type}{_default(one.default, one.name, one.wire)}"
        if one.doc:
            yield from docstring(one.doc, "    ")


def _default(default: str, name: str, wire: str) -> str:
    if name == wire:
        return f" = {default}" if default else ""
    if default.startswith("field("):
        return f" = {default[:-1]}, name={wire!r})"
    return f" = field({f'default={default}, ' if default else ''}name={wire!r})"
