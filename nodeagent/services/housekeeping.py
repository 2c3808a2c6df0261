"""Keeps the state small: old events, audits, ended tasks, drills, sessions, fences of broken-off deletions, used join tokens and nonces go. Runs on the leader, once a minute."""

from __future__ import annotations

import asyncio
import logging

from core.errors import PlatformError
from core.model import Audit, Deletion, Drill, Event, JoinToken, Resource, Session, Task, kind_of
from nodeagent.identity.nonces import forget
from nodeagent.node import Node
from nodeagent.services.task_journal import ENDED

log = logging.getLogger(__name__)

ROUND_S = 60.0
EVENTS_KEPT = 5000
TASKS_KEPT_MS = 7 * 86_400_000
TOKENS_KEPT_MS = 86_400_000
FENCES_KEPT_MS = 60_000
AUDITS_KEPT = 20_000
AUDITS_KEPT_MS = 180 * 86_400_000
DRILLS_KEPT = 200
AT_ONCE = 500


class Housekeeping:
    """Deletes what nobody will ask for any more."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def run(self) -> None:
        """Clean until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            if not self._node.engine.is_leader():
                continue
            try:
                if old := self.outdated():
                    await self._node.store.apply(deletes=old)
                await forget(self._node.store, now_ms=self._node.clock.wall_ms())
            except PlatformError as error:
                log.info("housekeeping waits", extra={"error": error.message})

    def outdated(self) -> list[Resource]:
        """Return what may go now, a limited number at a time."""
        store, now_ms = self._node.store, self._node.clock.wall_ms()
        events = store.since(Event, 0, limit=EVENTS_KEPT + AT_ONCE)
        old: list[Resource] = list(events[: max(0, len(events) - EVENTS_KEPT)])
        old += [
            t for t in store.all(Task) if t.state in ENDED and t.ended_ms < now_ms - TASKS_KEPT_MS
        ]
        old += [t for t in store.all(JoinToken) if t.expires_ms < now_ms - TOKENS_KEPT_MS]
        old += [f for f in store.all(Deletion) if f.created_ms < now_ms - FENCES_KEPT_MS]
        old += [s for s in store.all(Session) if s.expires_ms < now_ms]
        ended = sorted((d for d in store.all(Drill) if d.ended_ms), key=lambda d: d.ended_ms)
        old += ended[: max(0, len(ended) - DRILLS_KEPT)]
        return [*old[:AT_ONCE], *self._old_audits(now_ms)]

    def _old_audits(self, now_ms: int) -> list[Audit]:
        """Return the oldest audits beyond the number and the time that are kept, looking at a few only."""
        store = self._node.store
        beyond = max(0, store.machine.number_of(kind_of(Audit)) - AUDITS_KEPT)
        oldest = store.since(Audit, 0, limit=AT_ONCE)[:AT_ONCE]
        return [
            audit
            for n, audit in enumerate(oldest)
            if n < beyond or audit.created_ms < now_ms - AUDITS_KEPT_MS
        ]
