"""Short reads of the state, for the event loop: by id, by an indexed attribute, whole kinds, claims, outcomes.

The base of `raftstate.state.machine.Machine`. Bodies come out as they are stored; `raftstate.store` decodes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from raftstate.state.schema import Table, table_of_unknown
from raftstate.txn import Applied, Outcome, Rejected

REVISION_MAX = (1 << 63) - 1  # SQLite's largest integer


class Reads:
    """Point reads and scans on the connection that also applies, so they see every entry applied so far."""

    _db: sqlite3.Connection
    _tables: Mapping[str, Table]

    def table(self, kind: str) -> Table:
        """Return where the resources of a kind are."""
        return self._tables.get(kind) or table_of_unknown(kind)

    def get(self, kind: str, id_: str) -> tuple[bytes, int] | None:
        """Return (body, revision) of one resource."""
        table = self.table(kind)
        row: tuple[bytes, int] | None = self._db.execute(table.get, (*table.head, id_)).fetchone()
        return row

    def texts(self, kind: str, id_: str, fields: Sequence[str]) -> tuple[str | None, ...] | None:
        """Return some text attributes of one resource, None for what its body doesn't have."""
        table = self.table(kind)
        assert table.searchable.keys() >= set(fields), (
            "only attributes that the schema has become SQL"
        )
        names = ", ".join(f'"{field}"' for field in fields)
        row: tuple[str | None, ...] | None = self._db.execute(
            f"SELECT {names} FROM {table.name}{table.where('id = ?')}", (*table.head, id_)
        ).fetchone()
        return row

    def ids_where(self, kind: str, field: str, value: str) -> list[str]:
        """Return the ids of the resources of a kind with that value in one attribute, which should be indexed."""
        table = self.table(kind)
        assert field in table.searchable, "only attributes that the schema has become SQL"
        condition = table.where(f'"{field}" = ?')
        rows = self._db.execute(
            f"SELECT id FROM {table.name}{condition} ORDER BY id", (*table.head, value)
        )
        return [row[0] for row in rows.fetchall()]

    def all_ids(self, kind: str) -> list[str]:
        """Return the ids of all resources of a kind."""
        table = self.table(kind)
        rows = self._db.execute(
            f"SELECT id FROM {table.name}{table.where()} ORDER BY id", table.head
        )
        return [row[0] for row in rows.fetchall()]

    def number_of(self, kind: str) -> int:
        """Return how many resources of a kind there are."""
        table = self.table(kind)
        (number,) = self._db.execute(
            f"SELECT count(*) FROM {table.name}{table.where()}", table.head
        ).fetchone()
        assert isinstance(number, int), "count(*) is a number"
        return number

    def ids_by_name(self, kind: str, name: str) -> list[str]:
        """Return the ids of the resources of a kind with that name."""
        return self.ids_where(kind, "name", name)

    def scan(self, kind: str) -> list[tuple[bytes, int]]:
        """Return (body, revision) of every resource of a kind, ordered by name."""
        table = self.table(kind)
        return self._db.execute(
            f"SELECT body, revision FROM {table.name}{table.where()} ORDER BY name, id", table.head
        ).fetchall()

    def scan_since(self, kind: str, revision: int, limit: int) -> list[tuple[bytes, int]]:
        """Return about `limit` resources of a kind with a higher revision, oldest first.

        It never ends inside a revision, so that going on after the last one leaves nothing out.
        """
        table = self.table(kind)
        last = self._db.execute(
            f"SELECT revision FROM {table.name}{table.where('revision > ?')} ORDER BY revision LIMIT 1 OFFSET ?",
            (*table.head, revision, limit - 1),
        ).fetchone()
        return self._db.execute(
            f"SELECT body, revision FROM {table.name}{table.where('revision > ? AND revision <= ?')} ORDER BY revision, id",
            (*table.head, revision, last[0] if last else REVISION_MAX),
        ).fetchall()

    def name_and_revision(self, kind: str, id_: str) -> tuple[str, int] | None:
        """Return name and revision of one resource, also of a kind that this version doesn't know."""
        table = self.table(kind)
        row: tuple[str, int] | None = self._db.execute(
            f"SELECT name, revision FROM {table.name}{table.where('id = ?')}", (*table.head, id_)
        ).fetchone()
        return row

    def claims_beginning(self, prefix: str) -> list[str]:
        """Return the claims that begin so, in order; the prefix ends with a slash."""
        assert prefix.endswith("/"), "so that its end is known"
        rows = self._db.execute(
            "SELECT claim FROM claim WHERE claim > ? AND claim < ? ORDER BY claim",
            (prefix, f"{prefix[:-1]}{chr(ord('/') + 1)}"),
        )
        return [row[0] for row in rows.fetchall()]

    def claim_holder(self, claim: str) -> str:
        """Return the `kind/id` that holds a claim, or an empty string."""
        row = self._db.execute("SELECT holder FROM claim WHERE claim = ?", (claim,)).fetchone()
        return row[0] if row else ""

    def remembered(self, request_id: str) -> Outcome | None:
        """Return the outcome of a request applied in the last minutes."""
        row = self._db.execute("SELECT outcome FROM request WHERE id = ?", (request_id,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Applied | Rejected) if row else None
