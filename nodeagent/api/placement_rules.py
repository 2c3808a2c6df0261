"""`GET /v1/placement-rules/{rule}/check`: whether a rule holds now, and whether it can. Everything else goes by its declaration."""

from __future__ import annotations

from aiohttp import web

from core.model import VM, Host, PlacementRule
from nodeagent.api.requests import found_of, json_answer, node_of
from nodeagent.api.rights import sight_of
from nodeagent.services.placement_rules import checked

NOT_TOLD = "some of its VMs or hosts are not for you to see: ask somebody who may"


def add_routes(app: web.Application) -> None:
    """Add the route."""
    app.router.add_get("/v1/placement-rules/{rule}/check", check)


async def check(request: web.Request) -> web.Response:
    """GET /v1/placement-rules/{rule}/check. 200: where it doesn't hold, and why it may not be able to."""
    store, rule = node_of(request).store, found_of(request, PlacementRule, "rule")
    found, sight = checked(store, rule), sight_of(request)
    whole = sight.whole(("vm", "host", "placement-rule"))
    if not whole:
        vms = [store.get(VM, id_) for id_ in rule.vm_ids]
        hosts = {vm.host_id for vm in vms if vm is not None}
        seen = [*vms, *(store.get(Host, id_) for id_ in hosts)]
        whole = not found.warnings and all(one is None or sight.sees(one) for one in seen)
    return json_answer(
        {
            "name": rule.name,
            "holds": not found.broken,
            "broken": list(found.broken) if whole or not found.broken else [NOT_TOLD],
            "warnings": list(found.warnings) if whole or not found.warnings else [NOT_TOLD],
            "index": store.index,
        }
    )
