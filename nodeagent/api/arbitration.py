"""The arbitration addresses: which there are, who reaches them, set and clear them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.model import ARBITRATION_ADDRESSES_MAX
from ha.health_arbitration_rules import ARBITRATION_RULES
from ha.health_facts import HostFacts
from ha.health_votes import votes_of
from nodeagent.api.requests import body_of, json_answer, services_of
from nodeagent.api.views import Shown


class ChangeArbitration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /v1/members/arbitration`."""

    addresses: Annotated[
        tuple[str, ...],
        attribute(
            "IPv4 or IPv6 addresses that are not of the cluster, such as the router's; empty: none.",
            count_max=ARBITRATION_ADDRESSES_MAX,
        ),
    ]


def add_routes(app: web.Application) -> None:
    """Add the routes. Before those of `/v1/members/{host}`, as the first that fits is taken."""
    app.router.add_get("/v1/members/arbitration", show_arbitration)
    app.router.add_patch("/v1/members/arbitration", change_arbitration)


async def show_arbitration(request: web.Request) -> web.Response:
    """GET /v1/members/arbitration. 200: the addresses, and what each host says of them. Takes two seconds at most."""
    facts = await services_of(request).health.facts()
    votes = votes_of(facts)
    return json_answer(
        {
            "addresses": list(facts.arbitration_addresses),
            "hosts": [_host(host) for host in facts.hosts] if facts.arbitration_addresses else [],
            "problems": [
                f"{finding.host_name}: {finding.what}" if finding.host_name else finding.what
                for rule in ARBITRATION_RULES
                for finding in rule(facts, votes)
            ],
        }
    )


async def change_arbitration(request: web.Request) -> web.Response:
    """PATCH /v1/members/arbitration. 200: they are set. 409: one is an address of the cluster."""
    body = await body_of(request, ChangeArbitration)
    mesh = await services_of(request).arbitration.choose(body.addresses)
    return json_answer({"addresses": list(mesh.arbitration_addresses), "hosts": [], "problems": []})


def _host(host: HostFacts) -> Shown:
    """Return what a host says; its state is null if it says nothing."""
    said = host.report.arbitration if host.report is not None else None
    return {
        "host_name": host.name,
        "state": said.state if said is not None else None,
        "answering": list(said.answering) if said is not None else [],
    }
