"""Accounts and sessions: log in and out, passwords and time codes.

Nobody gives an account a right that they don't hold, and nobody touches one that holds more than they do.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, ForbiddenError
from core.identity.passwords import check_new_password
from core.identity.sealing import seal, unseal
from core.identity.totp import (
    accepted_step,
    new_recovery_codes,
    new_totp_secret,
    qr_svg,
    qr_text,
    recovery_hash,
    totp_uri,
)
from core.model import AccessToken, Account, Mesh, Session, check_name
from nodeagent.api.access import address_of, caller_of, is_own
from nodeagent.api.problems import REQUEST_ID
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of, target_of
from nodeagent.api.roles import check_covered, role_ids
from nodeagent.api.views import show
from nodeagent.identity.callers import permissions_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.sealing_guard import sealing_guards
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


class TotpCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`.../actions/confirm-totp` and `disable-totp`."""

    code: Annotated[str, attribute("A time code.")] = ""


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
    app.router.add_post("/v1/accounts/{account}/actions/enable-totp", enable_totp)
    app.router.add_post("/v1/accounts/{account}/actions/confirm-totp", confirm_totp)
    app.router.add_post("/v1/accounts/{account}/actions/disable-totp", disable_totp)


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
        _account(request),
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
    """DELETE /v1/accounts/{account}. 204: with its sessions and the access tokens in its name."""
    store, account = node_of(request).store, _account(request)
    await store.apply(deletes=(account, *_sessions(store, account), *_tokens(store, account)))
    return web.Response(status=204)


async def set_password(request: web.Request) -> web.Response:
    """POST .../actions/set-password. 204: other sessions of the account are over. 403: the old one is wrong."""
    body, account, caller = (
        await body_of(request, SetPassword),
        _account(request),
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


async def enable_totp(request: web.Request) -> web.Response:
    """POST .../actions/enable-totp. 200: address and QR code, until the first code confirms it. 409: it is on already."""
    node, account = node_of(request), _account(request)
    if account.totp_confirmed:
        raise ConflictError("time codes are on already: switch them off first")
    guards = sealing_guards(node.store)
    key = services_of(request).identity.secrets_key()
    name = f"totp/{account.id}"
    secret = unseal(key, name, account.sealed_totp) if account.sealed_totp else new_totp_secret()
    if not account.sealed_totp:
        sealed = replace(account, sealed_totp=seal(key, name, secret))
        await node.store.apply(puts=(sealed,), guards=guards)
    cluster = node.store.need(Mesh, MESH_ID).name
    uri = totp_uri(secret, account=account.name, cluster=cluster)
    return json_answer(
        {"uri": uri, "qr_svg": qr_svg(uri), "qr_text": qr_text(uri)},
        headers={"Cache-Control": "no-store"},
    )


async def confirm_totp(request: web.Request) -> web.Response:
    """POST .../actions/confirm-totp. 200: recovery codes, shown this once. 403: a wrong code. 409: nothing to confirm."""
    node, account = node_of(request), _account(request)
    code = (await body_of(request, TotpCode)).code
    if account.totp_confirmed or not account.sealed_totp:
        raise ConflictError("there is nothing to confirm: begin with enable-totp")
    key = services_of(request).identity.secrets_key()
    secret = unseal(key, f"totp/{account.id}", account.sealed_totp)
    step = accepted_step(secret, code, now_ms=node.clock.wall_ms(), last_step=0)
    if step is None:
        raise ForbiddenError("the code is wrong: check the clock of the device, and take a new one")
    codes = new_recovery_codes()
    changed = replace(
        account,
        totp_confirmed=True,
        totp_last_step=step,
        recovery_sha256=tuple(recovery_hash(one) for one in codes),
    )
    await node.store.apply(puts=(changed,))
    return json_answer({"recovery_codes": codes}, headers={"Cache-Control": "no-store"})


async def disable_totp(request: web.Request) -> web.Response:
    """POST .../actions/disable-totp. 204. Whoever switches their own off needs a code; an administrator doesn't."""
    account, body = _account(request), await body_of(request, TotpCode)
    login = services_of(request).identity.login
    if account.totp_confirmed and is_own(request, caller_of(request)):
        await login.use_code(account, body.code, address=caller_of(request).address)
        account = node_of(request).store.need(Account, account.id)
    plain = replace(account, sealed_totp=b"", totp_confirmed=False, recovery_sha256=())
    await node_of(request).store.apply(puts=(plain,))
    return web.Response(status=204)


def _account(request: web.Request) -> Account:
    """Return the account of the path, if the caller may do all that it may, or is it."""
    store, caller = node_of(request).store, caller_of(request)
    account = target_of(request, Account, "account")
    if not is_own(request, caller):
        check_covered(caller, permissions_of(store, account.role_ids))
    return account


def _sessions(store: Store, account: Account) -> list[Session]:
    return store.with_value(Session, "account_id", account.id)


def _tokens(store: Store, account: Account) -> list[AccessToken]:
    return store.with_value(AccessToken, "account_id", account.id)
