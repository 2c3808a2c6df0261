"""The management address (VIP): what it is, who holds it, set and clear it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.model import Mesh
from ha.health_vip_rules import VIP_RULES, vip_holder_name
from ha.health_votes import votes_of
from nodeagent.api.requests import body_of, json_answer, node_of, services_of
from nodeagent.joining.founding import MESH_ID


class ChangeVip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/members/vip`."""

    address: Annotated[
        str,
        attribute(
            "A free address of the hosts' network, `10.0.0.9` or `10.0.0.9/24`; empty: no VIP.",
            length_max=64,
        ),
    ]


def add_routes(app: web.Application) -> None:
    """Add the routes. Before those of `/v1/members/{host}`, as the first that fits is taken."""
    app.router.add_get("/v1/members/vip", show_vip)
    app.router.add_patch("/v1/members/vip", change_vip)


async def show_vip(request: web.Request) -> web.Response:
    """GET /v1/members/vip. 200: the address, and who holds it as far as hosts say so. Takes two seconds at most."""
    facts = await services_of(request).health.facts()
    votes = votes_of(facts)
    return json_answer(
        {
            "address": facts.vip,
            "holder_name": vip_holder_name(facts),
            "problems": [finding.what for rule in VIP_RULES for finding in rule(facts, votes)],
        }
    )


async def change_vip(request: web.Request) -> web.Response:
    """PATCH /v1/members/vip. 200: it is set; the leader takes it in some seconds. 409: a host or machine has it."""
    body, service = await body_of(request, ChangeVip), services_of(request).vip
    if body.address:
        await service.choose(body.address)
    else:
        await service.clear()
    mesh = node_of(request).store.need(Mesh, MESH_ID)
    return json_answer({"address": mesh.vip, "holder_name": "", "problems": []})
