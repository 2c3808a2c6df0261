"""Callers found before: attacked with everything that takes a right away, at the very next request."""

import pytest
from msgspec.structs import replace

from core.errors import UnauthenticatedError
from core.model import AccessToken, Account, Permission, Role, Session
from nodeagent.identity import known_callers
from nodeagent.identity.known_callers import KnownCallers
from nodeagent.identity.tokens import limited_hash, new_session_token
from tests.one_member import ADMIN_TOKEN

TOKEN = "kvt_" + "x" * 40
NOW_MS = 1000


@pytest.fixture
async def known(member):
    """alice may look at VMs, by a session that ends at 5000 and by a token that ends at 9000."""
    permission = {"kinds": ("vm",), "actions": ("read",)}
    role = Role(id="looker", name="looker", permissions=(as_permission(permission),))
    account = Account(id="a", name="alice", role_ids=("looker",))
    text, hashed = new_session_token("s")
    session = Session(id="s", name="s", account_id="a", secret_sha256=hashed, expires_ms=5000)
    token = AccessToken(
        id="t", name="t", secret_sha256=limited_hash(TOKEN), account_id="a", expires_ms=9000
    )
    await member.store.apply(puts=(role, account, session, token))
    member.session = f"Bearer {text}"
    return KnownCallers(member.store)


def as_permission(fields):
    return Permission(**fields)


HEADS = ("session", "token")


def may(known, member, head: str, *, kind="vm", action="read", now_ms=NOW_MS) -> bool | None:
    """Return whether the bearer may, None if it isn't even let in."""
    header = member.session if head == "session" else f"Bearer {TOKEN}"
    try:
        caller = known.of_bearer(header, address="192.0.2.9", now_ms=now_ms)
    except UnauthenticatedError:
        return None
    return caller.may(kind, action)


@pytest.mark.parametrize("head", HEADS)
async def test_a_disabled_account_is_refused_and_let_in_again(known, member, head):
    store = member.store
    assert may(known, member, head) is True
    await store.apply(puts=(replace(store.need(Account, "a"), disabled=True),))
    assert may(known, member, head) is None
    await store.apply(puts=(replace(store.need(Account, "a"), disabled=False),))
    assert may(known, member, head) is True


@pytest.mark.parametrize("head", HEADS)
async def test_a_deleted_account_session_or_token_lets_nobody_in(known, member, head):
    store = member.store
    assert may(known, member, head) is True
    gone = store.need(Session, "s") if head == "session" else store.need(AccessToken, "t")
    await store.apply(deletes=(gone,))
    assert may(known, member, head) is None
    other = "token" if head == "session" else "session"
    assert may(known, member, other) is True
    await store.apply(deletes=(store.need(Account, "a"),))
    assert may(known, member, other) is None


@pytest.mark.parametrize("head", HEADS)
async def test_another_role_or_other_permissions_count_at_once(known, member, head):
    store = member.store
    assert may(known, member, head) is True
    other = (as_permission({"kinds": ("image",), "actions": ("read",)}),)
    await store.apply(puts=(replace(store.need(Role, "looker"), permissions=other),))
    assert may(known, member, head) is False
    assert may(known, member, head, kind="image") is True
    await store.apply(puts=(replace(store.need(Account, "a"), role_ids=("viewer",)),))
    assert may(known, member, head) is True
    await store.apply(puts=(replace(store.need(Account, "a"), role_ids=()),))
    assert may(known, member, head) is False


async def test_credentials_end_in_time_without_a_change_of_the_state(known, member):
    assert may(known, member, "session", now_ms=4999) is True
    assert may(known, member, "session", now_ms=5000) is None
    assert may(known, member, "token", now_ms=8999) is True
    assert may(known, member, "token", now_ms=9000) is None


async def test_another_state_in_place_of_the_old_one_forgets_everybody(known, member, tmp_path):
    assert may(known, member, "token") is True
    frozen = member.store.freeze()
    dump = tmp_path / "dump"
    frozen.write(dump)
    frozen.close()
    await member.store.apply(deletes=(member.store.need(AccessToken, "t"),))
    assert may(known, member, "token") is None
    member.machine.stage(dump)()
    assert may(known, member, "token") is True


async def test_what_is_not_known_is_never_kept_as_known(known, member):
    for header in ("", "Bearer", "Bearer kvt_no", "Basic " + ADMIN_TOKEN, "Bearer \udcff"):
        for _ in range(2):
            with pytest.raises(UnauthenticatedError):
                known.of_bearer(header, address="192.0.2.9", now_ms=NOW_MS)
    assert not known._known


async def test_a_known_caller_is_not_looked_up_and_its_secret_not_kept(known, member, monkeypatch):
    asked = []
    look_up = known_callers.caller_of_bearer
    monkeypatch.setattr(
        known_callers, "caller_of_bearer", lambda *a, **k: asked.append(1) or look_up(*a, **k)
    )
    for _ in range(3):
        assert may(known, member, "token") is True
    await member.add_image("another")
    assert may(known, member, "token") is True
    assert len(asked) == 1
    assert TOKEN not in repr(vars(known)) + repr(known._known)


async def test_few_are_kept_and_each_has_its_own_address(known, member, monkeypatch):
    monkeypatch.setattr(known_callers, "KEPT_MAX", 3)
    for number in range(10):
        address = f"192.0.2.{number}"
        caller = known.of_bearer(f"Bearer {TOKEN}", address=address, now_ms=NOW_MS)
        assert caller.address == address
        assert len(known._known) <= 3
