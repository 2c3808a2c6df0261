"""The tables of the state, made from `core.model`: one for each kind, and one for kinds this version doesn't know.

Opened by `raftstate.state.machine`. Only id, name, revision, claims and body of a resource are replicated; the other
columns are read out of the body here, to search by: plain values, and lists, structs and maps as JSON. So versions with different models hold the same state, and a
changed model means that the columns of a kind are filled again from the bodies when the database is opened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from core.errors import FatalError
from core.model import Resource, kind_of
from raftstate.state.nested import Nested, PlainType, nested_of, plain_type, reader_of

LAYOUT = 1  # of the tables that don't come from the model; PRAGMA user_version
ALWAYS_INDEXED = ("name", "revision")

FIXED_TABLES = """
CREATE TABLE resource (
  kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, claims BLOB NOT NULL,
  body BLOB NOT NULL, UNIQUE (kind, id));
CREATE INDEX resource_name ON resource (kind, name);
CREATE INDEX resource_revision ON resource (kind, revision);
CREATE TABLE claim (claim TEXT PRIMARY KEY, holder TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE request (id TEXT PRIMARY KEY, stamp_ms INTEGER NOT NULL, outcome BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX request_stamp ON request (stamp_ms, id);
CREATE TABLE progress (
  only INTEGER PRIMARY KEY CHECK (only = 1), applied INTEGER NOT NULL, digest BLOB NOT NULL);
INSERT INTO progress VALUES (1, 0, zeroblob(32));
CREATE TABLE kind (kind TEXT PRIMARY KEY, shape TEXT NOT NULL) WITHOUT ROWID;
"""

Scalar = str | int | float | bool | None
_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_NO_ROW: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A scalar attribute: its values are of `type` (an enumeration's are its strings), or None if `optional`."""

    name: str
    type: PlainType
    optional: bool
    default: Scalar
    indexed: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Where the resources of one kind are. `head` are the parameters that come before all others of a statement.

    Row of `by_ids`: id, rowid, name, revision, claims, body. Parameters of `insert`: head, id, name, revision, claims,
    columns, nested, body; of `update`: name, revision, claims, columns, nested, body, rowid; of `delete`: rowid.
    """

    kind: str
    name: str
    head: tuple[str, ...]
    columns: tuple[Column, ...]
    nested: tuple[Nested, ...]  # the columns that hold JSON
    names: tuple[str, ...]  # of both
    searchable: Mapping[
        str, Column
    ]  # all plain values that a query may name: the columns, id, name and revision
    shape: str
    read: Callable[[bytes], tuple[Scalar, ...]] | None

    # Written out once: SQLite's statement cache is looked up by these very strings.
    get: str
    by_ids: str
    names_by_ids: str
    insert: str
    update: str
    delete: str

    def where(self, condition: str = "") -> str:
        """Return the WHERE clause for this kind and a condition, or nothing when there's neither."""
        parts = [part for part in ("kind = ?" if self.head else "", condition) if part]
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def values(self, body: bytes) -> tuple[Scalar, ...]:
        """Return the columns of a body; all None when it isn't one of this kind as this version knows it."""
        if self.read is None:
            return _NO_ROW
        try:
            return self.read(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return (None,) * len(self.names)


BASE = (
    Column("id", str, False, None, True),
    Column("name", str, False, None, True),
    Column("revision", int, False, None, True),
)


def table_of(type_: type[Resource]) -> Table:
    """Return the table of a resource type."""
    kind = kind_of(type_)
    columns = tuple(_columns(type_))
    nested = tuple(nested_of(type_))
    scalars = [
        (column.name, (_Int64 if column.type is int else column.type) | None, column.default)
        for column in columns
    ]
    read = reader_of(type_.__name__, type_.__struct_config__.tag, scalars, nested)
    return _table(kind, _table_name(kind), columns, nested, read)


def table_of_unknown(kind: str) -> Table:
    """Return the table in which the resources of a kind wait for a version that knows it."""
    return _table(kind, "resource", (), (), None)


def bring_up_to_date(db: sqlite3.Connection, tables: Mapping[str, Table]) -> None:
    """Make the tables of a new database, or move an older or newer model's rows to those of this one. All or nothing.

    Raises:
        FatalError: the tables are of a build that this one can't read.
        sqlite3.Error: it can't be written.
    """
    (layout,) = db.execute("PRAGMA user_version").fetchone()
    made = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if made and layout != LAYOUT:
        raise FatalError(
            f"the state database has layout {layout}, this version reads {LAYOUT}: upgrade this host, "
            "or remove state.db* and start again: it is made anew from snapshot and log"
        )
    db.execute("BEGIN IMMEDIATE")
    try:
        if not made:
            for statement in FIXED_TABLES.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {LAYOUT}")
        shapes = dict(db.execute("SELECT kind, shape FROM kind").fetchall())
        for kind in sorted(shapes.keys() - tables.keys()):
            _keep_unknown(db, kind)
        for kind, table in tables.items():
            if shapes.get(kind) != table.shape:
                _rebuild(db, table, stored=kind in shapes)
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def _keep_unknown(db: sqlite3.Connection, kind: str) -> None:
    """Move the rows of a newer version's kind to the table of unknown kinds."""
    name = _table_name(kind)
    db.execute(
        f"INSERT INTO resource (kind, id, name, revision, claims, body) SELECT ?, id, name, revision, claims, body FROM {name}",
        (kind,),
    )
    db.execute(f"DROP TABLE {name}")
    db.execute("DELETE FROM kind WHERE kind = ?", (kind,))


def _rebuild(db: sqlite3.Connection, table: Table, *, stored: bool) -> None:
    """Make the table of a kind and fill it from its former one or from that of unknown kinds."""
    new = f'"new {table.kind}"'
    fields = ", ".join(f'"{name}"' for name in table.names)
    db.execute(
        f"CREATE TABLE {new} (id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, revision INTEGER NOT NULL, claims BLOB NOT NULL, "
        f"{fields}{', ' if fields else ''}body BLOB NOT NULL)"
    )
    source, head = (table.name, ()) if stored else ("resource WHERE kind = ?", (table.kind,))
    rows = db.execute(f"SELECT id, name, revision, claims, body FROM {source}", head)
    db.executemany(
        table.insert.replace(table.name, new, 1),
        ((*row[:4], *table.values(row[4]), row[4]) for row in rows),
    )
    if stored:
        db.execute(f"DROP TABLE {table.name}")
    else:
        db.execute("DELETE FROM resource WHERE kind = ?", (table.kind,))
    db.execute(f"ALTER TABLE {new} RENAME TO {table.name}")
    for name in (*ALWAYS_INDEXED, *(c.name for c in table.columns if c.indexed)):
        db.execute(f'CREATE INDEX "{table.kind} by {name}" ON {table.name} ("{name}")')
    db.execute("INSERT OR REPLACE INTO kind VALUES (?, ?)", (table.kind, table.shape))


def _table_name(kind: str) -> str:
    quoted = kind.replace('"', '""')
    return f'"kind {quoted}"'


def _table(
    kind: str,
    name: str,
    columns: tuple[Column, ...],
    nested: tuple[Nested, ...],
    read: Callable[[bytes], tuple[Scalar, ...]] | None,
) -> Table:
    head = () if read else (kind,)
    names = (*(c.name for c in columns), *(n.name for n in nested))
    shape: list[object] = [
        (c.name, c.type.__name__, c.optional, c.default, c.indexed) for c in columns
    ]
    shape += [(n.name, n.form.value, sorted(n.fields)) for n in nested]
    kind_column = "kind, " if head else ""
    fields = "".join(f'"{field}", ' for field in names)
    marks = ", ".join("?" * (len(head) + 5 + len(names)))
    assigned = "".join(f'"{field}" = ?, ' for field in names)
    of_kind = "kind = ? AND " if head else ""
    return Table(
        kind=kind,
        name=name,
        head=head,
        columns=columns,
        nested=nested,
        names=names,
        searchable={column.name: column for column in (*BASE, *columns)},
        shape=repr(shape),
        read=read,
        get=f"SELECT body, revision FROM {name} WHERE {of_kind}id = ?",
        by_ids=f"SELECT id, rowid, name, revision, claims, body FROM {name} WHERE {of_kind}id IN",
        names_by_ids=f"SELECT id, name FROM {name} WHERE {of_kind}id IN",
        insert=f"INSERT INTO {name} ({kind_column}id, name, revision, claims, {fields}body) VALUES ({marks})",
        update=f"UPDATE {name} SET name = ?, revision = ?, claims = ?, {assigned}body = ? WHERE rowid = ?",
        delete=f"DELETE FROM {name} WHERE rowid = ?",
    )


def _columns(type_: type[Resource]) -> Iterable[Column]:
    for field in msgspec.structs.fields(type_):
        found = _scalar(field.type)
        if found is None or field.name in {column.name for column in BASE}:
            continue
        default = None if field.default is msgspec.NODEFAULT else field.default
        yield Column(
            name=field.name,
            type=found[0],
            optional=found[1],
            default=default.value if isinstance(default, StrEnum) else default,
            indexed=(field.name.endswith("_id") and field.name not in type_.NOT_INDEXED)
            or field.name in type_.INDEXED,
        )


def _scalar(
    type_: Any,  # whatever a field is annotated with
) -> tuple[PlainType, bool] | None:
    """Return (type, optional) of an attribute that a column can hold, None for any other."""
    if get_origin(type_) is Annotated:
        return _scalar(get_args(type_)[0])
    if get_origin(type_) in (Union, UnionType):
        options = [option for option in get_args(type_) if option is not type(None)]
        inner = _scalar(options[0]) if len(options) == 1 else None
        return (inner[0], True) if inner else None
    plain = plain_type(type_)
    return (plain, False) if plain else None
