"""The application: middlewares and routes put together, and served on the unix socket.

`nodeagent.lifecycle` makes it once; the same routes answer over TCP (`nodeagent.api.serving`).
"""

from __future__ import annotations

import random
from pathlib import Path

from aiohttp import web

from core.clock import Clock
from nodeagent.api import (
    access_keys,
    accounts,
    arbitration,
    attaching,
    bmcs,
    bulk,
    bulk_kinds,
    callbacks,
    certificates,
    collections,
    declared,
    drills,
    events,
    ha,
    health,
    hosts,
    images,
    joining,
    maintenance,
    members,
    networks,
    placement_rules,
    plugins,
    roles,
    rooms,
    secrets,
    snapshots,
    state,
    storages,
    tags,
    tasks,
    two_factor,
    vip,
    vms,
    workflows,
)
from nodeagent.api.access import CLOCK, PEERS, Peers, access_middleware
from nodeagent.api.auditing import audit_middleware
from nodeagent.api.callbacks import callback_middleware
from nodeagent.api.deleting import dry_run_middleware
from nodeagent.api.description import routes as description
from nodeagent.api.description.operations import STARTING_TASKS
from nodeagent.api.keys import AGENT, Agent
from nodeagent.api.limits import (
    DEFAULT_LIMITS,
    UPLOAD_BYTES_MAX,
    ApiLimits,
    Places,
    caller_limit_middleware,
    limits_middleware,
)
from nodeagent.api.packing import packing_middleware
from nodeagent.api.permissions import check_routes
from nodeagent.api.problems import problem_middleware
from nodeagent.api.serving import pace_middleware

AREAS = (
    description,
    accounts,
    two_factor,
    access_keys,
    roles,
    joining,
    vip,
    arbitration,
    members,
    bmcs,
    drills,
    ha,
    health,
    rooms,
    placement_rules,
    certificates,
    secrets,
    state,
    hosts,
    maintenance,
    vms,
    bulk,
    snapshots,
    images,
    storages,
    networks,
    attaching,
    tasks,
    callbacks,
    events,
    plugins,
    workflows,
    tags,
    bulk_kinds,
    declared,
    collections,
)


def build_app(
    agent: Agent, *, clock: Clock, rng: random.Random, limits: ApiLimits = DEFAULT_LIMITS
) -> web.Application:
    """Return the application with every route.

    Raises:
        FatalError: a route doesn't say what it needs.
    """
    app = web.Application(
        middlewares=[
            problem_middleware(rng),
            pace_middleware,
            packing_middleware,
            limits_middleware(limits),
            access_middleware(),
            caller_limit_middleware(limits),
            dry_run_middleware,
            callback_middleware(STARTING_TASKS),
            audit_middleware(),
        ],
        client_max_size=UPLOAD_BYTES_MAX,
    )
    app[AGENT] = agent
    app[CLOCK] = clock
    app[events.STREAMS] = Places(limits.event_streams, limits.event_streams_per_address)
    app[PEERS] = Peers()
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
