"""Listing and showing of every kind of resource: `GET /v1/<plural>` and `GET /v1/<plural>/<name or id>`.

One handler serves all kinds; writing is in the modules of each area. Filters compare own attributes for equality;
the full query language comes later and goes here.
"""

from __future__ import annotations

from aiohttp import web

from core.errors import InvalidError, NotFoundError
from core.model import COLLECTIONS, Resource
from nodeagent.api.requests import etag_of, json_answer, node_of
from nodeagent.api.views import Shown, show

LIMIT_DEFAULT, LIMIT_MAX = 1000, 10_000


def add_routes(app: web.Application) -> None:
    """Add the two routes; call it last, so that special collections win."""
    app.router.add_get("/v1/{plural}", list_resources)
    app.router.add_get("/v1/{plural}/{ref}", show_resource)


def type_of(request: web.Request) -> type[Resource]:
    """Return the resource type of the path."""
    plural = request.match_info["plural"]
    if plural not in COLLECTIONS:
        raise NotFoundError(
            f"there is no collection {plural[:60]!r}: there are {', '.join(sorted(COLLECTIONS))}"
        )
    return COLLECTIONS[plural]


async def list_resources(request: web.Request) -> web.Response:
    """GET /v1/<plural>?q=attribute=value&sort=[-]attribute&limit=N. 200: items and the state's index."""
    node = node_of(request)
    await strong_if_asked(request)
    items = [show(node.store, r) for r in node.store.all(type_of(request))]
    return json_answer({"items": select(items, request), "index": node.store.index})


async def show_resource(request: web.Request) -> web.Response:
    """GET /v1/<plural>/<name or id>. 404: none of that name or id."""
    node = node_of(request)
    await strong_if_asked(request)
    resource = node.store.find(type_of(request), request.match_info["ref"])
    return json_answer(show(node.store, resource), headers={"ETag": etag_of(resource)})


async def strong_if_asked(request: web.Request) -> None:
    """With `?consistency=strong`, wait until this agent's copy has all that was acknowledged anywhere."""
    wanted = request.query.get("consistency", "local")
    if wanted == "strong":
        await node_of(request).store.barrier()
    elif wanted != "local":
        raise InvalidError("consistency must be 'local' or 'strong'")


def select(items: list[Shown], request: web.Request) -> list[Shown]:
    """Return the items that the request's filters, order and limit leave.

    Raises:
        InvalidError: a filter that is not `attribute=value`, an unknown attribute, a limit out of bounds.
    """
    for condition in request.query.getall("q", []):
        attribute, equals, value = condition.partition("=")
        if not equals:
            raise InvalidError(f"filter {condition[:60]!r} is not attribute=value")
        _known(attribute, items)
        items = [item for item in items if _text(item.get(attribute)) == value]
    sort = request.query.get("sort", "")
    if sort:
        attribute = sort.removeprefix("-")
        _known(attribute, items)
        items = sorted(
            items, key=lambda item: _sortable(item.get(attribute)), reverse=sort[0] == "-"
        )
    return items[: _limit(request)]


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(LIMIT_DEFAULT))
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidError(f"limit must be 1 to {LIMIT_MAX}")
    return int(text)


def _known(attribute: str, items: list[Shown]) -> None:
    if items and not any(attribute in item for item in items):
        raise InvalidError(f"there is no attribute {attribute[:60]!r}")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sortable(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))
