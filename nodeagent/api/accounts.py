"""Accounts, roles and sessions: log in and out, passwords and time codes, and who may do what.

Nobody hands out a right that they don't hold, and nobody touches an account or role that holds more than they do.
"""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from core.errors import ConflictError, ForbiddenError, InvalidError
from core.identity.passwords import check_new_password
from core.identity.permissions import ACTIONS, ANY, BUILT_IN, GUARDED_KINDS, covers
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
from core.logs import REQUEST_ID
from core.model import KINDS, AccessToken, Account, Mesh, Permission, Role, Session, check_name
from nodeagent.api.access import address_of, caller_of, is_own
from nodeagent.api.collections import strong_if_asked
from nodeagent.api.computed import answer_of
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of, target_of
from nodeagent.api.views import show
from nodeagent.identity.callers import Caller, permissions_of
from nodeagent.joining.founding import MESH_ID
from nodeagent.services.sealing_guard import sealing_guards
from raftstate.store import Store

ROLES_MAX, PERMISSIONS_MAX = 16, 32


class LogIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/login`. `code`: six digits, or a recovery code; empty without two-factor log-in."""

    name: str
    password: str
    code: str = ""

    def __repr__(self) -> str:
        return "LogIn(***)"


class CreateAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/accounts`. Without a password nobody can log in to it until one is set."""

    name: str
    roles: tuple[str, ...] = ()
    password: str = ""
    description: str = ""

    def __repr__(self) -> str:
        return "CreateAccount(***)"


class ChangeAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/accounts/{account}`: absent fields stay."""

    roles: tuple[str, ...] | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class SetPassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`.../actions/set-password`. Whoever sets their own has to know the old one."""

    password: str
    old_password: str = ""

    def __repr__(self) -> str:
        return "SetPassword(***)"


class TotpCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`.../actions/confirm-totp` and `disable-totp`."""

    code: str = ""


class WriteRole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/roles`, and `PATCH`, which replaces the permissions."""

    permissions: tuple[Permission, ...]
    name: str = ""
    description: str = ""


def add_routes(app: web.Application) -> None:
    """Add the routes of accounts, roles and sessions."""
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
    app.router.add_get("/v1/roles", list_roles)
    app.router.add_post("/v1/roles", create_role)
    app.router.add_patch("/v1/roles/{role}", change_role)
    app.router.add_delete("/v1/roles/{role}", delete_role)


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
        _check_covered(caller_of(request), permissions_of(store, account.role_ids))
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


async def list_roles(request: web.Request) -> web.Response:
    """GET /v1/roles. 200: the built-in ones and those that were made."""
    store = node_of(request).store
    await strong_if_asked(request)
    items = [show(store, role) for role in _all_roles(store)]
    return json_answer({**answer_of(items, request), "index": store.index})


async def create_role(request: web.Request) -> web.Response:
    """POST /v1/roles. 201. 403: it allows more than the caller may. 409: name taken."""
    node, body = node_of(request), await body_of(request, WriteRole)
    if body.name in BUILT_IN:
        raise ConflictError(f"role name {body.name!r} is already taken")
    role = Role(
        id=check_name(body.name, "role"),
        name=body.name,
        permissions=_permissions(caller_of(request), body.permissions),
        description=body.description[:500],
        created_ms=node.clock.wall_ms(),
    )
    before = node.store.get(Role, role.id)
    if before is None:
        await node.store.apply(puts=(role,))
    elif before.permissions != role.permissions:
        raise ConflictError(f"role name {role.name!r} is already taken")
    shown = show(node.store, node.store.need(Role, role.id))
    return json_answer(shown, status=201, headers={"Location": f"/v1/roles/{role.id}"})


async def change_role(request: web.Request) -> web.Response:
    """PATCH /v1/roles/{role}. 200: everybody who has it is judged by it from the next request on."""
    store, body, role = node_of(request).store, await body_of(request, WriteRole), _role(request)
    _check_covered(caller_of(request), role.permissions)
    changed = replace(
        role,
        permissions=_permissions(caller_of(request), body.permissions),
        description=body.description[:500] or role.description,
    )
    await store.apply(puts=(changed,))
    return json_answer(show(store, store.need(Role, role.id)))


async def delete_role(request: web.Request) -> web.Response:
    """DELETE /v1/roles/{role}. 204. 409: accounts or tokens have it."""
    store, role = node_of(request).store, _role(request)
    _check_covered(caller_of(request), role.permissions)
    holders: list[Account | AccessToken] = [*store.all(Account), *store.all(AccessToken)]
    having = [holder.name for holder in holders if role.id in holder.role_ids]
    if having:
        raise ConflictError(f"role {role.name!r} is held by {len(having)} (such as {having[0]})")
    await store.apply(deletes=(role,))
    return web.Response(status=204)


def role_ids(store: Store, caller: Caller, refs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids of roles named by id or name, if the caller may hand them out.

    Raises:
        NotFoundError: no such role.
        ForbiddenError: one allows what the caller may not do.
    """
    if len(refs) > ROLES_MAX:
        raise InvalidError(f"there can be {ROLES_MAX} roles at most")
    roles = [BUILT_IN.get(ref) or store.find(Role, ref) for ref in dict.fromkeys(refs)]
    _check_covered(caller, tuple(p for role in roles for p in role.permissions))
    return tuple(role.id for role in roles)


def _check_covered(caller: Caller, permissions: tuple[Permission, ...]) -> None:
    if not covers(caller.permissions, permissions):
        raise ForbiddenError("this concerns rights that you don't have yourself")


def _permissions(caller: Caller, wanted: tuple[Permission, ...]) -> tuple[Permission, ...]:
    if not 1 <= len(wanted) <= PERMISSIONS_MAX:
        raise InvalidError(f"a role has 1 to {PERMISSIONS_MAX} permissions")
    known = {*KINDS, *GUARDED_KINDS, ANY}
    for permission in wanted:
        for kind in permission.kinds:
            if kind not in known:
                raise InvalidError(
                    f"there is no kind {kind[:60]!r}: there are {', '.join(sorted(known))}"
                )
        for action in permission.actions:
            if action not in (*ACTIONS, ANY):
                raise InvalidError(
                    f"there is no action {action[:60]!r}: there are {', '.join(ACTIONS)}, *"
                )
    _check_covered(caller, wanted)
    return wanted


def _account(request: web.Request) -> Account:
    """Return the account of the path, if the caller may do all that it may, or is it."""
    store, caller = node_of(request).store, caller_of(request)
    account = target_of(request, Account, "account")
    if not is_own(request, caller):
        _check_covered(caller, permissions_of(store, account.role_ids))
    return account


def _role(request: web.Request) -> Role:
    ref = request.match_info["role"]
    if ref in BUILT_IN:
        raise ConflictError(f"role {ref!r} is built in: it can't be changed")
    return target_of(request, Role, "role")


def _all_roles(store: Store) -> list[Role]:
    return [*BUILT_IN.values(), *store.all(Role)]


def _sessions(store: Store, account: Account) -> list[Session]:
    return store.with_value(Session, "account_id", account.id)


def _tokens(store: Store, account: Account) -> list[AccessToken]:
    return store.with_value(AccessToken, "account_id", account.id)
