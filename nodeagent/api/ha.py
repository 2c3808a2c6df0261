"""What operators change of failover while it runs: its profile, and whether it acts at all.

What is answered tells the wish and how far it has come: hosts that are not told yet, and what disarming waits for.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from ha.profile import PROFILES
from nodeagent.api.access import caller_of
from nodeagent.api.requests import body_of, json_answer, services_of
from nodeagent.api.views import Shown
from nodeagent.services.ha_settings import HaSettings


class ChangeProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/ha/profile`."""

    name: Annotated[str, attribute("The profile to go by: `wide`, `default` or `moonshot`.")]
    force: Annotated[
        bool, attribute("Also if a host's network was seen not to hold it lately.")
    ] = False


class Disarm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/ha/actions/disarm`."""

    reason: Annotated[str, attribute("Why; shown to whoever wonders.", length_max=200)]
    rearm_after_s: Annotated[
        int,
        attribute("When to arm it again by itself, 60 s to 7 days; 0: when someone does so."),
    ] = 0


def add_routes(app: web.Application) -> None:
    """Add the routes of failover's settings."""
    app.router.add_get("/v1/ha/status", show_status)
    app.router.add_get("/v1/ha/profile", show_profile)
    app.router.add_patch("/v1/ha/profile", change_profile)
    app.router.add_post("/v1/ha/actions/disarm", disarm)
    app.router.add_post("/v1/ha/actions/arm", arm)


async def show_status(request: web.Request) -> web.Response:
    """GET /v1/ha/status. 200: whether failover acts, who disarmed it, and which hosts are not told yet."""
    return json_answer(_status(services_of(request).ha))


async def show_profile(request: web.Request) -> web.Response:
    """GET /v1/ha/profile. 200: the profile in force, its times, and those that there are."""
    return json_answer(_profile(services_of(request).ha))


async def change_profile(request: web.Request) -> web.Response:
    """PATCH /v1/ha/profile. 200: the profile; guards follow within seconds. 409: the network or a guard is in the way."""
    settings, body = services_of(request).ha, await body_of(request, ChangeProfile)
    await settings.set_profile(body.name, force=body.force)
    return json_answer(_profile(settings))


async def disarm(request: web.Request) -> web.Response:
    """POST /v1/ha/actions/disarm. 200: as far as it has come. 409: it is disarmed already, or a guard is too old."""
    settings, body = services_of(request).ha, await body_of(request, Disarm)
    await settings.disarm(
        by=caller_of(request).name, reason=body.reason, rearm_after_s=body.rearm_after_s
    )
    return json_answer(_status(settings))


async def arm(request: web.Request) -> web.Response:
    """POST /v1/ha/actions/arm. 200: as far as it has come."""
    settings = services_of(request).ha
    await settings.arm(by=caller_of(request).name)
    return json_answer(_status(settings))


def _status(settings: HaSettings) -> Shown:
    mesh = settings.mesh()
    return {
        "state": mesh.ha_arming,
        "profile": mesh.ha_profile,
        "disarmed_by": mesh.ha_disarmed_by,
        "disarmed_ms": mesh.ha_disarmed_ms,
        "reason": mesh.ha_disarm_reason,
        "rearm_ms": mesh.ha_rearm_ms,
        "waits_for": settings.waits_for(),
        "hosts_behind": settings.behind(),
    }


def _profile(settings: HaSettings) -> Shown:
    profile = PROFILES[settings.mesh().ha_profile]
    return {
        "name": profile.name,
        "lease_s": profile.lease_s,
        "watchdog_s": profile.watchdog_s,
        "margin_s": profile.margin_s,
        "safe_s": profile.safe_s,
        "choices": list(PROFILES),
        "hosts_behind": settings.behind(),
    }
