"""docs/resources.md: every resource type with its attributes and relations, written from the declarations of `core.model`.

`python -m tools.resource_document` writes it anew; a test holds the committed file against the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from core.attributes import Attribute, attributes_of, bare, structs_in
from core.model import COLLECTIONS, KINDS, LINKS, Link, Resource, kind_of

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/resources.md"
PLAIN = {str: "text", int: "number", float: "number", bool: "yes or no", bytes: "bytes"}
HEAD = """\
# Resources

Everything that the API lists, with its attributes and relations. This page is made from the declarations in `core/model` by
`python -m tools.resource_document`; `kvorum explain vm` and `kvorum explain vm.memory_mib` say the same on the command line, also of types that
plug-ins bring, and so does the OpenAPI description. How to ask by attributes and relations is in [queries](query.md).

**Written by** says who may change an attribute: a *user* through the API, the *agent of the owning host*, which reports what is true, or the *cluster*,
in answer to requests. Bounds are checked when a user writes; what was stored before they became narrower stays readable.
"""


def document() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for plural, type_ in sorted(COLLECTIONS.items()):
        parts.append(f"## {plural}\n\n{_about(type_)}\n")
        parts.append(_attributes(type_))
        links = sorted(LINKS[kind_of(type_)].values(), key=lambda link: link.name)
        if shown := [link for link in links if KINDS[link.target].PLURAL]:
            parts.append(_relations(shown))
        for struct in _structs(type_):
            parts.append(f"`{struct.__name__}`: {_about(struct)}\n")
            parts.append(_attributes(struct))
    return "\n".join(parts)


def type_text(type_: Any) -> str:
    """Return what people call a type."""
    type_ = bare(type_)
    if type_ in PLAIN:
        return PLAIN[type_]
    if get_origin(type_) in (Union, UnionType):
        return " or ".join(type_text(one) for one in get_args(type_) if one is not type(None))
    if get_origin(type_) is tuple:
        return f"list of {type_text(get_args(type_)[0])}"
    if get_origin(type_) is dict:
        return f"map to {type_text(get_args(type_)[1])}"
    if issubclass(type_, StrEnum):
        return " / ".join(f"`{value}`" for value in type_)
    return f"`{type_.__name__}`"


def _about(type_: type) -> str:
    return " ".join((inspect.getdoc(type_) or "").split())


def _structs(type_: type[Resource]) -> Iterator[type[msgspec.Struct]]:
    for attribute in _shown(type_):
        yield from structs_in(attribute.type)


def _shown(type_: type[msgspec.Struct]) -> list[Attribute]:
    secret = type_.SECRET if issubclass(type_, Resource) else frozenset()
    return [one for name, one in attributes_of(type_).items() if name not in secret]


def _attributes(type_: type[msgspec.Struct]) -> str:
    lines = [
        "| attribute | type | default | written by | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in _shown(type_):
        type_said = ", ".join(
            part for part in (type_text(one.type), one.unit, _bounds(one)) if part
        )
        cells = (f"`{one.name}`", type_said, _default(one), str(one.written_by), one.description)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join((*lines, ""))


def _bounds(one: Attribute) -> str:
    least, most = one.bounds.get("minimum"), one.bounds.get("maximum")
    said = []
    if least is not None or most is not None:
        said.append(
            f"{least if least is not None else ''} to {most}" if most else f"{least} or more"
        )
    if "maxLength" in one.bounds:
        said.append(f"up to {one.bounds['maxLength']} characters")
    if "maxItems" in one.bounds:
        said.append(f"up to {one.bounds['maxItems']}")
    if "pattern" in one.bounds:
        said.append(f"`{one.bounds['pattern']}`")
    return ", ".join(said)


def _default(one: Attribute) -> str:
    if one.required:
        return "required"
    match one.default:
        case bool():
            return "yes" if one.default else "no"
        case int() | StrEnum():
            return f"`{one.default}`"
        case str() if one.default:
            return f"`{one.default}`"
    return "empty"


def _relations(links: list[Link]) -> str:
    lines = [
        "| relation | leads to | how many | kept in | when the target is deleted |",
        "| --- | --- | --- | --- | --- |",
    ]
    for link in links:
        relation = link.relation
        how_many = relation.cardinality[:: -1 if link.reverse else 1]
        if not link.reverse and relation.required:
            how_many += ", at least one"
        if not link.reverse and relation.maximum is not None:
            how_many += f", at most {relation.maximum}"
        owner = link.target if link.reverse else link.source
        deleted = "" if link.reverse else DELETED[relation.on_delete]
        cells = (f"`{link.name}`", KINDS[link.target].PLURAL, how_many)
        lines.append(f"| {' | '.join(cells)} | `{owner}.{relation.field}` | {deleted} |")
    return "\n".join((*lines, ""))


DELETED = {
    "refuse": "refused",
    "along": "deleted along with it",
    "detach": "loses the relation",
    "keep": "keeps the id as a memory",
}


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
