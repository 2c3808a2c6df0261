"""The network of the example: a network that exists only as a plan, behind whatever firewall the host has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from netfabric.driver import FirewallDriver, NetworkReport
from netfabric.memory import InMemoryNetwork
from netfabric.plan import NetworkPlan


class Planned(InMemoryNetwork):
    """Filters first, then plugs in."""

    def __init__(self, firewall: FirewallDriver) -> None:
        super().__init__()
        self._filter = firewall

    async def apply(self, plan: NetworkPlan) -> NetworkReport:
        """Bring the plan about; an error of the firewall keeps everything as it is."""
        filtered = await self._filter.apply(plan)
        report = await super().apply(plan)
        return replace(report, changes=report.changes + filtered)

    async def teardown(self) -> NetworkReport:
        """Remove everything; the firewall stays as long as a guest is plugged in."""
        report = await super().teardown()
        removed = 0 if await self.port_groups() else await self._filter.remove()
        return replace(report, changes=report.changes + removed)


def planned(*, host_id: str, run_dir: Path, firewall: FirewallDriver) -> Planned:
    """Return the network of a host behind the firewall that its settings name."""
    del host_id, run_dir
    return Planned(firewall)
