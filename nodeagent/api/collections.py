"""Listing and showing of every kind of resource: `GET /v1/<plural>` and `GET /v1/<plural>/<name or id>`.

One handler serves all kinds; writing is in the modules of each area, and what a list may be asked in `lists`.
"""

from __future__ import annotations

from aiohttp import web

from core.errors import InvalidError, NotFoundError
from core.model import COLLECTIONS, Audit, Host, Resource
from nodeagent.api.keys import AGENT
from nodeagent.api.list_items import ItemCache
from nodeagent.api.lists import ITEMS, list_of
from nodeagent.api.requests import node_of, services_of
from nodeagent.api.shown_cache import ShownCache

AUDITS_TIMEOUT_S = 1.0

CACHE: web.AppKey[list[ShownCache]] = web.AppKey("shown-cache", list[ShownCache])

ONLY_POSTED = frozenset({"/v1/login", "/v1/logout"})  # the pattern of collections would take them


def add_routes(app: web.Application) -> None:
    """Add the two routes; call it last, so that special collections win."""
    app[CACHE], app[ITEMS] = [], ItemCache()
    app.router.add_get("/v1/{plural}", list_resources)
    app.router.add_get("/v1/{plural}/{ref}", show_resource)


def type_of(request: web.Request) -> type[Resource]:
    """Return the resource type of the path."""
    plural = request.match_info["plural"]
    if request.path in ONLY_POSTED:
        raise web.HTTPMethodNotAllowed(request.method, ["POST"])
    if plural not in COLLECTIONS:
        if elsewhere := _hosts_with(request, plural):
            raise NotFoundError(
                f"{plural!r} come from a plug-in that this host lacks; ask a host that has it: {', '.join(elsewhere)}"
            )
        raise NotFoundError(
            f"there is no collection {plural[:60]!r}: there are {', '.join(sorted(COLLECTIONS))}"
        )
    return COLLECTIONS[plural]


def _hosts_with(request: web.Request, plural: str) -> list[str]:
    """Return the names of the hosts whose plug-ins bring a collection."""
    node = request.app[AGENT].node
    hosts = node.store.all(Host) if node is not None else []
    return [host.name for host in hosts if plural in host.resource_types]


async def list_resources(request: web.Request) -> web.Response:
    """GET /v1/<plural>. See `nodeagent.api.lists`."""
    type_ = type_of(request)
    await _brought_up_to_date(request, type_)
    return await list_of(request, type_)


async def show_resource(request: web.Request) -> web.Response:
    """GET /v1/<plural>/<name or id>. 404: none of that name or id."""
    type_ = type_of(request)
    await _brought_up_to_date(request, type_)
    answer = _cache(request).answer(type_, request.match_info["ref"])
    return web.Response(
        body=answer.body, content_type="application/json", headers={"ETag": answer.etag}
    )


async def _brought_up_to_date(request: web.Request, type_: type[Resource]) -> None:
    """Wait for what the caller asks to be in this agent's copy, and for the ends of its own changes in the audits."""
    node_of(request)
    if type_ is Audit:
        await services_of(request).identity.audits.flush_ends(timeout_s=AUDITS_TIMEOUT_S)
    await strong_if_asked(request)


def _cache(request: web.Request) -> ShownCache:
    """Return the cache of the member's store: a host that leaves and joins again gets another store."""
    kept, store = request.app[CACHE], node_of(request).store
    if not kept or kept[0].store is not store:
        kept[:] = [ShownCache(store)]
    return kept[0]


async def strong_if_asked(request: web.Request) -> None:
    """With `?consistency=strong`, wait until this agent's copy has all that was acknowledged anywhere."""
    wanted = request.query.get("consistency", "local")
    if wanted == "strong":
        await node_of(request).store.barrier()
    elif wanted != "local":
        raise InvalidError("consistency must be 'local' or 'strong'")
