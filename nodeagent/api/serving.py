"""Connections to the API: how many there may be, and how long each may take for what.

`Front` opens the listeners. Whatever a stranger sends, or doesn't: a head that never ends, a body that trickles, an answer
that isn't fetched, thousands of connections that say nothing; each is over within a bounded time, costs a bounded amount, and
is told why where that is possible. aiohttp bounds lines, headers and queued requests; the rest is here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import msgspec
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from core.clock import new_id
from core.errors import InvalidError, PlatformError
from core.identity.lockout import network_of
from core.mesh.doorway import Doorway
from nodeagent.api.limits import ApiLimits, Places
from nodeagent.api.problems import Handler, problem_of, problem_response

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 8190
HEADER_BYTES_MAX = 4096
HEADERS_MAX = 64
HEAD_S = 15.0
KEEP_ALIVE_S = 75.0
LINGER_S = 5.0
BODY_WINDOW_S = 10.0
BODY_WINDOW_BYTES = 10 << 10
FETCH_S = 60.0
LOOK_S = 1.0
HANDSHAKE_TIMEOUT_S = 10.0
SHUTDOWN_TIMEOUT_S = 1.0


def runner_of(app: web.Application) -> web.AppRunner:
    """Return the runner of the application; the unix socket has the same bounds of heads as what comes over TCP."""
    return web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=2.0,
        keepalive_timeout=KEEP_ALIVE_S,
        lingering_time=LINGER_S,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        max_headers=HEADERS_MAX,
        auto_decompress=False,
    )


class SlowBodyError(PlatformError):
    """A request's body comes too slowly."""

    code = "too-slow-body"
    http_status = 408


class LateHeadError(PlatformError):
    """A request's head didn't come in time."""

    code = "too-slow-head"
    http_status = 408


class Connection(RequestHandler):
    """One connection of a caller. `front` counts it and looks at it every second."""

    def __init__(self, server: web.Server, front: Front) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast(logging.Logger, None),  # what aiohttp itself takes for "none"
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
        )
        self._front = front
        self._place: str | None = None
        self._received = 0
        self._body: StreamReader | None = None
        self._busy = False
        self._served = False
        self._since_s = self._loop.time()
        self._mark = 0
        self._unfetched_since_s: float | None = None

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._place = self._front.entered(self, str(peer[0]) if peer else "")

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._place is not None:
            self._front.left(self, self._place)
            self._place = None

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unfetched_since_s = self._loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unfetched_since_s = None
        self._begin_window()

    # -- what aiohttp calls

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what can't be read as HTTP with a problem; strangers must not be able to fill the log with it."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        log.debug("what came is no HTTP", extra={"from": self._place, "error": repr(exc)})
        error = InvalidError(_in_words(exc))
        response = problem_response(error, self._front.new_id())
        response.force_close()
        return response

    def log_exception(self, *args: object, **options: object) -> None:
        """Keep what strangers cause out of the log; the rest is a fault of ours."""
        error = options.get("exc_info")
        if isinstance(error, SlowBodyError | web.RequestPayloadError):
            log.debug("a body broke off", extra={"from": self._place, "error": repr(error)})
        else:
            super().log_exception(*args, **options)

    # -- what the middleware says

    @contextmanager
    def busy(self, body: StreamReader) -> Iterator[None]:
        """A request is being worked on, with this body, for the block."""
        self._busy, self._served, self._body = True, True, body
        self._begin_window()
        try:
            yield
        finally:
            self._busy, self._body = False, None
            self._begin_window()

    # -- what `Front` asks every second

    def look(self, now_s: float) -> None:
        """End what takes too long."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._unfetched_since_s is not None:
            if now_s - self._unfetched_since_s >= FETCH_S:
                log.debug("an answer isn't fetched", extra={"from": self._place})
                self.transport.abort()
        elif self._busy:
            self._look_at_body(now_s)
        elif now_s - self._since_s >= HEAD_S and (not self._served or self._received > self._mark):
            self._end_late_head()

    def turn_away(self) -> None:
        """End it at once, with nothing said."""
        self._force_close = True
        if self.transport is not None:
            self.transport.abort()

    def _look_at_body(self, now_s: float) -> None:
        body, transport = self._body, self.transport
        assert transport is not None, "looked at before"
        if body is None or body.is_eof() or not transport.is_reading():
            self._begin_window()  # all is here, or it is this side that doesn't take more at present
        elif now_s - self._since_s >= BODY_WINDOW_S:
            if self._received - self._mark < BODY_WINDOW_BYTES:
                body.set_exception(
                    SlowBodyError(
                        f"the body came slower than {BODY_WINDOW_BYTES >> 10} KiB in {BODY_WINDOW_S:g} s: send it again"
                    )
                )
                self._body = None
            self._begin_window()

    def _begin_window(self) -> None:
        self._since_s, self._mark = self._loop.time(), self._received

    def _end_late_head(self) -> None:
        """Say why, if anything had come, and hang up."""
        transport = self.transport
        if self._received > self._mark and transport is not None:
            error = LateHeadError(f"the request's head did not come within {HEAD_S:g} s")
            transport.write(_raw(error, self._front.new_id()))
        self.force_close()


class Front:
    """All connections of an application's callers over TCP."""

    def __init__(self, runner: web.AppRunner, limits: ApiLimits, *, rng: random.Random) -> None:
        """Made when the runner is set up."""
        assert runner.server is not None, "set up"
        self._server = runner.server
        self._rng = rng
        self._places = Places(limits.connections, limits.connections_per_address)
        self._connections: set[Connection] = set()

    def open(
        self, address: str, port: int, context: ssl.SSLContext | None, *, moving: bool = False
    ) -> Doorway:
        """Listen; run what is returned to let callers in. Without `context` it is plain HTTP. Raises OSError if that can't be.

        `moving`: also while this host doesn't have the address.
        """
        return Doorway(
            address,
            port,
            lambda: context,
            lambda: Connection(self._server, self),
            handshake_timeout_s=HANDSHAKE_TIMEOUT_S,
            shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
            has_room=lambda remote: self._places.has_room(network_of(remote)),
            moving=moving,
        )

    async def watch(self) -> None:
        """Look at all connections every second until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            for connection in list(self._connections):
                connection.look(loop.time())

    def entered(self, connection: Connection, remote: str) -> str:
        """Count a connection, or turn it away; return its place."""
        place = network_of(remote)
        if not self._places.has_room(place):  # several shook hands at the same time
            connection.turn_away()
        self._places.enter(place)
        self._connections.add(connection)
        return place

    def left(self, connection: Connection, place: str) -> None:
        """Count it no more."""
        self._places.leave(place)
        self._connections.discard(connection)

    def new_id(self) -> str:
        """Return an id for an answer to what isn't even a request."""
        return new_id(self._rng)


@web.middleware
async def pace_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that a request is being worked on."""
    connection = request.protocol
    if not isinstance(connection, Connection):  # root's unix socket
        return await handler(request)
    with connection.busy(request.content):
        return await handler(request)


def _in_words(error: BaseException | None) -> str:
    if isinstance(error, LineTooLong):
        return (
            f"the request's head is too large: a line has {LINE_BYTES_MAX} bytes at most, a header {HEADER_BYTES_MAX}, "
            f"and there are at most {HEADERS_MAX}"
        )
    return "what came is not a proper HTTP/1.1 request"


def _raw(error: PlatformError, request_id: str) -> bytes:
    """Return an answer as bytes, for when there is no request that aiohttp could answer."""
    body = msgspec.json.encode(problem_of(error, request_id))
    head = (
        f"HTTP/1.1 {error.http_status} Request Timeout\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
