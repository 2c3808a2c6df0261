"""Results on paper: tables and field lists for people, JSON and YAML for programs.

Used by every noun. Tables show chosen columns; JSON and YAML show all that the agent sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.cli.context import Context
from tools.cli.units import shown_size, shown_time
from tools.sdk.items import Item, JsonValue


@dataclass(frozen=True, slots=True)
class Column:
    """A title and how to get its text from an item."""

    title: str
    value: Callable[[Item], str]


def text(title: str, key: str, *others: str) -> Column:
    """Return a column of the first field that is not empty."""

    def value(item: Item) -> str:
        return next((found for name in (key, *others) if (found := item.text(name))), "-")

    return Column(title, value)


def size(title: str, key: str) -> Column:
    """Return a column of a field in bytes."""
    return Column(title, lambda item: shown_size(count) if (count := item.integer(key)) else "-")


def mebibytes(title: str, key: str) -> Column:
    """Return a column of a field in MiB."""
    return Column(
        title, lambda item: shown_size(count * 2**20) if (count := item.integer(key)) else "-"
    )


def moment(title: str, key: str) -> Column:
    """Return a column of a field in Unix milliseconds."""
    return Column(title, lambda item: shown_time(item.integer(key)))


def texts(title: str, *keys: str) -> Column:
    """Return a column of the first list of strings that is not empty."""

    def value(item: Item) -> str:
        return next((", ".join(found) for key in keys if (found := item.texts(key))), "-")

    return Column(title, value)


def write_list(ctx: Context, items: Sequence[Item], columns: Sequence[Column], empty: str) -> None:
    """Print many items; of none, a table says `empty` beside the result."""
    if ctx.output != "table":
        write_value(ctx, [dict(item.raw) for item in items])
    elif items:
        rows = [tuple(printable(column.value(item)) for column in columns) for item in items]
        write_rows(ctx, [tuple(column.title for column in columns), *rows])
    elif not ctx.quiet:
        ctx.say(empty)


def write_item(ctx: Context, item: Item, fields: Sequence[Column]) -> None:
    """Print one item, a field a line."""
    if ctx.output != "table":
        write_value(ctx, dict(item.raw))
        return
    write_rows(ctx, [(field.title, printable(field.value(item))) for field in fields])


def write_done(ctx: Context, item: Item, sentence: str) -> None:
    """Print the outcome of a change: a sentence, or the item for programs."""
    if ctx.output == "table":
        ctx.write(printable(sentence))
    else:
        write_value(ctx, dict(item.raw))


def write_rows(ctx: Context, rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows with their columns aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        ctx.write(line.rstrip())


def write_value(ctx: Context, value: JsonValue | Sequence[JsonValue]) -> None:
    """Print JSON or YAML, as asked for; JSON when a table was."""
    if ctx.output == "yaml":
        import yaml

        ctx.out.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        ctx.write(json.dumps(value, indent=2, ensure_ascii=False))


def printable(cell: str) -> str:
    """Return a text without what could steer a terminal; names and messages come from other people."""
    return "".join(sign if sign.isprintable() else "?" for sign in cell)
