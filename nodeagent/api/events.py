"""Events: a list, or a stream of server-sent events whose ids are log indexes.

`Last-Event-ID` resumes at any agent without loss as long as the events are kept (`nodeagent.services.housekeeping`).
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from core.errors import InvalidError
from core.model import Event
from nodeagent.api.collections import select
from nodeagent.api.requests import json_answer, node_of
from nodeagent.api.views import show

KEEP_ALIVE_S = 15.0
SEND_TIMEOUT_S = 30.0


def add_routes(app: web.Application) -> None:
    """Add the route of events."""
    app.router.add_get("/v1/events", events)


async def events(request: web.Request) -> web.StreamResponse:
    """GET /v1/events. `Accept: text/event-stream` streams, anything else lists, oldest first."""
    node = node_of(request)
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await _stream(request)
    items = [show(node.store, event) for event in node.store.since(Event, 0, limit=100_000)]
    return json_answer({"items": select(items, request), "index": node.store.index})


async def _stream(request: web.Request) -> web.StreamResponse:
    store = node_of(request).store
    seen = _resume_index(request, store.index)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    watch = store.watch(Event)
    try:
        while True:
            batch = store.since(Event, seen)
            for event in batch:
                body = msgspec.json.encode(show(store, event)).decode()
                message = f"id: {event.revision}\nevent: {event.code}\ndata: {body}\n\n"
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(message.encode())
            # Several events may share an index; `since` is asked from the last whole one.
            seen = max([seen, *(event.revision for event in batch)])
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await watch.next()
            except TimeoutError:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(b": still here\n\n")
    except (ConnectionError, TimeoutError):
        return response
    finally:
        store.unwatch(watch)


def _resume_index(request: web.Request, now: int) -> int:
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return now
    if not text.isdecimal():
        raise InvalidError("Last-Event-ID must be the id of an event, a number")
    return int(text)
