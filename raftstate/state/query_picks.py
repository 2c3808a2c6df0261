"""What a query shows of each match beside its body: attributes, also of related resources, as SQL and as JSON again.

Used by `raftstate.state.query_sql` and by the API's lists. Each pick is one expression of the statement's result, worked
out by SQLite with its indexes: there is no further question for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from core.errors import InvalidError
from core.model import LINKS, Link
from raftstate.state.nested import Form
from raftstate.state.query import Sql
from raftstate.state.query_paths import Leaf, Path, Tables
from raftstate.state.schema import Scalar

SHOWN_MAX = 1000  # values of one field of one item


@dataclass(frozen=True, slots=True)
class PickPath:
    """The value at the end of a path, or the list of them."""

    path: Path


@dataclass(frozen=True, slots=True)
class PickRows:
    """Plain attributes of all resources that point here, as a list of objects in the order of one of them."""

    kind: str
    link: str
    attributes: tuple[str, ...]
    order_by: str


Pick = PickPath | PickRows


def pick_sql(tables: Tables, pick: Pick, here: str) -> Sql:
    """Return the expression of a pick for a row of the table called `here`."""
    match pick:
        case PickPath(path=path) if path.single or (path.leaf.whole and not _many(path.links)):
            return _one(tables, path.links, path.leaf, here, 0)
        case PickPath(path=path) if not path.links and not path.leaf.inner:
            return Sql(f'{here}."{path.leaf.column}"', ())
        case PickPath(path=path):
            return _list(tables, path, here)
        case PickRows(kind=kind, link=name, attributes=attributes, order_by=order):
            link = LINKS[kind][name]
            columns = ", ".join(f'b."{attribute}"' for attribute in attributes)
            return Sql(
                f"(SELECT json_group_array(json(v)) FROM (SELECT json_array({columns}) AS v "
                f'FROM {tables(link.target).name} AS b WHERE b."{link.relation.field}" = {here}.id '
                f'ORDER BY b."{order}", b.name, b.id))',
                (),
            )


def read_pick(pick: Pick, raw: Scalar) -> Any:
    """Return what an expression's result shows, JSON-able.

    Raises:
        InvalidError: there are more than can be shown in one item.
    """
    match pick:
        case PickPath(path=path):
            return _read_path(path, raw)
        case PickRows(attributes=attributes):
            return [dict(zip(attributes, row, strict=True)) for row in _decoded(raw)]


def _read_path(path: Path, raw: Scalar) -> Any:
    leaf = path.leaf
    is_bool = leaf.type is bool and not leaf.whole
    if path.single and not leaf.whole:
        return bool(raw) if is_bool and raw is not None else raw
    if leaf.whole and not _many(path.links):
        return None if raw is None else _decoded(raw)
    values = _decoded(raw)
    if len(values) > SHOWN_MAX and (path.links or leaf.inner):
        raise InvalidError(
            f"an item has more than {SHOWN_MAX} of {path.text!r}: list them by themselves"
        )
    return [bool(value) if is_bool and value is not None else value for value in values]


def _decoded(raw: Scalar) -> Any:
    return msgspec.json.decode(raw) if isinstance(raw, str) else []


def _many(links: Sequence[Link]) -> bool:
    return any(link.many for link in links)


def _one(tables: Tables, links: Sequence[Link], leaf: Leaf, here: str, depth: int) -> Sql:
    if not links:
        return _value(leaf, here)
    there = f"o{depth}"
    sql = _one(tables, links[1:], leaf, there, depth + 1)
    table, field = tables(links[0].target).name, links[0].relation.field
    return Sql(
        f'(SELECT {sql.text} FROM {table} AS {there} WHERE {there}.id = {here}."{field}")',
        sql.parameters,
    )


def _value(leaf: Leaf, here: str) -> Sql:
    column = f'{here}."{leaf.column}"'
    if leaf.form is Form.MAP and leaf.inner:
        return Sql(f"(SELECT e.value FROM json_each({column}) AS e WHERE e.key = ?)", (leaf.inner,))
    return Sql(f"json_extract({column}, '$.{leaf.inner}')" if leaf.inner else column, ())


def _list(tables: Tables, path: Path, here: str) -> Sql:
    """Return a JSON array of the values at the end of a path; one more than can be shown, if there are."""
    sources, orders = [], []
    for number, link in enumerate(path.links):
        there, ids = f"b{number}", f"i{number}"
        table = f"{tables(link.target).name} AS {there}"
        holder, _, attribute = link.relation.field.rpartition(".")
        key = f"json_extract({ids}.value, '$.{attribute}')" if holder else f"{ids}.value"
        column = holder or attribute
        if not link.relation.many:
            on = (
                f'{there}."{column}" = {here}.id'
                if link.reverse
                else f'{there}.id = {here}."{column}"'
            )
            sources.append((table, on))
        elif link.reverse:
            on = f'{here}.id IN (SELECT {key} FROM json_each({there}."{column}") AS {ids})'
            sources.append((table, on))
        else:
            sources += [
                (f'json_each({here}."{column}") AS {ids}', "1"),
                (table, f"{there}.id = {key}"),
            ]
        orders += (
            [f"{ids}.key"]
            if link.relation.many and not link.reverse
            else [f"{there}.name", f"{there}.id"]
        )
        here = there
    value = _value(path.leaf, here)
    if path.leaf.many:
        at = f", '$.{path.leaf.inner}'" if path.leaf.inner_many else ""
        sources.append((f'json_each({here}."{path.leaf.column}"{at}) AS e', "1"))
        orders.append("e.key")
        inside = path.leaf.inner and not path.leaf.inner_many
        value = Sql(f"json_extract(e.value, '$.{path.leaf.inner}')" if inside else "e.value", ())
    text = "json(v)" if path.leaf.whole else "v"
    return Sql(
        f"(SELECT json_group_array({text}) FROM (SELECT {value.text} AS v FROM "
        f"{' CROSS JOIN '.join(source for source, _ in sources)} "
        f"WHERE {' AND '.join(on for _, on in sources)} "
        f"ORDER BY {', '.join(orders)} LIMIT {SHOWN_MAX + 1}))",
        value.parameters,
    )
