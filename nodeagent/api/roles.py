"""Roles: what they allow, and who may hand them out.

Nobody hands out a right that they don't hold, and nobody touches a role that holds more than they do. Whoever gives rights
to something (accounts, tokens, keys) asks `role_ids` and `check_covered`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, ForbiddenError, InvalidError
from core.identity.permissions import ACTIONS, ANY, BUILT_IN, GUARDED_KINDS, covers
from core.model import KINDS, AccessKey, AccessToken, Account, Permission, Role, check_name
from nodeagent.api.access import caller_of
from nodeagent.api.collections import strong_if_asked
from nodeagent.api.computed import answer_of
from nodeagent.api.requests import body_of, json_answer, node_of, target_of
from nodeagent.api.views import show
from nodeagent.identity.callers import Caller
from raftstate.store import Store

ROLES_MAX, PERMISSIONS_MAX = 16, 32


class WriteRole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/roles`, and `PATCH`, which replaces the permissions."""

    OF: ClassVar[type[msgspec.Struct]] = Role

    permissions: tuple[Permission, ...]
    name: Annotated[str, attribute("Its name; only when it is made.")] = ""
    description: str = ""


def add_routes(app: web.Application) -> None:
    """Add the routes of roles."""
    app.router.add_get("/v1/roles", list_roles)
    app.router.add_post("/v1/roles", create_role)
    app.router.add_patch("/v1/roles/{role}", change_role)
    app.router.add_delete("/v1/roles/{role}", delete_role)


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
    check_covered(caller_of(request), role.permissions)
    changed = replace(
        role,
        permissions=_permissions(caller_of(request), body.permissions),
        description=body.description[:500] or role.description,
    )
    await store.apply(puts=(changed,))
    return json_answer(show(store, store.need(Role, role.id)))


async def delete_role(request: web.Request) -> web.Response:
    """DELETE /v1/roles/{role}. 204. 409: accounts, tokens or keys have it."""
    store, role = node_of(request).store, _role(request)
    check_covered(caller_of(request), role.permissions)
    holders: list[Account | AccessToken | AccessKey] = [
        *store.all(Account),
        *store.all(AccessToken),
        *store.all(AccessKey),
    ]
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
    check_covered(caller, tuple(p for role in roles for p in role.permissions))
    return tuple(role.id for role in roles)


def check_covered(caller: Caller, permissions: tuple[Permission, ...]) -> None:
    """See that a caller holds all of these rights.

    Raises:
        ForbiddenError: not all.
    """
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
    check_covered(caller, wanted)
    return wanted


def _role(request: web.Request) -> Role:
    ref = request.match_info["role"]
    if ref in BUILT_IN:
        raise ConflictError(f"role {ref!r} is built in: it can't be changed")
    return target_of(request, Role, "role")


def _all_roles(store: Store) -> list[Role]:
    return [*BUILT_IN.values(), *store.all(Role)]
