"""Being told of changes: watches for consumers in this process, and the changes since a log index for those who resume.

`raftstate.store` owns the hub; the state machine tells it of each applied entry. A watch gathers keys while its
consumer is busy. Resuming by index serves consumers that outlive a connection (event streams, feeds of thin
members): they name the last index they have seen, here or at another agent, and get what changed since, or learn
that they must begin anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from raftstate.state.machine import Change

EVERYTHING = "*"
ENTRIES_KEPT = 20_000
KEYS_KEPT = 200_000


class Watch:
    """Tells one consumer which keys changed; changes coalesce while it is busy, none is lost.

    `kinds` None: keys of every kind.
    """

    def __init__(self, kinds: frozenset[str] | None) -> None:
        self._kinds = None if kinds is None else kinds | {EVERYTHING}
        self._keys: set[str] = {EVERYTHING}
        self._wake = asyncio.Event()
        self._wake.set()

    def offer(self, changed: Mapping[str, set[str]]) -> None:
        """Add the changed keys that this watch is for, given by their kinds; `EVERYTHING` is for all watches."""
        for kind, keys in changed.items():
            if self._kinds is None or kind in self._kinds:
                self._keys |= keys
                self._wake.set()

    async def next(self) -> frozenset[str]:
        """Return the keys changed since the last call; at first, and after a snapshot, `{"*"}`."""
        await self._wake.wait()
        keys, self._keys = frozenset(self._keys), set()
        self._wake.clear()
        return keys

    async def __aiter__(self) -> AsyncIterator[frozenset[str]]:
        while True:
            yield await self.next()


@dataclass(frozen=True, slots=True)
class Since:
    """What changed after an index, up to and including `index`: keys that exist now, and keys that don't any more.

    A key that was deleted and made again is in `puts`, one that came and went is in `deletes`.
    """

    index: int
    puts: frozenset[str]
    deletes: frozenset[str]


class WatchHub:
    """Hands each change to all watches, and remembers the last ones: a bounded number of entries and of keys."""

    def __init__(
        self, index: int, *, entries_kept: int = ENTRIES_KEPT, keys_kept: int = KEYS_KEPT
    ) -> None:
        self._index = index
        self._floor = index  # changes after it are all here
        self._ring: deque[Change] = deque()
        self._keys = 0
        self._entries_kept = entries_kept
        self._keys_kept = keys_kept
        self._watches: set[Watch] = set()
        self._everything_at = index
        self._changed_at: dict[str, int] = {}

    @property
    def index(self) -> int:
        """The index of the last log entry applied here."""
        return self._index

    def record(self, change: Change) -> None:
        """Take in what an applied entry changed."""
        self._index = change.index
        if change.everything:
            self._ring.clear()
            self._floor, self._keys = change.index, 0
            self._everything_at = change.index
            self._changed_at.clear()
            changed = {EVERYTHING: {EVERYTHING}}
        else:
            changed = {}
            for key in change.puts | change.deletes:
                changed.setdefault(_kind(key), set()).add(key)
            if changed:
                self._ring.append(change)
                self._keys += len(change.puts) + len(change.deletes)
                self._trim()
            for kind in changed:
                self._changed_at[kind] = change.index
        if changed:
            for watch in self._watches:
                watch.offer(changed)

    def changed_at(self, kinds: Iterable[str]) -> int:
        """Return the log index of the last change of any resource of these kinds, or of the beginning of this copy."""
        latest, changed_at = self._everything_at, self._changed_at
        for kind in kinds:  # a loop, as this is asked several times for each request
            if (index := changed_at.get(kind, 0)) > latest:
                latest = index
        return latest

    def _trim(self) -> None:
        while len(self._ring) > self._entries_kept or self._keys > self._keys_kept:
            oldest = self._ring.popleft()
            self._floor = oldest.index
            self._keys -= len(oldest.puts) + len(oldest.deletes)

    def since(self, index: int) -> Since | None:
        """Return what changed after `index`; None when that is no longer known: read everything anew.

        An index beyond this node's own is of an agent that is ahead: nothing has changed, and the answer keeps it.
        """
        if index < self._floor:
            return None
        puts: set[str] = set()
        deletes: set[str] = set()
        newer: list[Change] = []
        for change in reversed(self._ring):
            if change.index <= index:
                break
            newer.append(change)
        for change in reversed(newer):
            puts = (puts - change.deletes) | change.puts
            deletes = (deletes - change.puts) | change.deletes
        return Since(max(index, self._index), frozenset(puts), frozenset(deletes))

    def watch(self, kinds: frozenset[str] | None) -> Watch:
        """Return a watch on these kinds, or on all; pass it to `unwatch` when done."""
        watch = Watch(kinds)
        self._watches.add(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Stop telling a watch."""
        self._watches.discard(watch)


def _kind(key: str) -> str:
    return key.partition("/")[0]
