"""Keeps this host's own record true: version, processors, memory, accelerator, watchdog.

Placement counts on it. Asks libvirt once after each start of the agent, and again now and then.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from core.errors import PlatformError
from nodeagent.joining.messages import VERSION
from nodeagent.node import Node

log = logging.getLogger(__name__)

ROUND_S = 60.0
RETRY_S = 3.0


class HostReporter:
    """Writes what is true of this host."""

    def __init__(self, node: Node, accelerator: str) -> None:
        self._node = node
        self._accelerator = accelerator

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                await self._node.hypervisor.wait_connected()
                await self._report()
                await asyncio.sleep(ROUND_S)
            except PlatformError as error:
                log.info("this host can't be reported yet", extra={"error": error.message})
                await asyncio.sleep(RETRY_S)

    async def _report(self) -> None:
        facts = await self._node.hypervisor.host_facts()
        status = await self._node.guard.status()
        host = self._node.host()
        true = replace(
            host,
            version=VERSION,
            cpus=facts.cpus,
            memory_mib=facts.memory_mib,
            arch=facts.architecture,
            accelerator=self._accelerator,
            watchdog=status.watchdog.kind,
        )
        if true != host:
            await self._node.store.apply(puts=(true,))
