"""Orderly shutdowns in the lab: VMs run elsewhere long before any proof by time, or wait for a host that is back soon."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from core.command import CommandError
from tests.integration.cluster import BOOTED_S, Cluster
from tests.integration.conftest import in_own_loop, poll
from tools.demo.outside import hosts_running, last_write
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HOOK = """
import asyncio, sys
from core.paths import Paths
from ha.shutdown import Going
from nodeagent.shutdown_hook import tell_agent
print(asyncio.run(tell_agent(str(Paths().api_socket), Going(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    return in_own_loop(Cluster.form(lab, tiny_image))


async def goes_down(lab: Lab, host: str, going: str) -> dict[str, Any]:
    """Do what systemd does: have the agent end the guests, then stop everything in order."""
    argv = (sys.executable, "-c", HOOK, going)
    told: dict[str, Any] = json.loads(await lab.text(host, *argv, timeout_s=200.0))
    assert lab.qemus(host) == (), "no guest is left when the rest is stopped"
    await lab.shutdown(host)
    return told


async def test_a_host_that_is_powered_off_hands_its_vms_over(cluster: Cluster) -> None:
    lab = cluster.lab
    h1, h2, _ = lab.hosts
    await poll(cluster.every_lease_is_fresh, 30.0, every_s=0.5)
    vm = await cluster.create("handed", "--host", h2)
    await poll(lambda: _writes(cluster, vm), BOOTED_S, every_s=0.3)
    told = await goes_down(lab, h2, "power-off")
    assert told["given"] == ["handed"]
    # The other hosts needed no proof: it was given to them before the host was off.
    shown = await cluster.vm("handed", h1)
    assert shown["host_name"] != h2

    async def runs() -> bool:
        return len(hosts_running(lab, vm["id"])) == 1

    await poll(runs, 30.0, every_s=0.2)
    await lab.power_on(h2)
    await poll(cluster.every_lease_is_fresh, 60.0, every_s=0.5)
    await poll(lambda: _takes_vms(cluster, h2), 30.0, every_s=0.5)
    await cluster.delete("handed")


async def test_vms_of_a_host_that_reboots_wait_for_it(cluster: Cluster) -> None:
    lab = cluster.lab
    h1, h2, _ = lab.hosts
    vm = await cluster.create("waits", "--host", h2)
    await poll(lambda: _writes(cluster, vm), BOOTED_S, every_s=0.3)
    told = await goes_down(lab, h2, "reboot")
    assert told["waiting"] == ["waits"]

    async def is_down() -> bool:
        events = await cluster.operator.asks(h1, "event", "list")
        return any(event["code"] == "host-down" for event in events)

    await poll(is_down, 60.0, every_s=1.0)
    assert (await cluster.vm("waits", h1))["host_name"] == h2
    await lab.power_on(h2)
    await poll(lambda: hosts_running(lab, vm["id"]) == [h2], 90.0, every_s=0.5)
    await poll(lambda: _takes_vms(cluster, h2), 30.0, every_s=0.5)
    await cluster.delete("waits")


async def _takes_vms(cluster: Cluster, host: str) -> bool:
    try:
        shown = await cluster.operator.asks(cluster.lab.hosts[0], "host", "show", host)
    except CommandError:
        return False
    return not shown["down_boot_id"] and not shown["frozen"]


async def _writes(cluster: Cluster, vm: dict[str, Any]) -> object:
    disks = await cluster.operator.asks(cluster.lab.hosts[0], "disk", "list")
    (disk,) = (d for d in disks if d["vm_id"] == vm["id"])
    return await last_write(cluster.lab.shared / "disks" / f"{disk['id']}.qcow2")
