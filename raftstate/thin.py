"""The state as a thin member has it: only what concerns its host, in memory, followed from any member that has it all.

A thin member holds no log and no database, so it neither votes nor feeds others; what it knows is `filtered` at the
host it asks. When that one fails, it goes on at another from the index it has reached.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from core.errors import PlatformError
from core.model import Resource, kind_of
from raftstate.filtered import Delta, Item

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

PAUSE_S = (0.5, 1.5)  # after an error, so that many don't ask again together

Ask = Callable[[int], Awaitable[Delta]]


class ThinView:
    """One host's part of the state as of `index`."""

    def __init__(self) -> None:
        self.index = 0
        self._items: dict[str, Item] = {}

    def take(self, delta: Delta) -> None:
        """Take in what changed since `index`."""
        if delta.whole:
            self._items.clear()
        for key in delta.gone:
            self._items.pop(key, None)
        for item in delta.puts:
            self._items[f"{item.kind}/{item.id}"] = item
        self.index = delta.index

    def get(self, type_: type[R], id_: str) -> R | None:
        """Return a resource, None if there is none that concerns the host."""
        item = self._items.get(f"{kind_of(type_)}/{id_}")
        return None if item is None else _decode(type_, item)

    def all(self, type_: type[R]) -> list[R]:
        """Return all resources of a type that concern the host, ordered by name."""
        kind = kind_of(type_)
        found = [_decode(type_, item) for item in self._items.values() if item.kind == kind]
        return sorted(found, key=lambda resource: (resource.name, resource.id))


async def follow(
    view: ThinView,
    members: Callable[[], Sequence[Ask]],
    *,
    changed: Callable[[Delta], None],
    rng: random.Random,
    pause_s: tuple[float, float] = PAUSE_S,
) -> None:
    """Keep a view up to date until cancelled; `changed` hears of each delta after the view has taken it.

    `members` returns how to ask each host that could answer, best first: a call returns when something has changed
    after an index, or after a while with nothing.
    """
    place = 0
    while True:
        asks = members()
        try:
            if not asks:
                raise PlatformError("no member to follow is known")
            delta = await asks[place % len(asks)](view.index)
        except PlatformError as error:
            log.info("a thin member asks another host", extra={"error": error.message})
            place += 1
            await asyncio.sleep(rng.uniform(*pause_s))
            continue
        view.take(delta)
        changed(delta)


def _decode(type_: type[R], item: Item) -> R:
    resource = msgspec.msgpack.decode(item.body, type=type_)
    return msgspec.structs.replace(resource, revision=item.revision)
