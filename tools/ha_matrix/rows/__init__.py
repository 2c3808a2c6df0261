"""The rows of the matrix, by kind of fault."""

from __future__ import annotations

from tools.ha_matrix.rows import (
    absent,
    boards,
    clock,
    identity,
    migration,
    network,
    power,
    processes,
    room,
    storage,
)
from tools.ha_matrix.verdict import Row

ROWS: tuple[Row, ...] = tuple(
    sorted(
        (
            *power.ROWS,
            *network.ROWS,
            *processes.ROWS,
            *boards.ROWS,
            *migration.ROWS,
            *clock.ROWS,
            *identity.ROWS,
            *room.ROWS,
            *storage.ROWS,
            *absent.ROWS,
        ),
        key=lambda row: (row.number, row.variant),
    )
)
