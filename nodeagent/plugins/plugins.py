"""All plug-ins of this agent, loaded once when the host's part of the cluster is put together.

Made by `nodeagent.member`; the API and the services take from it what they need. What became of each entry point is in
`reports`, which `nodeagent.services.host_reporter` writes to the host's record, so it is seen at any agent.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint

from msgspec.structs import replace

from core.model import Plugin, PluginState, Severity
from nodeagent.node import Node
from nodeagent.plugins.allocators import Allocators
from nodeagent.plugins.drivers import HostDrivers
from nodeagent.plugins.loading import WHY_LENGTH_MAX, Group, installed, load, refused_line
from nodeagent.plugins.observing import Observers
from nodeagent.plugins.storage_drivers import StorageDrivers
from nodeagent.plugins.system_tags import SystemTags
from nodeagent.services.event_log import EventLog
from nodeagent.workflows.registry import Registering


class Plugins:
    """What plug-ins give to this agent, and what became of each."""

    def __init__(
        self,
        found: Iterable[EntryPoint] | None = None,
        *,
        allocator: str = "",
        types: tuple[Plugin, ...] = (),
    ) -> None:
        """Load what is installed, or what is given. `types` are the resource types, which are loaded before.

        Raises:
            FatalError: a workflow of the product itself is broken.
        """
        registering = Registering()
        self.observers = Observers()
        self.system_tags = SystemTags(self.tell)
        self.storage_drivers = StorageDrivers()
        self.allocators = Allocators(self.tell, allocator)
        self.drivers = HostDrivers()
        groups: tuple[Group, ...] = (
            *registering.groups(),
            self.observers.group(),
            self.system_tags.group(),
            self.storage_drivers.group(),
            self.allocators.group(),
            *self.drivers.groups(),
        )
        loaded = load(groups, installed(groups) if found is None else found)
        self._reports = (*types, *loaded)
        self.registry = registering.registry(loaded)

    def reports(self) -> tuple[Plugin, ...]:
        """Return what became of each entry point, and how it does now."""
        return self._reports

    def tell(self, group: str, name: str, why: str) -> None:
        """Note that something of a plug-in fails, or with an empty text that it works again."""
        state = PluginState.FAILING if why else PluginState.ACTIVE
        self._reports = tuple(
            replace(one, state=state, why=why[:WHY_LENGTH_MAX])
            if (one.group, one.name) == (group, name) and one.state is not PluginState.REFUSED
            else one
            for one in self._reports
        )

    async def report_refused(self, node: Node, events: EventLog) -> None:
        """Let everybody see which plug-ins this host goes without, and why."""
        for plugin in self._reports:
            if plugin.state is PluginState.REFUSED:
                await events.record(
                    "plugin-refused", node.host(), refused_line(plugin), severity=Severity.WARNING
                )
