"""How much of the API one caller may use, so that nobody's mistake or malice takes it from the others.

Two middlewares: before anybody is known, each address has a rate, a number of requests at once, and bounds of what it
sends; afterwards each caller has a rate, from wherever. Root's unix socket is exempt: it is how operators mend things, and
the guard's. The mesh has a port of its own. What connections may do is in `nodeagent.api.serving`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from core.errors import InvalidError, PlatformError
from core.identity.lockout import network_of
from nodeagent.api.access import address_of
from nodeagent.api.permissions import Gate, need_of
from nodeagent.api.problems import Handler
from nodeagent.api.requests import BODY_BYTES_MAX, BODY_MAX, too_large
from nodeagent.api.rights import CALLER

LOCAL = "local"
OPEN_BODY_BYTES_MAX = 64 << 10
UPLOAD_BYTES_MAX = 8 << 40
KEPT_MAX = 10_000

Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class ApiLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[api]` of the settings. An address is an IPv4 address or the /64 of an IPv6 one; a caller an account, a token or root.

    Requests over the rate are refused once `requests_burst` more than `requests_per_s` allows have come.
    """

    connections: Number = 2048
    connections_per_address: Number = 256
    requests_at_once_per_address: Number = 128
    requests_per_s: Number = 500
    requests_burst: Number = 1000
    event_streams: Number = 1000
    event_streams_per_address: Number = 64


DEFAULT_LIMITS = ApiLimits()


class TooManyError(PlatformError):
    """Somebody asks for more than their share; `retry_after_s` says when there is room again."""

    code = "too-many-requests"
    http_status = 429

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class Buckets:
    """A token bucket for each key; those that were quiet for longest are forgotten first, which only favours them."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now_s: float) -> float:
        """Take one and return 0, or return how many seconds to wait until there is one."""
        level, at_s = self._levels.pop(key, (self._burst, now_s))
        level = min(self._burst, level + (now_s - at_s) * self._per_s)
        taken = level >= 1
        self._levels[key] = (level - 1 if taken else level, now_s)
        while len(self._levels) > KEPT_MAX:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1 - level) / self._per_s


class Places:
    """A number of places in all and for each key."""

    def __init__(self, in_all: int, each: int) -> None:
        self._in_all, self._each = in_all, each
        self._taken: Counter[str] = Counter()
        self._sum = 0

    def has_room(self, key: str) -> bool:
        """Tell whether one more would be let in."""
        return self._sum < self._in_all and self._taken[key] < self._each

    def enter(self, key: str) -> None:
        """Take a place, whether there is room or not."""
        self._taken[key] += 1
        self._sum += 1

    def leave(self, key: str) -> None:
        """Give it back."""
        self._taken[key] -= 1
        self._sum -= 1
        if not self._taken[key]:
            del self._taken[key]


def limits_middleware(limits: ApiLimits) -> Middleware:
    """Return the middleware that holds every address to its share, before anything else is done."""
    rate = Buckets(limits.requests_per_s, limits.requests_burst)
    at_once = Places(limits.connections, limits.requests_at_once_per_address)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        check_body(request)
        address = address_of(request)
        if address == LOCAL:
            return await handler(request)
        key = network_of(address)
        check_rate(rate, key, "your address sends")
        with place_in(at_once, key, "too many requests of your address are under way"):
            return await handler(request)

    return middleware


def caller_limit_middleware(limits: ApiLimits) -> Middleware:
    """Return the middleware that holds every caller to its share, whatever addresses they use. Behind the judging one."""
    rate = Buckets(limits.requests_per_s, limits.requests_burst)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        caller = request.get(CALLER)
        if caller is not None and caller.via != "root":
            check_rate(rate, f"{caller.via}/{caller.account_id or caller.name}", "you send")
        return await handler(request)

    return middleware


def check_rate(rate: Buckets, key: str, who: str) -> None:
    """Let one more pass.

    Raises:
        TooManyError: not now.
    """
    wait_s = rate.take(key, asyncio.get_running_loop().time())
    if wait_s:
        raise TooManyError(
            f"{who} more requests than the agent takes: wait, ask for more at once, or have [api] of its settings changed",
            retry_after_s=math.ceil(wait_s),
        )


@contextmanager
def place_in(places: Places, key: str, why_not: str, *, code: str | None = None) -> Iterator[None]:
    """Hold a place for the block.

    Raises:
        TooManyError: there is none.
    """
    if not places.has_room(key):
        raise TooManyError(f"{why_not}: end some, or ask another agent", code=code)
    places.enter(key)
    try:
        yield
    finally:
        places.leave(key)


def check_body(request: web.Request) -> None:
    """Refuse a body that can't be taken before any of it is read, and note for its reader how large it may get.

    Raises:
        InvalidError: it is too large for this route, or packed: nobody knows how large what is in it is.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        error = InvalidError("the body must not be packed: send it without Content-Encoding")
        error.http_status = 415
        raise error
    need = need_of(request)
    if need is not None and need.streamed:
        largest = UPLOAD_BYTES_MAX
    elif need is not None and need.gate is Gate.OPEN:
        largest = OPEN_BODY_BYTES_MAX
    else:
        largest = BODY_BYTES_MAX
    request[BODY_MAX] = largest
    if request.content_length is not None and request.content_length > largest:
        raise too_large(largest)
