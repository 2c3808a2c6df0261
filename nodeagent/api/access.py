"""Who may call, and what: root on this host's unix socket, the bearer of an access token, or a session. Nobody else.

The middleware runs before every handler: it finds the caller, asks the table of `nodeagent.api.permissions` what the route
needs, and refuses what the caller's roles don't allow. The few open routes are those that check a secret of their own.
"""

from __future__ import annotations

import socket
import struct

from aiohttp import web
from aiohttp.typedefs import Middleware

from core.clock import Clock
from core.errors import ForbiddenError, NotFoundError, UnauthenticatedError
from core.model import Account, Resource, kind_of
from nodeagent.api.keys import AGENT
from nodeagent.api.permissions import Gate, Need, need_of
from nodeagent.api.problems import Handler
from nodeagent.identity.callers import HOW_TO, Caller, caller_of_bearer, root

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
CLOCK: web.AppKey[Clock] = web.AppKey("clock", Clock)
LOCAL_PREFIX = "/v1/local/"


def access_middleware() -> Middleware:
    """Return the middleware that lets a request in or raises."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        need = need_of(request)
        if need is None or need.gate is not Gate.OPEN:
            request[CALLER] = _authenticated(request)
            _authorise(request, request[CALLER], need)
        return await handler(request)

    return middleware


def caller_of(request: web.Request) -> Caller:
    """Return who sent the request; not for open routes."""
    return request[CALLER]


def address_of(request: web.Request) -> str:
    """Return the IP address that the request came from, `local` for the unix socket."""
    return "local" if _unix_socket(request) else request.remote or ""


def check_may(request: web.Request, action: str, resource: Resource) -> None:
    """Judge one of the things that a request is about, after the request itself.

    Raises:
        ForbiddenError: the caller may not do this to it.
    """
    _authorise(request, caller_of(request), Need(Gate.ROLE, kind_of(resource), action))


def check_again(request: web.Request) -> None:
    """Judge a request anew that has been served for long; for streams.

    Raises:
        UnauthenticatedError: the caller may not come in any more.
        ForbiddenError: the caller may not do this any more.
    """
    _authorise(request, _authenticated(request), need_of(request))


def _unix_socket(request: web.Request) -> socket.socket | None:
    connection: socket.socket | None = (
        request.transport.get_extra_info("socket") if request.transport else None
    )
    unix = connection is not None and connection.family == socket.AF_UNIX
    return connection if unix else None


def _authenticated(request: web.Request) -> Caller:
    connection = _unix_socket(request)
    if connection is not None:
        if _peer_uid(connection) != 0:
            raise ForbiddenError(
                "only root may use this socket: use sudo, or an access token over HTTPS"
            )
        return root()
    if request.path.startswith(LOCAL_PREFIX):
        raise ForbiddenError("this is possible only on the host itself, through its unix socket")
    node = request.app[AGENT].node
    if node is None:
        raise UnauthenticatedError(HOW_TO)
    return caller_of_bearer(
        node.store,
        request.headers.get("Authorization", ""),
        address=request.remote or "",
        now_ms=request.app[CLOCK].wall_ms(),
    )


def _authorise(request: web.Request, caller: Caller, need: Need | None) -> None:
    if need is None or need.gate is Gate.CALLER or caller.via == "root":
        return
    if need.gate is Gate.OWN and is_own(request, caller):
        return
    if need.gate is Gate.LOCAL or not caller.may(need.kind, need.action):
        raise ForbiddenError(
            f"{caller.name!r} may not do this: its roles don't allow '{need.action}' on '{need.kind}'"
        )


def is_own(request: web.Request, caller: Caller) -> bool:
    """Tell whether the account of the path is the one that has logged in. A token acts for nobody in person."""
    node, ref = request.app[AGENT].node, request.match_info.get("account", "")
    if caller.via != "session" or node is None:
        return False
    try:
        return node.store.find(Account, ref).id == caller.account_id
    except NotFoundError:
        return False


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
