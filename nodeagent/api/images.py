"""Images: upload by streaming, delete.

The whole upload is one request, so that a broken connection leaves nothing behind.
"""

from __future__ import annotations

import re

from aiohttp import web

from core.errors import InvalidError
from core.model import Image
from nodeagent.api.deleting import deleted
from nodeagent.api.requests import (
    declared_sha256,
    ids_of,
    json_answer,
    node_of,
    services_of,
    target_of,
)
from nodeagent.api.views import show

CHUNK_BYTES = 1 << 20


def add_routes(app: web.Application) -> None:
    """Add the routes of images."""
    app.router.add_post("/v1/images", upload_image)
    app.router.add_delete("/v1/images/{image}", delete_image)


async def upload_image(request: web.Request) -> web.Response:
    """POST /v1/images?name=N[&format=F][&sha256=H], body: the file. 201: verified and stored.

    400: unknown format, a file that refers to other files, a wrong hash, an interrupted upload. 409: name taken.
    """
    name = request.query.get("name", "")
    sha256 = request.query.get("sha256", "").lower()
    if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InvalidError("sha256 must be 64 hex digits")
    if (declared := declared_sha256(request)) and sha256 not in ("", declared):
        raise InvalidError("sha256 is not that of the body that was signed")
    if request.content_length is None:
        raise InvalidError("an upload needs a Content-Length")
    image = await services_of(request).images.upload(
        name=name,
        expected_format=request.query.get("format", ""),
        sha256=declared or sha256,
        size_bytes=request.content_length,
        chunks=request.content.iter_chunked(CHUNK_BYTES),
        ids=ids_of(request),
    )
    return json_answer(
        show(node_of(request).store, image),
        status=201,
        headers={"Location": f"/v1/images/{image.id}"},
    )


async def delete_image(request: web.Request) -> web.Response:
    """DELETE /v1/images/{image}. 204. 409: disks are linked to it."""
    image = target_of(request, Image, "image")
    return await deleted(request, image)
