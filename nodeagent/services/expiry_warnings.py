"""Warns, by events, that a certificate comes to its end: 30 days before, 7, 1, and when it is over.

The leader watches imported certificates and the authority's, each host its own, which should have been renewed by
itself long before. An event's id comes of the certificate and the days, so each is told once, whoever leads.
"""

from __future__ import annotations

import asyncio
import logging
import uuid

from msgspec.structs import replace

from core.errors import ConflictError, PlatformError
from core.identity.certificates import fingerprint, life_of
from core.model import ApiCertificate, Event, Mesh, Resource, Severity
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

ROUND_S = 1800.0
FIRST_LOOK_S = 60.0
DAY_MS = 86_400_000
DAYS = (0, 1, 7, 30)
CODE = "certificate-expiring"
NAMESPACE = uuid.UUID("b0b1f7ce-3f0c-4a53-9f57-0d7b6f2f4a1e")


def days_reached(not_after_ms: int, now_ms: int) -> int | None:
    """Return the least of `DAYS` that a certificate has no more left than; None when it has more than all."""
    return next((days for days in DAYS if not_after_ms - now_ms <= days * DAY_MS), None)


class ExpiryWarnings:
    """Looks at every certificate that this host answers for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def run(self) -> None:
        """Look twice an hour until cancelled."""
        pause_s = FIRST_LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = ROUND_S
            try:
                await self.look()
            except (PlatformError, OSError) as error:
                log.info("looking for old certificates waits", extra={"error": str(error)})

    async def look(self) -> None:
        """Tell of each certificate that has come a step nearer to its end.

        Raises:
            UnavailableError: no quorum.
        """
        node = self._node
        watched: list[tuple[str, str, Resource]] = [
            (
                f"the certificate of host {node.host_name}",
                node.paths.host_pem.read_text(),
                node.host(),
            )
        ]
        if node.engine.is_leader():
            mesh = node.store.need(Mesh, MESH_ID)
            watched.append(("the cluster's authority", mesh.ca_pem, mesh))
            watched += [
                (f"the certificate imported for {c.host_id or 'all hosts'}", c.chain_pem, c)
                for c in node.store.all(ApiCertificate)
            ]
        for what, certificate_pem, subject in watched:
            if (event := self._due(what, certificate_pem, subject)) is not None:
                try:
                    await node.store.apply(puts=(event,))
                except ConflictError:
                    log.debug("another host has told it")

    def _due(self, what: str, certificate_pem: str, subject: Resource) -> Event | None:
        _, end_ms = life_of(certificate_pem)
        now_ms = self._node.clock.wall_ms()
        days = days_reached(end_ms, now_ms)
        if days is None:
            return None
        id_ = str(uuid.uuid5(NAMESPACE, f"{fingerprint(certificate_pem)}/{days}"))
        if self._node.store.get(Event, id_) is not None:
            return None
        left = f"expires within {days} {'day' if days == 1 else 'days'}" if days else "has expired"
        severity = Severity.WARNING if days > 1 else Severity.ALARM
        message = f"{what} {left}: see 'kvorum certificate show'"
        event = EventLog(self._node).make(CODE, subject, message, severity=severity)
        return replace(event, id=id_, name=id_)
