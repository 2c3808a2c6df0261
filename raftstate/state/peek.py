"""A look into a state database or a dump that no machine has open: for backups, and for commands that work offline."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from core.errors import FatalError
from core.model import RESOURCE_TYPES, Resource
from raftstate.state.dump import read_only
from raftstate.state.schema import table_of

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


def applied_in(database: Path) -> int:
    """Return the index of the last applied entry. Raises FatalError if it can't be read."""
    return _look(database, lambda db: int(db.execute("SELECT applied FROM progress").fetchone()[0]))


def resources_in(database: Path, type_: type[R]) -> list[R]:
    """Return all resources of a type, ordered by name. Raises FatalError if they can't be read."""
    table = table_of(type_)
    decode = msgspec.msgpack.Decoder(type_).decode
    query = f"SELECT body FROM {table.name}{table.where()} ORDER BY name, id"
    return _look(database, lambda db: [decode(row[0]) for row in db.execute(query, table.head)])


def counts_in(database: Path) -> dict[str, int]:
    """Return how many resources of each known kind there are. Raises FatalError if they can't be read."""
    tables = [table_of(type_) for type_ in RESOURCE_TYPES]

    def count(db: sqlite3.Connection) -> dict[str, int]:
        found = {
            table.kind: int(
                db.execute(
                    f"SELECT count(*) FROM {table.name}{table.where()}", table.head
                ).fetchone()[0]
            )
            for table in tables
        }
        return {kind: number for kind, number in found.items() if number}

    return _look(database, count)


def _look(database: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    try:
        db = read_only(database)
        try:
            return read(db)
        finally:
            db.close()
    except (sqlite3.Error, msgspec.DecodeError, TypeError) as error:
        raise FatalError(f"the state database {database} can't be read: {error}") from error
