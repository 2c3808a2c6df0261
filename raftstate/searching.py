"""Ask the full query of an agent's own copy: the matches of a search, how many there are, or what it would cost.

Called by the API's lists; each runs on a reader thread, within a time. `raftstate.state.query_sql` makes the statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from core.errors import InvalidError
from raftstate.state.entry import in_batches
from raftstate.state.query import Position, Sql
from raftstate.state.query_paths import Tables
from raftstate.state.query_sql import Search, matches_sql, scanned_kind, search_sql
from raftstate.state.query_text import Where
from raftstate.state.schema import Scalar
from raftstate.store import Store

T = TypeVar("T")

ANSWER_BYTES_MAX = 64 << 20


NamesOf = Callable[[Collection[tuple[str, str]]], dict[tuple[str, str], str]]
"""Returns the names of those resources that exist, by kind and id."""


class Match(NamedTuple):
    """One match. `body` is there when the search asked for it; `picks` are in the order of the search."""

    id: str
    body: bytes | None
    revision: int
    picks: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A page of matches as of log index `index`; `next` is where to go on, if there are more."""

    items: list[T]
    index: int
    next: Position | None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of SQLite's plan. `reads_rows` is how many rows it goes through at most if from end to end, else 0."""

    detail: str
    reads_rows: int


async def search(
    store: Store, asked: Search, make: Callable[[Sequence[Match], NamesOf], list[T]]
) -> Found[T]:
    """Return the matches, made into what is shown; `make` runs on the reader's thread, its names are of the same state.

    Raises:
        InvalidError: a bound is exceeded, a value doesn't fit, the answer is too large, or the time was over.
    """
    sql = search_sql(store.machine.table, asked)
    last_type = asked.order.path.leaf.type

    def read(db: sqlite3.Connection) -> Found[T]:
        matches: list[Match] = []
        last, size, more = None, 0, False
        for id_, key, body, revision, *picks in db.execute(*sql):
            if len(matches) == asked.limit:
                more = True
                break
            size += len(body or b"") + sum([len(pick) for pick in picks if isinstance(pick, str)])
            if size > ANSWER_BYTES_MAX:
                raise InvalidError("the answer would be too large: ask for fewer items or fields")
            matches.append(Match(id_, body, revision, tuple(picks)))
            last = key, id_
        items = make(matches, lambda pairs: _names(db, store.machine.table, pairs))
        next_ = _position(*last, last_type) if more and last else None
        return Found(items, _applied(db), next_)

    return await store.ask(_whole(read))


def _position(key: Scalar, id_: str, type_: type) -> Position:
    return Position(bool(key) if type_ is bool and key is not None else key, id_)


def _names(
    db: sqlite3.Connection, tables: Tables, pairs: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    by_kind: dict[str, list[str]] = {}
    for kind, id_ in pairs:
        by_kind.setdefault(kind, []).append(id_)
    found: dict[tuple[str, str], str] = {}
    for kind, ids in by_kind.items():
        table = tables(kind)
        rows = in_batches(db, table.names_by_ids, table.head, ids)
        found.update(((kind, id_), name) for id_, name in rows)
    return found


async def count_matches(store: Store, kind: str, where: Sequence[Where]) -> tuple[int, int]:
    """Return how many resources of a kind meet all conditions, and as of which log index.

    Raises:
        InvalidError: as for `search`.
    """
    sql = matches_sql(store.machine.table, kind, where)

    def read(db: sqlite3.Connection) -> tuple[int, int]:
        (number,) = db.execute(*sql).fetchone()
        return int(number), _applied(db)

    return await store.ask(_whole(read))


async def explain(store: Store, asked: Search, *, only_count: bool = False) -> list[Step]:
    """Return how SQLite would go about a search or a count, without running it.

    Raises:
        InvalidError: as for `search`.
    """
    table = store.machine.table
    sql = matches_sql(table, asked.kind, asked.where) if only_count else search_sql(table, asked)

    def rows_of(db: sqlite3.Connection, kind: str) -> int:
        return int(db.execute(*matches_sql(table, kind, ())).fetchone()[0])

    def read(db: sqlite3.Connection) -> list[Step]:
        plan = Sql(f"EXPLAIN QUERY PLAN {sql.text}", sql.parameters)
        details = [str(row[3]) for row in db.execute(*plan)]
        steps = []
        for detail in details:
            own = asked.kind if detail.split()[:2] == ["SCAN", "t"] else ""
            kind = own or scanned_kind(detail)
            steps.append(Step(detail, rows_of(db, kind) if kind else 0))
        return steps

    return await store.ask(_whole(read))


def _whole(read: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    """Let all statements of a read see the same state."""

    def reading(db: sqlite3.Connection) -> T:
        db.execute("BEGIN")
        try:
            return read(db)
        finally:
            db.rollback()

    return reading


def _applied(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT applied FROM progress").fetchone()[0])
