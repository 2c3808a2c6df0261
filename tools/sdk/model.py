"""What the generated models have in common: they read what newer and older agents say, and print no secrets.

Base classes of `tools.sdk.generated.models`; nothing else uses them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from tools.sdk.items import Item, item_of


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object of the API. Attributes that this version doesn't know are passed over.

    `HIDDEN` are those that no text about it shows.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in self.HIDDEN else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not msgspec.UNSET
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [
            (n, "***" if n in self.HIDDEN else getattr(self, n)) for n in self.__struct_fields__
        ]


def plain(model: Model) -> Item:
    """Return a model as the JSON object that it was."""
    return item_of(msgspec.json.decode(msgspec.json.encode(model)))


class OpenEnum(StrEnum):
    """A set of words that newer agents may add to: a word that isn't known here becomes a member of its own."""

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member

    @property
    def known(self) -> bool:
        """Whether this version knows the word."""
        return self._value_ in type(self)._value2member_map_
