"""The full query as one SQL statement: conditions through relations, order, paging, and what to show of each match.

Used by `raftstate.searching`. Values are bound parameters; names are those of tables, columns and relations, looked up by
`raftstate.state.query_paths`. A condition on a related resource is a sub-query of that kind's table, evaluated once and
not for each row. What is shown is worked out for the rows of a page only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from core.errors import InvalidError
from core.model import LINKS, Link
from raftstate.state.nested import Form
from raftstate.state.query import LIMIT_MAX, Op, Position, Sql, after_sql, condition_sql
from raftstate.state.query_paths import Leaf, Path, Tables
from raftstate.state.query_picks import Pick, pick_sql
from raftstate.state.query_sight import EVERYTHING, Sight, kinds_along
from raftstate.state.query_text import Where
from raftstate.state.schema import Column, Scalar

CONDITIONS_MAX = 20
PICKS_MAX = 60

Test = Callable[[str], Sql]
"""Returns what must hold for a value, given as an expression."""


@dataclass(frozen=True, slots=True)
class Order:
    """By what matches are ordered, then by id: a path with at most one value at its end."""

    path: Path
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of a kind. `picks` are what to show of each match; `bodies`: the whole of it too. `sight` is what
    whoever asks may see, of this kind and of all others."""

    kind: str
    where: tuple[Where, ...]
    order: Order
    limit: int = LIMIT_MAX
    after: Position | None = None
    picks: tuple[Pick, ...] = ()
    bodies: bool = True
    sight: Sight = EVERYTHING


def search_sql(tables: Tables, search: Search) -> Sql:
    """Return a query for (id, value ordered by, body or NULL, revision, picks...), with one row more if there are more.

    Raises:
        InvalidError: a bound is exceeded, a value doesn't fit, or the order isn't one.
    """
    if not 1 <= search.limit <= LIMIT_MAX:
        raise InvalidError(f"limit must be 1 to {LIMIT_MAX}")
    if len(search.picks) > PICKS_MAX:
        raise InvalidError(f"at most {PICKS_MAX} fields can be asked for")
    builder = _Builder(tables, search.sight)
    table = tables(search.kind).name
    key = builder.order_by(search.order)
    where = builder.all_of(search.where, "t")
    parts = [where, search.sight.sql(search.kind, "t")]
    if search.after is not None:
        leaf = search.order.path.leaf
        column = Column(leaf.column, leaf.type, _may_be_null(search.order.path), None, False)
        text, parameters = after_sql(key, "t.id", column, search.after, search.order.descending)
        parts.append(Sql(text, tuple(parameters)))
    condition = _joined(parts)
    down = " DESC" if search.order.descending else ""
    shown = [pick_sql(tables, pick, "r", search.sight) for pick in search.picks]
    picks = "".join(f", {sql.text}" for sql in shown)
    return Sql(
        f"SELECT r.id, p.k, {'r.body' if search.bodies else 'NULL'}, r.revision{picks} FROM ("
        f"SELECT t.rowid AS n, {key} AS k, t.id AS i FROM {table} AS t WHERE {condition.text} "
        f"ORDER BY k{down}, i{down} LIMIT ?) AS p CROSS JOIN {table} AS r ON r.rowid = p.n "
        f"ORDER BY p.k{down}, p.i{down}",
        (
            *(value for sql in shown for value in sql.parameters),
            *condition.parameters,
            search.limit + 1,
        ),
    )


def matches_sql(
    tables: Tables, kind: str, where: Sequence[Where], sight: Sight = EVERYTHING
) -> Sql:
    """Return a query for how many there are.

    Raises:
        InvalidError: as for `search_sql`.
    """
    parts = (_Builder(tables, sight).all_of(where, "t"), sight.sql(kind, "t"))
    condition = _joined(parts)
    return Sql(
        f"SELECT count(*) FROM {tables(kind).name} AS t WHERE {condition.text}",
        condition.parameters,
    )


class _Builder:
    """Makes conditions, with a name of its own for each table in them."""

    def __init__(self, tables: Tables, sight: Sight) -> None:
        self._tables = tables
        self._sight = sight
        self._numbers = count(1)

    def all_of(self, where: Sequence[Where], here: str) -> Sql:
        if len(where) > CONDITIONS_MAX:
            raise InvalidError(f"a query has at most {CONDITIONS_MAX} conditions")
        return _joined([self._holds(one, here) for one in where])

    def order_by(self, order: Order) -> str:
        path = order.path
        if not path.single or path.leaf.form in (Form.MAP, Form.STRUCTS) or path.leaf.whole:
            raise InvalidError(f"can't sort by {path.text!r}: there may be several values of it")
        if not self._sight.whole(kinds_along(path.links)):
            raise InvalidError(
                f"can't sort by {path.text!r}: it leads to resources that you may not all see"
            )
        return self._one_value(path.links, path.leaf, "t")

    def _one_value(self, links: Sequence[Link], leaf: Leaf, here: str) -> str:
        if not links:
            column = f'{here}."{leaf.column}"'
            return f"json_extract({column}, '$.{leaf.inner}')" if leaf.inner else column
        there = self._alias(links[0].target)
        value = self._one_value(links[1:], leaf, there)
        table = self._tables(links[0].target).name
        field = links[0].relation.field
        return f'(SELECT {value} FROM {table} AS {there} WHERE {there}.id = {here}."{field}")'

    def _holds(self, where: Where, here: str) -> Sql:
        path, leaf = where.path, where.path.leaf
        if where.op not in (Op.IS_NULL, Op.NOT_NULL):
            # That of the last attribute: a nested one is compared like a column of its type.
            column = Column(leaf.inner or leaf.column, leaf.type, leaf.optional, None, False)

            def test(value: str) -> Sql:
                text, parameters = condition_sql(value, column, where.op, where.value)
                return Sql(text, tuple(parameters))

            return self._along(path.links, here, lambda there: self._at(leaf, there, test))
        if path.named:
            something = self._along(path.links, here, lambda _: Sql("1", ()))
        else:
            something = self._along(
                path.links, here, lambda there: self._at(leaf, there, lambda v: _not_null(leaf, v))
            )
        if where.op is Op.NOT_NULL:
            return something
        return Sql(f"({something.text}) IS NOT TRUE", something.parameters)

    def _along(self, links: Sequence[Link], here: str, inner: Test) -> Sql:
        """Return that `inner` holds for a resource, or for one of several, at the end of the links."""
        if not links:
            return inner(here)
        link = links[0]
        there, element = self._alias(link.target), self._alias("ids")
        sql = _joined((self._sight.sql(link.target, there), self._along(links[1:], there, inner)))
        table = f"{self._tables(link.target).name} AS {there}"
        column, key = id_places(link, element)
        if not link.relation.many:
            mine, others = (
                (f"{here}.id", f'{there}."{column}"')
                if link.reverse
                else (
                    f'{here}."{column}"',
                    f"{there}.id",
                )
            )
            text = f"{mine} IN (SELECT {others} FROM {table} WHERE {sql.text})"
        elif link.reverse:
            ids = f'json_each({there}."{column}") AS {element}'
            text = f"{here}.id IN (SELECT {key} FROM {table}, {ids} WHERE {sql.text})"
        else:
            ids = f'json_each({here}."{column}") AS {element}'
            of_those = f"{key} IN (SELECT {there}.id FROM {table} WHERE {sql.text})"
            text = f"EXISTS (SELECT 1 FROM {ids} WHERE {of_those})"
        return Sql(text, sql.parameters)

    def _at(self, leaf: Leaf, here: str, test: Test) -> Sql:
        """Return that an attribute, or one of its values, passes a test."""
        column = f'{here}."{leaf.column}"'
        each = self._alias("values")
        inside = f"json_extract({each}.value, '$.{leaf.inner}')"
        match leaf.form:
            case None:
                return test(column)
            case Form.STRUCT if leaf.inner and not leaf.inner_many:
                return test(f"json_extract({column}, '$.{leaf.inner}')")
            case Form.STRUCT if leaf.inner:
                source, head = f"json_each({column}, '$.{leaf.inner}')", Sql("", ())
                sql = test(f"{each}.value")
            case Form.MAP if leaf.inner:
                source, head = f"json_each({column})", Sql(f"{each}.key = ? AND ", (leaf.inner,))
                sql = test(f"{each}.value")
            case _:
                source, head = f"json_each({column})", Sql("", ())
                sql = test(inside if leaf.inner else f"{each}.value")
        return Sql(
            f"EXISTS (SELECT 1 FROM {source} AS {each} WHERE {head.text}{sql.text})",
            (*head.parameters, *sql.parameters),
        )

    def _alias(self, kind: str) -> str:
        return f'"{kind}#{next(self._numbers)}"'


def id_places(link: Link, element: str) -> tuple[str, str]:
    """Return the column that holds the ids of a relation, and the expression of one of them in an element of a list."""
    holder, _, attribute = link.relation.field.rpartition(".")
    if holder:
        return holder, f"json_extract({element}.value, '$.{attribute}')"
    return attribute, f"{element}.value"


def scanned_kind(detail: str) -> str:
    """Return the kind whose whole table a line of EXPLAIN QUERY PLAN reads, or nothing."""
    word, _, rest = detail.partition(" ")
    if word != "SCAN":
        return ""
    return next((kind for kind in LINKS if rest.startswith(f"{kind}#")), "")


def _not_null(leaf: Leaf, value: str) -> Sql:
    """An empty text stands for nothing throughout the model."""
    text = leaf.type is str and not leaf.whole
    return Sql(f"({value} IS NOT NULL{f' AND {value} <> {chr(39)}{chr(39)}' if text else ''})", ())


def _may_be_null(path: Path) -> bool:
    return bool(path.links) or path.leaf.optional


def _joined(parts: Iterable[Sql]) -> Sql:
    parts = tuple(parts)
    parameters: tuple[Scalar, ...] = tuple(value for sql in parts for value in sql.parameters)
    return Sql(" AND ".join(f"({sql.text})" for sql in parts if sql.text) or "1", parameters)
