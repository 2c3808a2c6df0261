"""Recording of events: what happened to which resource, replicated and readable at any agent.

Used by controllers and workflows. Recording never fails the work that it tells of.
"""

from __future__ import annotations

import logging

from core.clock import new_id
from core.errors import PlatformError
from core.model import Event, Resource, Severity, key_of
from nodeagent.node import Node

log = logging.getLogger(__name__)


class EventLog:
    """Writes events in this host's name."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def make(
        self, code: str, subject: Resource, message: str, *, severity: Severity = Severity.NOTICE
    ) -> Event:
        """Return an event that is not stored yet, to be part of the transaction it tells of."""
        id_ = new_id(self._node.rng)
        return Event(
            id=id_,
            name=id_,
            code=code,
            subject=key_of(subject),
            subject_name=subject.name,
            message=message,
            severity=severity,
            host_id=self._node.host_id,
            created_ms=self._node.clock.wall_ms(),
        )

    async def record(
        self, code: str, subject: Resource, message: str, *, severity: Severity = Severity.NOTICE
    ) -> None:
        """Store an event; a store without quorum is logged and otherwise ignored."""
        event = self.make(code, subject, message, severity=severity)
        try:
            await self._node.store.apply(puts=(event,))
        except PlatformError as error:
            log.warning(
                "an event could not be recorded", extra={"event": code, "error": error.message}
            )
