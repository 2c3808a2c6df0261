"""A host whose settings name a hypervisor that isn't there, on real agents: its guest runs on, nothing new starts, and it is told."""

from __future__ import annotations

import signal

import msgspec
import pytest

from tests.integration.cluster import BOOTED_S, Cluster
from tests.integration.conftest import in_own_loop, poll
from tests.integration.test_main_job import _disk_of
from tools.demo.outside import hosts_running, last_write
from tools.lab.diskreader import read_records, took_turns
from tools.lab.lab import Lab
from tools.lab.observer import Observer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SETTINGS = "/etc/kvorum/agent.toml"


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    async def form() -> Cluster:
        made = await Cluster.form(lab, tiny_image)
        await poll(made.every_lease_is_fresh, 30.0, every_s=0.3)
        return made

    formed: Cluster = in_own_loop(form())
    return formed


async def restart(lab: Lab, host: str) -> None:
    dead = lab.service_pid(host, "agent")
    lab.kill(host, "agent", signal.SIGKILL)
    await poll(lambda: lab.service_pid(host, "agent") not in (None, dead), 30.0)
    await lab.wait_ready(host)


async def test_a_guest_outlives_its_driver_and_is_found_again(cluster: Cluster) -> None:
    lab = cluster.lab
    vm = await cluster.create("orphan", "--host", "h2")
    disk = await _disk_of(cluster, vm)
    await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)
    (qemu,) = lab.qemus("h2")
    file = lab.inside("h2", SETTINGS)
    before = file.read_text()

    async def fault() -> str:
        return str((await cluster.operator.asks("h1", "host", "show", "h2"))["driver_fault"])

    async def wrote_on() -> bool:
        record = await last_write(disk)
        return record is not None and (record.host, record.counter) > ("h2", counter + 5)

    with Observer(lab) as observer:
        file.write_text(f'hypervisor = "gone"\n{before}')
        await restart(lab, "h2")
        assert "hypervisor = 'libvirt' again" in await poll(fault, 60.0, every_s=0.5)
        counter = (await last_write(disk)).counter
        said = await lab.text("h1", "sh", "-c", "kvorum health -o json || true")  # 1: degraded
        health = msgspec.json.decode(said)["findings"]
        assert ("driver-fault", "h2") in {(f["code"], f["host_name"]) for f in health}
        refused = await cluster.refusal(
            "h1", "vm", "create", "more", "--image", "tiny", "--host", "h2"
        )
        assert "a driver can't be used" in refused.line
        other = await cluster.create("elsewhere")
        assert other["host_name"] != "h2"
        await poll(wrote_on, 30.0, every_s=0.5)
        assert [q.pid for q in lab.qemus("h2")] == [qemu.pid]

        file.write_text(before)
        await restart(lab, "h2")

        async def is_well() -> bool:
            return not await fault()

        await poll(is_well, 90.0, every_s=0.5)
        assert [q.pid for q in lab.qemus("h2")] == [qemu.pid]
        assert hosts_running(lab, vm["id"]) == ["h2"]
        await cluster.operator.types("h1", "vm", "stop", "orphan", "--force")
        await poll(lambda: not lab.qemus("h2"), 20.0)
    assert observer.double_writers == []
    assert took_turns(await read_records(disk))
    await cluster.delete("orphan", "elsewhere")


async def test_without_guests_it_is_the_missing_plug_in_that_is_told(cluster: Cluster) -> None:
    lab = cluster.lab
    file = lab.inside("h3", SETTINGS)
    before = file.read_text()
    file.write_text(f'firewall = "gone"\n{before}')
    await restart(lab, "h3")

    async def fault() -> str:
        return str((await cluster.operator.asks("h1", "host", "show", "h3"))["driver_fault"])

    assert "firewall = 'gone' names what this host lacks" in await poll(fault, 60.0, every_s=0.5)
    file.write_text(before)
    await restart(lab, "h3")
