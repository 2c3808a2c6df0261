"""`GET /v1/openapi.json`."""

from __future__ import annotations

from aiohttp import web

from nodeagent.api.description.document import openapi_bytes
from nodeagent.joining.messages import VERSION


def add_routes(app: web.Application) -> None:
    """Add the route of the description."""
    app.router.add_get("/v1/openapi.json", describe)


async def describe(request: web.Request) -> web.Response:
    """GET /v1/openapi.json. The OpenAPI 3.1 description of this agent's API."""
    del request
    return web.Response(body=openapi_bytes(VERSION), content_type="application/json")
