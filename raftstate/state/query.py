"""Queries over the plain attributes of a kind: conditions, order, a limit, and going on after the last one read.

Built by callers of `Store.select` and `Store.count`; turned into SQL here. Values are always bound parameters, and
names come from the schema, so nothing that a user types becomes SQL. What users ask, also through relations, is in
`raftstate.state.query_sql`, which takes conditions and positions from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from core.errors import InvalidError
from core.model import Resource
from raftstate.state.schema import Column, Scalar, Table

LIMIT_MAX = 10_000
VALUES_MAX = 1000
PATTERN_MAX = 200


class Op(StrEnum):
    """`LIKE` takes SQL's `%` and `_` (escaped by a backslash), ASCII letters of either case are the same.

    `MATCH` takes `*` and `?` and heeds case; a text with a NUL character is compared up to it.
    """

    EQ = "="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="
    IN = "in"
    NOT_IN = "not in"
    LIKE = "like"
    MATCH = "~="
    IS_NULL = "is null"
    NOT_NULL = "is not null"


@dataclass(frozen=True, slots=True)
class Condition:
    """What an attribute must be; `value` is a tuple for `IN` and `NOT_IN` and nothing for `IS_NULL` and `NOT_NULL`."""

    field: str
    op: Op
    value: Scalar | tuple[Scalar, ...] = None


class Position(NamedTuple):
    """A place in an order: the value of the attribute ordered by, and the id."""

    value: Scalar
    id: str


class Sql(NamedTuple):
    """A statement and its parameters."""

    text: str
    parameters: tuple[Scalar, ...]


def select_sql(
    table: Table,
    where: Sequence[Condition],
    *,
    order_by: str,
    descending: bool,
    limit: int,
    after: Position | None,
) -> Sql:
    """Return a query for (body, revision).

    Raises:
        InvalidError: an attribute that doesn't exist, a value of another type, or a limit out of bounds.
    """
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidError(f"the limit must be 1 to {LIMIT_MAX}")
    column = _column(table, order_by)
    conditions, parameters = _conditions(table, where)
    if after is not None:
        text, more = after_sql(f'"{order_by}"', "id", column, after, descending)
        conditions.append(text)
        parameters += more
    order = f'"{order_by}"{" DESC" if descending else ""}'
    if order_by != "id":
        order += f", id{' DESC' if descending else ''}"
    return Sql(
        f"SELECT body, revision FROM {table.name}{table.where(' AND '.join(conditions))} ORDER BY {order} LIMIT ?",
        (*table.head, *parameters, limit),
    )


def count_sql(table: Table, where: Sequence[Condition]) -> Sql:
    """Return a query for how many there are.

    Raises:
        InvalidError: as for `select_sql`.
    """
    conditions, parameters = _conditions(table, where)
    return Sql(
        f"SELECT count(*) FROM {table.name}{table.where(' AND '.join(conditions))}",
        (*table.head, *parameters),
    )


def _conditions(table: Table, where: Sequence[Condition]) -> tuple[list[str], list[Scalar]]:
    texts, parameters = [], []
    for condition in where:
        column = _column(table, condition.field)
        text, values = condition_sql(f'"{column.name}"', column, condition.op, condition.value)
        texts.append(text)
        parameters += values
    return texts, parameters


def condition_sql(
    name: str, column: Column, op: Op, value: Scalar | tuple[Scalar, ...]
) -> tuple[str, list[Scalar]]:
    """Return SQL that says whether the expression `name`, with values like those of a column, meets a condition.

    Raises:
        InvalidError: the value doesn't fit the column.
    """
    match op:
        case Op.IS_NULL:
            return f"{name} IS NULL", []
        case Op.NOT_NULL:
            return f"{name} IS NOT NULL", []
        case Op.IN | Op.NOT_IN:
            if not isinstance(value, tuple) or len(value) > VALUES_MAX:
                raise InvalidError(f"{column.name}: 'in' takes up to {VALUES_MAX} values")
            marks = ", ".join("?" * len(value))
            return f"{name} {op.value.upper()} ({marks})", [_value(column, one) for one in value]
        case Op.LIKE:
            if not isinstance(value, str) or column.type is not str or len(value) > PATTERN_MAX:
                raise InvalidError(
                    f"{column.name}: 'like' compares a text with a pattern of up to {PATTERN_MAX} characters"
                )
            return f"{name} LIKE ? ESCAPE '\\'", [_value(column, value)]
        case Op.MATCH:
            if not isinstance(value, str) or column.type is not str or len(value) > PATTERN_MAX:
                raise InvalidError(
                    f"{column.name}: '~=' compares a text with a pattern of up to {PATTERN_MAX} characters"
                )
            return f"{name} GLOB ?", [_value(column, value.replace("[", "[[]"))]
        case _:
            if isinstance(value, tuple):
                raise InvalidError(f"{column.name}: {op.value!r} takes one value")
            return f"{name} {op.value} ?", [_value(column, value)]


def after_sql(
    name: str, id_: str, column: Column, after: Position, descending: bool
) -> tuple[str, list[Scalar]]:
    """Return what holds for everything behind a position in the order of the expression `name` and then of `id_`.

    NULL comes before all other values.
    """
    than = "<" if descending else ">"
    if column.name == "id":
        return f"{id_} {than} ?", [after.id]
    if after.value is None:
        rest = "" if descending else f" OR {name} IS NOT NULL"
        return f"(({name} IS NULL AND {id_} {than} ?){rest})", [after.id]
    value = _value(column, after.value)
    text = f"({name}, {id_}) {than} (?, ?)"
    if descending and column.optional:
        text = f"({text} OR {name} IS NULL)"
    return text, [value, after.id]


def _column(table: Table, name: str) -> Column:
    columns = table.searchable
    if name not in columns:
        known = ", ".join(sorted(columns))
        raise InvalidError(f"{table.kind} has no attribute {name[:80]!r} to search by: {known}")
    return columns[name]


def _value(column: Column, value: Scalar) -> Scalar:
    if column.type is str and isinstance(value, str):
        if not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidError(f"{column.name}: {value!r} is not a text")
        return str(value)  # of an enumeration
    fits = type(value) is column.type or (column.type is float and type(value) is int)
    if not fits:
        raise InvalidError(
            f"{column.name} is compared with a {_SPOKEN[column.type]}, not {value!r}"
        )
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise InvalidError(f"{column.name}: {value} is out of range")
    return value


def position_of(resource: Resource, order_by: str = "name") -> Position:
    """Return where a resource stands in an order, to go on after it."""
    value = getattr(resource, order_by)
    return Position(str(value) if isinstance(value, StrEnum) else value, resource.id)


_SPOKEN: dict[type, str] = {str: "text", int: "whole number", float: "number", bool: "yes or no"}
