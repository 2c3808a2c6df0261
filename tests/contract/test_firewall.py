"""One contract for every firewall: nftables in a network namespace of its own, and that of a plug-in."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.model.compute import VM
from core.model.mesh import Host
from core.model.network import (
    Direction,
    DistributedSwitch,
    Nic,
    PortGroup,
    Protocol,
    Rule,
    SecurityGroup,
)
from netfabric.driver import FirewallDriver
from netfabric.linux import nftables
from netfabric.plan import NetworkPlan, NetworkView, desired_network
from nodeagent.plugins.drivers import FIREWALLS_GROUP
from nodeagent.plugins.plugins import Plugins

EXAMPLE = Path(__file__).parents[1] / "example_plugin"
CLONE_NEWNET = 0x40000000

Law = Callable[[FirewallDriver], Awaitable[None]]


def in_own_network(work: Callable[[], None]) -> None:
    """Run something on a thread with an empty network of its own, which ends with it."""

    def inside() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        work()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(inside).result()


@pytest.fixture(params=["plug-in", pytest.param("nftables", marks=pytest.mark.integration)])
def hold(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Law], None]:
    """Return what holds a firewall to a law."""
    if request.param == "plug-in":
        request.getfixturevalue("monkeypatch").syspath_prepend(str(EXAMPLE))
        plugins = Plugins()
        assert [p for p in plugins.reports() if p.group == FIREWALLS_GROUP]

        def make() -> FirewallDriver:
            return plugins.drivers.firewall("remembered", host_id="h1", run_dir=tmp_path)

        return lambda law: asyncio.run(law(make()))
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    return lambda law: in_own_network(lambda: asyncio.run(law(nftables(tmp_path))))


def plan(*rules: Rule, vms: int = 1) -> NetworkPlan:
    """Return the plan of a host with some guests in one security group."""
    group = PortGroup(
        id="pg", name="lan", switch_id="switch", vni=100, cidr="10.9.0.0/24",
        service_ip="10.9.0.2", pool_first="10.9.0.10", pool_last="10.9.0.99",
    )  # fmt: skip
    view = NetworkView(
        hosts=(Host(id="h1", name="h1", cluster_id="c", address="10.77.0.1"),),
        switches=(DistributedSwitch(id="switch", name="switch", cluster_ids=("c",)),),
        port_groups=(group,),
        security_groups=(SecurityGroup(id="sg", name="web", data_center_id="dc", rules=rules),),
        vms=tuple(
            VM(id=f"vm{n}", name=f"vm{n}", cluster_id="c", host_id="h1", cpus=1, memory_mib=64)
            for n in range(vms)
        ),
        nics=tuple(
            Nic(
                id=f"0f0f0f0f-0000-4000-8000-00000000000{n}", name=f"vm{n}.0", vm_id=f"vm{n}", port_group_id="pg",
                mac=f"52:54:00:00:00:0{n}", ip=f"10.9.0.1{n}", security_group_ids=("sg",),
            )
            for n in range(vms)
        ),
    )  # fmt: skip
    made = desired_network(view, "h1")
    assert not made.refused
    return made


OPEN = Rule(
    id="r1", direction=Direction.INGRESS, protocol=Protocol.TCP, port_first=22, port_last=22
)
OTHER = Rule(
    id="r2", direction=Direction.INGRESS, protocol=Protocol.TCP, port_first=80, port_last=80
)


def test_the_same_plan_again_changes_nothing(hold):
    async def law(firewall: FirewallDriver) -> None:
        assert await firewall.apply(plan(OPEN)) > 0
        assert await firewall.apply(plan(OPEN)) == 0

    hold(law)


@pytest.mark.parametrize("other", [plan(OTHER), plan(OPEN, OTHER), plan(), plan(OPEN, vms=2)])
def test_another_rule_or_guest_is_a_change_each_way(hold, other):
    async def law(firewall: FirewallDriver) -> None:
        await firewall.apply(plan(OPEN))
        assert await firewall.apply(other) > 0
        assert await firewall.apply(other) == 0
        assert await firewall.apply(plan(OPEN)) > 0

    hold(law)


def test_it_is_removed_whole_and_only_once_and_can_come_back(hold):
    async def law(firewall: FirewallDriver) -> None:
        await firewall.apply(plan(OPEN))
        assert await firewall.remove() > 0
        assert await firewall.remove() == 0
        assert await firewall.apply(plan(OPEN)) > 0

    hold(law)


def test_a_host_without_guests_is_no_special_case(hold):
    async def law(firewall: FirewallDriver) -> None:
        await firewall.apply(plan(vms=0))
        assert await firewall.apply(plan(vms=0)) == 0

    hold(law)
