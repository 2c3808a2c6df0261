"""The seam between the network controller and whatever really forwards packets.

`nodeagent` calls `NetworkDriver.apply` after each change of the plan and every half minute besides, which is
what restarts a DHCP service that died or mends what somebody changed by hand. `netfabric.linux` is the real
one, `netfabric.memory` its twin for tests. `FirewallDriver` is the seam below: what `netfabric.linux` filters with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from netfabric.plan import NetworkPlan


class Part(StrEnum):
    """Which part of the network a problem is in."""

    PLAN = "plan"
    FIREWALL = "firewall"
    SWITCH = "switch"
    DHCP = "dhcp"


@dataclass(frozen=True, slots=True)
class NetworkProblem:
    """Something that could not be brought about. `vni` 0: it concerns all port groups."""

    part: Part
    vni: int
    message: str


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What came of one `apply`: how many things were changed, and what went wrong."""

    changes: int = 0
    problems: tuple[NetworkProblem, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether everything is as planned."""
        return not self.problems

    def plug_refusal(self, vni: int) -> str:
        """Return why no guest may be plugged into a port group now, or an empty string.

        Without firewall a guest would be unprotected, without bridge unconnected. A broken DHCP service is no
        reason: it may be back before the guest asks.
        """
        for problem in self.problems:
            if problem.part in (Part.FIREWALL, Part.SWITCH) and problem.vni in (0, vni):
                return f"{problem.part}: {problem.message}"
        return ""


class FirewallDriver(Protocol):
    """Lets through what a plan's security groups allow and nothing else. One writer per host: calls never overlap.

    Both raise `PlatformError` or `OSError` when it could not be done; what was in place before then stays.
    """

    async def apply(self, plan: NetworkPlan) -> int:
        """Bring about what a plan says, all of it or nothing; return the number of changes, 0 when it was so already.

        Connections that stay allowed live on. Called before anything of the plan is plugged in, and now and then besides.
        """
        ...

    async def remove(self) -> int:
        """Remove everything of ours; return how many things there were."""
        ...


class NetworkDriver(Protocol):
    """Brings one host's network in line with a plan. One writer per host: calls never overlap."""

    async def apply(self, plan: NetworkPlan) -> NetworkReport:
        """Change only what differs from the plan. Idempotent; survives a restart of the agent without touching
        traffic. A port group that fails does not stop the others. A port group no longer planned is removed,
        unless a guest is still plugged into it.
        """
        ...

    async def teardown(self) -> NetworkReport:
        """Remove everything of ours, except port groups with a guest plugged in and, then, the firewall."""
        ...

    async def port_groups(self) -> tuple[int, ...]:
        """Return the VNIs of the port groups that exist on this host, sorted."""
        ...
