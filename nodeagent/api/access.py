"""Who may call: root on this host's unix socket, or the bearer of an access token. Nobody else.

The middleware runs before every handler. The few open routes are those a joining host needs, which check its join
token themselves. Accounts, roles and two-factor log-in come with identity; the place to add them is here.
"""

from __future__ import annotations

import socket
import struct

from aiohttp import web
from aiohttp.typedefs import Middleware

from core.clock import Clock
from core.errors import ForbiddenError, UnauthenticatedError
from core.model import AccessToken
from nodeagent.api.keys import AGENT
from nodeagent.api.problems import Handler
from nodeagent.identity.tokens import ACCESS_PREFIX, is_secret

OPEN_ROUTES = frozenset({"/v1/join", "/v1/join/authority", "/v1/join/cancel", "/v1/join/standing"})
LOCAL_PREFIX = "/v1/local/"


def access_middleware(clock: Clock) -> Middleware:
    """Return the middleware that lets a request in or raises."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is not None and connection.family == socket.AF_UNIX:
            if _peer_uid(connection) != 0:
                raise ForbiddenError(
                    "only root may use this socket: use sudo, or an access token over HTTPS"
                )
        elif request.path.startswith(LOCAL_PREFIX):
            raise ForbiddenError(
                "this is possible only on the host itself, through its unix socket"
            )
        elif request.path not in OPEN_ROUTES:
            _check_bearer(request, clock)
        return await handler(request)

    return middleware


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _check_bearer(request: web.Request, clock: Clock) -> None:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    node = request.app[AGENT].node
    if scheme.lower() != "bearer" or not secret.startswith(ACCESS_PREFIX) or node is None:
        raise UnauthenticatedError(
            "credentials are needed: send 'Authorization: Bearer kvt_...' "
            "(make a token with 'kvorum access-token create NAME' on a member)"
        )
    now_ms = clock.wall_ms()
    for token in node.store.all(AccessToken):
        expired = token.expires_ms != 0 and now_ms >= token.expires_ms
        if is_secret(secret, token.secret_sha256) and not expired:
            return
    raise UnauthenticatedError("this access token is unknown, revoked or expired")
