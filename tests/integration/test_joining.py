"""Joining refuses what it must and changes nothing by it; a join that dies half-way costs the cluster nothing.

The hosts of one lab play in turn: the first three become the cluster, the fourth is the one that is refused, killed,
admitted, removed and admitted anew. The tests build on each other in this order.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from core.command import CommandError
from nodeagent.identity.tokens import format_join_token, new_secret, parse_join_token
from tests.integration.cluster import Cluster, Refused
from tests.integration.conftest import LabFactory, in_own_loop, poll
from tests.integration.stranger import ask, items
from tools.demo.operator import Operator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STATE = "/var/lib/kvorum"
LEFTOVERS = ("identity/host.key", "identity/secrets.key", "member.json", "state.db", "guard.json")
NEW = "h4"


@pytest.fixture(scope="module")
def founded(lab_factory: LabFactory) -> Cluster:
    """One member, and three hosts that are none yet."""
    made = Cluster(lab := lab_factory(4), Operator(lab))
    in_own_loop(made.operator.types("h1", "init"))
    return made


@pytest.fixture(scope="module")
def cluster(founded: Cluster) -> Cluster:
    """Three members, and a fourth host that is none yet."""

    async def form() -> Cluster:
        for host in {"h2", "h3"} - set(await members(founded)):
            await founded.operator.types(host, "join", await token_of(founded))
        return founded

    return in_own_loop(form())


async def test_the_second_host_killed_as_it_comes_in_costs_the_first_nothing(
    founded: Cluster,
) -> None:
    lab, token = founded.lab, await token_of(founded)

    async def admitted() -> bool:
        return "h2" in await members(founded)

    async with asyncio.TaskGroup() as group:
        group.create_task(_tries_to_join(founded, token, "h2"), name="join")
        await poll(admitted, 30.0, every_s=0.002)
        lab.kill("h2", "agent", signal.SIGKILL)
    assert await commits(founded), "one host of two votes, and it is up"

    async def whole() -> bool:
        return await _came_in(founded, token, "h2")

    await poll(whole, 90.0, every_s=0.3)
    await poll(lambda: commits(founded, "h2"), 30.0, every_s=0.3)
    shown = await members(founded)
    assert (shown["h1"]["role"], shown["h2"]["role"]) == ("voter", "replica")
    assert shown["h2"]["health"] == "ok"


async def test_after_the_third_join_the_cluster_survives_the_loss_of_any_host(
    cluster: Cluster,
) -> None:
    assert {m["role"] for m in (await members(cluster)).values()} == {"voter"}
    await cluster.lab.cut("h1")
    try:
        await poll(lambda: commits(cluster, "h2"), 20.0, every_s=0.3)
    finally:
        await cluster.lab.heal("h1")
    await poll(lambda: commits(cluster), 30.0, every_s=0.3)


async def token_of(cluster: Cluster, *options: str, host: str = "h1") -> str:
    return (await cluster.operator.types(host, "token", "create", *options)).strip()


async def members(cluster: Cluster, host: str = "h1") -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in await items(cluster.lab, host, "members")}


async def refused_join(cluster: Cluster, *words: str) -> Refused:
    """Type a join that must be refused on the new host, and see that neither side was changed by it."""
    before = [await items(cluster.lab, "h1", kind) for kind in ("members", "join-tokens")]
    names = [m["name"] for m in before[0]]
    refused = await cluster.refusal(NEW, "join", *words)
    assert refused.code in (1, 2), refused
    assert [m["name"] for m in await items(cluster.lab, "h1", "members")] == names
    assert await items(cluster.lab, "h1", "join-tokens") == before[1]
    left = [name for name in LEFTOVERS if cluster.lab.inside(NEW, f"{STATE}/{name}").exists()]
    assert left == [], refused
    answer = await ask(cluster.lab, NEW, "GET", "/v1/local/status")
    assert answer.body["state"] == "unconfigured"
    return refused


async def commits(cluster: Cluster, host: str = "h1") -> bool:
    """Tell whether a change is accepted now."""
    try:
        await token_of(cluster, host=host)
    except CommandError:
        return False
    return True


# ------------------------------------------------------------ what is refused


async def test_texts_that_are_no_whole_token_are_refused_without_asking_anyone(
    cluster: Cluster,
) -> None:
    token = await token_of(cluster)
    middle = len(token) // 2
    swapped = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    for text, said in (
        ("hello", "no join token"),
        ("kvt_" + "A" * 43, "access token"),
        ("kvj_", "damaged or cut off"),
        ("kvj_" + base64.urlsafe_b64encode(bytes(range(200))).decode(), "damaged or cut off"),
        (token[:-5], "damaged or cut off"),
        (swapped, "damaged or cut off"),
        (token + "AAAA", "damaged or cut off"),
        ("kvj_" + "A" * 100_000, "damaged or cut off"),
    ):
        refused = await refused_join(cluster, text)
        assert said in refused.line, (text[:30], refused)


async def test_tokens_that_are_used_expired_revoked_or_unknown_are_refused(
    cluster: Cluster,
) -> None:
    used = next(t for t in await items(cluster.lab, "h1", "join-tokens") if t["used_by_host_id"])
    good = parse_join_token(await token_of(cluster))
    # The secret of a used token is not kept anywhere, so its number stands for it here.
    stolen = format_join_token(replace(good, token_id=used["id"]))
    guessed = format_join_token(replace(good, secret=new_secret()))
    revoked = await token_of(cluster)
    await cluster.operator.types("h2", "token", "revoke", parse_join_token(revoked).token_id)
    expired = await token_of(cluster, "--ttl", "1s")
    expires_ms = next(
        t["expires_ms"]
        for t in await items(cluster.lab, "h1", "join-tokens")
        if t["id"] == parse_join_token(expired).token_id
    )
    for token in (stolen, guessed, revoked):
        assert "not known here" in (await refused_join(cluster, token)).line

    async def is_over() -> bool:
        text = await cluster.lab.text(NEW, "date", "+%s")
        return int(text) * 1000 > expires_ms

    await poll(is_over, 10.0, every_s=0.2)
    assert "expired" in (await refused_join(cluster, expired)).line


async def test_a_token_of_another_cluster_is_refused_before_the_secret_is_sent(
    cluster: Cluster,
) -> None:
    ticket = parse_join_token(await token_of(cluster))
    other = replace(ticket, ca_fingerprint="0" * len(ticket.ca_fingerprint), cluster_name="other")
    refused = await refused_join(cluster, format_join_token(other))
    assert "'other'" in refused.line
    assert "authority differs" in refused.line


async def test_a_token_whose_members_are_all_away_says_so(cluster: Cluster) -> None:
    ticket = parse_join_token(await token_of(cluster))
    nowhere = replace(ticket, addresses=("127.0.0.1:9",))
    # Asked without the command in between, which would try again for a while.
    body = {"token": format_join_token(nowhere)}
    answer = await ask(cluster.lab, NEW, "POST", "/v1/local/join", body)
    assert answer.status == 503
    assert "no member of the cluster can be reached" in answer.problem()


async def test_names_and_addresses_that_are_taken_or_impossible_are_refused(
    cluster: Cluster,
) -> None:
    token = await token_of(cluster)
    for words, said in (
        (("--host-name", "h1"), "'h1' is already taken"),
        (("--address", "10.77.0.77"), "no address of this host"),
        (("--host-name", "Bad_Name"), "not allowed"),
        (("--address", "hello"), "is not an IP address"),
        (("--address", "127.0.0.1"), "can't reach"),
        (("--address", "fe80::1"), "IPv6"),
    ):
        refused = await refused_join(cluster, token, *words)
        assert said in refused.line, (words, refused)
    await cluster.lab.run(NEW, "ip", "address", "add", "10.77.0.2/32", "dev", "lo")
    refused = await refused_join(cluster, token, "--address", "10.77.0.2")
    await cluster.lab.run(NEW, "ip", "address", "delete", "10.77.0.2/32", "dev", "lo")
    assert "already taken by host 'h2'" in refused.line
    refused = await cluster.refusal(NEW, "init", "--address", "10.77.0.77")
    assert "no address of this host" in refused.line


async def test_a_member_neither_joins_nor_founds_again(cluster: Cluster) -> None:
    token = await token_of(cluster)
    before = await members(cluster)
    for host, words in (("h2", ("join", token)), ("h2", ("init",)), ("h1", ("init",))):
        refused = await cluster.refusal(host, *words)
        assert refused.code == 1
        assert "already" in refused.line
    assert (await members(cluster)).keys() == before.keys()
    tokens = await items(cluster.lab, "h1", "join-tokens")
    (kept,) = (t for t in tokens if t["id"] == parse_join_token(token).token_id)
    assert kept["used_by_host_id"] == ""


async def test_without_quorum_a_join_is_refused_and_the_same_token_joins_afterwards(
    cluster: Cluster,
) -> None:
    lab, token = cluster.lab, await token_of(cluster)
    await lab.cut("h2", "h3")
    refused = await cluster.refusal(NEW, "join", token)
    assert refused.code == 3, refused
    await lab.heal("h2", "h3")
    await poll(lambda: commits(cluster), 60.0, every_s=0.5)
    # Whether the admission was only delayed or is lost depends on who led; the host need not care.
    await cluster.operator.types(NEW, "join", token)
    assert (await members(cluster))[NEW]["role"] == "replica"
    await lab.power_off(NEW)
    await cluster.operator.types("h2", "host", "remove", NEW, "--yes")
    await _reinstall(cluster)


# ------------------------------------------------------------ killed half-way


async def test_a_join_killed_at_any_point_keeps_the_quorum_and_the_host_can_join_again(
    cluster: Cluster,
) -> None:
    lab = cluster.lab

    def made(name: str) -> bool:
        return lab.inside(NEW, f"{STATE}/{name}").exists()

    for point in ("identity/host.pem", "raft", "guard.json"):
        token = await token_of(cluster)
        async with asyncio.TaskGroup() as group:
            joining = group.create_task(_tries_to_join(cluster, token, NEW), name="join")
            await poll(lambda point=point: made(point), 30.0, every_s=0.002)
            lab.kill(NEW, "agent", signal.SIGKILL)
            await poll(lambda: commits(cluster), 20.0, every_s=0.2)
        await lab.wait_ready(NEW)
        if not joining.result():  # a token is good until its host is in
            await poll(lambda token=token: _came_in(cluster, token, NEW), 90.0, every_s=0.5)
        if NEW in await members(cluster):
            await cluster.operator.types("h2", "host", "remove", NEW, "--yes")
        await _reinstall(cluster)
    assert set(await members(cluster)) == {"h1", "h2", "h3"}


async def _tries_to_join(cluster: Cluster, token: str, host: str) -> bool:
    """Tell whether the command said that it joined."""
    try:
        await cluster.operator.types(host, "join", token)
    except CommandError:
        return False
    return True


async def _came_in(cluster: Cluster, token: str, host: str) -> bool:
    """Tell whether a host whose join was killed is in: it went on by itself, or comes in by its token now."""
    try:
        answer = await ask(cluster.lab, host, "GET", "/v1/local/status")
    except (aiohttp.ClientError, OSError):  # it starts again; the socket is still the killed one's
        return False
    return answer.body["state"] == "member" or await _tries_to_join(cluster, token, host)


async def _reinstall(cluster: Cluster) -> None:
    """Make the new host one that never saw the product, as a new disk would."""
    lab = cluster.lab
    await lab.power_off(NEW)
    state = lab.layout.host_state(NEW)
    shutil.rmtree(state / "var-lib-kvorum")
    (state / "var-lib-kvorum").mkdir()
    for name in ("serf.json", "admin.token"):
        (state / "etc-kvorum" / name).unlink(missing_ok=True)
    await lab.power_on(NEW)


# ------------------------------------------------------------ in, out, and in again


async def test_a_token_works_at_any_member_while_its_maker_is_away(cluster: Cluster) -> None:
    lab, token = cluster.lab, await token_of(cluster)
    await lab.cut("h1")
    try:
        await cluster.operator.types(NEW, "join", token)
        shown = await members(cluster, "h2")
        assert shown[NEW]["role"] == "replica"
    finally:
        await lab.heal("h1")

    async def all_well() -> bool:
        shown = await members(cluster)
        return len(shown) == 4 and all(m["health"] == "ok" for m in shown.values())

    await poll(all_well, 60.0, every_s=0.5)
    (kept,) = (
        t
        for t in await items(lab, "h1", "join-tokens")
        if t["id"] == parse_join_token(token).token_id
    )
    assert kept["used_by_host_name"] == NEW


async def test_a_removed_host_opens_no_door_and_a_new_one_may_have_its_name(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = cluster.lab
    identity = lab.layout.host_state(NEW) / "var-lib-kvorum/identity"
    shutil.copytree(identity, tmp_path / "identity")
    old_id = (await members(cluster))[NEW]["id"]
    assert await _mesh_answers(cluster, tmp_path / "identity")
    await lab.power_off(NEW)
    await cluster.operator.types("h2", "host", "remove", NEW, "--yes")
    assert set(await members(cluster)) == {"h1", "h2", "h3"}

    async def closed() -> bool:
        return not await _mesh_answers(cluster, tmp_path / "identity")

    await poll(closed, 10.0, every_s=0.3)
    await lab.power_on(NEW)  # the removed host comes back as it was: nobody lets it in
    await poll(lambda: commits(cluster), 20.0, every_s=0.3)
    assert set(await members(cluster)) == {"h1", "h2", "h3"}

    async def knows_it() -> bool:
        answer = await ask(lab, NEW, "GET", "/v1/local/status")
        return bool(answer.body["state"] == "removed")

    await poll(knows_it, 60.0, every_s=0.5)
    refused = await cluster.refusal(NEW, "leave", "--yes")
    assert "kvorum leave --force" in refused.line
    await cluster.operator.types(NEW, "leave", "--force", "--confirm", NEW)
    left = [name for name in LEFTOVERS if lab.inside(NEW, f"{STATE}/{name}").exists()]
    assert left == []
    await cluster.operator.types(NEW, "join", await token_of(cluster))
    found = await members(cluster)
    assert found[NEW]["role"] == "replica"
    assert found[NEW]["id"] != old_id
    assert not await _mesh_answers(cluster, tmp_path / "identity")


async def test_the_leader_leaves_its_vote_goes_to_the_replica_and_it_joins_again(
    cluster: Cluster,
) -> None:
    lab = cluster.lab
    before = await members(cluster)
    leader = next(name for name, member in before.items() if member["leader"])
    other = next(name for name in before if name not in (leader, NEW))
    assert before[NEW]["role"] == "replica"
    refused = await cluster.refusal(leader, "leave", "--force", "--confirm", leader)
    assert "counts this host as a member" in refused.line
    await cluster.operator.types(leader, "leave", "--yes")
    after = await members(cluster, other)
    assert leader not in after
    assert {m["role"] for m in after.values()} == {"voter"}
    answer = await ask(lab, leader, "GET", "/v1/local/status")
    assert answer.body["state"] == "unconfigured"
    await cluster.operator.types(leader, "join", await token_of(cluster, host=other))
    again = await members(cluster, other)
    assert again[leader]["id"] != before[leader]["id"]
    assert sorted(m["role"] for m in again.values()) == ["replica", "voter", "voter", "voter"]


async def _mesh_answers(cluster: Cluster, identity: Path) -> bool:
    """Tell whether any member speaks HTTP on its mesh port with the holder of this identity."""
    own = ("--cert", str(identity / "host.pem"), "--key", str(identity / "host.key"))
    for host in ("h1", "h2", "h3"):
        url = f"https://{cluster.lab.address(host)}:7444/"
        argv = ["curl", "-sSk", "-m", "10", "--http1.1", *own, "-w", "%{http_code}", url]
        try:
            if (await cluster.lab.text("wire", *argv)).strip():
                return True
        except CommandError:
            continue
    return False
