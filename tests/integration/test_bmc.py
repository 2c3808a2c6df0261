"""Hosts with management boards that speak IPMI: a lost host is switched off by its board, and its VM runs again soon."""

from __future__ import annotations

import time

import pytest

from tests.integration.cluster import BOOTED_S, Cluster
from tests.integration.conftest import in_own_loop, poll
from tests.integration.test_main_job import _disk_of
from tools.demo.outside import hosts_running, last_write
from tools.lab.boards import CIPHER_SUITE, PASSWORD, USER
from tools.lab.diskreader import read_records, took_turns
from tools.lab.lab import Lab
from tools.lab.observer import Observer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

T_SAFE_S = 19.0


@pytest.fixture(scope="module")
def cluster(lab: Lab, tiny_image: str) -> Cluster:
    async def form() -> Cluster:
        made = await Cluster.form(lab, tiny_image)
        await poll(made.every_lease_is_fresh, 30.0, every_s=0.3)
        for host, board in (await lab.start_boards()).items():
            words = f"kvorum bmc set {host} --address {board.address} --port {board.port}"
            said = f"echo {PASSWORD} | {words} --user {USER} --cipher-suite {CIPHER_SUITE}"
            await lab.run("h1", "sh", "-c", said)
        return made

    formed: Cluster = in_own_loop(form())
    return formed


async def power(cluster: Cluster, host: str) -> bool:
    shown = await cluster.operator.asks("h1", "bmc", "power", host)
    return bool(shown["on"])


async def test_boards_tell_the_truth_and_switch(cluster: Cluster) -> None:
    boards = await cluster.operator.asks("h1", "bmc", "list")
    assert [(b["host_name"], b["state"]) for b in boards] == [
        ("h1", "ok"),
        ("h2", "ok"),
        ("h3", "ok"),
    ]
    assert PASSWORD not in str(boards)
    assert await power(cluster, "h3")


async def test_a_cut_host_is_switched_off_and_its_guest_runs_elsewhere_long_before_the_safe_time(
    cluster: Cluster,
) -> None:
    lab = cluster.lab
    vm = await cluster.create("fenced", "--host", "h3")
    disk = await _disk_of(cluster, vm)
    await poll(lambda: last_write(disk), BOOTED_S, every_s=0.3)
    with Observer(lab) as observer:
        await lab.cut("h3")
        began_s = time.monotonic()

        def runs_elsewhere() -> bool:
            return set(hosts_running(lab, vm["id"])) & {"h1", "h2"} != set()

        await poll(runs_elsewhere, T_SAFE_S)
        took_s = time.monotonic() - began_s
        assert took_s < T_SAFE_S - 3, f"{took_s:.1f} s: it was not the board that proved it"
        assert not await power(cluster, "h3")
        assert (await lab.status("h3")).power == "off"
        await lab.heal("h3")
        await cluster.operator.types("h1", "bmc", "power-on", "h3")
        await poll(cluster.every_lease_is_fresh, 60.0, every_s=0.5)

        async def is_member() -> bool:
            shown = await cluster.operator.asks("h1", "host", "show", "h3")
            return bool(shown["state"] == "member")

        await poll(is_member, 30.0, every_s=0.5)
        assert len(hosts_running(lab, vm["id"])) == 1
    assert observer.double_writers == []
    assert took_turns(await read_records(disk))
    await cluster.delete("fenced")
