"""Deletions as callers meet them: `?dry_run=1` says what would go and what stands in the way, and changes nothing.

Used by the handlers of each area. A deletion that can't be previewed refuses `dry_run` instead of ignoring it: whoever
asks for a preview must never get the real thing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from core.errors import ConflictError, InvalidError
from core.model import Resource
from nodeagent.api.requests import json_answer, node_of
from nodeagent.api.rights import sight_of, without_names
from nodeagent.services.cascade import delete_cascading, plan_of, shown_plan, why_refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
YES, NO = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
PREVIEWED = frozenset(
    {
        "/v1/hosts/{host}",
        "/v1/members/{host}",
        "/v1/vms/{vm}",
        "/v1/snapshots/{snapshot}",
        "/v1/images/{image}",
        "/v1/data-storages/{storage}",
        "/v1/port-groups/{group}",
        "/v1/security-groups/{group}",
        "/v1/{plural}/{ref}",
    }
)


async def deleted(request: web.Request, resource: Resource) -> web.Response:
    """Answer a DELETE of a record: 200 with the plan for a dry run, else 204 when it is gone with all that goes along."""
    if (preview := preview_if_asked(request, resource)) is not None:
        return preview
    sight = sight_of(request)
    if why := why_refused(plan_of(node_of(request).store, resource), sight.sees):
        raise ConflictError(why)
    try:
        await delete_cascading(node_of(request), resource)
    except ConflictError as error:
        raise without_names(request, error) from None
    return web.Response(status=204)


def preview_if_asked(request: web.Request, resource: Resource) -> web.Response | None:
    """Return the plan when `dry_run` is asked for, None when it is meant.

    Raises:
        InvalidError: `dry_run` is neither yes nor no.
    """
    if not is_dry(request):
        return None
    plan = plan_of(node_of(request).store, resource)
    return json_answer(shown_plan(plan, sight_of(request).sees))


@web.middleware
async def dry_run_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a dry run of what has none."""
    # Without a resource there is no such path or method, which the router says better.
    resource = request.match_info.route.resource
    if resource is not None and request.method == "DELETE" and is_dry(request):
        if resource.canonical in PREVIEWED:
            return await handler(request)
        raise InvalidError("dry_run is not possible here: nothing was done")
    return await handler(request)


def is_dry(request: web.Request) -> bool:
    """Tell whether only a preview is asked for.

    Raises:
        InvalidError: `dry_run` is neither yes nor no.
    """
    wanted = request.query.get("dry_run", "0")
    if wanted not in YES | NO:
        raise InvalidError("dry_run must be 1 or 0")
    return wanted in YES
