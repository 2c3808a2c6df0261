"""Errors as RFC 9457 problem documents, and the one middleware that makes them.

Every handler raises; nothing else turns an exception into an answer. The request id travels in a ContextVar from
here to the log lines of everything the request causes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from core.attributes import CLUSTER, attribute
from core.clock import new_id
from core.errors import InvalidError, NotFoundError, PlatformError
from core.logs import REQUEST_ID
from nodeagent.api.keys import AGENT

log = logging.getLogger(__name__)

KEY_LENGTH_MAX = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457 section 3.1; `code` is ours and stable, `detail` says what was wrong and what to do."""

    type: Annotated[
        str, attribute("Address of the kind of problem: `about:kvorum#` and the code.", by=CLUSTER)
    ]
    title: Annotated[str, attribute("The kind of problem, in words.", by=CLUSTER)]
    status: Annotated[int, attribute("The HTTP status.", by=CLUSTER)]
    code: Annotated[
        str, attribute("The kind of problem, for programs; docs/api.md has all.", by=CLUSTER)
    ]
    detail: Annotated[str, attribute("What was wrong and what to do.", by=CLUSTER)]
    request_id: Annotated[str, attribute("Id of the request, as in the agent's log.", by=CLUSTER)]


def problem_of(error: PlatformError, request_id: str) -> Problem:
    """Return an error as a problem."""
    return Problem(
        type=f"about:kvorum#{error.code}",
        title=error.code.replace("-", " "),
        status=error.http_status,
        code=error.code,
        detail=error.message,
        request_id=request_id,
    )


def problem_response(error: PlatformError, request_id: str) -> web.Response:
    """Return the problem document of an error."""
    problem = problem_of(error, request_id)
    headers = {"Retry-After": "2"} if error.http_status == 503 else {}
    retry_after_s = getattr(error, "retry_after_s", None)
    if error.http_status == 429 and isinstance(retry_after_s, int):
        headers["Retry-After"] = str(retry_after_s)
    return web.Response(
        body=msgspec.json.encode(problem),
        status=error.http_status,
        content_type="application/problem+json",
        headers=headers,
    )


def problem_middleware(rng: random.Random) -> Middleware:
    """Return the outermost middleware: request id, and every exception as a problem document."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = new_id(rng)
        REQUEST_ID.set(request_id)
        try:
            check_key(request)
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except PlatformError as error:
            response = problem_response(error, request_id)
        except web.HTTPException as error:
            response = problem_response(_from_http(error, request), request_id)
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = error.headers["Allow"]  # RFC 9110 section 15.5.6
        except web.RequestPayloadError:
            broken = InvalidError("the body is not what its head announced: it can't be read")
            response = problem_response(broken, request_id)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("a request failed unexpectedly", extra={"request_id": request_id})
            _note(request, error)
            response = problem_response(unexpected(request_id), request_id)
        if not response.prepared:
            response.headers["X-Request-Id"] = request_id
        return response

    return middleware


def unexpected(request_id: str) -> PlatformError:
    """Return what a caller is told of a fault that nobody foresaw, and that is in the log."""
    return PlatformError(f"internal error; see the agent's log for request {request_id}")


def _note(request: web.Request, error: Exception) -> None:
    """Let the operator see, with the host's other faults, that requests of this kind fail unexpectedly."""
    node, resource = request.app[AGENT].node, request.match_info.route.resource
    if node is not None and resource is not None:
        service = f"api {request.method} {resource.canonical}"
        node.faults.note(service, error, node.clock.wall_ms())


def check_key(request: web.Request) -> None:
    """Refuse what can't be an idempotency key, also where nothing is made of it.

    Raises:
        InvalidError: it is too long.
    """
    if len(request.headers.get("Idempotency-Key", "")) > KEY_LENGTH_MAX:
        raise InvalidError(f"Idempotency-Key is longer than {KEY_LENGTH_MAX} characters")


def _from_http(error: web.HTTPException, request: web.Request) -> PlatformError:
    if error.status == 404:
        return NotFoundError(
            f"there is no {request.path[:200]}: the API's collections are under /v1"
        )
    if error.status == 405:
        problem = InvalidError(f"{request.method} is not possible on {request.path[:200]}")
        problem.http_status = 405
        return problem
    problem = InvalidError(error.reason or "the request could not be understood")
    problem.http_status = error.status
    return problem
