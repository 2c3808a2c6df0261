"""Tags of any resource: show, add and remove. Tags live in the resource, so they are gone with it.

Whoever may change a resource may tag it, within what they may do themselves: a tag can be what a role's right is limited to, so
setting one can give somebody a right, and nobody gives what they don't have.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, ForbiddenError, InvalidError
from core.identity.permissions import ACTIONS, ANY, CREATE
from core.model import VM, Tagged, Task, changed_tags, kind_of
from nodeagent.api.collections import strong_if_asked, type_of
from nodeagent.api.requests import (
    body_of,
    etag_of,
    found_of,
    ids_of,
    json_answer,
    node_of,
    services_of,
    target_of,
)
from nodeagent.api.rights import CALLER
from nodeagent.api.roles import all_roles
from nodeagent.identity.callers import Caller
from raftstate.store import Store

TRIES = 5
CHANGES_MAX = 100


class ChangeTags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/<plural>/{ref}/tags`. What is there already, or isn't, is no error. A key has one value: a new one
    takes the place of the old."""

    add: Annotated[tuple[str, ...], attribute("Tags that it shall have.")] = ()
    remove: Annotated[tuple[str, ...], attribute("Tags that it shall not have any more.")] = ()


def add_routes(app: web.Application) -> None:
    """Add the routes of tags."""
    app.router.add_get("/v1/{plural}/{ref}/tags", show_tags)
    app.router.add_patch("/v1/{plural}/{ref}/tags", change_tags)


async def show_tags(request: web.Request) -> web.Response:
    """GET /v1/<plural>/<name or id>/tags. 404: no such resource."""
    node_of(request)
    await strong_if_asked(request)
    return _answer(found_of(request, _type(request), "ref"))


async def change_tags(request: web.Request) -> web.Response:
    """PATCH /v1/<plural>/<name or id>/tags. 200: the tags now. 400: no tag, an unknown system tag, too many.

    403: it would give somebody a right that the caller doesn't have.
    """
    body, store = await body_of(request, ChangeTags), node_of(request).store
    if len(body.add) + len(body.remove) > CHANGES_MAX:
        raise InvalidError(f"at most {CHANGES_MAX} tags can be changed at once")
    type_, system = _type(request), services_of(request).plugins.system_tags
    for tag in body.add:
        system.check(kind_of(type_), tag)
    ids = ids_of(request)
    for attempt in range(TRIES):
        tagged = target_of(request, type_, "ref")
        tags = changed_tags(tagged.tags, add=body.add, remove=body.remove, many=system.many)
        if tags == tagged.tags:
            return _answer(tagged)
        _check_given(store, request[CALLER], tagged, set(tags) - set(tagged.tags))
        try:
            await store.apply(
                puts=(replace(tagged, tags=tags),), request_id=ids.again(attempt).request_id
            )
        except ConflictError as error:
            if error.code != "conflict-guard":
                raise
        else:
            return _answer(store.need(type_, tagged.id))
    raise ConflictError("it is being changed all the time: try again", code="conflict-guard")


def _type(request: web.Request) -> type[Tagged]:
    type_ = type_of(request)
    if not issubclass(type_, Tagged):
        raise InvalidError(f"{type_.PLURAL} are records of what was: they can't be tagged")
    return type_


def _answer(tagged: Tagged) -> web.Response:
    return json_answer({"tags": tagged.tags}, headers={"ETag": etag_of(tagged)})


def _check_given(store: Store, caller: Caller, tagged: Tagged, new: set[str]) -> None:
    """See that nobody gets a right to the resource by its new tags that the caller doesn't have.

    A task carries the tags of the VM that it works on, so a VM's tags decide about its tasks too.

    Raises:
        ForbiddenError: somebody would.
    """
    kinds = {kind_of(tagged)} | ({kind_of(Task)} if isinstance(tagged, VM) else set())
    for role in all_roles(store):
        for permission in role.permissions:
            reached = kinds if ANY in permission.kinds else kinds & {*permission.kinds}
            for text in permission.actions:
                action, at, tag = text.partition("@")
                if not at or tag not in new:
                    continue
                given = [one for one in ACTIONS if one != CREATE] if action == ANY else [action]
                for kind in reached:
                    missing = [one for one in given if not caller.may(kind, one, tagged.tags)]
                    if missing:
                        raise ForbiddenError(
                            f"the tag {tag!r} gives role {role.name!r} the right to '{missing[0]}' this {kind}, "
                            "which you don't have yourself"
                        )
