"""Events: a list, or a stream of server-sent events whose ids are log indexes.

`Last-Event-ID` resumes at any agent without loss as long as the events are kept (`nodeagent.services.housekeeping`).
"""

from __future__ import annotations

import asyncio
from itertools import zip_longest
from typing import NamedTuple

import msgspec
from aiohttp import web

from core.errors import ForbiddenError, InvalidError, UnauthenticatedError
from core.identity.lockout import network_of
from core.model import Event
from nodeagent.api.access import address_of, check_again
from nodeagent.api.collections import strong_if_asked
from nodeagent.api.limits import LOCAL, Places, place_in
from nodeagent.api.lists import list_of
from nodeagent.api.requests import node_of
from nodeagent.api.views import show
from raftstate.store import Store

KEEP_ALIVE_S = 15.0
SEND_TIMEOUT_S = 30.0
ID_DIGITS_MAX = 18
STREAMS: web.AppKey[Places] = web.AppKey("event-streams", Places)


def add_routes(app: web.Application) -> None:
    """Add the route of events."""
    app.router.add_get("/v1/events", events)


async def events(request: web.Request) -> web.StreamResponse:
    """GET /v1/events. `Accept: text/event-stream` streams, anything else lists, oldest first."""
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await _stream(request)
    node_of(request)
    await strong_if_asked(request)
    return await list_of(request, Event)


async def _stream(request: web.Request) -> web.StreamResponse:
    """Stream while there is a place; on the host itself there always is."""
    address = address_of(request)
    if address == LOCAL:
        return await _send(request)
    why_not = "too many event streams are open here"
    with place_in(request.app[STREAMS], network_of(address), why_not, code="too-many-streams"):
        return await _send(request)


async def _send(request: web.Request) -> web.StreamResponse:
    store = node_of(request).store
    seen = _resume_index(request, store.index)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    watch = store.watch(Event)
    try:
        # Without data it is no event, but a reader that loses the connection before the first one resumes here.
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await response.write(f"id: {seen}\n\n".encode())
        while True:
            check_again(request)
            for message in _messages(store, store.since(Event, seen)):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(message.body)
                seen = message.resume_at or seen
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await watch.next()
            except TimeoutError:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(b": still here\n\n")
    except (ConnectionError, TimeoutError, UnauthenticatedError, ForbiddenError):
        return response
    finally:
        store.unwatch(watch)


class _Message(NamedTuple):
    """One server-sent event; `resume_at` is the index after which nothing of it is missing, 0 inside an index."""

    body: bytes
    resume_at: int


def _messages(store: Store, batch: list[Event]) -> list[_Message]:
    """Return the events as messages. Only the last one of a log index carries its id: a reader that breaks off
    between two events of one transaction gets both again rather than losing one."""
    messages = []
    for event, following in zip_longest(batch, batch[1:]):
        last = following is None or following.revision != event.revision
        data = msgspec.json.encode(show(store, event)).decode()
        head = f"id: {event.revision}\n" if last else ""
        text = f"{head}event: {event.code}\ndata: {data}\n\n"
        messages.append(_Message(text.encode(), event.revision if last else 0))
    return messages


def _resume_index(request: web.Request, now: int) -> int:
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return now
    if not text.isdecimal() or len(text) > ID_DIGITS_MAX:
        raise InvalidError("Last-Event-ID must be the id of an event, a number")
    return int(text)
