"""Access keys, with which programs of others sign their requests: make, change, give a new secret, delete.

The secret is shown once, when it is made. Listing and showing is done for all collections alike; checking signatures is in
`nodeagent.identity.access_keys`. Nobody makes or touches a key that may do more than they may.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, InvalidError
from core.identity.sealing import seal
from core.identity.signing import KEY_PREFIX, new_secret
from core.model import AccessKey, Account, check_name
from nodeagent.api.access import caller_of
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of, target_of
from nodeagent.api.roles import check_covered, role_ids
from nodeagent.api.views import show
from nodeagent.identity.access_keys import secret_name
from nodeagent.identity.callers import permissions_of_key
from nodeagent.services.sealing_guard import sealing_guards

TTL_S_MAX = 10 * 365 * 86_400


class MakeAccessKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/access-keys`. Either `account` or `roles`. `ttl_s` 0: never expires."""

    OF: ClassVar[type[AccessKey]] = AccessKey

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    account: Annotated[
        str, attribute("Name or id of the account whose rights it has; empty: none's.")
    ] = ""
    roles: Annotated[tuple[str, ...], attribute("Names of the roles that say what it may do.")] = ()
    ttl_s: Annotated[
        int, attribute("How long it is good; 0: for ever.", least=0, most=TTL_S_MAX)
    ] = 0
    description: str = ""


class ChangeAccessKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/access-keys/{key}`: absent fields stay."""

    OF: ClassVar[type[AccessKey]] = AccessKey

    disabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


def add_routes(app: web.Application) -> None:
    """Add the routes that change access keys."""
    app.router.add_post("/v1/access-keys", make_access_key)
    app.router.add_patch("/v1/access-keys/{key}", change_access_key)
    app.router.add_delete("/v1/access-keys/{key}", delete_access_key)
    app.router.add_post("/v1/access-keys/{key}/actions/rotate", rotate_access_key)


async def make_access_key(request: web.Request) -> web.Response:
    """POST /v1/access-keys. 201: id and secret, which is shown this once. 403: it would allow more than the caller may."""
    node, body, caller = node_of(request), await body_of(request, MakeAccessKey), caller_of(request)
    if bool(body.account) is bool(body.roles):
        raise InvalidError("say what the key may do: an account's rights, or roles of its own")
    account = node.store.find(Account, body.account) if body.account else None
    given = role_ids(node.store, caller, account.role_ids if account else body.roles)
    now_ms = node.clock.wall_ms()
    id_ = KEY_PREFIX + ids_of(request).id_for("access-key").replace("-", "")
    if node.store.get(AccessKey, id_) is not None:
        raise ConflictError(
            "this request was carried out before, and the key's secret was shown then: "
            "delete the key and make another, or give it a new secret"
        )
    secret, guards = new_secret(), sealing_guards(node.store)
    key = AccessKey(
        id=id_,
        name=check_name(body.name, "access key"),
        sealed_secret=_sealed(request, id_, secret),
        account_id=account.id if account else "",
        role_ids=() if account else given,
        expires_ms=now_ms + body.ttl_s * 1000 if body.ttl_s else 0,
        description=body.description,
        created_ms=now_ms,
    )
    await node.store.apply(puts=(key,), guards=(*guards, *((account,) if account else ())))
    return _with_secret(key, secret, status=201)


async def change_access_key(request: web.Request) -> web.Response:
    """PATCH /v1/access-keys/{key}. 200: a disabled one is refused everywhere at once."""
    store, body, key = (
        node_of(request).store,
        await body_of(request, ChangeAccessKey),
        _key(request),
    )
    if body.disabled is not UNSET:
        key = replace(key, disabled=body.disabled)
    if body.description is not UNSET:
        key = replace(key, description=body.description)
    await store.apply(puts=(key,))
    return json_answer(show(store, store.need(AccessKey, key.id)))


async def rotate_access_key(request: web.Request) -> web.Response:
    """POST .../actions/rotate. 200: a new secret, shown this once; what the former one signs is refused everywhere at once."""
    store, key = node_of(request).store, _key(request)
    secret, guards = new_secret(), sealing_guards(store)
    sealed = _sealed(request, key.id, secret)
    await store.apply(puts=(replace(key, sealed_secret=sealed),), guards=guards)
    return _with_secret(key, secret, status=200)


async def delete_access_key(request: web.Request) -> web.Response:
    """DELETE /v1/access-keys/{key}. 204: refused everywhere at once."""
    await node_of(request).store.apply(deletes=(_key(request),))
    return web.Response(status=204)


def _key(request: web.Request) -> AccessKey:
    """Return the key of the path, if the caller may do all that it may."""
    key = target_of(request, AccessKey, "key")
    check_covered(caller_of(request), permissions_of_key(node_of(request).store, key))
    return key


def _sealed(request: web.Request, id_: str, secret: str) -> bytes:
    keys = services_of(request).identity.opener.keys()
    return seal(keys, secret_name(id_), secret.encode())


def _with_secret(key: AccessKey, secret: str, *, status: int) -> web.Response:
    shown = {"id": key.id, "name": key.name, "secret": secret, "expires_ms": key.expires_ms}
    headers = {"Cache-Control": "no-store"}
    if status == 201:
        headers["Location"] = f"/v1/access-keys/{key.id}"
    return json_answer(shown, status=status, headers=headers)
