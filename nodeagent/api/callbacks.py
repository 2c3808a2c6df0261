"""Callbacks as callers meet them: the header `Callback-URL`, and the key that a receiver checks signatures with.

A request that starts no task refuses the header instead of ignoring it: whoever sends it would wait in vain.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Middleware

from core.errors import InvalidError
from core.identity.webhook_signing import PUBLIC_PREFIX
from nodeagent.api.problems import Handler
from nodeagent.api.requests import CALLBACK_HEADER, json_answer, services_of

READING = frozenset({"GET", "HEAD"})


def add_routes(app: web.Application) -> None:
    """Add the routes of the callbacks' key."""
    app.router.add_get("/v1/callback-key", show_key)
    app.router.add_post("/v1/callback-key/actions/rotate", change_key)


def callback_middleware(starting: Collection[tuple[str, str]]) -> Middleware:
    """Return the middleware that judges the header; `starting` are the routes that start tasks, by method and path."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        url = request.headers.get(CALLBACK_HEADER)
        if url is not None and resource is not None and request.method not in READING:
            if (request.method, resource.canonical) not in starting:
                raise InvalidError(
                    f"{CALLBACK_HEADER} is not possible here, as no task is started: nothing was done"
                )
            services_of(request).callbacks.wish(url)  # refused before anything is done
        return await handler(request)

    return middleware


async def show_key(request: web.Request) -> web.Response:
    """GET /v1/callback-key. 200: the public key. 503: none is made yet."""
    return json_answer({"public_key": PUBLIC_PREFIX + services_of(request).callbacks.public_key()})


async def change_key(request: web.Request) -> web.Response:
    """POST .../actions/rotate. 200: the new public key, with which everything is signed from now on."""
    public = await services_of(request).callbacks.change_key()
    return json_answer({"public_key": PUBLIC_PREFIX + public})
