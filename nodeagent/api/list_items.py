"""Whole items of lists, as bytes: what resources show of themselves, the names behind their ids, and what belongs to them.

Used by `nodeagent.api.lists`, on the threads of its queries. Names are looked up once for a page and not for each row. An
item looks as it did last time if everything that it is made of is the same, so the last ones are kept beside what they
were made of, and nothing else decides whether one is used again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from core.model import Resource, kind_of
from nodeagent.api.views import Shown, add_names, ids_behind, own_fields
from raftstate.searching import Match, NamesOf
from raftstate.state.query_picks import Pick, read_pick
from raftstate.state.schema import Scalar

KEPT_BYTES = 4 << 20

Extra = tuple[Pick, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class _Ingredients:
    """All that an item is made of: the resource as stored, what was picked beside it, and the names behind its ids."""

    body: bytes | None
    revision: int
    picks: tuple[Scalar, ...]
    names: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    made_of: _Ingredients
    ids: tuple[tuple[str, str], ...]  # kind and id behind each of the names
    text: bytes

    @property
    def size(self) -> int:
        """Roughly, in bytes."""
        return len(self.text) + len(self.made_of.body or b"") + 400


class ItemCache:
    """The items made last, by kind and id, up to a bound of bytes. Several threads use it."""

    def __init__(self, bytes_max: int = KEPT_BYTES) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._items: OrderedDict[tuple[str, str], _Item] = OrderedDict()
        self._bytes = 0

    def of(self, kind: str, ids: Sequence[str]) -> list[_Item | None]:
        """Return the item last made of each resource."""
        with self._lock:
            return [self._items.get((kind, id_)) for id_ in ids]

    def keep(self, kind: str, made: Sequence[tuple[str, _Item]]) -> None:
        """Keep new items in place of the oldest."""
        with self._lock:
            for id_, item in made:
                former = self._items.pop((kind, id_), None)
                self._bytes += item.size - (former.size if former else 0)
                self._items[kind, id_] = item
            while self._bytes > self._bytes_max:
                self._bytes -= self._items.popitem(last=False)[1].size


def whole_items(
    type_: type[Resource], extras: dict[str, Extra], cache: ItemCache
) -> Callable[[Sequence[Match], NamesOf], list[msgspec.Raw]]:
    """Return what makes the matches of a page into items; the search picks those of `extras`, in their order."""
    kind, relations = kind_of(type_), type_.RELATIONS
    decode = msgspec.msgpack.Decoder(type_).decode

    def own(match: Match) -> Shown:
        assert match.body is not None, "the search asks for bodies"
        return own_fields(msgspec.structs.replace(decode(match.body), revision=match.revision))

    def ids_of(shown: Shown) -> tuple[tuple[str, str], ...]:
        return tuple((r.target, id_) for r in relations for id_ in ids_behind(shown, r))

    def make(match: Match, shown: Shown, names: Sequence[str | None]) -> bytes:
        rest = iter(names)
        counts = [len(ids_behind(shown, relation)) for relation in relations]
        for relation, number in zip(relations, counts, strict=True):
            add_names(shown, relation, [next(rest) for _ in range(number)])
        for (field, (pick, form)), raw in zip(extras.items(), match.picks, strict=True):
            shown[field] = form(read_pick(pick, raw))
        return msgspec.json.encode(shown)

    def items(matches: Sequence[Match], names_of: NamesOf) -> list[msgspec.Raw]:
        kept = cache.of(kind, [match.id for match in matches])
        shown: dict[int, Shown] = {}
        ids: list[tuple[tuple[str, str], ...]] = []
        for number, (match, item) in enumerate(zip(matches, kept, strict=True)):
            if item is not None and item.made_of.body == match.body:
                ids.append(item.ids)
            else:
                shown[number] = own(match)
                ids.append(ids_of(shown[number]))
        named = names_of(frozenset(pair for pairs in ids for pair in pairs if pair[1]))
        made: list[tuple[str, _Item]] = []
        texts: list[msgspec.Raw] = []
        for number, (match, item) in enumerate(zip(matches, kept, strict=True)):
            names = tuple([named.get(pair) for pair in ids[number]])
            made_of = _Ingredients(match.body, match.revision, match.picks, names)
            if item is None or item.made_of != made_of:
                text = make(match, shown.get(number) or own(match), names)
                item = _Item(made_of, ids[number], text)
                made.append((match.id, item))
            texts.append(msgspec.Raw(item.text))
        cache.keep(kind, made)
        return texts

    return items
