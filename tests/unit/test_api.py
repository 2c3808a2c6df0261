"""The API as its callers meet it: who gets in, what refusals look like, and that no secret gets out."""

import asyncio
import dataclasses
import io
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.clock import SystemClock
from core.identity.certificates import make_authority, make_request, sign_request
from core.mesh.tls import TlsFiles
from core.model import (
    COLLECTIONS,
    AccessToken,
    Event,
    Host,
    JoinToken,
    JournalEntry,
    LogLine,
    Nic,
    PlannedStep,
    PowerState,
    StepMark,
    Task,
    TaskState,
    VMPhase,
)
from nodeagent.api import events as events_module
from nodeagent.api.keys import AGENT
from nodeagent.api.tls import ApiTls
from nodeagent.identity.tokens import secret_hash
from nodeagent.services.vm_service import VmService
from raftstate.txn import Txn, encode_txn
from tests.api import ADMIN, FakeAgent, FirstHost, app_of, open_door, problem_of, unix_client
from tests.one_member import ADMIN_TOKEN, HOST_ID, OTHER_ID, OneMember, authority


@pytest.fixture
async def stranger(member) -> AsyncIterator[TestClient]:
    """A caller without any credentials."""
    async with TestClient(TestServer(app_of(member))) as client:
        yield client


# -- who gets in

WRONG = {
    "nothing": {},
    "another scheme": {"Authorization": f"Basic {ADMIN_TOKEN}"},
    "a wrong token": {"Authorization": "Bearer kvt_wrong"},
    "a shortened token": {"Authorization": f"Bearer {ADMIN_TOKEN[:-1]}"},
    "an empty token": {"Authorization": "Bearer "},
    "the stored hash": {"Authorization": f"Bearer {secret_hash(ADMIN_TOKEN)}"},
    "the hash with a prefix": {"Authorization": f"Bearer kvt_{secret_hash(ADMIN_TOKEN)}"},
    "a strange header": {"Authorization": "\u00e9"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
async def test_without_a_good_token_there_is_nothing_over_tcp(stranger, headers):
    for path in ("/v1/vms", "/v1/status", "/v1/no-such", "/", "/v1/hosts/h1", "/v1/joins"):
        await problem_of(await stranger.get(path, headers=headers), 401, "unauthenticated")
    refused = await stranger.post("/v1/access-tokens", headers=headers, json={"name": "mine"})
    await problem_of(refused, 401, "unauthenticated")


async def test_a_token_works_until_it_expires_or_is_revoked(member, stranger):
    token = AccessToken(
        id="t2",
        name="ci",
        secret_sha256=secret_hash("kvt_ci"),
        expires_ms=member.clock.wall_ms() + 1000,
    )
    await member.store.apply(puts=(token,))
    headers = {"Authorization": "bearer kvt_ci"}
    assert (await stranger.get("/v1/vms", headers=headers)).status == 200
    member.clock.pass_s(1)
    await problem_of(await stranger.get("/v1/vms", headers=headers), 401, "unauthenticated")
    assert (await stranger.get("/v1/vms", headers=ADMIN)).status == 200
    await member.store.apply(deletes=(member.store.find(AccessToken, "admin"),))
    await problem_of(await stranger.get("/v1/vms", headers=ADMIN), 401, "unauthenticated")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/local/status",
        "/v1/local/init",
        "/v1/local/join",
        "/v1/local/lease",
        "/v1/local/",
        "/v1/loc%61l/status",
        "/v1/x/../local/status",
    ],
)
async def test_what_is_for_the_host_itself_is_refused_over_tcp_even_with_a_token(member, path):
    for method in ("GET", "POST"):
        status, body = await raw_request(member, f"{method} {path}", token=ADMIN_TOKEN)
        assert status in (403, 404)
        assert "host_id" not in body
    assert (await raw_request(member, "GET /v1/local/status", token=ADMIN_TOKEN))[0] == 403


async def raw_request(member: OneMember, line: str, *, token: str = "") -> tuple[int, str]:
    """Send a request line as it is, which no client library does, and return status and body."""
    runner = web.AppRunner(app_of(member))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    head = f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"{head}\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await runner.cleanup()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    "raw", ["/v1/join%2Fauthority", "/v1/join%2Fcancel", "/v1//join", "/v1/join/../vms"]
)
async def test_no_spelling_of_the_open_paths_opens_another(member, raw):
    status, body = await raw_request(member, f"GET {raw}")
    assert status in (401, 404)
    assert '"items"' not in body


async def test_a_joining_host_needs_no_account_but_its_token(stranger):
    response = await stranger.get("/v1/join/authority")
    assert response.status == 200
    assert (await response.text()).startswith("-----BEGIN CERTIFICATE")
    body = {
        "token_id": "x", "secret_hex": "00", "host_id": OTHER_ID, "host_name": "h2",
        "address": "192.0.2.2", "request_pem": "", "version": "1", "feature_level": 1,
        "clock_ms": 0, "cpus": 1, "memory_mib": 1, "arch": "x86_64",
    }  # fmt: skip
    await problem_of(await stranger.post("/v1/join", json=body), 401, "unauthenticated")


async def test_root_needs_no_token_on_the_unix_socket(member, tmp_path):
    runner, path = web.AppRunner(app_of(member)), tmp_path / "run" / "api.sock"
    async with await unix_client(runner, path) as local:
        assert (await local.get("/v1/vms")).status == 200
        answer = await (await local.get("/v1/local/status")).json()
        assert (answer["state"], answer["host_name"]) == ("member", "h1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await runner.cleanup()


async def test_an_old_socket_is_replaced(member, tmp_path):
    path = tmp_path / "api.sock"
    path.write_text("left by a crash")
    runner = web.AppRunner(app_of(member))
    async with await unix_client(runner, path) as local:
        assert (await local.get("/v1/vms")).status == 200
    await runner.cleanup()


async def test_a_host_that_is_no_member_says_so_and_how_to_become_one(member, tmp_path):
    agent = FakeAgent(None)
    runner = web.AppRunner(app_of(member, agent))
    async with await unix_client(runner, tmp_path / "api.sock") as local:
        answer = await (await local.get("/v1/local/status")).json()
        assert answer["state"] == "unconfigured"
        for path in ("/v1/vms", "/v1/status", "/v1/events", "/v1/join/authority"):
            problem = await problem_of(await local.get(path), 503, "not-a-member")
            assert "kvorum init" in problem["detail"]
        join = {"token": " kvj_ab\n cd ", "host_name": "h9"}
        await problem_of(await local.post("/v1/local/join", json=join), 503, "unavailable")
        assert agent.asked == [
            {"token": "kvj_abcd", "host_name": "h9", "address": "", "witness": False}
        ]
    await runner.cleanup()


async def test_https_is_served_with_the_hosts_certificate(member, tmp_path):
    now_ms = SystemClock().wall_ms()
    ca = make_authority("test", now_ms=now_ms)
    request_pem, key_pem = make_request(HOST_ID)
    certificate = sign_request(
        ca, request_pem, host_id=HOST_ID, host_name="h1", address="192.0.2.1", now_ms=now_ms
    )
    (tmp_path / "host.pem").write_text(certificate)
    (tmp_path / "host.key").write_text(key_pem)
    (tmp_path / "ca.pem").write_text(ca.certificate_pem)
    runner = web.AppRunner(app_of(member))
    context = ApiTls(TlsFiles.in_directory(tmp_path)).context
    async with open_door(runner, context) as port, aiohttp.ClientSession(headers=ADMIN) as http:
        url = f"https://127.0.0.1:{port}/v1/vms"
        trusting = ssl.create_default_context(cadata=ca.certificate_pem)
        assert (await http.get(url, ssl=trusting)).status == 200
        another = ssl.create_default_context(cadata=authority().certificate_pem)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(url, ssl=another)
    await runner.cleanup()


# -- what refusals look like


async def test_refusals_are_problem_documents(api):
    await problem_of(await api.get("/v1/vms/none"), 404, "not-found")
    problem = await problem_of(await api.get("/v1/starships"), 404, "not-found")
    assert "vms" in problem["detail"]
    await problem_of(await api.get("/elsewhere"), 404, "not-found")
    await problem_of(await api.put("/v1/vms"), 405, "invalid")
    await problem_of(await api.delete("/v1/status"), 405, "invalid")


async def test_a_conflict_and_a_lost_quorum_have_their_own_status(member, api):
    vm = await member.add_vm(phase=VMPhase.STOPPED)
    await problem_of(await api.post(f"/v1/vms/{vm.name}/actions/reboot"), 409, "conflict")
    member.engine.available = False
    response = await api.patch(f"/v1/vms/{vm.name}", json={"ha": False})
    await problem_of(response, 503, "unavailable")
    assert response.headers["Retry-After"]
    assert (await api.get("/v1/vms")).status == 200, "reading goes on"
    strong = await api.get("/v1/vms?consistency=strong")
    await problem_of(strong, 503, "unavailable")


class MovesOn(VmService):
    """VMs whose state changes under every request, `times` times."""

    def __init__(self, member: OneMember, times: int) -> None:
        super().__init__(member.node, FirstHost())
        self.member, self.times = member, times

    async def stop(self, vm, body, ids):
        if self.times:
            self.times -= 1
            await self.member.change_vm(vm.id, description=f"moved on, {self.times} to come")
        return await super().stop(vm, body, ids)


@pytest.mark.parametrize(("times", "status"), [(0, 202), (2, 202), (50, 409)])
async def test_a_verb_is_judged_again_when_the_vm_moved_on_meanwhile(member, times, status):
    vm = await member.add_vm(phase=VMPhase.RUNNING)
    agent = FakeAgent(member)
    object.__setattr__(agent.services, "vms", MovesOn(member, times))
    headers = ADMIN | {"Idempotency-Key": "one request"}
    async with TestClient(TestServer(app_of(member, agent))) as client:
        url = f"/v1/vms/{vm.name}/actions/stop"
        response = await client.post(url, headers=headers)
        assert response.status == status
        repeated = await client.post(url, headers=headers)
        if status == 202:
            first = (await response.json())["task"]["id"]
            assert (await repeated.json())["task"]["id"] == first
            assert member.vm(vm.id).power is PowerState.STOPPED
    assert len(member.store.all(Task)) == (status == 202)


async def test_an_unexpected_error_tells_nothing_but_a_request_id(member, caplog):
    agent = FakeAgent(member)

    class Broken:
        def __getattr__(self, name):
            raise ZeroDivisionError("secret-in-an-exception")

    object.__setattr__(agent.services, "vms", Broken())
    async with TestClient(TestServer(app_of(member, agent))) as client:
        response = await client.post("/v1/vms", json={"name": "a", "image": "b"}, headers=ADMIN)
        problem = await problem_of(response, 500, "error")
    assert "secret-in-an-exception" not in json.dumps(problem)
    assert any(r.request_id == problem["request_id"] for r in caplog.records if r.exc_info)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"hello", "not JSON"),
        (b'{"name": "a"', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[]", "not as expected"),
        (b"{}", "name"),
        (b'{"name": "a", "image": "b", "cpu": 4}', "cpu"),
        (b'{"name": "a", "image": "b", "cpus": "4"}', "cpus"),
        (b'{"name": "a", "image": "b", "cpus": 1.5}', "cpus"),
        (b'{"name": "a\xff", "image": "b"}', "not JSON"),
        (b"[" * 100_000, "not"),
    ],
)
async def test_a_body_that_is_not_as_expected_is_refused_and_the_field_named(api, body, words):
    problem = await problem_of(await api.post("/v1/vms", data=body), 400, "invalid")
    assert words in problem["detail"]


async def test_a_body_that_is_too_large_is_refused_told_or_untold(api):
    large = b'{"name": "' + b"a" * (1 << 20) + b'", "image": "b"}'

    async def in_pieces():
        for start in range(0, len(large), 50_000):
            yield large[start : start + 50_000]

    for data in (io.BytesIO(large), in_pieces()):
        problem = await problem_of(await api.post("/v1/vms", data=data), 413, "too-large")
        assert "larger than" in problem["detail"]


async def test_a_body_just_within_the_limit_that_comes_in_pieces_is_read_whole(api):
    body = json.dumps({"name": "a", "image": "none"}).encode()
    body += b" " * ((1 << 20) - len(body))

    async def in_pieces():
        for start in range(0, len(body), 60_000):
            yield body[start : start + 60_000]
            await asyncio.sleep(0)

    problem = await problem_of(await api.post("/v1/vms", data=in_pieces()), 404, "not-found")
    assert "'none'" in problem["detail"]


# -- lists


async def names(api: TestClient, query: str) -> list[str]:
    response = await api.get(f"/v1/vms{query}")
    assert response.status == 200, await response.text()
    return [item["name"] for item in (await response.json())["items"]]


async def test_lists_are_filtered_sorted_and_cut(member, api):
    await member.add_vm("b", memory_mib=2048, ha=False)
    await member.add_vm("a", memory_mib=512, phase=VMPhase.RUNNING)
    await member.add_vm("c", memory_mib=10240, phase=VMPhase.RUNNING)
    assert await names(api, "") == ["a", "b", "c"]
    assert await names(api, "?sort=-name") == ["c", "b", "a"]
    assert await names(api, "?sort=memory_mib") == ["a", "b", "c"]
    assert await names(api, "?q=phase=running") == ["a", "c"]
    assert await names(api, "?q=phase=running&q=memory_mib=512") == ["a"]
    assert await names(api, "?q=ha=false") == ["b"]
    assert await names(api, "?q=host_name=h1&limit=2") == ["a", "b"]
    assert await names(api, "?q=name=x=y") == []
    assert await names(api, "?q=description=") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "query",
    [
        "?q=phase",
        "?q=colour=red",
        "?sort=colour",
        "?limit=0",
        "?limit=-1",
        "?limit=10001",
        "?limit=many",
        "?limit=1e3",
        "?limit=",
        "?consistency=perhaps",
        "?q=secret_sha256=x",
        "?sort=-",
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(member, api, query):
    await member.add_vm()
    await problem_of(await api.get(f"/v1/vms{query}"), 400, "invalid")


async def test_a_list_says_of_which_index_it_is(member, api):
    await member.add_vm()
    answer = await (await api.get("/v1/vms?consistency=strong")).json()
    assert answer["index"] == member.store.index
    assert answer["items"][0]["revision"] <= answer["index"]


async def test_one_is_shown_by_name_or_id_with_its_revision_as_etag(member, api):
    vm = await member.add_vm()
    for ref in (vm.name, vm.id):
        response = await api.get(f"/v1/vms/{ref}")
        shown = await response.json()
        assert response.headers["ETag"] == f'"{vm.revision}"'
        assert (shown["host_name"], shown["ips"]) == ("h1", [member.store.all(Nic)[0].ip])


async def test_no_collection_shows_a_secret(member, api):
    canaries = [secret_hash(ADMIN_TOKEN), ADMIN_TOKEN]
    for kind, fields in ((JoinToken, {"expires_ms": 9 << 40}), (AccessToken, {})):
        canary = f"canary-{kind.__name__.lower()}"
        canaries.append(canary)
        token = kind(id=canary[-6:], name=canary[-6:], secret_sha256=canary, **fields)
        await member.store.apply(puts=(token,))
    await member.add_vm()
    mesh = member.mesh()
    canaries += [mesh.sealed_ca_key.hex(), "sealed_", "secret_sha256"]
    for plural in COLLECTIONS:
        response = await api.get(f"/v1/{plural}")
        text = await response.text()
        assert response.status == 200
        assert not [c for c in canaries if c in text], plural
        for item in json.loads(text)["items"]:
            one = await (await api.get(f"/v1/{plural}/{item['id']}")).text()
            assert not [c for c in canaries if c in one], plural
    for path in ("/v1/status", "/v1/members"):
        text = await (await api.get(path)).text()
        assert not [c for c in canaries if c in text], path
    await problem_of(await api.get("/v1/meshes"), 404, "not-found")
    await problem_of(await api.get("/v1/leases"), 404, "not-found")


async def test_a_secret_cannot_be_guessed_by_filtering(member, api):
    for query in ("q=secret_sha256=" + secret_hash(ADMIN_TOKEN), "sort=secret_sha256"):
        await problem_of(await api.get(f"/v1/access-tokens?{query}"), 400, "invalid")


async def test_the_status_tells_of_members_and_alarms(member, api):
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    answer = await (await api.get("/v1/status")).json()
    assert (answer["cluster_name"], answer["leader_name"], answer["quorum"]) == ("test", "h1", True)
    roles = {m["name"]: (m["role"], m["raft"], m["watchdog"]) for m in answer["members"]}
    assert roles == {"h1": ("voter", "self", "armed"), "h2": ("replica", "disconnected", "none")}
    member.engine.available = False
    answer = await (await api.get("/v1/status")).json()
    assert (answer["leader_name"], answer["quorum"]) == ("", False)


# -- changes


async def test_a_made_token_is_shown_once_and_works(api, stranger):
    response = await api.post("/v1/access-tokens", json={"name": "ci", "ttl_s": 60})
    made = await response.json()
    assert response.status == 201
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert (await stranger.get("/v1/vms", headers=headers)).status == 200
    assert made["token"] not in await (await api.get("/v1/access-tokens")).text()
    assert (await api.delete("/v1/access-tokens/ci")).status == 204
    await problem_of(await stranger.get("/v1/vms", headers=headers), 401, "unauthenticated")


@pytest.mark.parametrize(
    "body", [{"name": "Bad Name"}, {"name": "a", "ttl_s": -1}, {"name": "a", "ttl_s": 1 << 40}]
)
async def test_a_token_that_cannot_be_is_refused(api, body):
    await problem_of(await api.post("/v1/access-tokens", json=body), 400, "invalid")


async def test_the_same_key_at_two_agents_makes_one_vm(member):
    body, headers = {"name": "web1", "image": "debian"}, ADMIN | {"Idempotency-Key": "k1"}
    answers = []
    for _ in range(2):
        async with TestClient(TestServer(app_of(member))) as client:
            response = await client.post("/v1/vms", json=body, headers=headers)
            assert response.status == 202, await response.text()
            answers.append(await response.json())
    assert answers[0] == answers[1]
    async with TestClient(TestServer(app_of(member))) as client:
        other = await client.post("/v1/vms", json=body, headers=ADMIN | {"Idempotency-Key": "k2"})
        await problem_of(other, 409, "conflict")
        long = await client.post(
            "/v1/vms", json=body, headers=ADMIN | {"Idempotency-Key": "k" * 201}
        )
        await problem_of(long, 400, "invalid")


async def test_the_same_key_for_other_things_does_not_mix_them_up(member, api):
    key = {"Idempotency-Key": "k1"}
    assert (await api.post("/v1/security-groups", json={"name": "web"}, headers=key)).status == 201
    group = {"name": "pg", "cidr": "10.9.0.0/24"}
    assert (await api.post("/v1/port-groups", json=group, headers=key)).status == 201
    again = await api.post("/v1/port-groups", json=group, headers=key)
    assert again.status == 201
    assert len((await (await api.get("/v1/port-groups")).json())["items"]) == 2


async def add_task(member: OneMember, **fields) -> Task:
    task = Task(id="t1", name="t1", workflow="w", subject="vm/1", runner_host_id=HOST_ID, **fields)
    await member.store.apply(puts=(task,))
    return member.store.need(Task, "t1")


async def test_a_task_is_waited_for_until_it_changes(member, api):
    task = await add_task(member)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(
            api.get("/v1/tasks/t1", headers={"Prefer": "wait=10"}), name="wait"
        )
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await member.store.apply(puts=(replace(task, state=TaskState.SUCCEEDED),))
    shown = await waiting.result().json()
    assert shown["state"] == "succeeded"


async def test_waiting_ends_in_time_and_not_at_all_for_ended_tasks(member, api):
    task = await add_task(member)
    response = await api.get("/v1/tasks/t1", headers={"Prefer": "wait=1"})
    assert (await response.json())["state"] == "pending"
    await member.store.apply(puts=(replace(task, state=TaskState.FAILED),))
    async with asyncio.timeout(1):
        await api.get("/v1/tasks/t1", headers={"Prefer": "respond-async, wait=60"})


async def test_a_change_between_two_waits_is_not_missed(member, api):
    task = await add_task(member)
    await member.store.apply(puts=(replace(task, progress=50),))
    headers = {"Prefer": "wait=30", "If-None-Match": f'"{task.revision}"'}
    async with asyncio.timeout(2):
        response = await api.get("/v1/tasks/t1", headers=headers)
    assert (await response.json())["progress"] == 50


async def test_a_task_is_asked_to_cancel_only_while_it_runs(member, api):
    await add_task(member)
    assert (await api.delete("/v1/tasks/t1")).status == 202
    task = member.store.need(Task, "t1")
    assert task.cancel_requested
    await member.store.apply(puts=(replace(task, state=TaskState.SUCCEEDED),))
    await problem_of(await api.delete("/v1/tasks/t1"), 409, "conflict")


async def test_a_task_is_asked_to_try_again_at_once_only_while_it_runs(member, api):
    await add_task(member)
    retry = "/v1/tasks/t1/actions/retry"
    for key in ("k1", "k1", "k2"):
        assert (await api.post(retry, headers={"Idempotency-Key": key})).status == 202
    task = member.store.need(Task, "t1")
    assert task.retries_asked == 2, "a repeated request is one"
    assert [line.what for line in task.log] == ["retry-asked"] * 2
    await member.store.apply(puts=(replace(task, state=TaskState.CANCELLED),))
    problem = await problem_of(await api.post(retry), 409, "conflict")
    assert problem["detail"] == "the task has been cancelled already"
    await problem_of(await api.post("/v1/tasks/t2/actions/retry"), 404, "not-found")


@pytest.mark.parametrize(("writes", "status"), [(4, 202), (5, 409)])
async def test_cancelling_outlasts_what_the_runner_writes_meanwhile(member, api, writes, status):
    await add_task(member)
    commit, left = member.engine.propose, writes

    async def propose(payload: bytes, *, timeout_s: float) -> bytes:
        nonlocal left
        txn = msgspec.msgpack.decode(payload, type=Txn)
        if left and any(put.kind == "task" for put in txn.puts):
            left -= 1
            task = replace(member.store.need(Task, "t1"), progress=10 + left)
            change = member.store.change(puts=(task,))
            await commit(encode_txn(change), timeout_s=timeout_s)
        return await commit(payload, timeout_s=timeout_s)

    member.engine.propose = propose
    assert (await api.delete("/v1/tasks/t1")).status == status
    task = member.store.need(Task, "t1")
    assert task.cancel_requested == (status == 202)
    assert task.progress == 10, "the runner's line is kept"


async def test_a_task_tells_its_steps_its_log_in_times_order_and_its_result(member, api):
    await add_task(
        member,
        plan=(PlannedStep(step="a"), PlannedStep(step="b", inside=("inner",), weight=3)),
        journal=(
            JournalEntry(step="a", mark=StepMark.BEGUN, at_ms=10),
            JournalEntry(step="a", mark=StepMark.DONE, at_ms=30),
            JournalEntry(step="b", mark=StepMark.BEGUN, at_ms=40),
        ),
        log=(
            LogLine(after=1, at_ms=20, what="retry", step="a", text="away"),
            LogLine(after=3, at_ms=50, what="repeat", step="b", text="still away"),
        ),
        result={"vm": "web1"},
    )
    assert (await api.delete("/v1/tasks/t1")).status == 202
    again = await api.delete("/v1/tasks/t1")
    shown = await (await api.get("/v1/tasks/t1")).json()
    assert again.status == 202
    assert shown["result"] == {"vm": "web1"}
    assert shown["steps"] == [
        {"step": "a", "inside": [], "weight": 1, "state": "done"},
        {"step": "b", "inside": ["inner"], "weight": 3, "state": "begun"},
    ]
    told = [(line["what"], line["step"], line["inside"], line["text"]) for line in shown["log"]]
    assert told == [
        ("begun", "a", [], ""),
        ("retry", "a", [], "away"),
        ("done", "a", [], ""),
        ("begun", "b", ["inner"], ""),
        ("repeat", "b", ["inner"], "still away"),
        ("cancel-asked", "", [], ""),
    ], "asking twice is said once"
    assert [line["at_ms"] for line in shown["log"][:5]] == [10, 20, 30, 40, 50]


async def test_a_vm_is_made_changed_and_deleted_over_http(member, api):
    made = await api.post("/v1/vms", json={"name": "web1", "image": "debian"})
    answer = await made.json()
    assert made.status == 202
    assert made.headers["Location"] == f"/v1/tasks/{answer['task']['id']}"
    changed = await api.patch("/v1/vms/web1", json={"description": "hello"})
    assert (await changed.json())["description"] == "hello"
    await problem_of(await api.delete("/v1/vms/web1"), 409, "conflict-claim")
    task = member.store.need(Task, answer["task"]["id"])
    await member.store.apply(puts=(replace(task, state=TaskState.SUCCEEDED),))
    assert (await api.delete("/v1/vms/web1")).status == 202


async def test_a_host_is_confirmed_off_only_by_its_own_name_and_never_this_one(member, api):
    await member.add_host(OTHER_ID, "h2", "192.0.2.2")
    path = "/v1/hosts/{}/actions/confirm-off"
    wrong = await api.post(path.format("h2"), json={"confirm": "h3"})
    await problem_of(wrong, 400, "invalid")
    await problem_of(await api.post(path.format("h1"), json={"confirm": "h1"}), 409, "conflict")
    renewing = await api.post(path.format("h2"), json={"confirm": "h2"})
    await problem_of(renewing, 409, "conflict")
    await problem_of(await api.delete("/v1/hosts/h1"), 409, "conflict")
    assert len(member.store.all(Host)) == 2


# -- events


def event(number: int) -> Event:
    return Event(
        id=f"e{number}", name=f"e{number}", code="c", subject="vm/1", subject_name="v", message="m"
    )


async def test_only_the_last_event_of_an_index_carries_its_id(member):
    await member.store.apply(puts=(event(1), event(2), event(3)))
    await member.store.apply(puts=(event(4),))
    batch = member.store.since(Event, 0)
    messages = events_module._messages(member.store, batch)
    first, last = batch[0].revision, batch[-1].revision
    assert [m.resume_at for m in messages] == [0, 0, first, last]
    heads = [m.body.split(b"\n")[0] for m in messages]
    assert heads == [b"event: c", b"event: c", f"id: {first}".encode(), f"id: {last}".encode()]
    assert all(m.body.endswith(b"}\n\n") for m in messages)


async def read_events(response: aiohttp.ClientResponse, count: int) -> list[dict]:
    seen = []
    async with asyncio.timeout(5):
        async for line in response.content:
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
                if len(seen) == count:
                    break
    return seen


async def test_a_stream_tells_what_comes_and_resumes_without_loss(member, api):
    await member.store.apply(puts=(event(1),))
    streaming = {"Accept": "text/event-stream"}
    async with api.get("/v1/events", headers=streaming) as response:
        await member.store.apply(puts=(event(2), event(3)))
        assert [e["id"] for e in await read_events(response, 2)] == ["e2", "e3"]
    resumed = streaming | {"Last-Event-ID": "0"}
    async with api.get("/v1/events", headers=resumed) as response:
        assert [e["id"] for e in await read_events(response, 3)] == ["e1", "e2", "e3"]


async def test_more_events_under_one_index_than_a_batch_holds_all_arrive(member, api):
    await member.store.apply(puts=[event(n) for n in range(1500)])
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
    async with api.get("/v1/events", headers=headers) as response:
        assert len({e["id"] for e in await read_events(response, 1500)}) == 1500


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "9" * 19, "9" * 5000])
async def test_an_id_that_is_none_is_refused_before_the_stream_begins(api, value):
    headers = {"Accept": "text/event-stream", "Last-Event-ID": value}
    await problem_of(await api.get("/v1/events", headers=headers), 400, "invalid")


async def test_events_are_listed_oldest_first(member, api):
    for number in (2, 1, 3):
        await member.store.apply(puts=(event(number),))
    answer = await (await api.get("/v1/events?limit=2")).json()
    assert [e["id"] for e in answer["items"]] == ["e2", "e1"]


async def test_a_request_that_fails_by_our_mistake_is_seen_with_the_host_and_others_go_on(member):
    class Broken(FirstHost):
        def choose(self, vm, disks, *, only="", never="", joined=()) -> str:
            raise ZeroDivisionError("secret-of-the-house")

    app = app_of(member)
    agent = app[AGENT]
    agent.services = dataclasses.replace(agent.services, vms=VmService(member.node, Broken()))
    async with TestClient(TestServer(app), headers=ADMIN) as api:
        failed = await api.post("/v1/vms", json={"name": "web1", "image": "debian"})
        assert failed.status == 500
        assert "secret-of-the-house" not in await failed.text()
        assert (await api.get("/v1/vms")).status == 200
    (fault,) = member.node.faults.all()
    assert (fault.service, fault.count) == ("api POST /v1/vms", 1)
    assert fault.why == "ZeroDivisionError; see the agent's log"
