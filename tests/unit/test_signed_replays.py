"""A signed request is taken once: by whichever agent, whenever restarted, however its clock goes, whatever it lags behind."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.errors import UnauthenticatedError, UnavailableError
from core.identity.signing import WINDOW_S, Signed, parse
from core.model import (
    COLLECTIONS,
    AccessKey,
    Account,
    NonceFloor,
    UsedNonce,
)
from nodeagent.api.permissions import NEEDS, Gate
from nodeagent.identity import nonces
from nodeagent.identity.access_keys import AccessKeys, Presented
from nodeagent.identity.audits import Audits
from nodeagent.identity.nonces import forget
from nodeagent.services import housekeeping
from nodeagent.services.housekeeping import Housekeeping
from raftstate.state.machine import Machine
from raftstate.store import Store
from tests.api import ADMIN, FakeAgent, app_of, problem_of
from tests.one_member import HOST_ID, OneMember, founded
from tests.signed_requests import program, refused


@pytest.fixture
def agent(member):
    return FakeAgent(member)


@pytest.fixture
async def api(member, agent):
    async with TestClient(TestServer(app_of(member, agent))) as client:
        yield client


async def test_a_request_is_taken_once(member, api):
    signer = await program(member, api)
    head = signer.head("GET", "/v1/vms")
    assert (await api.get("/v1/vms", headers=head)).status == 200
    assert "nonce was taken before" in await refused(await api.get("/v1/vms", headers=head))
    same_nonce = signer.head("GET", "/v1/images", nonce=parse(head["Authorization"]).nonce)
    assert "nonce" in await refused(await api.get("/v1/images", headers=same_nonce))


async def test_each_route_takes_a_signed_request_once(member, api):
    """Whatever else it answers: the second time it is refused, and so nothing can have been done."""
    signer = await program(member, api, roles=["admin"])
    for route, need in NEEDS.items():
        method, path = route.split()
        if need.gate in (Gate.OPEN, Gate.LOCAL):
            continue
        for plural in COLLECTIONS if "{plural}" in path else ("",):
            url = path.replace("{plural}", plural)
            while "{" in url:
                url = url[: url.index("{")] + "none-such" + url[url.index("}") + 1 :]
            dry = "?dry_run=1" if method == "DELETE" else ""
            for target in {url, url + dry}:
                head = signer.head(method, target)
                skip = {"skip_auto_headers": ["Content-Type"]}
                first = await api.request(method, target, headers=head, **skip)
                assert first.status not in (401, 429), (method, target, await first.text())
                await first.release()
                if "dry_run" in target and first.status == 400:
                    continue  # not possible there: refused before anything else
                second = await api.request(method, target, headers=head, **skip)
                assert second.status == 401, (method, target, first.status)


async def test_what_was_forbidden_can_t_be_sent_again_when_it_is_allowed(member, api):
    role = {"name": "clerk", "permissions": [{"kinds": ["task"], "actions": ["read"]}]}
    assert (await api.post("/v1/roles", json=role, headers=ADMIN)).status == 201
    signer = await program(member, api, roles=["clerk"])
    head = signer.head("GET", "/v1/vms")
    await problem_of(await api.get("/v1/vms", headers=head), 403, "forbidden")
    wider = {"permissions": [{"kinds": ["vm"], "actions": ["read"]}]}
    assert (await api.patch("/v1/roles/clerk", json=wider, headers=ADMIN)).status == 200
    await refused(await api.get("/v1/vms", headers=head))
    assert (await signer.send(api, "GET", "/v1/vms")).status == 200


async def test_two_at_the_same_moment_are_one(member, api):
    vm = await member.add_vm()
    signer, path = await program(member, api), f"/v1/vms/{vm.name}"
    head = signer.head("PATCH", path, b'{"description": "x"}')
    sent = [
        api.patch(path, data=b'{"description": "x"}', headers=head, skip_auto_headers=["Content-Type"])
        for _ in range(8)
    ]  # fmt: skip
    answers = await asyncio.gather(*sent)
    assert sorted(a.status for a in answers) == [200, *[401] * 7]


async def agents_of(stack: AsyncExitStack, member: OneMember, number: int) -> list[TestClient]:
    apps = [app_of(member, FakeAgent(member)) for _ in range(number)]
    return [await stack.enter_async_context(TestClient(TestServer(app))) for app in apps]


async def test_a_request_is_taken_by_one_agent_only_whichever_and_however_often_restarted(tmp_path):
    clock = (await founded()).clock
    member = await founded(machine=Machine(tmp_path / "state.db"), clock=clock)
    async with AsyncExitStack() as stack:
        first, second = await agents_of(stack, member, 2)
        signer = await program(member, first)
        head = signer.head("GET", "/v1/vms")
        assert (await first.get("/v1/vms", headers=head)).status == 200
        await refused(await second.get("/v1/vms", headers=head))
    member.machine.close()
    again = OneMember(machine=Machine(tmp_path / "state.db"), clock=clock)
    again.secrets_key = member.secrets_key
    async with AsyncExitStack() as stack:
        (restarted,) = await agents_of(stack, again, 1)
        await refused(await restarted.get("/v1/vms", headers=head))
        assert (await signer.send(restarted, "GET", "/v1/vms")).status == 200
    again.machine.close()


class Lagging(Store):
    """The store of an agent that hasn't applied what others committed, until it commits something itself."""

    def __init__(self, store: Store) -> None:
        self._real, self._old = store, {}

    def freeze_reads(self, *resources) -> None:
        self._old = {(type(r), r.id): r for r in resources}

    def __getattr__(self, name):
        return getattr(self._real, name)

    def get(self, type_, id_):
        found = self._old.get((type_, id_))
        return found if found is not None else self._real.get(type_, id_)

    async def apply(self, **what):
        old, self._old = self._old, {}
        puts, guards = what["puts"], what["guards"]
        assert {(type(r), r.id) for r in guards} >= set(old), "judged by it, so guarded by it"
        return await self._real.apply(puts=puts, guards=guards)


@pytest.mark.parametrize("what", ["disable", "delete", "rotate", "disable the account"])
async def test_an_agent_that_lags_can_t_let_in_a_key_that_others_have_refused(member, api, what):
    """The commit that claims the nonce also sees that the key is as it was judged."""
    await api.post("/v1/accounts", json={"name": "alice", "roles": ["viewer"]}, headers=ADMIN)
    signer = await program(member, api, account="alice")
    store = Lagging(member.store)
    audits = Audits(store, HOST_ID, clock=member.clock, rng=member.rng)
    keys = AccessKeys(
        store, audits, clock=member.clock, secrets_key=lambda: member.secrets_key
    )  # fmt: skip
    signature = parse(signer.head("GET", "/v1/vms")["Authorization"])
    presented = Presented(signature, Signed("GET", "/v1/vms", {}), "192.0.2.7")
    before = member.store.need(AccessKey, signer.key_id), member.store.find(Account, "alice")
    path = f"/v1/access-keys/{signer.key_id}"
    match what:
        case "disable":
            await api.patch(path, json={"disabled": True}, headers=ADMIN)
        case "delete":
            await api.delete(path, headers=ADMIN)
        case "rotate":
            await api.post(f"{path}/actions/rotate", headers=ADMIN)
        case _:
            await api.patch("/v1/accounts/alice", json={"disabled": True}, headers=ADMIN)
    store.freeze_reads(*before)
    assert keys.let_in(presented).name == "ci", "as far as this agent knows"
    with pytest.raises(UnauthenticatedError):
        await keys.claim(presented)
    assert member.store.all(UsedNonce) == []


async def test_a_change_of_the_key_that_leaves_it_good_lets_the_request_in(member, api):
    signer = await program(member, api, roles=["viewer"])
    store = Lagging(member.store)
    audits = Audits(store, HOST_ID, clock=member.clock, rng=member.rng)
    keys = AccessKeys(store, audits, clock=member.clock, secrets_key=lambda: member.secrets_key)
    signature = parse(signer.head("GET", "/v1/vms")["Authorization"])
    presented = Presented(signature, Signed("GET", "/v1/vms", {}), "192.0.2.7")
    before = member.store.need(AccessKey, signer.key_id)
    await member.store.apply(puts=(replace(before, description="x"),))
    store.freeze_reads(before)
    await keys.claim(presented)
    assert len(member.store.all(UsedNonce)) == 1


async def test_nonces_are_forgotten_after_the_window_and_never_taken_again(member, api):
    signer, head = await program(member, api), []
    for _ in range(3):
        head.append(signer.head("GET", "/v1/vms"))
        assert (await api.get("/v1/vms", headers=head[-1])).status == 200
        member.clock.pass_s(60)
    now_s = member.clock.wall
    member.clock.pass_s(WINDOW_S - 100)
    assert await forget(member.store, now_ms=member.clock.wall_ms()) == 2
    assert len(member.store.all(UsedNonce)) == 1
    assert (await signer.send(api, "GET", "/v1/vms")).status == 200
    member.clock.wall = now_s  # an agent whose clock is late
    for one in head:
        await refused(await api.get("/v1/vms", headers=one))
    assert (await signer.send(api, "GET", "/v1/vms")).status == 200
    (floor,) = member.store.all(NonceFloor)
    assert floor.signed_ms < now_s


async def test_an_agent_that_lags_behind_the_forgetting_can_t_take_a_request_again(member, api):
    signer = await program(member, api, roles=["viewer"])
    head = signer.head("GET", "/v1/vms")
    assert (await api.get("/v1/vms", headers=head)).status == 200
    await member.store.apply(puts=(NonceFloor(id="nonce-floor", name="nonce-floor", signed_ms=1),))
    floor = member.store.all(NonceFloor)[0]
    await forget(member.store, now_ms=member.clock.wall_ms() + WINDOW_S * 1000 + 1)
    assert member.store.all(UsedNonce) == []
    store = Lagging(member.store)
    audits = Audits(store, HOST_ID, clock=member.clock, rng=member.rng)
    keys = AccessKeys(store, audits, clock=member.clock, secrets_key=lambda: member.secrets_key)
    presented = Presented(parse(head["Authorization"]), Signed("GET", "/v1/vms", {}), "192.0.2.7")
    store.freeze_reads(floor)
    keys.let_in(presented)
    with pytest.raises(UnauthenticatedError):
        await keys.claim(presented)


async def test_many_nonces_are_forgotten_in_batches(member):
    now_ms = member.clock.wall_ms()
    key = "kvk_" + "a" * 32
    for batch in range(3):
        old = [
            UsedNonce(id=f"{key}.{batch}-{n:016d}", name="", signed_ms=now_ms - 10**6 - n)
            for n in range(900)
        ]
        await member.store.apply(puts=old)
    await member.store.apply(puts=(UsedNonce(id=f"{key}.young", name="", signed_ms=now_ms),))
    index = member.store.index
    assert await forget(member.store, now_ms=now_ms) == 2700
    assert member.store.index == index + 4, "the floor, and three batches"
    assert [n.id for n in member.store.all(UsedNonce)] == [f"{key}.young"]


async def test_housekeeping_forgets_nonces(member, monkeypatch):
    monkeypatch.setattr(housekeeping, "ROUND_S", 0.0)
    old = UsedNonce(id="kvk_x.y", name="", signed_ms=member.clock.wall_ms() - 10**6)
    await member.store.apply(puts=(old,))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(Housekeeping(member.node).run(), name="housekeeping")
        while member.store.all(UsedNonce):
            await asyncio.sleep(0.01)
        task.cancel()


async def test_so_many_are_kept_of_a_key_and_of_all(member, api, monkeypatch):
    monkeypatch.setattr(nonces, "PER_KEY_MAX", 3)
    monkeypatch.setattr(nonces, "OVERALL_MAX", 5)
    one, two = await program(member, api, "one"), await program(member, api, "two")
    for _ in range(3):
        assert (await one.send(api, "GET", "/v1/vms")).status == 200
    problem = await problem_of(
        await one.send(api, "GET", "/v1/vms"), 429, "too-many-requests"
    )  # fmt: skip
    assert "signed 3 requests" in problem["detail"]
    for _ in range(2):
        assert (await two.send(api, "GET", "/v1/vms")).status == 200
    await problem_of(await two.send(api, "GET", "/v1/vms"), 429, "too-many-requests")
    member.clock.pass_s(WINDOW_S + 1)
    await forget(member.store, now_ms=member.clock.wall_ms())
    assert (await one.send(api, "GET", "/v1/vms")).status == 200


async def test_a_claim_gives_up_when_everything_changes_all_the_time(member, api):
    signer = await program(member, api, roles=["viewer"])

    class Changing(Lagging):
        async def apply(self, **what):
            key = member.store.need(AccessKey, signer.key_id)
            await member.store.apply(puts=(replace(key, description=str(member.store.index)),))
            return await self._real.apply(**what)

    store = Changing(member.store)
    audits = Audits(store, HOST_ID, clock=member.clock, rng=member.rng)
    keys = AccessKeys(store, audits, clock=member.clock, secrets_key=lambda: member.secrets_key)
    signature = parse(signer.head("GET", "/v1/vms")["Authorization"])
    with pytest.raises(UnavailableError, match="try again"):
        await keys.claim(Presented(signature, Signed("GET", "/v1/vms", {}), "192.0.2.7"))
