"""What the API answers, as read-only views that tolerate fields they don't know.

The client wraps every JSON object in an `Item`; programs take from it what they understand, by type.
An agent may be newer than its client, so nothing here fails on an unknown field or a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON object of an answer. `raw` is the whole of it, to be read only."""

    raw: Mapping[str, JsonValue] = field(default_factory=dict)

    def text(self, key: str, default: str = "") -> str:
        """Return a string field; numbers and booleans as text; the default for anything else."""
        value = self.raw.get(key)
        match value:
            case str():
                return value or default
            case bool():
                return "yes" if value else "no"
            case int() | float():
                return str(value)
            case _:
                return default

    def integer(self, key: str, default: int = 0) -> int:
        """Return a whole number field, or the default."""
        value = self.raw.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return default
        return int(value)

    def number(self, key: str) -> float | None:
        """Return a number field, or None when it is absent or null."""
        value = self.raw.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean field, or the default."""
        value = self.raw.get(key)
        return value if isinstance(value, bool) else default

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the strings of a list field."""
        value = self.raw.get(key)
        if not isinstance(value, list):
            return ()
        return tuple(entry for entry in value if isinstance(entry, str))

    def item(self, key: str) -> Item:
        """Return an object field; empty when absent."""
        return item_of(self.raw.get(key))

    def items(self, key: str) -> tuple[Item, ...]:
        """Return the objects of a list field."""
        value = self.raw.get(key)
        if not isinstance(value, list):
            return ()
        return tuple(Item(entry) for entry in value if isinstance(entry, dict))


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """A list as of log index `index`; `next` is the cursor to go on with, empty when that was all."""

    items: tuple[T_co, ...]
    index: int = 0
    next: str = ""


def item_of(value: JsonValue) -> Item:
    """Return a view of a JSON value; of anything but an object, an empty one."""
    return Item(value) if isinstance(value, dict) else Item()
