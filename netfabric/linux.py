"""The real network of a host: firewall, then switch, then DHCP, in the current network namespace.

Built by the composition root of `nodeagent`; needs root. It exists to give the three parts one order and one report.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from core.errors import PlatformError
from netfabric.dhcp import DhcpServices
from netfabric.driver import FirewallDriver, NetworkProblem, NetworkReport, Part
from netfabric.firewall import Firewall
from netfabric.names import BRIDGE_PREFIX, vni_of_link
from netfabric.plan import NetworkPlan
from netfabric.switch import Switch


class LinuxNetwork:
    """`NetworkDriver` on the kernel of this host. `run_dir` must outlive the agent, but not the boot.

    `firewall` filters instead of nftables.
    """

    def __init__(
        self, run_dir: Path = Path("/run/kvorum"), *, firewall: FirewallDriver | None = None
    ) -> None:
        self._firewall: FirewallDriver = firewall or nftables(run_dir)
        self._switch = Switch()
        self._dhcp = DhcpServices(run_dir / "dnsmasq")
        self._lock = asyncio.Lock()

    async def apply(self, plan: NetworkPlan) -> NetworkReport:
        """See `NetworkDriver.apply`."""
        async with self._lock:
            return await self._apply(plan)

    async def teardown(self) -> NetworkReport:
        """See `NetworkDriver.teardown`."""
        async with self._lock:
            report = await self._apply_forwarding(NetworkPlan(host_id="", address=""))
            if await self.port_groups():
                return report
            try:
                removed = await self._firewall.remove()
            except PlatformError as error:
                return _with(report, 0, _problem(Part.FIREWALL, error))
            return _with(report, removed)

    async def port_groups(self) -> tuple[int, ...]:
        """See `NetworkDriver.port_groups`."""
        links = await self._switch.links()
        bridges = (name for name in links if name.startswith(BRIDGE_PREFIX))
        return tuple(sorted(vni for name in bridges if (vni := vni_of_link(name)) is not None))

    async def _apply(self, plan: NetworkPlan) -> NetworkReport:
        report = NetworkReport(
            problems=tuple(NetworkProblem(Part.PLAN, 0, line) for line in plan.refused)
        )
        try:
            report = _with(report, await self._firewall.apply(plan))
        except (PlatformError, OSError) as error:
            report = _with(report, 0, _problem(Part.FIREWALL, error))
        rest = await self._apply_forwarding(plan)
        return _with(report, rest.changes, *rest.problems)

    async def _apply_forwarding(self, plan: NetworkPlan) -> NetworkReport:
        try:
            switch = await self._switch.apply(plan)
        except (PlatformError, OSError) as error:
            return NetworkReport(0, (_problem(Part.SWITCH, error),))
        dhcp = await self._dhcp.apply(plan, switch.links, switch.kept)
        return NetworkReport(switch.changes + dhcp.changes, (*switch.problems, *dhcp.problems))


def nftables(run_dir: Path) -> Firewall:
    """Return the product's own firewall."""
    return Firewall(run_dir / "firewall-generation")


def _problem(part: Part, error: Exception) -> NetworkProblem:
    return NetworkProblem(part, 0, str(error))


def _with(report: NetworkReport, changes: int, *problems: NetworkProblem) -> NetworkReport:
    return dataclasses.replace(
        report, changes=report.changes + changes, problems=(*report.problems, *problems)
    )
