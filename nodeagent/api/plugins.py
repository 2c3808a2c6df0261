"""What plug-ins each host has, and the system tags that this agent knows.

A host writes what it found into its own record, so any agent tells it, also of a host that is off.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from core.model import Host
from nodeagent.api.collections import strong_if_asked
from nodeagent.api.computed import answer_of
from nodeagent.api.requests import json_answer, node_of, services_of


def add_routes(app: web.Application) -> None:
    """Add the routes of plug-ins."""
    app.router.add_get("/v1/plugins", list_plugins)
    app.router.add_get("/v1/system-tags", list_system_tags)


async def list_plugins(request: web.Request) -> web.Response:
    """GET /v1/plugins. One item for each entry point of each host: what it gives, whether it works, why not."""
    store = node_of(request).store
    await strong_if_asked(request)
    items = [
        {"host_id": host.id, "host_name": host.name, **msgspec.to_builtins(plugin)}
        for host in store.all(Host)
        for plugin in host.plugins
    ]
    return json_answer({**answer_of(items, request), "index": store.index})


async def list_system_tags(request: web.Request) -> web.Response:
    """GET /v1/system-tags. The patterns of system tags that this agent knows, and what they mean."""
    patterns = services_of(request).plugins.system_tags.patterns()
    items = [{"name": name, "description": text} for name, text in patterns.items()]
    return json_answer({**answer_of(items, request), "index": node_of(request).store.index})
