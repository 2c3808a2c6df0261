"""Accounts, roles and audits as callers of the API meet them, and attacks on them."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import FatalError
from core.identity.lockout import AddressBook
from core.identity.permissions import BUILT_IN, allows
from core.identity.sealing import unseal
from core.identity.totp import STEP_S, code_at
from core.model import COLLECTIONS, VM, AccessToken, Account, Audit, Host, Session
from nodeagent.api.app import build_app
from nodeagent.api.limits import ApiLimits
from nodeagent.api.permissions import NEEDS, Gate, check_routes
from nodeagent.identity.audits import ADDRESSES_MAX
from nodeagent.services.housekeeping import AUDITS_KEPT_MS, Housekeeping
from tests.api import ADMIN, FakeAgent, problem_of, unix_client
from tests.one_member import ADMIN_TOKEN, HOST_ID

PASSWORD = "canary staple 42 battery"
OTHER_PASSWORD = "another canary 43 word"


@pytest.fixture
def agent(member):
    return FakeAgent(member)


@pytest.fixture
async def api(member, agent):
    limits = ApiLimits(requests_burst=1_000_000)  # no time passes for more to be allowed
    app = build_app(agent, clock=member.clock, rng=member.rng, limits=limits)
    async with TestClient(TestServer(app)) as client:
        yield client


async def made(api, name="alice", *roles, password=PASSWORD) -> dict:
    body = {"name": name, "roles": roles, "password": password}
    response = await api.post("/v1/accounts", json=body, headers=ADMIN)
    assert response.status == 201, await response.text()
    return await response.json()


async def login(api, name="alice", password=PASSWORD, code="") -> aiohttp.ClientResponse:
    return await api.post("/v1/login", json={"name": name, "password": password, "code": code})


async def entered(api, name="alice", password=PASSWORD, code="") -> dict[str, str]:
    response = await login(api, name, password, code)
    assert response.status == 200, await response.text()
    return {"Authorization": f"Bearer {(await response.json())['token']}"}


# -- every route by every role


def test_a_route_that_says_nothing_of_its_needs_stops_the_start():
    app = web.Application()

    async def backdoor(request: web.Request) -> web.Response:
        return web.json_response(request.path)

    app.router.add_post("/v1/backdoor", backdoor)
    with pytest.raises(FatalError, match="/v1/backdoor"):
        check_routes(app)


async def test_each_role_may_do_on_each_route_what_the_table_says(member, api):
    """Whoever may not gets 403; whoever may gets anything but 401 and 403 (most name what does not exist)."""
    heads = {}
    for role in BUILT_IN:
        await made(api, f"a-{role}", role)
        heads[role] = await entered(api, f"a-{role}")
    await made(api, "a-nothing")
    heads["nothing"] = await entered(api, "a-nothing")
    for route, need in NEEDS.items():
        method, path = route.split()
        if need.gate is Gate.OPEN or path == "/v1/logout":
            continue
        for plural in COLLECTIONS if "{plural}" in path else ("",):
            url = path.replace("{plural}", plural)
            while "{" in url:
                url = url[: url.index("{")] + "none-such" + url[url.index("}") + 1 :]
            kind = need.kind or (plural and COLLECTIONS[plural].__struct_config__.tag[:-3])
            for role, head in heads.items():
                held = BUILT_IN[role].permissions if role in BUILT_IN else ()
                allowed = need.gate is Gate.CALLER or (
                    need.gate is not Gate.LOCAL and allows(held, kind, need.action)
                )
                response = await api.request(method, url, headers=head)
                refused = response.status in (401, 403)
                assert refused is not allowed, (role, method, url, response.status)
            bare = await api.request(method, url)
            assert bare.status == (403 if need.gate is Gate.LOCAL else 401), (method, url)


async def test_head_is_judged_like_get(api):
    assert (await api.head("/v1/accounts")).status == 401
    await made(api, "alice", "viewer")
    head = await entered(api)
    assert (await api.head("/v1/vms", headers=head)).status == 200
    assert (await api.head("/v1/accounts", headers=head)).status == 403


# -- log-in


async def test_a_session_works_until_logout_expiry_or_disabling(member, api):
    await made(api, "alice", "viewer")
    head = await entered(api)
    who = await (await api.get("/v1/whoami", headers=head)).json()
    assert (who["name"], who["via"]) == ("alice", "session")
    assert (await api.get("/v1/vms", headers=head)).status == 200
    assert (await api.post("/v1/logout", headers=head)).status == 204
    await problem_of(await api.get("/v1/vms", headers=head), 401, "unauthenticated")
    head = await entered(api)
    disabled = await api.patch("/v1/accounts/alice", json={"disabled": True}, headers=ADMIN)
    assert disabled.status == 200
    await problem_of(await api.get("/v1/vms", headers=head), 401, "unauthenticated")
    await problem_of(await login(api), 401, "unauthenticated")
    await api.patch("/v1/accounts/alice", json={"disabled": False}, headers=ADMIN)
    assert (await api.get("/v1/vms", headers=head)).status == 200
    member.clock.pass_s(12 * 3600)
    await problem_of(await api.get("/v1/vms", headers=head), 401, "unauthenticated")
    assert not [s for s in Housekeeping(member.node).outdated() if s.id not in
                {x.id for x in member.store.all(Session)}]  # fmt: skip


async def test_a_changed_role_counts_from_the_next_request_on(member, api):
    role = {"name": "starter", "permissions": [{"kinds": ["vm"], "actions": ["read"]}]}
    assert (await api.post("/v1/roles", json=role, headers=ADMIN)).status == 201
    await made(api, "alice", "starter")
    head = await entered(api)
    assert (await api.get("/v1/vms", headers=head)).status == 200
    narrowed = {"permissions": [{"kinds": ["task"], "actions": ["read"]}]}
    assert (await api.patch("/v1/roles/starter", json=narrowed, headers=ADMIN)).status == 200
    await problem_of(await api.get("/v1/vms", headers=head), 403, "forbidden")
    await problem_of(await api.delete("/v1/roles/starter", headers=ADMIN), 409, "conflict")
    await problem_of(await api.delete("/v1/roles/admin", headers=ADMIN), 409, "conflict")


async def test_refusals_of_a_log_in_tell_nothing(member, api):
    await made(api, "alice", "viewer")
    await made(api, "off", "viewer")
    await made(api, "bare", "viewer", password="")
    await api.patch("/v1/accounts/off", json={"disabled": True}, headers=ADMIN)
    told = set()
    for name, password in (
        ("alice", OTHER_PASSWORD), ("nobody", PASSWORD), ("off", PASSWORD), ("bare", ""),
        ("alice", ""), ("alice", "x" * 5000), ("", ""), ("a'; --", PASSWORD),
    ):  # fmt: skip
        problem = await problem_of(await login(api, name, password), 401, "unauthenticated")
        told.add(problem["detail"])
    assert len(told) == 1
    assert not member.store.all(Session)


async def test_no_refusal_comes_before_its_time(member):
    agent = FakeAgent(member)
    agent.services.identity.login._failure_takes_s = 1.0
    app = build_app(agent, clock=member.clock, rng=member.rng)
    async with TestClient(TestServer(app)) as api:
        await made(api, "alice", "viewer")
        for name in ("alice", "nobody"):
            began_s = asyncio.get_running_loop().time()
            assert (await login(api, name, OTHER_PASSWORD)).status == 401
            assert asyncio.get_running_loop().time() - began_s > 0.95


async def test_an_account_is_held_back_after_wrong_ones_but_not_where_it_is_known(
    member, agent, api
):
    account = await made(api, "alice", "viewer")
    for _ in range(5):
        assert (await login(api, password=OTHER_PASSWORD)).status == 401
    await problem_of(await login(api), 401, "unauthenticated")
    assert member.store.need(Account, account["id"]).failures == 5, "no count while held back"
    member.clock.pass_s(31)
    await entered(api)  # from here on this address is known
    agent.services.identity.login._addresses = AddressBook()
    for _ in range(5):
        assert (await login(api, password=OTHER_PASSWORD)).status == 401
    assert member.store.need(Account, account["id"]).locked_until_ms > member.clock.wall_ms()
    await entered(api)


async def test_an_address_that_guesses_is_held_back_for_all_names(api):
    for number in range(10):
        assert (await login(api, f"guess{number}")).status == 401
    await problem_of(await login(api, "guess11"), 429, "held-back")


async def test_without_quorum_nobody_logs_in_and_nothing_is_changed(member, api):
    await made(api, "alice", "admin")
    head = await entered(api)
    vm = await member.add_vm()
    member.engine.available = False
    await problem_of(await login(api), 503, "unavailable")
    await problem_of(await login(api, password=OTHER_PASSWORD), 503, "unavailable")
    response = await api.patch(f"/v1/vms/{vm.name}", json={"description": "x"}, headers=head)
    await problem_of(response, 503, "unavailable")
    member.engine.available = True
    assert member.store.need(VM, vm.id) == vm


@pytest.mark.parametrize(
    "forge",
    [
        lambda token, member: token[:-1],
        lambda token, member: token.partition(".")[0],
        lambda token, member: token.partition(".")[0] + ".",
        lambda token, member: "kvs_." + token.partition(".")[2],
        lambda token, member: "kvs_" + member.store.all(Session)[0].secret_sha256,
        lambda token, member: (
            f"kvs_{member.store.all(Session)[0].id}." + member.store.all(Session)[0].secret_sha256
        ),
        lambda token, member: "kvs_" + "x" * 5000,
        lambda token, member: token.replace("kvs_", "kvt_"),
    ],
)
async def test_a_forged_session_opens_nothing(member, api, forge):
    await made(api, "alice", "admin")
    token = (await entered(api))["Authorization"].split()[1]
    head = {"Authorization": f"Bearer {forge(token, member)}"}
    await problem_of(await api.get("/v1/vms", headers=head), 401, "unauthenticated")


# -- time codes


async def with_totp(member, api) -> tuple[bytes, list[str]]:
    account = await made(api, "alice", "viewer")
    head = await entered(api)
    url = "/v1/accounts/alice/actions"
    shown = await (await api.post(f"{url}/enable-totp", headers=head)).json()
    assert shown["uri"].startswith("otpauth://") and shown["qr_svg"].startswith("<svg")
    stored = member.store.need(Account, account["id"])
    secret = unseal(member.secrets_key, f"totp/{stored.id}", stored.sealed_totp)
    await entered(api)  # not asked for before it is confirmed
    code = code_at(secret, member.clock.wall_ms() // 1000 // STEP_S)
    wrong = await api.post(f"{url}/confirm-totp", json={"code": "000000x"}, headers=head)
    await problem_of(wrong, 403, "forbidden")
    confirmed = await api.post(f"{url}/confirm-totp", json={"code": code}, headers=head)
    again = await api.post(f"{url}/enable-totp", headers=head)
    await problem_of(again, 409, "conflict")
    return secret, (await confirmed.json())["recovery_codes"]


async def test_a_time_code_is_needed_and_works_once(member, api):
    secret, _ = await with_totp(member, api)
    assert (await login(api)).status == 401
    used = code_at(secret, member.clock.wall_ms() // 1000 // STEP_S)
    assert (await login(api, code=used)).status == 401, "the code that confirmed is used up"
    member.clock.pass_s(STEP_S)
    fresh = code_at(secret, member.clock.wall_ms() // 1000 // STEP_S)
    await entered(api, code=fresh)
    assert (await login(api, code=fresh)).status == 401
    assert (await login(api, password=OTHER_PASSWORD, code=fresh)).status == 401


async def test_a_recovery_code_stands_in_once_and_ones_own_codes_need_a_code_to_end(member, api):
    _, codes = await with_totp(member, api)
    head = await entered(api, code=codes[0])
    assert (await login(api, code=codes[0])).status == 401
    url = "/v1/accounts/alice/actions/disable-totp"
    await problem_of(await api.post(url, headers=head), 403, "forbidden")
    assert (await api.post(url, json={"code": codes[1]}, headers=head)).status == 204
    await entered(api)


# -- rights that grow by themselves


async def test_nobody_gives_or_takes_over_more_than_they_have(member, api):
    permission = {"kinds": ["account", "role", "access-token", "vm", "session"], "actions": ["*"]}
    clerk = {"name": "clerk", "permissions": [permission]}
    assert (await api.post("/v1/roles", json=clerk, headers=ADMIN)).status == 201
    await made(api, "boss", "admin")
    await entered(api, "boss")
    await made(api, "clerk1", "clerk")
    head = await entered(api, "clerk1")
    boss = member.store.find(Account, "boss")
    (boss_session,) = member.store.with_value(Session, "account_id", boss.id)
    everything = [{"kinds": ["*"], "actions": ["*"]}]
    for method, path, body in (
        ("POST", "/v1/accounts", {"name": "evil", "roles": ["admin"]}),
        ("PATCH", "/v1/accounts/clerk1", {"roles": ["admin"]}),
        ("PATCH", "/v1/accounts/boss", {"disabled": True}),
        ("DELETE", "/v1/accounts/boss", None),
        ("POST", "/v1/accounts/boss/actions/set-password", {"password": OTHER_PASSWORD}),
        ("POST", "/v1/accounts/boss/actions/disable-totp", {}),
        ("POST", "/v1/roles", {"name": "evil", "permissions": everything}),
        ("PATCH", "/v1/roles/clerk", {"permissions": everything}),
        ("POST", "/v1/access-tokens", {"name": "evil"}),
        ("POST", "/v1/access-tokens", {"name": "evil", "roles": ["admin"]}),
        ("POST", "/v1/access-tokens", {"name": "evil", "account": "boss"}),
        ("DELETE", f"/v1/sessions/{boss_session.id}", None),
    ):
        response = await api.request(method, path, json=body, headers=head)
        await problem_of(response, 403, "forbidden")
    assert (await made(api, "plain"))["role_ids"] == []


async def test_an_account_named_like_anothers_id_gains_nothing(member, api):
    boss = await made(api, "boss", "admin")
    await made(api, boss["id"], "viewer")
    head = await entered(api, boss["id"])
    url = f"/v1/accounts/{boss['id']}/actions/enable-totp"
    await problem_of(await api.post(url, headers=head), 403, "forbidden")


async def test_ones_own_password_needs_the_old_one_and_ends_other_sessions(member, api):
    await made(api, "alice")
    mine, other = await entered(api), await entered(api)
    url = "/v1/accounts/alice/actions/set-password"
    for old in ("", OTHER_PASSWORD):
        body = {"password": OTHER_PASSWORD, "old_password": old}
        await problem_of(await api.post(url, json=body, headers=mine), 403, "forbidden")
    body = {"password": OTHER_PASSWORD, "old_password": PASSWORD}
    assert (await api.post(url, json=body, headers=mine)).status == 204
    assert (await api.get("/v1/whoami", headers=mine)).status == 200
    await problem_of(await api.get("/v1/whoami", headers=other), 401, "unauthenticated")
    assert (await login(api)).status == 401
    await entered(api, password=OTHER_PASSWORD)


async def test_a_limited_token_may_do_what_its_role_or_account_may(member, api):
    await made(api, "alice", "operator")
    for body, path, status in (
        ({"name": "t1", "roles": ["viewer"]}, "/v1/accounts", 403),
        ({"name": "t2", "account": "alice"}, "/v1/accounts", 403),
        ({"name": "t3"}, "/v1/accounts", 200),
    ):
        answer = await (await api.post("/v1/access-tokens", json=body, headers=ADMIN)).json()
        head = {"Authorization": f"Bearer {answer['token']}"}
        assert (await api.get("/v1/vms", headers=head)).status == 200
        assert (await api.get(path, headers=head)).status == status
        if body.get("account"):
            await api.patch("/v1/accounts/alice", json={"disabled": True}, headers=ADMIN)
            await problem_of(await api.get("/v1/vms", headers=head), 401, "unauthenticated")
            assert (await api.delete("/v1/accounts/alice", headers=ADMIN)).status == 204
            await problem_of(await api.get("/v1/vms", headers=head), 401, "unauthenticated")
    assert {t.name for t in member.store.all(AccessToken)} == {"admin", "t1", "t3"}


# -- audits


async def audits(api, query="") -> list[dict]:
    response = await api.get(f"/v1/audits{query}", headers=ADMIN)
    assert response.status == 200, await response.text()
    return (await response.json())["items"]


async def test_a_change_is_recorded_with_who_what_and_how_it_ended(member, api):
    vm = await member.add_vm()
    await made(api, "alice", "operator")
    head = await entered(api)
    response = await api.patch(f"/v1/vms/{vm.name}", json={"description": "front"}, headers=head)
    assert response.status == 200
    (audit,) = await audits(api, f"?q=subject=vm/{vm.id}")
    assert (audit["operator"], audit["via"], audit["address"]) == ("alice", "session", "127.0.0.1")
    assert (audit["action"], audit["result"]) == ("PATCH /v1/vms/{vm}", 200)
    assert json.loads(audit["before"])["description"] == ""
    assert json.loads(audit["after"])["description"] == "front"
    assert audit["request_id"] == response.headers["X-Request-Id"]
    assert audit["ended_ms"] >= audit["created_ms"] > 0
    (entry,) = await audits(api, "?q=action=log in")
    assert (entry["operator"], entry["result"]) == ("alice", 200)
    await problem_of(await api.patch("/v1/vms/none", json={}, headers=head), 404, "not-found")
    (refused,) = await audits(api, "?q=result=404")
    assert (refused["subject"], refused["code"]) == ("vm/none", "not-found")


async def test_root_is_named_as_the_operator(member, agent, tmp_path: Path):
    runner = web.AppRunner(build_app(agent, clock=member.clock, rng=member.rng))
    async with await unix_client(runner, tmp_path / "api.sock") as local:
        assert (await local.post("/v1/accounts", json={"name": "first"})).status == 201
        items = (await (await local.get("/v1/audits")).json())["items"]
        assert [(a["operator"], a["via"], a["address"]) for a in items] == [
            ("root", "root", "local")
        ]
    await runner.cleanup()


async def test_a_change_whose_begin_cannot_be_recorded_is_not_made(member, agent, api, monkeypatch):
    """Of the kind that is recorded before; others have their begin in the transaction of the change."""
    from core.errors import UnavailableError

    async def begin(audit, together):
        raise UnavailableError("no quorum")

    before = member.store.need(Host, HOST_ID)
    monkeypatch.setattr(agent.services.identity.audits, "begin", begin)
    response = await api.patch("/v1/hosts/h1", json={"failure_domain": "rack2"}, headers=ADMIN)
    await problem_of(response, 503, "unavailable")
    assert member.store.need(Host, HOST_ID) == before


async def test_failed_log_ins_are_recorded_together_by_address(member, agent, api):
    for number in range(15):
        await login(api, f"guess{number}")
    for number in range(ADDRESSES_MAX + 20):
        agent.services.identity.audits.login_failed(f"192.0.2.{number}", "x", "refused")
    await agent.services.identity.audits.flush()
    found = await audits(api, "?q=address=127.0.0.1&q=code=refused")
    assert [(a["result"], a["count"]) for a in found] == [(401, 10)]
    assert [a["count"] for a in await audits(api, "?q=code=held-back")] == [5]
    assert len(member.store.all(Audit)) <= ADDRESSES_MAX + 2
    total = sum(a.count for a in member.store.all(Audit))
    assert total == 15 + ADDRESSES_MAX + 20


async def test_failures_wait_for_quorum(member, agent, api):
    log = agent.services.identity.audits
    log.login_failed("192.0.2.1", "x", "refused")
    member.engine.available = False
    await log.flush()
    log.login_failed("192.0.2.1", "y", "refused")
    member.engine.available = True
    await log.flush()
    (audit,) = member.store.all(Audit)
    assert (audit.count, audit.message) == (2, "names tried: x, y")


async def test_old_audits_go(member, api):
    await made(api, "alice")
    (audit,) = member.store.all(Audit)
    assert audit not in Housekeeping(member.node).outdated()
    old = replace(audit, created_ms=member.clock.wall_ms() - AUDITS_KEPT_MS - 1)
    await member.store.apply(puts=(old,))
    assert [r.id for r in Housekeeping(member.node).outdated()] == [audit.id]


async def test_no_secret_is_in_an_answer_a_log_or_an_audit(member, agent, api, caplog):
    caplog.set_level("DEBUG")
    secret, codes = await with_totp(member, api)
    head = await entered(api, code=codes[0])
    body = {"password": OTHER_PASSWORD, "old_password": PASSWORD}
    await api.post("/v1/accounts/alice/actions/set-password", json=body, headers=head)
    vm = {"name": "v", "image": "debian", "user_data": "#cloud-config\n# canary-user-data"}
    created = await api.post("/v1/vms", json=vm, headers=ADMIN)
    assert created.status == 202, await created.text()
    await login(api, "alice", PASSWORD, codes[1])
    await agent.services.identity.audits.flush()
    stored = member.store.find(Account, "alice")
    canaries = [
        PASSWORD, OTHER_PASSWORD, codes[1], ADMIN_TOKEN, stored.password_hash, secret.hex(),
        head["Authorization"].split()[1], *stored.recovery_sha256,
        *(s.secret_sha256 for s in member.store.all(Session)),
    ]  # fmt: skip
    texts = [str(vars(r)) for r in caplog.records]
    for plural in COLLECTIONS:
        response = await api.get(f"/v1/{plural}", headers=ADMIN)
        texts.append(await response.text())
    everything = "\n".join(texts)
    assert not [c for c in canaries if c in everything]
    assert "canary-user-data" not in json.dumps(await audits(api))
    assert "canary-user-data" in str(member.store.all(VM)), "it would have been there to leak"
