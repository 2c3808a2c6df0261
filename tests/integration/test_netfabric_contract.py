"""What every network driver keeps to: the real one in a host's namespace and its in-memory twin, and that of a plug-in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from core.model.mesh import Host
from core.model.network import DistributedSwitch, PortGroup
from netfabric.driver import NetworkReport
from netfabric.memory import InMemoryNetwork
from netfabric.plan import NetworkView, desired_network
from nodeagent.plugins.drivers import Choice
from nodeagent.plugins.plugins import Plugins
from tests.integration.netfabric_hosts import LabHost, lab_of, poll, sh


class Subject(Protocol):
    """A driver under test, and a way to plug a guest into port group 100."""

    async def apply(self, view: NetworkView) -> tuple[int, list[str]]: ...
    async def teardown(self) -> list[str]: ...
    async def port_groups(self) -> list[int]: ...
    def plug(self) -> None: ...
    def unplug(self) -> None: ...


EXAMPLE = Path(__file__).parents[1] / "example_plugin"


class Memory:
    def __init__(self, host_id: str, driver: Any = None) -> None:
        self.driver = driver or InMemoryNetwork()
        self._host_id = host_id

    async def apply(self, view: NetworkView) -> tuple[int, list[str]]:
        report = await self.driver.apply(desired_network(view, self._host_id))
        return report.changes, [p.message for p in report.problems]

    async def teardown(self) -> list[str]:
        return [p.message for p in (await self.driver.teardown()).problems]

    async def port_groups(self) -> list[int]:
        return list(await self.driver.port_groups())

    def plug(self) -> None:
        self.driver.plugged.add(100)

    def unplug(self) -> None:
        self.driver.plugged.clear()


class Linux:
    def __init__(self, host: LabHost) -> None:
        self._host = host

    async def apply(self, view: NetworkView) -> tuple[int, list[str]]:
        answer = self._host.try_apply(view)
        return answer.changes, answer.problems

    async def teardown(self) -> list[str]:
        return self._host.teardown().problems

    async def port_groups(self) -> list[int]:
        return self._host.port_groups()

    def plug(self) -> None:
        sh(*f"ip -n {self._host.ns} link add tap0 type veth peer name out0".split())
        sh(*f"ip -n {self._host.ns} link set tap0 master kbr100".split())

    def unplug(self) -> None:
        sh(*f"ip -n {self._host.ns} link del tap0".split())
        poll(lambda: "tap0" not in self._host.links())


def port_group(vni: int, **changes: object) -> PortGroup:
    fields: dict[str, object] = {
        "cidr": f"10.{vni % 250}.0.0/24",
        "service_ip": f"10.{vni % 250}.0.2",
        "pool_first": f"10.{vni % 250}.0.10",
        "pool_last": f"10.{vni % 250}.0.99",
    }
    return PortGroup(
        id=f"pg{vni}", name=f"n{vni}", switch_id="switch", vni=vni, **(fields | changes)
    )


@pytest.fixture(params=["memory", "plug-in", pytest.param("linux", marks=pytest.mark.integration)])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Subject, NetworkView]]:
    """Give a driver and a view with its host and nothing else."""
    if request.param != "linux":
        driver = None
        if request.param == "plug-in":
            request.getfixturevalue("monkeypatch").syspath_prepend(str(EXAMPLE))
            choice = Choice(network="planned", firewall="remembered")
            drivers = Plugins().drivers.choose(choice, host_id="h1", run_dir=Path("/nowhere"))
            assert not drivers.fault
            driver = drivers.network
        host = Host(id="h1", name="h1", cluster_id="cluster", address="10.77.0.1")
        switch = DistributedSwitch(id="switch", name="switch", cluster_ids=("cluster",))
        yield Memory("h1", driver), NetworkView(hosts=(host,), switches=(switch,))
        return
    with lab_of(1) as lab:
        lab.change(port_groups=())
        yield Linux(lab.hosts[0]), lab.view


def with_groups(view: NetworkView, *groups: PortGroup) -> NetworkView:
    return NetworkView(hosts=view.hosts, switches=view.switches, port_groups=groups)


async def test_applying_a_plan_twice_changes_nothing(case: tuple[Subject, NetworkView]):
    subject, empty = case
    view = with_groups(empty, port_group(100), port_group(16_777_215))
    changes, problems = await subject.apply(view)
    assert changes > 0
    assert not problems
    assert await subject.port_groups() == [100, 16_777_215]
    assert await subject.apply(view) == (0, [])


async def test_port_groups_come_and_go_with_the_plan(case: tuple[Subject, NetworkView]):
    subject, empty = case
    await subject.apply(with_groups(empty, port_group(100), port_group(200)))
    changes, problems = await subject.apply(with_groups(empty, port_group(200, mtu=1400)))
    assert changes > 0
    assert not problems
    assert await subject.port_groups() == [200]


async def test_a_port_group_with_a_guest_is_never_removed(case: tuple[Subject, NetworkView]):
    subject, empty = case
    await subject.apply(with_groups(empty, port_group(100)))
    subject.plug()
    await subject.apply(empty)
    assert await subject.port_groups() == [100]
    await subject.teardown()
    assert await subject.port_groups() == [100]
    subject.unplug()
    await subject.apply(empty)
    assert await subject.port_groups() == []


async def test_what_makes_no_sense_is_reported_and_stops_nothing_else(
    case: tuple[Subject, NetworkView],
):
    subject, empty = case
    view = with_groups(empty, port_group(100, cidr="nonsense"), port_group(200))
    _, problems = await subject.apply(view)
    assert len(problems) == 1
    assert "nonsense" in problems[0]
    assert await subject.port_groups() == [200]


async def test_teardown_removes_everything_and_may_be_repeated(case: tuple[Subject, NetworkView]):
    subject, empty = case
    await subject.apply(with_groups(empty, port_group(100)))
    for _ in range(2):
        assert await subject.teardown() == []
        assert await subject.port_groups() == []


async def test_a_failing_port_group_refuses_plugging_and_stops_no_other():
    driver = InMemoryNetwork()
    driver.failures[100] = "no such kernel"
    view = NetworkView(
        hosts=(Host(id="h1", name="h1", cluster_id="cluster", address="10.77.0.1"),),
        switches=(DistributedSwitch(id="switch", name="switch", cluster_ids=("cluster",)),),
        port_groups=(port_group(100), port_group(200)),
    )
    report: NetworkReport = await driver.apply(desired_network(view, "h1"))
    assert not report.ok
    assert report.plug_refusal(100) == "switch: no such kernel"
    assert report.plug_refusal(200) == ""
