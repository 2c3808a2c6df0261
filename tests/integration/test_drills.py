"""Drills on a real cluster, as an operator types them: the fault is real, the report tells the truth, and all is as before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.command import CommandError
from tests.integration.cluster import BOOTED_S, Cluster
from tests.integration.conftest import in_own_loop, poll
from tests.integration.test_main_job import _disk_of
from tools.demo.outside import hosts_running, last_write
from tools.lab.cluster import give_boards
from tools.lab.diskreader import read_records, took_turns
from tools.lab.lab import Lab
from tools.lab.observer import Observer

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

DRILL_S = 180.0


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    async def form() -> Cluster:
        made = await Cluster.form(lab, tiny_image)
        await poll(made.every_lease_is_fresh, 30.0, every_s=0.3)
        await give_boards(lab)
        return made

    formed: Cluster = in_own_loop(form())
    return formed


async def drilled(cluster: Cluster, *words: str, at: str = "h1") -> dict[str, Any]:
    """Run a drill to its end and return its report; a verdict that isn't `passed` fails, and shows it."""
    argv = ("kvorum", "drill", "run", *words, "-o", "json", "--quiet")
    try:
        printed = await cluster.lab.text(at, *argv, timeout_s=DRILL_S)
    except CommandError as error:
        listed = await cluster.lab.text(at, "kvorum", "drill", "list", "-o", "json")
        raise AssertionError(f"{words}: {error.message}: {listed}") from error
    found: dict[str, Any] = json.loads(printed)
    return found


async def test_a_drill_takes_the_power_measures_and_gives_it_back(cluster: Cluster) -> None:
    lab = cluster.lab
    vm = await cluster.create("drilled", "--host", "h2")
    disk = await _disk_of(cluster, vm)
    await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)
    refused = await cluster.refusal("h1", "drill", "run", "power-off", "h2")
    assert "--confirm h2" in refused.line
    assert (await lab.status("h2")).power == "on"
    with Observer(lab) as observer:
        report = await drilled(cluster, "power-off", "h2", "--confirm", "h2")
        assert (await lab.status("h2")).power == "on"
        runs_on = hosts_running(lab, vm["id"])
    assert report["verdict"] == "passed"
    (one,) = report["vms"]
    assert runs_on == [one["now_on"]] != ["h2"]
    assert 0 < one["running_ms"] <= one["bound_ms"] == 21_000
    codes = [event["code"] for event in report["timeline"]]
    assert codes[0] == "fault"
    assert {"suspected", "power-on", "host-back"} <= set(codes)
    assert observer.double_writers == []
    assert took_turns(await read_records(disk))


async def test_a_killed_agent_and_a_blink_of_the_network_touch_no_guest(cluster: Cluster) -> None:
    lab, vm = cluster.lab, await cluster.vm("drilled")
    host = vm["host_name"]
    (qemu,) = lab.qemus(host)
    killed, asked_at = lab.service_pid(host, "agent"), next(h for h in lab.hosts if h != host)
    await drilled(cluster, "agent-kill", host, "--confirm", host, at=asked_at)
    assert lab.service_pid(host, "agent") != killed
    await drilled(cluster, "network-cut", host, "--for", "2", "--confirm", host, at=asked_at)
    assert [it.pid for it in lab.qemus(host)] == [qemu.pid]
    assert hosts_running(lab, vm["id"]) == [host]
    with pytest.raises(CommandError):
        await lab.run(host, "nft", "list", "table", "inet", "kvorum_drill")
    refused = await cluster.refusal(
        asked_at,
        "drill",
        "run",
        "storage-loss",
        host,
        "--data-storage",
        "shared1",
        "--confirm",
        host,
    )
    assert "not mounted by NFS" in refused.line
    shown = await lab.text(asked_at, "kvorum", "drill", "list")
    assert shown.count("passed") == 3
