"""Creating, changing and deleting resources by the declaration of their type alone: data centers, clusters, switches, types of plug-ins.

`POST /v1/<plural>`, `PATCH` and `DELETE /v1/<plural>/<name or id>`. Other collections have handlers of their own, and only
these are served here. Names in the place of ids become ids; bounds, relations and deletions go by what is declared.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.errors import InvalidError
from core.model import KINDS, Resource, check_name, kind_of
from core.model.additions import BUILT_IN
from ha.placement_rules import RuleError
from nodeagent.api.bodies import (
    change_body,
    create_body,
    written_attributes,
    written_relations,
)
from nodeagent.api.collections import type_of
from nodeagent.api.deleting import deleted
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, shown_to, target_of
from nodeagent.api.rights import check_named, without_names
from nodeagent.services.cascade import word
from nodeagent.services.placement_rules import check_rule
from nodeagent.services.reach import refuse_if_needed


def add_routes(app: web.Application) -> None:
    """Add the routes; call it after those of single collections, so that these win."""
    app.router.add_post("/v1/{plural}", create)
    app.router.add_patch("/v1/{plural}/{ref}", change)
    app.router.add_delete("/v1/{plural}/{ref}", delete)


def is_declared(type_: type[Resource]) -> bool:
    """Tell whether a type is served here."""
    return type_.BY_DECLARATION or kind_of(type_) not in BUILT_IN


async def create(request: web.Request) -> web.Response:
    """POST /v1/<plural>. 201. 400: not as declared. 409: name taken, or what it shall belong to is gone."""
    type_, node, ids = _type(request), node_of(request), ids_of(request)
    body = await body_of(request, create_body(type_))
    id_ = ids.id_for(kind_of(type_))
    if node.store.get(type_, id_) is None:
        given = msgspec.structs.asdict(body)
        made = type_(
            id=id_,
            name=check_name(given["name"], word(kind_of(type_))),
            created_ms=node.clock.wall_ms(),
            **_stored(request, type_, given),
        )
        made.check()
        _check_rule(request, made)
        await node.store.apply(puts=(made,), request_id=ids.request_id)
    return json_answer(
        shown_to(request, node.store.need(type_, id_)),
        status=201,
        headers={"Location": f"/v1/{type_.PLURAL}/{id_}"},
    )


async def change(request: web.Request) -> web.Response:
    """PATCH /v1/<plural>/{ref}. 200: as it is now. 409: the name is taken, or somebody changed it meanwhile."""
    type_, node, ids = _type(request), node_of(request), ids_of(request)
    body = await body_of(request, change_body(type_))
    before = target_of(request, type_, "ref")
    given = {k: v for k, v in msgspec.structs.asdict(body).items() if v is not msgspec.UNSET}
    if not given:
        raise InvalidError(f"nothing to change: {', '.join(body.__struct_fields__)} can be given")
    changed: dict[str, Any] = _stored(request, type_, given)
    if "name" in given:
        changed["name"] = check_name(given["name"], word(kind_of(type_)))
    after = replace(before, **changed)
    if after != before:
        after.check()
        refuse_if_needed(node.store, before, after)
        _check_rule(request, after)
        await node.store.apply(puts=(after,), request_id=ids.request_id)
    return json_answer(shown_to(request, node.store.need(type_, before.id)))


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/<plural>/{ref}. 204: gone, with what goes along. 409: something stands in the way."""
    return await deleted(request, target_of(request, _type(request), "ref"))


def _check_rule(request: web.Request, after: Resource) -> None:
    try:
        check_rule(node_of(request).store, after)
    except RuleError as error:
        raise without_names(request, error, "vm", "placement-rule") from None


def _type(request: web.Request) -> type[Resource]:
    if allowed := _other_methods(request):
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    type_ = type_of(request)
    if not is_declared(type_):
        raise web.HTTPMethodNotAllowed(request.method, ["GET"])
    return type_


def _other_methods(request: web.Request) -> list[str]:
    """Return what a path of its own, which our patterns fit as well, can be asked with."""
    found = set()
    for route in request.app.router.routes():
        about = route.resource.get_info() if route.resource is not None else {}
        pattern = about.get("pattern")
        same = pattern.fullmatch(request.path) if pattern else about.get("path") == request.path
        if same and "{plural}" not in about.get("formatter", ""):
            found.add(route.method)
    return sorted(found)


def _stored(request: web.Request, type_: type[Resource], given: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that a body gives, with ids in the place of names."""
    store = node_of(request).store
    stored = {one.name: given[one.name] for one in written_attributes(type_) if one.name in given}
    for relation in written_relations(type_):
        if relation.name not in given:
            continue
        target, refs = KINDS[relation.target], given[relation.name]
        check_named(
            request, store, *((target, ref) for ref in (refs if relation.many else (refs,)))
        )
        stored[relation.field] = (
            tuple(dict.fromkeys(store.find(target, ref).id for ref in refs))
            if relation.many
            else store.find(target, refs).id
            if refs
            else ""
        )
    return stored
