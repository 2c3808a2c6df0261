"""Recovery codes made anew, guesses with a stolen session, and hosts that lack the secrets key for a while."""

import asyncio

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace

from core.identity.lockout import AddressBook
from core.identity.sealing import unseal
from core.identity.totp import STEP_S, code_at
from core.model import Account, SecretsKey, Session
from nodeagent.identity.tokens import new_session_token
from tests.api import ADMIN, FakeAgent, app_of, problem_of

PASSWORD = "canary staple 42 battery"
ACTIONS = "/v1/accounts/alice/actions"
STRANGER = "127.0.0.2"


class Person:
    """Alice, with time codes, at a client of the API."""

    def __init__(self, member, api: TestClient) -> None:
        self.member, self.api = member, api
        self.secret = b""
        self.codes: list[str] = []
        self.head: dict[str, str] = {}

    def account(self) -> Account:
        return self.member.store.find(Account, "alice")

    def time_code(self) -> str:
        """Return a code that was not used, of a later half minute."""
        self.member.clock.pass_s(STEP_S)
        return code_at(self.secret, self.member.clock.wall_ms() // 1000 // STEP_S)

    async def login(self, code: str = "", password: str = PASSWORD) -> aiohttp.ClientResponse:
        body = {"name": "alice", "password": password, "code": code}
        return await self.api.post("/v1/login", json=body)

    async def enter(self, code: str = "") -> None:
        response = await self.login(code)
        assert response.status == 200, await response.text()
        self.head = {"Authorization": f"Bearer {(await response.json())['token']}"}

    async def act(self, verb: str, code: str = "", head=None) -> aiohttp.ClientResponse:
        headers = head or self.head
        return await self.api.post(f"{ACTIONS}/{verb}", json={"code": code}, headers=headers)


@pytest.fixture
def agent(member):
    return FakeAgent(member)


@pytest.fixture
async def alice(member, agent):
    async with TestClient(TestServer(app_of(member, agent))) as api:
        body = {"name": "alice", "roles": ["viewer"], "password": PASSWORD}
        assert (await api.post("/v1/accounts", json=body, headers=ADMIN)).status == 201
        person = Person(member, api)
        await person.enter()
        assert (await person.act("enable-totp")).status == 200
        stored = person.account()
        person.secret = unseal(member.secrets_key, f"totp/{stored.id}", stored.sealed_totp)
        confirmed = await person.act("confirm-totp", person.time_code())
        person.codes = (await confirmed.json())["recovery_codes"]
        yield person


async def test_new_recovery_codes_replace_the_old_ones(alice):
    code = alice.time_code()
    answer = await alice.act("renew-recovery-codes", code)
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    fresh = (await answer.json())["recovery_codes"]
    assert len(set(fresh)) == 10 and not set(fresh) & set(alice.codes)
    assert (await alice.login(alice.codes[0])).status == 401
    assert (await alice.login(code)).status == 401, "the time code is used up"
    await alice.enter(fresh[0])
    assert (await alice.login(fresh[0])).status == 401


async def test_they_need_a_time_code_and_nothing_else_will_do(alice):
    before = alice.account().recovery_sha256
    for code in (alice.codes[0], "000000", "", "x" * 500):
        problem = await problem_of(await alice.act("renew-recovery-codes", code), 403, "forbidden")
        assert "the code is wrong" in problem["detail"]
    assert alice.account().recovery_sha256 == before
    assert alice.account().failures == 4


async def test_only_the_owner_makes_them(member, alice):
    problem = await problem_of(
        await alice.act("renew-recovery-codes", alice.time_code(), ADMIN), 403, "forbidden"
    )
    assert "only whoever has logged in" in problem["detail"]
    body = {"name": "bob", "roles": ["admin"], "password": PASSWORD}
    await alice.api.post("/v1/accounts", json=body, headers=ADMIN)
    entered = await alice.api.post("/v1/login", json={"name": "bob", "password": PASSWORD})
    head = {"Authorization": f"Bearer {(await entered.json())['token']}"}
    await problem_of(
        await alice.act("renew-recovery-codes", alice.time_code(), head), 403, "forbidden"
    )
    own = await alice.api.post(
        "/v1/accounts/bob/actions/renew-recovery-codes", json={"code": ""}, headers=head
    )
    await problem_of(own, 409, "conflict")


async def test_one_code_makes_them_once_however_many_ask_at_once(alice):
    code = alice.time_code()
    answers = await asyncio.gather(*(alice.act("renew-recovery-codes", code) for _ in range(5)))
    assert [a.status for a in answers].count(200) == 1
    assert {a.status for a in answers} <= {200, 403, 409}


# -- stolen sessions


async def stolen(alice: Person) -> dict[str, str]:
    """Return a session of alice's that somebody uses at an address where she never logged in."""
    token, hash_ = new_session_token("stolen")
    end_ms = alice.member.clock.wall_ms() + 10**9
    session = Session(
        id="stolen",
        name="stolen",
        account_id=alice.account().id,
        secret_sha256=hash_,
        expires_ms=end_ms,
    )
    await alice.member.store.apply(puts=(session,))
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("verb", ["disable-totp", "renew-recovery-codes", "set-password"])
async def test_guesses_with_a_stolen_session_hold_the_account_back(agent, alice, verb):
    login = agent.services.identity.login
    next_step = alice.member.clock.wall_ms() // 1000 // STEP_S + 1
    right, wrong = {"code": code_at(alice.secret, next_step)}, {"code": "000000"}
    if verb == "set-password":
        right = {"password": "another canary 43 word", "old_password": PASSWORD}
        wrong = {**right, "old_password": "wrong password 1"}
    connector = aiohttp.TCPConnector(local_addr=(STRANGER, 0))
    async with aiohttp.ClientSession(connector=connector, headers=await stolen(alice)) as thief:
        url = alice.api.make_url(f"{ACTIONS}/{verb}")
        for body, status in (*[(wrong, 403)] * 5, (wrong, 429), (right, 429)):
            login._addresses = AddressBook()  # each from another address, so to say
            async with thief.post(url, json=body) as response:
                assert response.status == status
    login._addresses = AddressBook()
    answer = await alice.api.post(f"{ACTIONS}/{verb}", json=right, headers=alice.head)
    assert answer.status in (200, 204), "where she is known she isn't held back"


async def test_a_guess_is_counted_also_when_the_account_changes_at_that_moment(agent, alice):
    login, store = agent.services.identity.login, alice.member.store

    class Overtaken:
        """A store through which another guess is counted just before each of the first."""

        left = 2

        def __getattr__(self, name: str):
            return getattr(store, name)

        async def apply(self, **what) -> int:
            if self.left:
                self.left -= 1
                account = alice.account()
                await store.apply(puts=(replace(account, failures=account.failures + 1),))
            return await store.apply(**what)

    login._store = Overtaken()
    await problem_of(await alice.act("disable-totp", "000000"), 403, "forbidden")
    assert alice.account().failures == 3


# -- without the secrets key


async def test_a_host_without_the_secrets_key_tells_nobody_whether_the_password_was_right(alice):
    record = SecretsKey(id="secrets-key", name="secrets-key", key_id="ff" * 8)
    await alice.member.store.apply(puts=(record,))
    for response in (
        await alice.login(alice.time_code()),
        await alice.login(alice.time_code(), password="wrong password 1"),
        await alice.api.post("/v1/login", json={"name": "nobody", "password": PASSWORD}),
        await alice.act("disable-totp", alice.time_code()),
        await alice.act("renew-recovery-codes", alice.time_code()),
    ):
        problem = await problem_of(response, 503, "no-secrets-key")
        assert "ask another host" in problem["detail"]
    assert alice.account().failures == 0


async def test_a_damaged_secret_is_no_internal_error(alice):
    await alice.member.store.apply(puts=(replace(alice.account(), sealed_totp=b"damaged"),))
    await problem_of(await alice.login("123456"), 503, "no-secrets-key")
