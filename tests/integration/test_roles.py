"""Roles in the lab: a witness without libvirt, a dead voter's vote that goes on, pins that move votes.

Four hosts: h3 has no libvirt and votes as a witness, h4 comes last and follows. The tests build on each other in this order.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.cluster import Cluster
from tests.integration.conftest import LabFactory, in_own_loop, poll
from tests.integration.stranger import items
from tools.demo.operator import Operator
from tools.lab.services import AGENT, GUARD, PRODUCT, SERF

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

WITNESS, LAST = "h3", "h4"


@pytest.fixture(scope="module")
def cluster(lab_factory: LabFactory) -> Cluster:
    """One member, and three hosts that are none yet."""
    services = {"h1": PRODUCT, "h2": PRODUCT, WITNESS: (GUARD, AGENT, SERF), LAST: PRODUCT}
    made = Cluster(lab := lab_factory(4, services), Operator(lab))
    in_own_loop(made.operator.types("h1", "init"))
    return made


async def join(cluster: Cluster, host: str, *options: str) -> str:
    token = (await cluster.operator.types("h1", "token", "create")).strip()
    return await cluster.operator.types(host, "join", token, *options)


async def members(cluster: Cluster, host: str = "h1") -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in await items(cluster.lab, host, "members")}


async def voters(cluster: Cluster, host: str = "h1") -> set[str]:
    return {name for name, member in (await members(cluster, host)).items() if member["votes"]}


async def test_a_host_without_libvirt_joins_as_a_witness_only_and_votes(cluster: Cluster) -> None:
    said = await join(cluster, "h2")
    assert "one votes" in said
    token = (await cluster.operator.types("h1", "token", "create")).strip()
    refused = await cluster.refusal(WITNESS, "join", token)
    assert "libvirtd does not answer" in refused.line
    said = await join(cluster, WITNESS, "--witness")
    assert "3 vote, so that it survives the loss of any one" in said
    shown = await members(cluster)
    assert (shown[WITNESS]["role"], shown[WITNESS]["votes"]) == ("witness", True)
    await join(cluster, LAST)
    assert await voters(cluster) == {"h1", "h2", WITNESS}


async def test_a_replica_shows_how_far_everybody_is(cluster: Cluster) -> None:
    async def all_well() -> bool:
        shown = (await members(cluster, LAST)).values()
        return all(m["health"] == "ok" and m["lag"] is not None for m in shown)

    await poll(all_well, 30.0, every_s=0.5)
    shown = await members(cluster, LAST)
    assert shown[LAST]["role"] == "replica"
    assert all(m["lag"] < 50 for m in shown.values()), shown


async def test_the_vote_of_a_dead_host_goes_to_the_replica_and_stays_there(
    cluster: Cluster,
) -> None:
    lab = cluster.lab
    await cluster.operator.types("h1", "members", "policy", "--replace-after", "10s")
    leader = next(n for n, m in (await members(cluster)).items() if m["leader"])
    dead = "h2" if leader != "h2" else "h1"
    asked = next(h for h in ("h1", "h2") if h != dead)
    await lab.power_off(dead)

    async def replaced() -> bool:
        return await voters(cluster, asked) == {asked, WITNESS, LAST}

    await poll(replaced, 60.0, every_s=0.5)
    codes = [e["code"] for e in await items(lab, asked, "events") if e["subject_name"] == dead]
    assert codes[-2:] == ["voter-dead", "voter-removed"] or "voter-dead" in codes
    await lab.power_on(dead)

    async def follows() -> bool:
        member = (await members(cluster, asked))[dead]
        return bool(member["role"] == "replica" and member["health"] == "ok")

    await poll(follows, 60.0, every_s=0.5)
    assert await replaced()

    await cluster.operator.types(asked, "members", "promote", dead)

    async def votes_again() -> bool:
        return dead in (now := await voters(cluster, asked)) and len(now) == 3

    await poll(votes_again, 30.0, every_s=0.5)
    await cluster.operator.types(asked, "members", "promote", dead, "--auto")
