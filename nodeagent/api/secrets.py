"""The secrets key: how a change of it goes, and beginning one. Keys are known by their ids here."""

from __future__ import annotations

from aiohttp import web

from core.model import Host
from nodeagent.api.requests import json_answer, node_of, services_of


def add_routes(app: web.Application) -> None:
    """Add the routes of the secrets key."""
    app.router.add_get("/v1/secrets", status)
    app.router.add_post("/v1/secrets/actions/rotate", rotate)


async def status(request: web.Request) -> web.Response:
    """GET /v1/secrets. 200: which key is in use, which hosts lack the new one, what is sealed by which, how hosts keep it."""
    return json_answer(await _shown(request))


async def rotate(request: web.Request) -> web.Response:
    """POST .../actions/rotate. 202: a new key is made, the rest happens by itself. 409: a change is under way."""
    await services_of(request).secrets.rotate()
    return json_answer(await _shown(request), status=202)


async def _shown(request: web.Request) -> dict[str, object]:
    """Return how it stands; hosts are asked, which takes a second at most."""
    services, node = services_of(request), node_of(request)
    states = await services.states.ask(node.store.all(Host))
    answers = {id_: state.secrets_key for id_, state in states.items()}
    answers[node.host_id] = services.secrets.kept()
    return {**services.secrets.shown(), "hosts": services.secrets.shown_hosts(answers)}
