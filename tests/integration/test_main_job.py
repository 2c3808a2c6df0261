"""The main job in the lab: a cluster by few commands, a VM that is reached, and agents that may die at any time."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from core.command import CommandError
from tests.integration.cluster import BOOTED_S, SHARED, Cluster
from tests.integration.conftest import in_own_loop, poll
from tools.demo.outside import hosts_running, last_write
from tools.lab.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    return in_own_loop(Cluster.form(lab, tiny_image))


async def test_seven_commands_lead_from_nothing_to_a_running_vm_on_three_hosts(
    cluster: Cluster,
) -> None:
    vm = await cluster.create("first")
    assert len(cluster.operator.typed) <= 7, cluster.operator.typed
    assert len(hosts_running(cluster.lab, vm["id"])) == 1
    members = await cluster.operator.asks(cluster.lab.hosts[2], "member", "list")
    assert [m["role"] for m in members] == ["voter"] * 3
    await cluster.delete("first")
    assert hosts_running(cluster.lab, vm["id"]) == []


async def test_every_host_shows_the_vm_and_any_of_them_takes_the_request(cluster: Cluster) -> None:
    h1, h2, h3 = cluster.lab.hosts
    await cluster.operator.types(
        h3, "vm", "create", "any", "--image", "tiny", "--memory", "128MiB", "--data-storage", SHARED
    )
    assert {(await cluster.vm("any", host))["phase"] for host in (h1, h2, h3)} == {"running"}
    await cluster.operator.types(h2, "vm", "delete", "any", "--yes")


async def test_a_stopped_vm_stays_stopped_and_a_started_one_keeps_its_disk(
    cluster: Cluster,
) -> None:
    vm = await cluster.create("updown")
    disk = await _disk_of(cluster, vm)
    before = await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)
    await cluster.operator.types(cluster.lab.hosts[1], "vm", "stop", "updown", "--force")
    assert hosts_running(cluster.lab, vm["id"]) == []
    assert (await cluster.vm("updown"))["phase"] == "stopped"
    await cluster.operator.types(cluster.lab.hosts[2], "vm", "start", "updown")

    async def wrote_on() -> bool:
        record = await last_write(disk)
        return record is not None and record.boot != before.boot and record.counter > before.counter

    await poll(wrote_on, BOOTED_S, every_s=0.3)
    await cluster.delete("updown")


async def test_a_guest_shuts_down_on_request_within_its_time(cluster: Cluster) -> None:
    vm = await cluster.create("polite")
    disk = await _disk_of(cluster, vm)
    await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)
    await cluster.operator.types(cluster.lab.hosts[0], "vm", "stop", "polite")
    assert hosts_running(cluster.lab, vm["id"]) == []
    await cluster.delete("polite")


async def test_an_agent_killed_comes_back_and_its_guests_were_never_touched(
    cluster: Cluster,
) -> None:
    vm = await cluster.create("steady")
    (host,) = hosts_running(cluster.lab, vm["id"])
    (qemu,) = cluster.lab.qemus(host)
    disk = await _disk_of(cluster, vm)
    boot = (await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)).boot
    agent = cluster.lab.service_pid(host, "agent")
    for _ in range(3):
        cluster.lab.kill(host, "agent", signal.SIGKILL)
        dead = agent

        def started_again(dead: int | None = dead) -> bool:
            return cluster.lab.service_pid(host, "agent") not in (None, dead)

        await poll(started_again, 20.0)
        agent = cluster.lab.service_pid(host, "agent")

    async def answers() -> bool:
        try:
            return bool((await cluster.vm("steady", host))["phase"] == "running")
        except CommandError:
            return False  # it is still starting

    await poll(answers, 30.0, every_s=0.5)
    assert [q.pid for q in cluster.lab.qemus(host)] == [qemu.pid]
    counter = (await last_write(disk)).counter

    async def still_writes() -> bool:
        record = await last_write(disk)
        return record.boot == boot and record.counter > counter + 10

    await poll(still_writes, 30.0, every_s=0.3)
    await cluster.delete("steady")


async def test_a_guest_whose_qemu_was_killed_is_started_again(cluster: Cluster) -> None:
    vm = await cluster.create("phoenix")
    (host,) = hosts_running(cluster.lab, vm["id"])
    (qemu,) = cluster.lab.qemus(host)
    os.kill(qemu.pid, signal.SIGKILL)

    def runs_anew() -> bool:
        return [q.pid for q in cluster.lab.qemus(host)] not in ([], [qemu.pid])

    await poll(runs_anew, 30.0)

    async def shown_as_running() -> bool:
        shown = await cluster.vm("phoenix")
        return shown["phase"] == "running" and shown["generation"] > vm["generation"]

    await poll(shown_as_running, 30.0, every_s=0.5)
    await cluster.delete("phoenix")


async def test_an_agent_killed_during_a_create_leaves_a_whole_vm_or_nothing(
    cluster: Cluster,
) -> None:
    host = cluster.lab.hosts[1]
    files = await cluster.files()
    for delay_s in (0.0, 0.15, 0.4):
        name = f"torn{int(delay_s * 100)}"
        words = ("--image", "tiny", "--memory", "128MiB", "--data-storage", SHARED, "--host", host)
        await cluster.operator.types(
            cluster.lab.hosts[0], "vm", "create", name, *words, "--no-wait"
        )
        await asyncio.sleep(delay_s)  # the point of the test: to hit the work at different places
        cluster.lab.kill(host, "agent", signal.SIGKILL)
        vm = await cluster.vm(name)

        async def settled(vm_id: str = vm["id"], name: str = name) -> bool:
            tasks = await cluster.operator.asks(cluster.lab.hosts[0], "task", "list")
            open_tasks = [t for t in tasks if t["subject"] == f"vm/{vm_id}" and not t["ended_ms"]]
            if open_tasks:
                return False
            return (await cluster.vm(name))["phase"] == "running"

        await poll(settled, 60.0, every_s=0.5)
        assert hosts_running(cluster.lab, vm["id"]) == [host]
        await cluster.delete(name)
    assert await cluster.files() == files


async def test_libvirtd_killed_leaves_guests_running_and_is_followed_again(
    cluster: Cluster,
) -> None:
    vm = await cluster.create("alive")
    (host,) = hosts_running(cluster.lab, vm["id"])
    (qemu,) = cluster.lab.qemus(host)
    cluster.lab.kill(host, "libvirtd", signal.SIGKILL)
    await poll(lambda: cluster.lab.service_pid(host, "libvirtd") is not None, 20.0)

    async def stopped() -> bool:
        await cluster.operator.types(cluster.lab.hosts[0], "vm", "stop", "alive", "--force")
        return hosts_running(cluster.lab, vm["id"]) == []

    assert [q.pid for q in cluster.lab.qemus(host)] == [qemu.pid]
    await poll(stopped, 60.0, every_s=1.0)
    await cluster.delete("alive")


async def test_a_vm_moves_live_and_keeps_running(cluster: Cluster) -> None:
    vm = await cluster.create("mover")
    disk = await _disk_of(cluster, vm)
    boot = (await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)).boot
    (source,) = hosts_running(cluster.lab, vm["id"])
    target = next(h for h in cluster.lab.hosts if h != source)
    await cluster.operator.types(source, "vm", "migrate", "mover", "--host", target)
    assert hosts_running(cluster.lab, vm["id"]) == [target]
    counter = (await last_write(disk)).counter

    async def same_boot_writes() -> bool:
        record = await last_write(disk)
        return record.counter > counter + 5 and record.boot == boot

    await poll(same_boot_writes, 30.0, every_s=0.3)
    await cluster.delete("mover")


async def _disk_of(cluster: Cluster, vm: dict):
    disks = await cluster.operator.asks(cluster.lab.hosts[0], "disk", "list")
    (disk,) = (d for d in disks if d["vm_id"] == vm["id"])
    return cluster.lab.shared / "disks" / f"{disk['id']}.qcow2"
