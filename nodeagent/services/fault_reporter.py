"""Raises an alarm when this host falls silent: its state differs, its version is too old, its disk is full.

Such a host can't write the alarm into the log itself, so it asks the other members to, one after the other. The engine
decides when to fall silent; what an operator has to do is in the reason that it gives.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import msgspec

from core.errors import PlatformError
from core.mesh.client import Nothing
from core.model import Host, Severity
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

ROUND_S = 2.0
CODE = "host-silent"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why the calling host takes no part."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


async def record_fault(node: Node, host: Host, reason: str) -> None:
    """Write down, as an alarm, what a host says of itself.

    Raises:
        UnavailableError: no quorum; ask another member.
    """
    message = f"host {host.name} takes no part in the cluster's decisions: {reason}"
    event = EventLog(node).make(CODE, host, message, severity=Severity.ALARM)
    await node.store.apply(puts=(event,))


class FaultReporter:
    """Watches this host's engine."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told = ""

    async def run(self) -> None:
        """Look every other second until cancelled; each reason is told once."""
        while True:
            reason = self._node.engine.fault()
            if not reason:
                self._told = ""
            elif reason != self._told and await self._tell(reason[:1000]):
                self._told = reason
            await asyncio.sleep(ROUND_S)

    async def _tell(self, reason: str) -> bool:
        """Have one of the other members write it down; False if none could."""
        hosts = [h for h in self._node.store.all(Host) if h.id != self._node.host_id]
        linked = self._node.engine.connected()
        for host in sorted(hosts, key=lambda h: h.id not in linked)[:8]:
            try:
                await self._node.mesh.call(host, "/mesh/fault", Fault(reason=reason), Nothing)
            except PlatformError as error:
                log.info("can't report a fault", extra={"to": host.name, "error": error.message})
            else:
                return True
        return False
