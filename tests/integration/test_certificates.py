"""Certificates and the secrets key of a real cluster: changed while it works, with a host cut off, and a host joining after.

The tests build on each other in this order; h4 is no member until the last.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from core.errors import PlatformError
from tests.integration.cluster import Cluster
from tests.integration.conftest import LabFactory, in_own_loop, poll
from tests.integration.stranger import ask, items
from tests.own_certificates import DAY, ROOT, Issued, for_names
from tools.demo.operator import Operator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STATE = "/var/lib/kvorum"
WORD = "canary-of-a-keystore"
NEW = "h4"
NAME = "kvorum.example.org"


@pytest.fixture(scope="module")
def cluster(lab_factory: LabFactory) -> Cluster:
    made = Cluster(lab := lab_factory(4), Operator(lab))

    async def form() -> Cluster:
        await made.operator.types("h1", "init")
        for host in ("h2", "h3"):
            token = (await made.operator.types("h1", "token", "create")).strip()
            await made.operator.types(host, "join", token)
        return made

    return in_own_loop(form())


def own() -> Issued:
    now = dt.datetime.now(dt.UTC)
    middle = Issued("Issuing", by=ROOT, begins=now - DAY, ends=now + 300 * DAY)
    return for_names(NAME, by=middle, begins=now - DAY, ends=now + 200 * DAY)


async def issuer_shown(cluster: Cluster, host: str, name: str = NAME) -> str:
    """Return who issued the certificate that a caller of a host's API is shown."""
    talk = f"openssl s_client -connect 127.0.0.1:7443 -servername {name} </dev/null 2>/dev/null"
    shown = await cluster.lab.text(host, "sh", "-c", talk)
    return next(line for line in shown.splitlines() if line.startswith("issuer="))


async def secrets(cluster: Cluster, host: str = "h1") -> dict[str, Any]:
    answer = await ask(cluster.lab, host, "GET", "/v1/secrets")
    assert answer.status == 200, answer
    shown: dict[str, Any] = answer.body
    return shown


async def test_an_imported_certificate_is_shown_by_every_host_without_a_restart(
    cluster: Cluster,
) -> None:
    pids = [cluster.lab.service_pid(host, "agent") for host in ("h1", "h2", "h3")]
    cluster.lab.inside("h2", f"{STATE}/own.jks").write_bytes(own().as_jks(WORD))
    cluster.lab.inside("h2", f"{STATE}/word").write_text(f"{WORD}\n")
    await cluster.operator.types(
        "h2", "certificate", "import", f"{STATE}/own.jks", "--passphrase-file", f"{STATE}/word"
    )
    for host in ("h1", "h2", "h3"):

        async def shown(host: str = host) -> bool:
            return "Issuing" in await issuer_shown(cluster, host)

        await poll(shown, 10.0, every_s=0.2)
        assert "kvorum" in await issuer_shown(cluster, host, "cluster.kvorum.internal")
        assert WORD not in cluster.lab.log_text(host, "agent")
    assert pids == [cluster.lab.service_pid(host, "agent") for host in ("h1", "h2", "h3")]


async def test_the_secrets_key_changes_while_a_host_is_cut_off(cluster: Cluster) -> None:
    lab = cluster.lab
    before = lab.inside("h1", f"{STATE}/identity/secrets.key").read_bytes()
    await lab.cut("h3")
    try:

        async def others_left() -> bool:
            members = (await ask(lab, "h1", "GET", "/v1/members")).body["items"]
            return any(m["name"] == "h3" and m["raft"] == "disconnected" for m in members)

        await poll(others_left, 30.0, every_s=0.3)
        await cluster.operator.types("h1", "secrets", "rotate", "--yes")

        async def in_use() -> bool:
            shown = await secrets(cluster)
            return not shown["next_key_id"] and shown["hosts_without_key"] == ["h3"]

        await poll(in_use, 40.0, every_s=0.3)
        assert lab.inside("h3", f"{STATE}/identity/secrets.key").read_bytes() == before
    finally:
        await lab.heal("h3")

    async def over() -> bool:
        return not (await secrets(cluster))["changing"]

    await poll(over, 60.0, every_s=0.5)
    for host in ("h1", "h2", "h3"):

        async def settled(host: str = host) -> bool:
            files = {p.name for p in lab.inside(host, f"{STATE}/identity").iterdir()}
            return not files & {"secrets.next", "secrets.old"}

        await poll(settled, 30.0, every_s=0.3)
    after = {
        lab.inside(h, f"{STATE}/identity/secrets.key").read_bytes() for h in ("h1", "h2", "h3")
    }
    assert len(after) == 1
    assert before not in after


async def test_a_host_joins_whatever_certificate_and_secrets_key_are_in_use(
    cluster: Cluster,
) -> None:
    token = (await cluster.operator.types("h1", "token", "create")).strip()
    await cluster.operator.types(NEW, "join", token)
    assert NEW in {m["name"] for m in await items(cluster.lab, NEW, "members")}

    async def shown() -> bool:
        return "Issuing" in await issuer_shown(cluster, NEW)

    await poll(shown, 15.0, every_s=0.3)


async def test_agents_that_start_anew_open_everything(cluster: Cluster) -> None:
    cluster.lab.kill("h1", "agent")

    async def shown() -> bool:
        try:
            return "Issuing" in await issuer_shown(cluster, "h1")
        except (PlatformError, StopIteration):
            return False

    await poll(shown, 40.0, every_s=0.5)

    async def takes_the_password_that_it_was_given() -> bool:
        """Tell whether all are in gossip; the host that was cut off before may look lost for some seconds more."""
        members = await items(cluster.lab, "h2", "members")
        return {m["gossip"] for m in members} == {"alive"}

    await poll(takes_the_password_that_it_was_given, 40.0, every_s=0.5)


async def test_a_removed_host_is_cut_off_at_once(cluster: Cluster) -> None:
    await cluster.operator.types("h1", "host", "remove", NEW, "--yes")

    async def cut() -> bool:
        return "no member any more" in cluster.lab.log_text("h1", "agent") or (
            "mesh connection refused" in cluster.lab.log_text("h1", "agent")
        )

    await poll(cut, 20.0, every_s=0.3)
    status = (await ask(cluster.lab, "h2", "GET", "/v1/members")).body["items"]
    assert NEW not in {m["name"] for m in status}
