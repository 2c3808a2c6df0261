"""Maintenance in the lab: real guests leave a host live, through killed agents and a reboot of it, and come back."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from core.command import CommandError
from tests.integration.cluster import BOOTED_S, Cluster
from tests.integration.conftest import in_own_loop, poll
from tools.demo.outside import hosts_running, last_write
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

MOVED_S = 120.0


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    return in_own_loop(Cluster.form(lab, tiny_image))


async def test_a_host_is_emptied_rebooted_and_filled_again(cluster: Cluster) -> None:
    lab, operator = cluster.lab, cluster.operator
    h1, h2, _ = lab.hosts
    await poll(cluster.every_lease_is_fresh, 30.0, every_s=0.5)
    vms = [await cluster.create(f"web{n}", "--host", h2) for n in (1, 2, 3)]
    words = ("--image", "tiny", "--memory", "128MiB", "--data-storage", "local", "--host", h2)
    await operator.types(h1, "vm", "create", "pinned", *words)
    pinned = await cluster.vm("pinned")
    disk = await _disk_of(cluster, vms[0])
    boot = (await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)).boot

    with pytest.raises(CommandError, match="pinned: its disks are on local storage"):
        await operator.types(h1, "host", "enter-maintenance", h2)
    assert [hosts_running(lab, vm["id"]) for vm in vms] == [[h2]] * 3

    words = ("host", "enter-maintenance", h2, "--unmovable", "stop", "--no-wait")
    await operator.types(h1, *words)
    lab.kill(h2, "agent", signal.SIGKILL)  # the source of all moves
    await poll(lambda: _ready(cluster, h2), MOVED_S, every_s=1.0)
    assert lab.qemus(h2) == ()
    places = {vm["name"]: hosts_running(lab, vm["id"]) for vm in vms}
    assert all(len(found) == 1 for found in places.values()), places
    assert (await cluster.vm("pinned"))["phase"] == "stopped"
    counter = (await last_write(disk)).counter

    async def same_boot_writes() -> bool:
        record = await last_write(disk)
        return bool(record.counter > counter + 5 and record.boot == boot)

    await poll(same_boot_writes, 30.0, every_s=0.3)

    await lab.power_off(h2)
    await lab.power_on(h2)
    await poll(cluster.every_lease_is_fresh, 60.0, every_s=0.5)
    assert {vm["name"]: hosts_running(lab, vm["id"]) for vm in vms} == places, "still away"
    assert (await cluster.vm("pinned"))["phase"] == "stopped", "still stopped"

    await operator.types(h1, "host", "leave-maintenance", h2)

    def all_back() -> bool:
        return all(hosts_running(lab, vm["id"]) == [h2] for vm in (*vms, pinned))

    await poll(all_back, MOVED_S, every_s=1.0)
    record = await last_write(disk)
    assert record.boot == boot, "it never stopped"

    async def settled() -> bool:
        shown = [await cluster.vm(vm["name"]) for vm in (*vms, pinned)]
        return all(vm["phase"] == "running" and not vm["home_host_id"] for vm in shown)

    await poll(settled, 30.0, every_s=0.5)
    await cluster.delete("web1", "web2", "web3", "pinned")


async def _ready(cluster: Cluster, host: str) -> bool:
    try:
        now = await cluster.operator.asks(cluster.lab.hosts[0], "host", "maintenance", host)
    except CommandError:
        return False
    return bool(now["ready"])


async def _disk_of(cluster: Cluster, vm: dict[str, Any]) -> Path:
    disks = await cluster.operator.asks(cluster.lab.hosts[0], "disk", "list")
    (disk,) = (d for d in disks if d["vm_id"] == vm["id"])
    return cluster.lab.shared / "disks" / f"{disk['id']}.qcow2"
