"""Access keys as the API makes, changes and shows them, and what requests signed with them may do."""

import asyncio
import dataclasses

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.identity.sealing import make_key, unseal
from core.identity.signing import WINDOW_S
from core.model import (
    AccessKey,
    Audit,
    SecretsKey,
    UsedNonce,
)
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.signed_requests import made, program, refused

PASSWORD = "canary staple 42 battery"


@pytest.fixture
def agent(member):
    return FakeAgent(member)


@pytest.fixture
async def api(member, agent):
    async with TestClient(TestServer(app_of(member, agent))) as client:
        yield client


async def test_a_signed_request_does_what_its_roles_allow_and_no_more(member, api):
    signer = await program(member, api)
    assert (await signer.send(api, "GET", "/v1/vms?q=name%3Dweb1&limit=3")).status == 200
    body, headers = {"name": "web1", "image": "debian"}, {"Idempotency-Key": "k1"}
    created = await signer.send(api, "POST", "/v1/vms", body, headers)
    again = await signer.send(api, "POST", "/v1/vms", body, headers)
    assert (created.status, again.status) == (202, 202)
    assert (await created.json())["vm"]["id"] == (await again.json())["vm"]["id"]
    await problem_of(await signer.send(api, "GET", "/v1/accounts"), 403, "forbidden")
    who = await (await signer.send(api, "GET", "/v1/whoami")).json()
    assert (who["name"], who["via"]) == ("ci", "access-key")


async def test_a_change_is_audited_in_the_key_s_name_and_costs_no_commit_of_its_own(
    member, agent, api
):
    signer, vm = await program(member, api), await member.add_vm()
    index = member.store.index
    path, body = f"/v1/vms/{vm.name}", {"description": "front"}
    assert (await signer.send(api, "PATCH", path, body)).status == 200
    assert member.store.index == index + 2, "begin and nonce, then the change"
    await agent.services.identity.audits.flush()
    (audit,) = member.store.with_value(Audit, "subject", f"vm/{vm.id}")
    assert (audit.operator, audit.via, audit.address) == ("ci", "access-key", "127.0.0.1")
    assert (audit.action, audit.result) == ("PATCH /v1/vms/{vm}", 200)
    (nonce,) = member.store.all(UsedNonce)
    assert nonce.signed_ms == signer.now_s() * 1000


async def test_a_key_of_an_account_follows_the_account(member, api):
    for name in ("alice", "bob"):
        await api.post("/v1/accounts", json={"name": name, "roles": ["viewer"]}, headers=ADMIN)
    signer = await program(member, api, account="alice")
    assert (await signer.send(api, "GET", "/v1/vms")).status == 200
    change = {"roles": []}
    await api.patch("/v1/accounts/alice", json=change, headers=ADMIN)
    await problem_of(await signer.send(api, "GET", "/v1/vms"), 403, "forbidden")
    await api.patch("/v1/accounts/alice", json={"disabled": True}, headers=ADMIN)
    await refused(await signer.send(api, "GET", "/v1/vms"))
    assert (await api.delete("/v1/accounts/alice", headers=ADMIN)).status == 204
    assert member.store.all(AccessKey) == []
    await refused(await signer.send(api, "GET", "/v1/vms"))


async def test_a_disabled_expired_rotated_or_deleted_key_is_refused_at_once(member, api):
    signer = await program(member, api, roles=["viewer"], ttl_s=3600)
    path = f"/v1/access-keys/{signer.key_id}"
    for disabled, status in ((True, 401), (False, 200)):
        body = {"disabled": disabled, "description": "of billing"}
        assert (await api.patch(path, json=body, headers=ADMIN)).status == 200
        assert (await signer.send(api, "GET", "/v1/vms")).status == status
    fresh = await (await api.post("/v1/access-keys/ci/actions/rotate", headers=ADMIN)).json()
    await refused(await signer.send(api, "GET", "/v1/vms"))
    assert (await (await api.get(path, headers=ADMIN)).json())["description"] == "of billing"
    signer.secret = fresh["secret"]
    assert (await signer.send(api, "GET", "/v1/vms")).status == 200
    member.clock.pass_s(3600)
    await refused(await signer.send(api, "GET", "/v1/vms"))
    assert (await api.delete("/v1/access-keys/ci", headers=ADMIN)).status == 204
    await refused(await signer.send(api, "GET", "/v1/vms"))


async def test_the_secret_is_shown_once(member, api):
    body, head = {"name": "ci", "roles": ["viewer"]}, {**ADMIN, "Idempotency-Key": "one"}
    key = await (await api.post("/v1/access-keys", json=body, headers=head)).json()
    again = await api.post("/v1/access-keys", json=body, headers=head)
    await problem_of(again, 409, "conflict")
    stored = member.store.need(AccessKey, key["id"])
    name = f"access-key/{key['id']}"
    assert unseal(member.secrets_key, name, stored.sealed_secret).decode() == key["secret"]
    for path in ("/v1/access-keys", "/v1/access-keys/ci", "/v1/audits"):
        text = await (await api.get(path, headers=ADMIN)).text()
        assert key["secret"] not in text and "sealed" not in text
    assert key["secret"] not in repr(stored)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"roles": []},
        {"roles": ["viewer"], "account": "alice"},
        {"roles": ["viewer"], "ttl_s": -1},
        {"roles": ["viewer"], "ttl_s": 1 << 40},
        {"roles": ["viewer"], "name": "Not A Name"},
    ],
)
async def test_a_key_says_what_it_may_do(api, body):
    response = await api.post("/v1/access-keys", json={"name": "ci", **body}, headers=ADMIN)
    await problem_of(response, 400, "invalid")


async def test_nobody_makes_or_touches_a_key_that_may_do_more(member, api):
    permission = {"kinds": ["access-key", "vm"], "actions": ["*"]}
    role = {"name": "clerk", "permissions": [permission]}
    assert (await api.post("/v1/roles", json=role, headers=ADMIN)).status == 201
    await api.post("/v1/accounts", json={"name": "boss", "roles": ["admin"]}, headers=ADMIN)
    boss = await made(api, "boss-key", account="boss")
    clerk = await program(member, api, roles=["clerk"])
    for method, path, body in (
        ("POST", "/v1/access-keys", {"name": "evil", "roles": ["admin"]}),
        ("POST", "/v1/access-keys", {"name": "evil", "account": "boss"}),
        ("POST", f"/v1/access-keys/{boss['id']}/actions/rotate", None),
        ("PATCH", "/v1/access-keys/boss-key", {"disabled": True}),
        ("DELETE", "/v1/access-keys/boss-key", None),
    ):
        await problem_of(await clerk.send(api, method, path, body), 403, "forbidden")
    mine = await clerk.send(api, "POST", "/v1/access-keys", {"name": "ok", "roles": ["clerk"]})
    assert mine.status == 201
    await problem_of(await api.delete("/v1/roles/clerk", headers=ADMIN), 409, "conflict")


async def test_a_key_doesn_t_act_as_its_account_in_person(member, api):
    await api.post("/v1/accounts", json={"name": "alice", "roles": ["viewer"]}, headers=ADMIN)
    signer = await program(member, api, account="alice")
    path, body = "/v1/accounts/alice/actions/set-password", {"password": PASSWORD}
    await problem_of(await signer.send(api, "POST", path, body), 403, "forbidden")


# -- secrets keys


async def test_a_host_without_the_secrets_key_in_use_says_so_to_everybody(member, api):
    signer = await program(member, api)
    unknown = dataclasses.replace(signer, key_id="kvk_" + "0" * 32)
    record = SecretsKey(id="secrets-key", name="secrets-key", key_id="ff" * 8)
    await member.store.apply(puts=(record,))
    for who in (signer, unknown):
        problem = await problem_of(await who.send(api, "GET", "/v1/vms"), 503, "no-secrets-key")
        assert "ask another host" in problem["detail"]
    response = await api.post("/v1/access-keys", json={"name": "x", "roles": ["viewer"]}, headers=ADMIN)  # fmt: skip
    await problem_of(response, 503, "no-secrets-key")


async def test_a_key_that_was_sealed_anew_goes_on(member, api):
    """After a change of the secrets key, also with the decoy of unknown keys sealed before."""
    from core.identity.sealing import key_id, seal

    signer = await program(member, api)
    unknown = dataclasses.replace(signer, key_id="kvk_" + "0" * 32)
    await refused(await unknown.send(api, "GET", "/v1/vms"))
    key, fresh = member.store.need(AccessKey, signer.key_id), make_key()
    name = f"access-key/{key.id}"
    secret = unseal(member.secrets_key, name, key.sealed_secret)
    member.secrets_key = fresh
    record = SecretsKey(id="secrets-key", name="secrets-key", key_id=key_id(fresh))
    await member.store.apply(puts=(replace(key, sealed_secret=seal(fresh, name, secret)), record))
    assert (await signer.send(api, "GET", "/v1/vms")).status == 200
    await refused(await unknown.send(api, "GET", "/v1/vms"))


async def test_a_stream_ends_when_its_key_is_given_a_new_secret(member, api):
    signer = await program(member, api)
    head = signer.head("GET", "/v1/events", headers={"Last-Event-ID": "0"})
    head["Accept"] = "text/event-stream"
    async with asyncio.timeout(10), api.get("/v1/events", headers=head) as stream:
        assert stream.status == 200
        member.clock.pass_s(WINDOW_S * 2)  # it may go on for longer than its signature is new
        body = {"name": "pg", "cidr": "10.9.0.0/24"}
        await api.post("/v1/access-keys/ci/actions/rotate", headers=ADMIN)
        assert (await api.post("/v1/port-groups", json=body, headers=ADMIN)).status == 201
        from nodeagent.services.event_log import EventLog

        key = member.store.need(AccessKey, signer.key_id)
        event = EventLog(member.node).make("something", key, "happened")
        await member.store.apply(puts=(event,))
        assert b"something" not in await stream.content.read()
