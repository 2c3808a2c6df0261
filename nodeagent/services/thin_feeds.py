"""What this host tells thin members: each asks for what concerns itself, and gets an answer once something changed.

Called by the mesh's RPC, so the asking host is known by its certificate and hears of nothing but its own part.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from core.errors import UnavailableError
from nodeagent.node import Node
from raftstate.filtered import Concerns, Delta, HostFeed

WAIT_S = 25.0
IDLE_S = 120.0
FEEDS_MAX = 2_000


class AskThin(msgspec.Struct, frozen=True, kw_only=True):
    """What changed for the asking host after `index`?"""

    index: int


@dataclass(slots=True)
class _Feed:
    feed: HostFeed
    used_s: float
    busy: bool = False


class ThinFeeds:
    """One feed for each thin member that has asked lately."""

    def __init__(self, node: Node, *, idle_s: float = IDLE_S, feeds_max: int = FEEDS_MAX) -> None:
        self._node, self._idle_s, self._feeds_max = node, idle_s, feeds_max
        self._concerns = Concerns(node.store.machine)
        self._feeds: dict[str, _Feed] = {}

    async def answer(self, host_id: str, question: AskThin, *, wait_s: float = WAIT_S) -> Delta:
        """Return what changed for a host after an index, after `wait_s` at the latest.

        Raises:
            UnavailableError: too many ask, or this host asks twice at once.
        """
        kept = self._feed_of(host_id)
        if kept.busy:
            raise UnavailableError("this host asks already: wait for that answer")
        kept.busy = True
        try:
            async with asyncio.timeout(wait_s):
                return await kept.feed.next(question.index)
        except TimeoutError:
            return kept.feed.since(question.index)
        finally:
            kept.busy, kept.used_s = False, self._node.clock.monotonic_s()

    def _feed_of(self, host_id: str) -> _Feed:
        now_s = self._node.clock.monotonic_s()
        for other, kept in list(self._feeds.items()):
            if not kept.busy and now_s - kept.used_s > self._idle_s:
                kept.feed.close()
                del self._feeds[other]
        if host_id not in self._feeds:
            if len(self._feeds) >= self._feeds_max:
                raise UnavailableError("too many thin members follow this host: ask another")
            store = self._node.store
            feed = HostFeed(store.machine, store.hub, self._concerns, host_id)
            self._feeds[host_id] = _Feed(feed, now_s)
        return self._feeds[host_id]
