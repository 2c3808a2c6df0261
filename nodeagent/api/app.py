"""The application: middlewares and routes put together, and served on HTTPS and on the unix socket.

`nodeagent.lifecycle` makes it once; the same routes answer on both listeners.
"""

from __future__ import annotations

import random
import ssl
from pathlib import Path

from aiohttp import web

from core.clock import Clock
from nodeagent.api import (
    accounts,
    bulk,
    callbacks,
    certificates,
    collections,
    events,
    hosts,
    images,
    joining,
    members,
    networks,
    secrets,
    state,
    storages,
    tasks,
    vms,
)
from nodeagent.api.access import CLOCK, access_middleware
from nodeagent.api.auditing import audit_middleware
from nodeagent.api.callbacks import callback_middleware
from nodeagent.api.deleting import dry_run_middleware
from nodeagent.api.description import routes as description
from nodeagent.api.description.operations import STARTING_TASKS
from nodeagent.api.keys import AGENT, Agent
from nodeagent.api.permissions import check_routes
from nodeagent.api.problems import problem_middleware

UPLOAD_BYTES_MAX = 8 << 40
AREAS = (
    description,
    accounts,
    joining,
    members,
    certificates,
    secrets,
    state,
    hosts,
    vms,
    bulk,
    images,
    storages,
    networks,
    tasks,
    callbacks,
    events,
    collections,
)


def build_app(agent: Agent, *, clock: Clock, rng: random.Random) -> web.Application:
    """Return the application with every route.

    Raises:
        FatalError: a route doesn't say what it needs.
    """
    app = web.Application(
        middlewares=[
            problem_middleware(rng),
            access_middleware(),
            dry_run_middleware,
            callback_middleware(STARTING_TASKS),
            audit_middleware(),
        ],
        client_max_size=UPLOAD_BYTES_MAX,
    )
    app[AGENT] = agent
    app[CLOCK] = clock
    for area in AREAS:
        area.add_routes(app)
    check_routes(app)
    return app


async def serve_unix(runner: web.AppRunner, path: Path) -> None:
    """Listen on the unix socket, which only root may open."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    await web.UnixSite(runner, str(path)).start()
    path.chmod(0o600)


async def serve_https(
    runner: web.AppRunner, address: str, port: int, context: ssl.SSLContext
) -> web.TCPSite:
    """Listen for HTTPS, until the site returned is stopped."""
    site = web.TCPSite(runner, address, port, ssl_context=context)
    await site.start()
    return site
