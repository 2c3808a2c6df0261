"""A network that exists only as a plan, for tests of whatever drives one.

Same contract as `netfabric.linux`; tests plug guests in by hand and choose what shall fail.
"""

from __future__ import annotations

from netfabric.driver import NetworkProblem, NetworkReport, Part
from netfabric.plan import NetworkPlan, PortGroupPlan


class InMemoryNetwork:
    """`NetworkDriver` without a kernel.

    `plugged`: VNIs with a guest on the bridge. `failures`: VNI (0: all) to the message of a switch problem.
    `plans`: every plan applied, the newest last.
    """

    def __init__(self) -> None:
        self.plugged: set[int] = set()
        self.failures: dict[int, str] = {}
        self.plans: list[NetworkPlan] = []
        self._present: dict[int, PortGroupPlan | None] = {}
        self._firewall: tuple[object, ...] = ()

    async def apply(self, plan: NetworkPlan) -> NetworkReport:
        """See `NetworkDriver.apply`."""
        self.plans.append(plan)
        problems = [NetworkProblem(Part.PLAN, 0, line) for line in plan.refused]
        changes = 0
        firewall = (plan.groups, plan.members, tuple(g.ports for g in plan.port_groups))
        if firewall != self._firewall:
            self._firewall = firewall
            changes += 1
        for group in plan.port_groups:
            failure = self.failures.get(group.vni) or self.failures.get(0)
            if failure:
                problems.append(NetworkProblem(Part.SWITCH, group.vni, failure))
            elif self._present.get(group.vni) != group:
                self._present[group.vni] = group
                changes += 1
        changes += self._remove_all_but({group.vni for group in plan.port_groups})
        return NetworkReport(changes, tuple(problems))

    async def teardown(self) -> NetworkReport:
        """See `NetworkDriver.teardown`."""
        changes = self._remove_all_but(set())
        if not self._present:
            self._firewall = ()
        return NetworkReport(changes)

    async def port_groups(self) -> tuple[int, ...]:
        """See `NetworkDriver.port_groups`."""
        return tuple(sorted(self._present))

    def _remove_all_but(self, wanted: set[int]) -> int:
        gone = [vni for vni in self._present if vni not in wanted and vni not in self.plugged]
        for vni in gone:
            del self._present[vni]
        return len(gone)
