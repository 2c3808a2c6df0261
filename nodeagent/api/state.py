"""The state as a whole: GET /v1/state/backup."""

from __future__ import annotations

import asyncio

from aiohttp import web

from core.errors import ConflictError
from nodeagent.api.requests import node_of
from nodeagent.services.backup import backup

UNDER_WAY: web.AppKey[asyncio.Lock] = web.AppKey("backup-under-way", asyncio.Lock)


def add_routes(app: web.Application) -> None:
    """Add the routes of the state as a whole."""
    app[UNDER_WAY] = asyncio.Lock()
    app.router.add_get("/v1/state/backup", back_up)


async def back_up(request: web.Request) -> web.StreamResponse:
    """GET /v1/state/backup[?of=host]. 200: the file, of everything committed before the call; `of=host`: of what this
    host has, for when there is no quorum. 409: one is under way. 503: no quorum.
    """
    under_way = request.app[UNDER_WAY]
    if under_way.locked():
        raise ConflictError("this host is sending a backup already: wait, or take it from another")
    of_this_host = request.query.get("of", "") == "host"
    async with under_way, backup(node_of(request), of_this_host=of_this_host) as made:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = made.header.file_bytes
        await response.prepare(request)
        async for chunk in made.chunks:
            await response.write(chunk)
        await response.write_eof()
        return response
