"""Who may call, and what: root on this host's unix socket, a session, the bearer of an access token, the signer with an
access key. Nobody else.

The middleware runs before every handler: it finds the caller, asks the table of `nodeagent.api.permissions` what the route
needs, and refuses what the caller's roles don't allow. The few open routes are those that check a secret of their own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from weakref import WeakKeyDictionary

from aiohttp import web
from aiohttp.typedefs import Middleware

from core.clock import Clock
from core.errors import ForbiddenError, InvalidError, NotFoundError, UnauthenticatedError
from core.identity.permissions import READ
from core.identity.signing import SIGNED_HEADERS, Signed, is_signed_scheme, parse
from core.model import Account, Resource
from nodeagent.api.keys import AGENT
from nodeagent.api.permissions import Gate, Need, need_of
from nodeagent.api.problems import Handler
from nodeagent.api.requests import DECLARED_SHA256, content_of, services_of
from nodeagent.api.rights import CALLER, LIMITS, judge_path
from nodeagent.identity.access_keys import AccessKeys, Presented
from nodeagent.identity.callers import HOW_TO, Caller, root

Peers = WeakKeyDictionary[asyncio.Transport, int | None]
"""The user at the other end of each open connection, None where it isn't this host's unix socket."""

PRESENTED: web.RequestKey[Presented] = web.RequestKey("presented", Presented)
CLOCK: web.AppKey[Clock] = web.AppKey("clock", Clock)
PEERS: web.AppKey[Peers] = web.AppKey("peers", Peers)
LOCAL_PREFIX = "/v1/local/"
FILTERED = "/v1/{plural}"  # lists show what may be seen: a limited right to read is enough
MALFORMED = (
    "the signature can't be read: the header is 'Authorization: KVORUM-HMAC-SHA256 key=..., time=..., nonce=..., "
    "sha256=..., signature=...', it comes once, and each signed header once at most (docs/identity.md)"
)


def access_middleware() -> Middleware:
    """Return the middleware that lets a request in or raises."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        need = need_of(request)
        if need is None or need.gate is not Gate.OPEN:
            request[CALLER] = _authenticated(request)
            try:
                _authorise(request, request[CALLER], need)
            except ForbiddenError:
                await claim(request)  # else it could be sent again once it is allowed
                raise
            if PRESENTED in request and not (need is not None and need.streamed):
                await content_of(request)  # which sees that it is what was signed
        return await handler(request)

    return middleware


def caller_of(request: web.Request) -> Caller:
    """Return who sent the request; not for open routes."""
    return request[CALLER]


def address_of(request: web.Request) -> str:
    """Return the IP address that the request came from, `local` for the unix socket."""
    return request.remote or "" if _peer_uid(request) is None else "local"


def check_again(request: web.Request) -> None:
    """Judge a request anew that has been served for long: for streams, and for those that wait.

    Raises:
        UnauthenticatedError: the caller may not come in any more.
        ForbiddenError: the caller may not do this any more.
    """
    presented = request.get(PRESENTED)
    caller = _keys(request).again(presented) if presented else _authenticated(request)
    request[CALLER] = caller
    _authorise(request, caller, need_of(request))


async def claim(request: web.Request, *puts: Resource) -> None:
    """Record that a signed request was taken, so that it never is again, in one transaction with `puts`. Before anything
    else is done for it; for other requests there is nothing to record, nor to put.

    Raises:
        UnauthenticatedError: it was taken before, here or at another agent, or its key isn't good any more.
        UnavailableError: no quorum.
    """
    if PRESENTED in request:
        await _keys(request).claim(request[PRESENTED], *puts)


def _peer_uid(request: web.Request) -> int | None:
    """Return who is at the other end of this host's unix socket, None for another connection; asked once for each."""
    transport = request.transport
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return None  # there is TLS on TCP only
    peers = request.app[PEERS]
    if transport not in peers:
        peers[transport] = _uid_behind(transport.get_extra_info("socket"))
    return peers[transport]


def _authenticated(request: web.Request) -> Caller:
    uid = _peer_uid(request)
    if uid is not None:
        if uid != 0:
            raise ForbiddenError(
                "only root may use this socket: use sudo, or an access token over HTTPS"
            )
        return root()
    if request.path.startswith(LOCAL_PREFIX):
        raise ForbiddenError("this is possible only on the host itself, through its unix socket")
    node = request.app[AGENT].node
    if node is None:
        raise UnauthenticatedError(HOW_TO)
    header = request.headers.get("Authorization", "")
    if is_signed_scheme(header):
        return _signer(request, header)
    return services_of(request).identity.callers.of_bearer(
        header,
        address=request.remote or "",
        now_ms=request.app[CLOCK].wall_ms(),
    )


def _signer(request: web.Request, header: str) -> Caller:
    """Return whose access key signed a request; what follows relies on `PRESENTED` and the body's declared hash."""
    signature = parse(header)
    once = all(len(request.headers.getall(n, ())) < 2 for n in (*SIGNED_HEADERS, "authorization"))
    if signature is None or not once:
        raise UnauthenticatedError(MALFORMED)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise InvalidError("the body of a signed request can't be compressed")
    headers = {n: request.headers[n] for n in SIGNED_HEADERS if n in request.headers}
    signed = Signed(request.method, request.raw_path, headers, signature.sha256)
    presented = Presented(signature, signed, request.remote or "")
    caller = _keys(request).let_in(presented)
    request[PRESENTED] = presented
    request[DECLARED_SHA256] = signature.sha256
    return caller


def _keys(request: web.Request) -> AccessKeys:
    return services_of(request).identity.keys


def _authorise(request: web.Request, caller: Caller, need: Need | None) -> None:
    request.pop(LIMITS, None)
    if need is None or need.gate is Gate.CALLER or caller.via == "root":
        return
    if need.gate is Gate.OWN and is_own(request, caller):
        return
    wanted = caller.limits(need.kind, need.action) if need.gate is not Gate.LOCAL else frozenset()
    if wanted is None:
        return
    if not wanted:
        raise ForbiddenError(
            f"{caller.name!r} may not do this: its roles don't allow '{need.action}' on '{need.kind}'"
        )
    resource, node = request.match_info.route.resource, request.app[AGENT].node
    assert resource is not None and node is not None, "known callers of a member ask for a route"
    request[LIMITS] = wanted
    if not (need.each or (resource.canonical == FILTERED and need.action == READ)):
        judge_path(request, node.store, need.kind)


def is_own(request: web.Request, caller: Caller) -> bool:
    """Tell whether the account of the path is the one that has logged in. A token acts for nobody in person."""
    node, ref = request.app[AGENT].node, request.match_info.get("account", "")
    if caller.via != "session" or node is None:
        return False
    try:
        return node.store.find(Account, ref).id == caller.account_id
    except NotFoundError:
        return False


def _uid_behind(connection: socket.socket | None) -> int | None:
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
