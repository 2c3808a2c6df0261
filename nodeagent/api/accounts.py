"""Accounts and sessions: log in and out, and passwords. Time codes are in `nodeagent.api.two_factor`.

Nobody gives an account a right that they don't hold, and nobody touches one that holds more than they do.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError
from core.identity.passwords import check_new_password
from core.logs import REQUEST_ID
from core.model import AccessKey, AccessToken, Account, Session, check_name
from nodeagent.api.access import address_of, caller_of, is_own
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of, target_of
from nodeagent.api.roles import check_covered, role_ids
from nodeagent.api.views import show
from nodeagent.identity.callers import permissions_of
from raftstate.store import Store


class LogIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/login`. `code`: six digits, or a recovery code; empty without two-factor log-in."""

    name: Annotated[str, attribute("Name of the account.")]
    password: Annotated[str, attribute("Its password.")]
    code: Annotated[
        str, attribute("A time code or a recovery code; empty without two-factor log-in.")
    ] = ""

    def __repr__(self) -> str:
        return "LogIn(***)"


class CreateAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/accounts`. Without a password nobody can log in to it until one is set."""

    OF: ClassVar[type[msgspec.Struct]] = Account

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    roles: Annotated[tuple[str, ...], attribute("Names of its roles.")] = ()
    password: Annotated[
        str,
        attribute("Its password, of 12 characters at least; empty: nobody can log in to it yet."),
    ] = ""
    description: str = ""

    def __repr__(self) -> str:
        return "CreateAccount(***)"


class ChangeAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/accounts/{account}`: absent fields stay."""

    OF: ClassVar[type[msgspec.Struct]] = Account

    roles: Annotated[tuple[str, ...] | UnsetType, attribute("Names of its roles, all of them.")] = (
        UNSET
    )
    disabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class SetPassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`.../actions/set-password`. Whoever sets their own has to know the old one."""

    password: Annotated[str, attribute("The new password, of 12 characters at least.")]
    old_password: Annotated[str, attribute("The present one; needed for one's own.")] = ""

    def __repr__(self) -> str:
        return "SetPassword(***)"


def add_routes(app: web.Application) -> None:
    """Add the routes of accounts and sessions."""
    app.router.add_post("/v1/login", log_in)
    app.router.add_post("/v1/logout", log_out)
    app.router.add_get("/v1/whoami", who_am_i)
    app.router.add_delete("/v1/sessions/{session}", revoke_session)
    app.router.add_post("/v1/accounts", create_account)
    app.router.add_patch("/v1/accounts/{account}", change_account)
    app.router.add_delete("/v1/accounts/{account}", delete_account)
    app.router.add_post("/v1/accounts/{account}/actions/set-password", set_password)


async def log_in(request: web.Request) -> web.Response:
    """POST /v1/login. 200: a session's token. 401: refused, whatever the reason. 429: this address waits. 503."""
    body = await body_of(request, LogIn)
    token, session = await services_of(request).identity.login.log_in(
        body.name,
        body.password,
        body.code,
        address=address_of(request),
        request_id=REQUEST_ID.get(),
    )
    return json_answer(
        {"token": token, "id": session.id, "expires_ms": session.expires_ms},
        headers={"Cache-Control": "no-store"},
    )


async def log_out(request: web.Request) -> web.Response:
    """POST /v1/logout. 204: the session is over everywhere. 409: the caller has none."""
    store, caller = node_of(request).store, caller_of(request)
    session = store.get(Session, caller.session_id)
    if session is None:
        raise ConflictError(f"there is no session to end: you came in as {caller.via}")
    await store.apply(deletes=(session,))
    return web.Response(status=204)


async def who_am_i(request: web.Request) -> web.Response:
    """GET /v1/whoami. 200: who the credentials are, and what they allow."""
    caller = caller_of(request)
    return json_answer(
        {
            "name": caller.name,
            "via": caller.via,
            "account_id": caller.account_id,
            "permissions": msgspec.to_builtins(caller.permissions),
        }
    )


async def revoke_session(request: web.Request) -> web.Response:
    """DELETE /v1/sessions/{session}. 204: refused everywhere at once."""
    store = node_of(request).store
    session = target_of(request, Session, "session")
    if (account := store.get(Account, session.account_id)) is not None:
        check_covered(caller_of(request), permissions_of(store, account.role_ids))
    await store.apply(deletes=(session,))
    return web.Response(status=204)


async def create_account(request: web.Request) -> web.Response:
    """POST /v1/accounts. 201. 403: a role allows more than the caller may. 409: name taken."""
    node, body, ids = node_of(request), await body_of(request, CreateAccount), ids_of(request)
    name = check_name(body.name, "account")
    roles = role_ids(node.store, caller_of(request), body.roles)
    hashed = ""
    if body.password:
        login = services_of(request).identity.login
        check_new_password(body.password, name)
        hashed = await login.passwords.hash(body.password, of=address_of(request))
    account = Account(
        id=ids.id_for("account"),
        name=name,
        role_ids=roles,
        description=body.description[:500],
        password_hash=hashed,
        created_ms=node.clock.wall_ms(),
    )
    if node.store.get(Account, account.id) is None:
        await node.store.apply(puts=(account,))
    return json_answer(
        show(node.store, node.store.need(Account, account.id)),
        status=201,
        headers={"Location": f"/v1/accounts/{account.id}"},
    )


async def change_account(request: web.Request) -> web.Response:
    """PATCH /v1/accounts/{account}. 200: it counts from the next request of that account on."""
    store, body, account = (
        node_of(request).store,
        await body_of(request, ChangeAccount),
        account_of(request),
    )
    if body.roles is not UNSET:
        account = replace(account, role_ids=role_ids(store, caller_of(request), body.roles))
    if body.disabled is not UNSET:
        account = replace(account, disabled=body.disabled)
    if body.description is not UNSET:
        account = replace(account, description=body.description[:500])
    await store.apply(puts=(account,))
    return json_answer(show(store, store.need(Account, account.id)))


async def delete_account(request: web.Request) -> web.Response:
    """DELETE /v1/accounts/{account}. 204: with its sessions, and the access tokens and keys in its name."""
    store, account = node_of(request).store, account_of(request)
    sessions = store.with_value(Session, "account_id", account.id)
    tokens = store.with_value(AccessToken, "account_id", account.id)
    keys = store.with_value(AccessKey, "account_id", account.id)
    await store.apply(deletes=(account, *sessions, *tokens, *keys))
    return web.Response(status=204)


async def set_password(request: web.Request) -> web.Response:
    """POST .../actions/set-password. 204: other sessions of the account are over. 403: the old one is wrong."""
    body, account, caller = (
        await body_of(request, SetPassword),
        account_of(request),
        caller_of(request),
    )
    store, login = node_of(request).store, services_of(request).identity.login
    check_new_password(body.password, account.name)
    if is_own(request, caller):
        await login.check_own(account, body.old_password, address=caller.address)
        account = store.need(Account, account.id)
    hashed = await login.passwords.hash(body.password, of=caller.address)
    others = [s for s in _sessions(store, account) if s.id != caller.session_id]
    changed = replace(account, password_hash=hashed, failures=0, locked_until_ms=0)
    await store.apply(puts=(changed,), deletes=others)
    return web.Response(status=204)


def account_of(request: web.Request) -> Account:
    """Return the account of the path, if the caller may do all that it may, or is it.

    Raises:
        NotFoundError: there is none.
        ForbiddenError: it may do more.
    """
    store, caller = node_of(request).store, caller_of(request)
    account = target_of(request, Account, "account")
    if not is_own(request, caller):
        check_covered(caller, permissions_of(store, account.role_ids))
    return account


def _sessions(store: Store, account: Account) -> list[Session]:
    return store.with_value(Session, "account_id", account.id)
