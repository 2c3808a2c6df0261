"""The API of a lab host as root on it asks: one request to its unix socket, no client in between.

Used by tests that send what no client of ours would send, and where asking has to cost little (`tools.ha_matrix`).
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from tools.lab.lab import Lab

API_SOCKET = "/run/kvorum/api.sock"
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API said; `body` is decoded JSON, or text."""

    status: int
    content_type: str
    body: Any


async def ask(
    lab: Lab,
    host: str,
    method: str,
    path: str,
    *,
    content: bytes = b"",
    timeout_s: float = TIMEOUT_S,
) -> Reply:
    """Send one request; `content` is its body as it is.

    Raises:
        ConflictError: the host is off.
        aiohttp.ClientError, OSError: nobody listens, or the line broke.
        TimeoutError: no answer in time.
    """
    connector = aiohttp.UnixConnector(str(lab.inside(host, API_SOCKET)))
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with (
        aiohttp.ClientSession("http://kvorum", connector=connector, timeout=timeout) as http,
        http.request(method, path, data=io.BytesIO(content) if content else None) as response,
    ):
        text = await response.text()
        decoded = json.loads(text) if "json" in response.content_type else text
        return Reply(response.status, response.content_type, decoded)
