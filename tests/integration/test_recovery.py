"""Both drills of docs/recovery.md on a lab: two of three hosts destroyed for good, and everything lost but a backup.

The tests build on each other in this order. `systemctl stop` and `start` of the agent are played by the file that the
agent's service waits for.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from core.command import CommandError
from tests.integration.cluster import Cluster
from tests.integration.conftest import LabFactory, in_own_loop, poll
from tools.demo.operator import Operator
from tools.lab.services import AGENT, GUARD, LIBVIRTD, SERF

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ENABLED = "/etc/kvorum/agent.enabled"
SERVICES = (LIBVIRTD, GUARD, replace(AGENT, after=ENABLED, ready=None), SERF)
BACKUP = "/etc/kvorum/prod.kvb"
PASSPHRASE = "/etc/kvorum/passphrase"


@pytest.fixture(scope="module")
def cluster(lab_factory: LabFactory) -> Cluster:
    """Three members that vote, a fourth that follows, and a fifth host that is none."""
    lab = lab_factory(5, SERVICES)
    made = Cluster(lab, Operator(lab))

    async def form() -> None:
        for host in lab.hosts:
            await start_agent(made, host)
        await made.operator.types("h1", "init", "--name", "prod")
        for host in ("h2", "h3", "h4"):
            token = (await made.operator.types("h1", "token", "create")).split()[0]
            await made.operator.types(host, "join", token)

    in_own_loop(form())
    return made


async def start_agent(cluster: Cluster, host: str) -> None:
    cluster.lab.inside(host, ENABLED).touch()
    socket = cluster.lab.inside(host, "/run/kvorum/api.sock")
    await poll(socket.is_socket, 30.0)


async def stop_agent(cluster: Cluster, host: str) -> None:
    cluster.lab.inside(host, ENABLED).unlink()
    cluster.lab.kill(host, "agent", signal.SIGTERM)
    await poll(lambda: cluster.lab.service_pid(host, "agent") is None, 30.0)
    cluster.lab.inside(host, "/run/kvorum/api.sock").unlink(missing_ok=True)


async def members(cluster: Cluster, host: str) -> dict[str, Any]:
    return {m["name"]: m for m in await cluster.operator.asks(host, "members")}


async def leads(cluster: Cluster, host: str) -> bool:
    try:
        shown = await cluster.operator.asks(host, "status")
    except CommandError:  # its exit code says that there is no leader yet
        return False
    return bool(shown["quorum"] and shown["leader_name"] == host)


async def test_a_backup_is_taken_from_any_member_and_the_agent_is_the_only_one_at_the_state(
    cluster: Cluster,
) -> None:
    operator, lab = cluster.operator, cluster.lab
    await operator.types("h1", "port-group", "create", "before", "--cidr", "10.7.0.0/24")
    lab.inside("h3", PASSPHRASE).write_text("correct horse battery\n")
    await operator.types(
        "h3", "state", "backup", BACKUP, "--with-keys", "--passphrase-file", PASSPHRASE
    )
    assert lab.inside("h3", BACKUP).stat().st_mode & 0o777 == 0o600
    shown = await operator.asks("h3", "state", "verify", BACKUP, "--passphrase-file", PASSPHRASE)
    assert (shown["cluster_name"], shown["counts"]["host"], shown["has_key"]) == ("prod", 4, True)
    Path(lab.inside("h5", BACKUP)).write_bytes(lab.inside("h3", BACKUP).read_bytes())
    shutil.copy(lab.inside("h3", PASSPHRASE), lab.inside("h5", PASSPHRASE))
    refused = await cluster.refusal("h3", "recover", "force-quorum", "--confirm", "prod")
    assert "the agent of this host runs" in refused.line
    await operator.types("h1", "port-group", "create", "after", "--cidr", "10.8.0.0/24")


async def test_after_two_of_three_hosts_are_destroyed_the_third_goes_on(cluster: Cluster) -> None:
    operator, lab = cluster.operator, cluster.lab
    await stop_agent(cluster, "h3")
    refused = await cluster.refusal("h3", "recover", "force-quorum", "--confirm", "prod")
    assert "with this host most voters are there" in refused.line
    await lab.power_off("h1", "h2")
    facts = await operator.asks("h3", "recover", "show")
    assert {voter["name"] for voter in facts["voters"]} == {"h1", "h2", "h3"}
    await operator.types("h3", "recover", "force-quorum", "--confirm", "prod")
    await start_agent(cluster, "h3")
    await poll(lambda: leads(cluster, "h3"), 30.0, every_s=0.3)
    groups = {g["name"] for g in await operator.asks("h3", "port-group", "list")}
    assert groups >= {"before", "after"}, "nothing acknowledged is lost"
    await operator.types("h3", "port-group", "create", "anew", "--cidr", "10.9.0.0/24")
    shown = await members(cluster, "h3")
    assert shown["h3"]["votes"]
    assert not shown["h1"]["votes"]


async def test_a_replica_follows_the_new_generation_by_itself(cluster: Cluster) -> None:
    async def follows() -> bool:
        shown = await members(cluster, "h3")
        same = shown["h4"]["generation"] == shown["h3"]["generation"]
        return bool(same and shown["h4"]["health"] == "ok")

    await poll(follows, 60.0, every_s=0.5)
    groups = {g["name"] for g in await cluster.operator.asks("h4", "port-group", "list")}
    assert "anew" in groups


async def test_a_voter_that_returns_says_what_to_do_and_rejoins(cluster: Cluster) -> None:
    operator, lab = cluster.operator, cluster.lab
    await lab.power_on("h2", wait=False)

    async def is_silent() -> bool:
        health = (await members(cluster, "h3"))["h2"]["health"]
        return "kvorum recover rejoin" in health

    await poll(is_silent, 60.0, every_s=0.5)
    await stop_agent(cluster, "h2")
    await operator.types("h2", "recover", "rejoin", "--yes")
    await start_agent(cluster, "h2")

    async def is_back() -> bool:
        stands = (await members(cluster, "h3"))["h2"]
        return bool(stands["health"] == "ok" and stands["gossip"] == "alive")

    await poll(is_back, 60.0, every_s=0.5)
    groups = {g["name"] for g in await operator.asks("h2", "port-group", "list")}
    assert "anew" in groups


async def test_a_fresh_host_becomes_the_cluster_of_a_backup(cluster: Cluster) -> None:
    operator, lab = cluster.operator, cluster.lab
    await lab.power_off("h2", "h3", "h4")
    await stop_agent(cluster, "h5")
    words = ("--passphrase-file", PASSPHRASE, "--confirm", "prod")
    await operator.types(
        "h5",
        "state",
        "restore",
        BACKUP,
        "--host-name",
        "h5",
        "--address",
        lab.address("h5"),
        *words,
    )
    await start_agent(cluster, "h5")
    await poll(lambda: leads(cluster, "h5"), 30.0, every_s=0.3)
    assert set(await members(cluster, "h5")) == {"h1", "h2", "h3", "h4", "h5"}
    groups = {g["name"] for g in await operator.asks("h5", "port-group", "list")}
    assert "before" in groups
    assert not groups & {"after", "anew"}, "exactly what was in the backup"
