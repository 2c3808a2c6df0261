"""What is said of attributes, once, where they are declared: meaning, bounds, who writes them. Read by all that explains or checks.

Resource types and the bodies of the API annotate their attributes with `attribute(...)`. From there come the OpenAPI
description, docs/resources.md and `kvorum explain`. Bounds are never heeded when stored resources are decoded: what was
once accepted stays readable, however narrow the bounds have become since. They are checked where users write, by `check_bounds`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from core.errors import InvalidError
from core.quantities import in_larger_unit

UNITS = {"_mib": "MiB", "_bytes": "bytes", "_s": "seconds", "_ms": "milliseconds since 1970"}
UNIT, WRITTEN_BY = "x-kvorum-unit", "x-kvorum-written-by"
_KEYS = {
    "least": "minimum",
    "most": "maximum",
    "length_max": "maxLength",
    "count_max": "maxItems",
    "pattern": "pattern",
}


class Writer(StrEnum):
    """Who writes an attribute: users through the API, the agent of the host that owns the resource, or the cluster."""

    USER = "user"
    OWNER = "agent of the owning host"
    CLUSTER = "cluster"


USER, OWNER, CLUSTER = Writer.USER, Writer.OWNER, Writer.CLUSTER


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a struct. Bounds are as JSON schema names them; `required`: it has no default."""

    name: str
    type: Any  # as declared, without what is said of it
    description: str
    unit: str
    written_by: Writer
    bounds: dict[str, int | str]
    required: bool
    default: Any

    def schema(self) -> dict[str, Any]:
        """Return what a JSON schema says of it beside its type."""
        said: dict[str, Any] = {"description": self.description} if self.description else {}
        said |= self.bounds
        if self.unit:
            said[UNIT] = self.unit
        if self.written_by is not USER:
            said["readOnly"] = True
        return said | {WRITTEN_BY: str(self.written_by)}


def attribute(
    description: str,
    *,
    by: Writer = USER,
    unit: str = "",
    least: int | None = None,
    most: int | None = None,
    length_max: int | None = None,
    count_max: int | None = None,
    pattern: str = "",
) -> msgspec.Meta:
    """Return what to annotate an attribute with. Bounds are inclusive; `pattern` is anchored as JSON schema wants it.

    The unit follows from the end of the name (`_mib`, `_bytes`, `_s`, `_ms`) where it isn't given.
    """
    given = {
        "least": least,
        "most": most,
        "length_max": length_max,
        "count_max": count_max,
        "pattern": pattern or None,
    }
    extra: dict[str, Any] = {
        _KEYS[name]: value for name, value in given.items() if value is not None
    }
    extra[WRITTEN_BY] = str(by)
    if unit:
        extra[UNIT] = unit
    # As extra JSON schema and not as constraints: these would make stored resources undecodable.
    return msgspec.Meta(description=description, extra_json_schema=extra)


@cache
def attributes_of(type_: type[msgspec.Struct]) -> dict[str, Attribute]:
    """Return the attributes of a struct by name. A body says by `OF` of which resource: what it doesn't say is said there."""
    of = getattr(type_, "OF", None)
    elsewhere = attributes_of(of) if of is not None else {}
    found = {}
    for field in msgspec.structs.fields(type_):
        meta = _meta(field.type)
        known = elsewhere.get(field.name) if meta is None else None
        extra = dict(meta.extra_json_schema or {}) if meta is not None else {}
        written_by = Writer(extra.pop(WRITTEN_BY, USER))
        unit = extra.pop(UNIT, known.unit if known else _unit(field.name))
        default = None if field.default is msgspec.NODEFAULT else field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        found[field.name] = Attribute(
            name=field.name,
            type=bare(field.type),
            description=(meta and meta.description) or (known.description if known else ""),
            unit=unit,
            written_by=written_by,
            bounds=known.bounds if known else extra,
            required=field.required,
            default=default,
        )
    return found


def bare(type_: Any) -> Any:
    """Return a type without what is said of it."""
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_


def structs_in(type_: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the structs that a type is made of: itself, or what lists and unions of it hold."""
    type_ = bare(type_)
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        yield type_
    elif get_origin(type_) in (tuple, list, dict, Union, UnionType):
        for inner in get_args(type_):
            yield from structs_in(inner)


def check_bounds(value: msgspec.Struct, where: str = "") -> None:
    """Let a body pass whose attributes are all within what is declared. `where` is put before their names.

    Raises:
        InvalidError: one isn't; the message names it and says what it may be.
    """
    for name, attribute_ in attributes_of(type(value)).items():
        given = getattr(value, name)
        if wrong := _wrong(given, attribute_.bounds):
            unit = _in_unit(attribute_) if isinstance(given, int) else ""
            raise InvalidError(f"{where}{name} {wrong}{unit}")
        for inner in given if isinstance(given, tuple) else (given,):
            if isinstance(inner, msgspec.Struct):
                check_bounds(inner, f"{where}{name}.")


def _in_unit(of: Attribute) -> str:
    """Return what stands behind bounds: their unit, and the last of them as a person would say it."""
    last = of.bounds.get("maximum", of.bounds.get("minimum"))
    said = in_larger_unit(last, of.unit) if isinstance(last, int) else ""
    return (f" {of.unit}" if of.unit else "") + (f" ({said})" if said else "")


def _wrong(given: object, bounds: dict[str, int | str]) -> str:
    """Return what a value violates; empty when nothing."""
    least, most = bounds.get("minimum"), bounds.get("maximum")
    match given:
        case bool():
            return ""
        case int() if isinstance(least, int) and isinstance(most, int):
            return "" if least <= given <= most else f"must be {least} to {most}"
        case int() if isinstance(least, int):
            return "" if given >= least else f"must be at least {least}"
        case int() if isinstance(most, int):
            return "" if given <= most else f"must be at most {most}"
        case str():
            length_max, pattern = bounds.get("maxLength"), bounds.get("pattern")
            if isinstance(length_max, int) and len(given) > length_max:
                return f"may have {length_max} characters at most"
            if isinstance(pattern, str) and not re.search(pattern, given):
                return f"doesn't have the form {pattern}"
        case tuple():
            count_max = bounds.get("maxItems")
            if isinstance(count_max, int) and len(given) > count_max:
                return f"may have {count_max} items at most"
    return ""


def _meta(type_: Any) -> msgspec.Meta | None:
    if get_origin(type_) is not Annotated:
        return None
    return next((said for said in get_args(type_)[1:] if isinstance(said, msgspec.Meta)), None)


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
