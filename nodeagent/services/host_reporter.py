"""Keeps this host's own record true: version, processors, memory, accelerator, watchdog, plug-ins.

Placement counts on it. Asks libvirt once after each start of the agent, and again now and then; a witness has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec.structs import replace

from core.errors import PlatformError
from core.model import Host, Plugin
from core.model.additions import added_types
from nodeagent.compute.missing_hypervisor import MissingHypervisor
from nodeagent.joining.messages import FEATURE_LEVEL, VERSION
from nodeagent.node import Node

log = logging.getLogger(__name__)

ROUND_S = 60.0
RETRY_S = 3.0


def collections_of_plugins() -> tuple[str, ...]:
    """Return the collections that plug-ins bring on this host."""
    return tuple(sorted(type_.PLURAL for type_ in added_types()))


class HostReporter:
    """Writes what is true of this host."""

    def __init__(
        self,
        node: Node,
        accelerator: str,
        plugins: Callable[[], tuple[Plugin, ...]] = lambda: (),
    ) -> None:
        self._node = node
        self._accelerator = accelerator
        self._plugins = plugins

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                if not self._knows_no_guests():
                    await self._node.hypervisor.wait_connected()
                await self._report()
                await asyncio.sleep(ROUND_S)
            except PlatformError as error:
                log.info("this host can't be reported yet", extra={"error": error.message})
                await asyncio.sleep(RETRY_S)

    async def _report(self) -> None:
        host = self._node.host()
        if self._knows_no_guests():
            told = replace(
                host,
                version=VERSION,
                feature_level=FEATURE_LEVEL,
                resource_types=collections_of_plugins(),
                plugins=self._plugins(),
                driver_fault="" if host.witness else self._node.driver_fault,
            )
            await self._write(host, told)
            return
        facts = await self._node.hypervisor.host_facts()
        status = await self._node.guard.status()
        host = self._node.host()
        true = replace(
            host,
            version=VERSION,
            feature_level=FEATURE_LEVEL,
            cpus=facts.cpus,
            memory_mib=facts.memory_mib,
            arch=facts.architecture,
            accelerator=self._accelerator,
            watchdog=status.watchdog.kind,
            plugins=self._plugins(),
            resource_types=collections_of_plugins(),
            hypervisor=self._node.hypervisor_name,
            driver_fault=self._node.driver_fault,
        )
        await self._write(host, true)

    def _knows_no_guests(self) -> bool:
        """Tell whether there is no hypervisor to ask. What it said before, such as which it is, stays in the record."""
        return self._node.host().witness or isinstance(self._node.hypervisor, MissingHypervisor)

    async def _write(self, host: Host, true: Host) -> None:
        if true != host:
            await self._node.store.apply(puts=(true,))
