"""Attributes that are more than one value: lists, structs, maps. They are kept a second time as JSON, to search in.

Used by `raftstate.state.schema`, which gives each of them a column, and by queries, which look into it with SQLite's JSON
functions. A body of a newer version is read leniently: an unknown enumeration value or attribute is no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args, get_origin

import msgspec

from core.attributes import bare
from core.model import Resource

PlainType = type[str] | type[int] | type[float] | type[bool]
_PLAIN: tuple[PlainType, ...] = (bool, int, float, str)


class Form(StrEnum):
    """How a nested attribute is made up. `TEXTS`: a list of plain values, whatever their type."""

    TEXTS = "list"
    STRUCTS = "list of structs"
    STRUCT = "struct"
    MAP = "map"


@dataclass(frozen=True, slots=True)
class Inner:
    """An attribute of a struct: a plain value of `type`, or with `many` a list of such."""

    type: PlainType
    many: bool


@dataclass(frozen=True, slots=True)
class Nested:
    """A nested attribute. `type` is that of a list's or map's values; `fields` are what a struct consists of."""

    name: str
    form: Form
    type: PlainType
    fields: Mapping[str, Inner]
    lenient: Any  # the type that its column is read from a body with
    default: Any  # of that type, or None


def nested_of(type_: type[Resource]) -> Iterable[Nested]:
    """Yield the attributes of a resource type that are lists, structs or maps of plain values."""
    for field in msgspec.structs.fields(type_):
        long = {
            name.partition(".")[2] for name in type_.UNSEARCHED if name.startswith(f"{field.name}.")
        }
        found = _form(bare(field.type), long) if field.name not in type_.SECRET else None
        if found is None:
            continue
        form, plain, fields, lenient = found
        default = None
        if field.default is not msgspec.NODEFAULT:
            default = msgspec.convert(msgspec.to_builtins(field.default), lenient)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = msgspec.convert(msgspec.to_builtins(field.default_factory()), lenient)
        yield Nested(field.name, form, plain, fields, lenient, default)


def to_json(value: object) -> str | None:
    """Return what a column holds of a value."""
    return None if value is None else msgspec.json.encode(value).decode()


def plain_type(type_: Any) -> PlainType | None:
    """Return as what a plain value is kept: an enumeration as its text; None for what isn't plain."""
    if isinstance(type_, type):
        for plain in _PLAIN:
            if type_ is plain or (plain is str and issubclass(type_, StrEnum)):
                return plain
    return None


_Found = tuple[Form, PlainType, Mapping[str, Inner], Any]


def _form(type_: Any, long: set[str]) -> _Found | None:
    arguments = get_args(type_)
    if get_origin(type_) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        if plain := plain_type(arguments[0]):
            return Form.TEXTS, plain, {}, _list_of(plain)
        if _is_struct(arguments[0]):
            fields, lenient = _struct(arguments[0], long)
            return Form.STRUCTS, str, fields, _list_of(lenient)
    if get_origin(type_) is dict and arguments[0] is str and (plain := plain_type(arguments[1])):
        return Form.MAP, plain, {}, dict.__class_getitem__((str, plain))
    if _is_struct(type_):
        fields, lenient = _struct(type_, long)
        return Form.STRUCT, str, fields, lenient
    return None


def _list_of(type_: Any) -> Any:
    """Return `tuple[type_, ...]` for a type that is known only when this runs."""
    return tuple.__class_getitem__((type_, ...))


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _struct(type_: type[msgspec.Struct], long: set[str]) -> tuple[Mapping[str, Inner], Any]:
    """Return the attributes of a struct that a query may name, and a struct of them alone."""
    fields: dict[str, Inner] = {}
    made: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(type_):
        declared = bare(field.type)
        arguments = get_args(declared)
        many = get_origin(declared) is tuple and len(arguments) == 2
        plain = plain_type(arguments[0] if many else declared)
        if plain is None or field.name in long:
            continue
        fields[field.name] = Inner(plain, many)
        default = None if field.default is msgspec.NODEFAULT else field.default
        made.append(
            (
                field.name,
                (_list_of(plain) if many else plain) | None,
                str(default) if isinstance(default, StrEnum) else default,
            )
        )
    return fields, msgspec.defstruct(f"{type_.__name__}Inside", made, frozen=True, kw_only=True)


def reader_of(
    name: str, tag: Any, scalars: list[tuple[str, Any, Any]], nested: tuple[Nested, ...]
) -> Callable[[bytes], tuple[Any, ...]]:
    """Return what reads the columns out of a body in one pass: plain values, then JSON; no object of the model.

    Nested attributes that can't be read become NULL. The reader raises like a msgspec decoder when the rest can't.
    """
    options: dict[str, Any] = {"tag": tag, "frozen": True, "gc": False, "kw_only": True}
    plain = msgspec.msgpack.Decoder(msgspec.defstruct(f"{name}Columns", scalars, **options)).decode
    astuple = msgspec.structs.astuple
    if not nested:
        return lambda body: astuple(plain(body))
    inside = [(one.name, one.lenient | None, one.default) for one in nested]
    row = msgspec.defstruct(f"{name}Row", [*scalars, *inside], **options)
    whole = msgspec.msgpack.Decoder(row).decode
    first = len(scalars)

    def read(body: bytes) -> tuple[Any, ...]:
        try:
            values = astuple(whole(body))
        except msgspec.ValidationError:
            return (*astuple(plain(body)), *(None for _ in nested))
        return (*values[:first], *map(to_json, values[first:]))

    return read
