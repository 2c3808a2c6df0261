"""Long answers packed with gzip for those who ask (`Accept-Encoding`, RFC 9110 section 12.5.3).

Only what is read as JSON: a secret is shown in an answer to a POST and never in one to a GET, so nothing packed holds both
a secret and what a stranger can put beside it, whose length would betray the secret (BREACH). Single resources have a
strong ETag, which would have to be another for another coding, and are short; streams and files go as they are.
"""

from __future__ import annotations

import asyncio
import re
import zlib

from aiohttp import web

from nodeagent.api.problems import Handler

BYTES_MIN = 2048
LEVEL = 3
PIECE_BYTES = 64 << 10
GZIP = 16 + zlib.MAX_WBITS
_WEIGHT = re.compile(r"\s*(gzip|x-gzip|\*)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?", re.ASCII)


@web.middleware
async def packing_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Pack an answer that is worth it."""
    response = await handler(request)
    if not (isinstance(response, web.Response) and may_be_packed(request, response)):
        return response
    response.headers["Vary"] = "Accept-Encoding"
    body = response.body
    if not isinstance(body, bytes) or not wants_gzip(request.headers.get("Accept-Encoding", "")):
        return response
    response.headers["Content-Encoding"] = "gzip"
    response.body = await packed(body)
    return response


def may_be_packed(request: web.Request, response: web.Response) -> bool:
    """Tell whether an answer has nothing against it."""
    return (
        request.method == "GET"
        and response.status == 200
        and response.content_type == "application/json"
        and "ETag" not in response.headers
        and isinstance(response.body, bytes)
        and len(response.body) >= BYTES_MIN
    )


def wants_gzip(accepted: str) -> bool:
    """Tell whether a caller takes gzip: named, or by `*`, with a weight above 0."""
    weights: dict[str, float] = {}
    for part in accepted[:1000].split(","):
        if found := _WEIGHT.fullmatch(part.lower()):
            weights[found[1]] = float(found[2] or 1)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


async def packed(body: bytes) -> bytes:
    """Return the body packed; others have their turn between the pieces of a long one."""
    packer = zlib.compressobj(LEVEL, wbits=GZIP)
    pieces: list[bytes] = []
    for first in range(0, len(body), PIECE_BYTES):
        pieces.append(packer.compress(body[first : first + PIECE_BYTES]))
        await asyncio.sleep(0)
    return b"".join((*pieces, packer.flush()))
