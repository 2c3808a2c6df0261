"""The bodies by which resources are created and changed whose type is all there is to know: made from its declaration.

Used by `nodeagent.api.declared` and by the description. A body has the attributes that users write; in the place of ids there
are relations, which take names or ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from core.attributes import USER, Attribute, attribute, attributes_of
from core.model import KINDS, Relation, Resource, kind_of
from nodeagent.services.vm_requests import MANY_MAX

NAME = "Its name: 1 to 63 of a-z, 0-9, `-` and `.`."
BASE = frozenset({"id", "name", "revision", "created_ms"})

Field = tuple[str, Any, Any]


@cache
def create_body(type_: type[Resource]) -> type[msgspec.Struct]:
    """Return what `POST` takes: what has no default must be there."""
    fields: list[Field] = [("name", Annotated[str, attribute(NAME)], msgspec.NODEFAULT)]
    for relation in written_relations(type_):
        missing: Any = msgspec.NODEFAULT if relation.required else _nothing(relation)
        fields.append((relation.name, _related(type_, relation), missing))
    for one in written_attributes(type_):
        default = msgspec.NODEFAULT if one.required else one.default
        fields.append((one.name, one.type, default))
    return _body(f"Create{type_.__name__}", type_, fields)


@cache
def change_body(type_: type[Resource]) -> type[msgspec.Struct]:
    """Return what `PATCH` takes: what is absent stays."""
    fields: list[Field] = [("name", Annotated[str | UnsetType, attribute(NAME)], UNSET)]
    fields += [(r.name, _related(type_, r, UnsetType), UNSET) for r in written_relations(type_)]
    fields += [(one.name, one.type | UnsetType, UNSET) for one in written_attributes(type_)]
    return _body(f"Change{type_.__name__}", type_, fields)


def names_field(plural: str) -> str:
    """Return what a body calls the names of those of a collection that it is about."""
    return plural.replace("-", "_")


@cache
def many_body(
    type_: type[Resource], plural: str, verb: str, single: type[msgspec.Struct] | None
) -> type[msgspec.Struct]:
    """Return what a verb on many takes: their names or conditions, and what the verb on one takes (`single`).

    What deletes or cancels takes no conditions: what they match may change before a repetition.
    """
    field, chosen = names_field(plural), verb not in ("delete", "cancel")
    names = attribute("Names or ids of them.", count_max=MANY_MAX)
    which = attribute(
        f"Conditions as lists take them, instead of `{field}`; all must hold.", count_max=20
    )
    fields: list[Field] = [
        (field, Annotated[tuple[str, ...], names], () if chosen else msgspec.NODEFAULT)
    ]
    if chosen:
        fields.append(("q", Annotated[tuple[str, ...], which], ()))
    if single is not None:
        hints = get_type_hints(single, include_extras=True)
        fields += [
            (one.name, hints[one.name], one.default) for one in msgspec.structs.fields(single)
        ]
    named = "".join(part.capitalize() for part in f"{verb}-{plural}".split("-"))
    return _body(named, type_, fields)


def written_relations(type_: type[Resource]) -> list[Relation]:
    """Return the relations that users write."""
    said = attributes_of(type_)
    return [relation for relation in type_.RELATIONS if said[relation.field].written_by is USER]


def written_attributes(type_: type[Resource]) -> Iterator[Attribute]:
    """Yield the attributes that users write and that are no ids."""
    ids = {relation.field for relation in type_.RELATIONS}
    for name, one in attributes_of(type_).items():
        if name not in BASE | ids and one.written_by is USER:
            yield one


def _related(type_: type[Resource], relation: Relation, *others: Any) -> Any:
    said = attributes_of(type_)[relation.field].description
    word = KINDS[relation.target].PLURAL if relation.target in KINDS else kind_of(type_)
    what = "Names or ids" if relation.many else "Name or id"
    given: Any = tuple[str, ...] if relation.many else str
    for other in others:
        given = given | other
    return Annotated[given, attribute(f"{said} {what}, of {word}.", count_max=relation.maximum)]


def _nothing(relation: Relation) -> object:
    return () if relation.many else ""


def _body(name: str, type_: type[Resource], fields: list[Field]) -> type[msgspec.Struct]:
    required = [field for field in fields if field[2] is msgspec.NODEFAULT]
    made = [(field[0], field[1]) for field in required]
    optional = [field for field in fields if field[2] is not msgspec.NODEFAULT]
    return msgspec.defstruct(
        name,
        [*made, *optional],
        namespace={"OF": type_, "__doc__": f"What users say of one of the {type_.PLURAL}."},
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )
