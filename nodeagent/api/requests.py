"""What all handlers share: the member behind the request, decoded bodies, answers, idempotent ids.

A change that carries an `Idempotency-Key` gets ids made from that key, and the key is the transaction's request id.
So a repeated request, at this or another agent, meets its own first outcome.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from core.attributes import check_bounds
from core.clock import new_ordered_id
from core.errors import (
    ConflictError,
    InvalidError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)
from core.model import Resource, Task
from nodeagent.api.keys import AGENT
from nodeagent.api.rights import judged, sight_of
from nodeagent.api.views import Shown, show
from nodeagent.node import Node
from nodeagent.services.callbacks import CallBack
from nodeagent.services.services import Services
from raftstate.txn import Applied

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

BODY_BYTES_MAX = 1 << 20
CONDITION_LENGTH_MAX = 2000
ATTEMPTS = 4
BODY_MAX: web.RequestKey[int] = web.RequestKey("body-max", int)
CALLBACK_HEADER = "Callback-URL"
CONTENT: web.RequestKey[bytes] = web.RequestKey("content", bytes)
DECLARED_SHA256: web.RequestKey[str] = web.RequestKey("declared-sha256", str)
KEY_NAMESPACE = uuid.UUID("6f2f1d0e-8a53-4c11-9f0e-5b8f3f6a7c21")


def node_of(request: web.Request) -> Node:
    """Return the member this agent is.

    Raises:
        UnavailableError: the host is not a member yet.
    """
    node = request.app[AGENT].node
    if node is None:
        raise UnavailableError(
            "this host is not a member of a cluster yet: run 'kvorum init' or 'kvorum join TOKEN' on it",
            code="not-a-member",
        )
    return node


def services_of(request: web.Request) -> Services:
    """Return the member's services; raises like `node_of`."""
    node_of(request)
    services = request.app[AGENT].services
    assert services is not None, "a member has its services"
    return services


def target_of(request: web.Request, type_: type[R], variable: str) -> R:
    """Return the resource that the path names, to be changed, as the caller's `If-Match` expects it (RFC 9110 §13.1.1).

    The revision is that of this agent's copy; the transaction that follows guards it, so nothing slips in between.

    Raises:
        NotFoundError, ForbiddenError: as for `found_of`.
        PreconditionError: it has another revision than all those named.
    """
    resource = found_of(request, type_, variable)
    expected = request.headers.get("If-Match")
    if expected is None or expected.strip() == "*" or _was_applied(request):
        return resource
    if len(expected) > CONDITION_LENGTH_MAX:
        raise InvalidError(f"If-Match is longer than {CONDITION_LENGTH_MAX} characters")
    tag = etag_of(resource)
    if tag not in (one.strip() for one in expected.split(",")):
        raise PreconditionError(
            f"{resource.name!r} is at {tag} now, not at {expected.strip()}: look again, then decide anew"
        )
    return resource


def found_of(request: web.Request, type_: type[R], variable: str) -> R:
    """Return the resource that the path names, if the caller's right reaches it now.

    Raises:
        NotFoundError: there is none of that name or id, or none that the caller may see.
        ForbiddenError: the caller's right doesn't reach it.
    """
    return judged(request, node_of(request).store.find(type_, request.match_info[variable]))


def shown_to(request: web.Request, resource: Resource) -> Shown:
    """Return a resource as the caller may see it."""
    return show(node_of(request).store, resource, sight_of(request))


def _was_applied(request: web.Request) -> bool:
    """Tell whether this is the repetition of a change whose answer was lost: then its own change moved the revision."""
    if not request.headers.get("Idempotency-Key"):
        return False
    outcome = node_of(request).store.outcome_of(ids_of(request).request_id)
    return isinstance(outcome, Applied)


def etag_of(resource: Resource) -> str:
    """Return the strong validator of a resource: the log index of its last change, in quotes (RFC 9110 §8.8.3)."""
    return f'"{resource.revision}"'


def declared_sha256(request: web.Request) -> str:
    """Return the hash that the body of a signed request must have; empty for any other request."""
    declared: str = request.get(DECLARED_SHA256, "")
    return declared


async def content_of(request: web.Request) -> bytes:
    """Return the whole body, also when asked again.

    Raises:
        InvalidError: too large.
        UnauthenticatedError: it isn't the one that was signed.
    """
    if CONTENT not in request:
        content = await _read_whole(request)
        declared = declared_sha256(request)
        if declared and hashlib.sha256(content).hexdigest() != declared:
            raise UnauthenticatedError("the body is not the one that was signed")
        request[CONTENT] = content
    return request[CONTENT]


async def _read_whole(request: web.Request) -> bytes:
    largest = request.get(BODY_MAX, BODY_BYTES_MAX)
    if request.content_length is not None and request.content_length > largest:
        raise too_large(largest)
    content = await request.content.read(largest + 1)
    while content and not request.content.at_eof():
        more = await request.content.read(largest + 1 - len(content))
        content += more
        if len(content) > largest:
            raise too_large(largest)
        if not more:
            break
    return content


async def body_of(request: web.Request, type_: type[T]) -> T:
    """Return the JSON body as `type_`; an empty body counts as `{}`.

    Raises:
        InvalidError: too large, not JSON, or not of the type, or beyond its bounds; the message names the field.
    """
    content = await content_of(request)
    try:
        body = msgspec.json.decode(content or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise InvalidError(f"the body is not as expected: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"the body is not JSON: {error}") from None
    if isinstance(body, msgspec.Struct):
        check_bounds(body)
    return body


def too_large(largest: int) -> InvalidError:
    """Return what is said of a body that is larger than that."""
    error = InvalidError(f"the body is larger than {largest} bytes", code="too-large")
    error.http_status = 413
    return error


def json_answer(
    value: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers=headers,
    )


class Ids:
    """Ids of what one request creates, the same for a repeated request; and who wants to be called back."""

    def __init__(self, key: str, attempt: int = 0, *, callback: CallBack | None = None) -> None:
        self._key = key
        self._attempt = attempt
        self._callback = callback

    @property
    def request_id(self) -> str:
        """The transaction's request id; each attempt has its own, as a refused one stays refused."""
        return f"request/{self._key}" + (f"#again{self._attempt}" if self._attempt else "")

    def again(self, attempt: int) -> Ids:
        """Return the ids of a further attempt at the same request: it makes the same things."""
        return Ids(self._key, attempt, callback=self._callback)

    def item(self, id_: str) -> Ids:
        """Return the ids for one of the things that the request is about."""
        return Ids(f"{self._key}\n{id_}", callback=self._callback)

    def id_for(self, purpose: str) -> str:
        """Return the id of the thing that the request creates for that purpose."""
        return str(uuid.uuid5(KEY_NAMESPACE, f"{self._key}\n{purpose}"))

    def beside(self, task: Task) -> tuple[tuple[Resource, ...], tuple[Resource, ...]]:
        """Return what is stored together with the task that the request starts, and what that has to guard."""
        return self._callback.beside(task) if self._callback is not None else ((), ())


def ids_of(request: web.Request) -> Ids:
    """Return the ids of a request, made from its Idempotency-Key if it has one."""
    key, url = request.headers.get("Idempotency-Key", ""), request.headers.get(CALLBACK_HEADER)
    callback = services_of(request).callbacks.wish(url) if url is not None else None
    if key:
        return Ids(f"{request.method} {request.path} {key}", callback=callback)
    node = node_of(request)
    return Ids(new_ordered_id(node.rng, node.clock.wall_ms()), callback=callback)


async def judged_anew(work: Callable[[Ids], Awaitable[T]], ids: Ids) -> T:
    """Do `work`, and when what it was judged by moved on meanwhile, judge again by the new state, a few times.

    Raises:
        ConflictError: it moved on each time, or what `work` raises.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return await work(ids.again(attempt))
        except ConflictError as error:
            if error.code != "conflict-guard":
                raise
    return await work(ids.again(ATTEMPTS - 1))
