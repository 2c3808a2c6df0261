"""The secrets key: how a change of it goes, and beginning one. Keys are known by their ids here."""

from __future__ import annotations

from aiohttp import web

from nodeagent.api.requests import json_answer, services_of


def add_routes(app: web.Application) -> None:
    """Add the routes of the secrets key."""
    app.router.add_get("/v1/secrets", status)
    app.router.add_post("/v1/secrets/actions/rotate", rotate)


async def status(request: web.Request) -> web.Response:
    """GET /v1/secrets. 200: which key is in use, which hosts lack the new one, what is sealed by which."""
    return json_answer(services_of(request).secrets.shown())


async def rotate(request: web.Request) -> web.Response:
    """POST .../actions/rotate. 202: a new key is made, the rest happens by itself. 409: a change is under way."""
    services = services_of(request)
    await services.secrets.rotate()
    return json_answer(services.secrets.shown(), status=202)
