"""Port groups and security groups with their rules: create, change, delete.

Bounds and syntax are checked by `netfabric`; what is written here reaches every host through its watch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from aiohttp import web
from msgspec.structs import replace

from core.attributes import attribute
from core.errors import ConflictError, InvalidError, NotFoundError
from core.model import (
    Direction,
    DistributedSwitch,
    PortGroup,
    Protocol,
    Rule,
    SecurityGroup,
    check_name,
)
from core.model.network import SECURITY_RULES_MAX
from netfabric.port_group import check_port_group, checked_network
from netfabric.security_group import checked_rule, default_rules
from nodeagent.api.deleting import deleted
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, target_of
from nodeagent.api.views import show
from nodeagent.services.places import data_center_of
from nodeagent.services.port_groups import default_addresses, free_vni


class CreatePortGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Empty or 0 means: choose. The pool is the network without its first 16 addresses."""

    OF: ClassVar[type[msgspec.Struct]] = PortGroup

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    cidr: str
    vni: Annotated[
        int, attribute("VXLAN network identifier; 0: a free one.", least=0, most=16_777_215)
    ] = 0
    gateway: str = ""
    dns: tuple[str, ...] = ()
    mtu: int = 1450
    service_ip: Annotated[
        str, attribute("Address that answers DHCP and DNS; empty: the second of the network.")
    ] = ""
    pool_first: Annotated[
        str, attribute("First address that NICs get; empty: the one after those left free.")
    ] = ""
    pool_last: Annotated[
        str, attribute("Last address that NICs get; empty: the last of the network.")
    ] = ""
    domain: str = "internal"
    switch: Annotated[str, attribute("Name or id of the switch that it is on.")] = "default"


class CreateSecurityGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new group starts with the four default rules."""

    OF: ClassVar[type[msgspec.Struct]] = SecurityGroup

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    data_center: Annotated[str, attribute("Name or id of its data center; empty: the first.")] = ""


class CreateRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`remote_group` is a name or id; it and `cidr` exclude each other."""

    OF: ClassVar[type[msgspec.Struct]] = Rule

    direction: Direction = Direction.INGRESS
    protocol: Protocol = Protocol.ALL
    port_first: int = 0
    port_last: int = 0
    cidr: str = ""
    remote_group: Annotated[
        str, attribute("Name or id of the other side's security group; excludes `cidr`.")
    ] = ""
    family: int = 4


class ChangeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only switching on and off."""

    OF: ClassVar[type[msgspec.Struct]] = Rule

    enabled: bool


def add_routes(app: web.Application) -> None:
    """Add the routes of port groups and security groups."""
    app.router.add_post("/v1/port-groups", create_port_group)
    app.router.add_delete("/v1/port-groups/{group}", delete_port_group)
    app.router.add_post("/v1/security-groups", create_security_group)
    app.router.add_delete("/v1/security-groups/{group}", delete_security_group)
    app.router.add_post("/v1/security-groups/{group}/rules", add_rule)
    app.router.add_patch("/v1/security-groups/{group}/rules/{rule}", change_rule)
    app.router.add_delete("/v1/security-groups/{group}/rules/{rule}", remove_rule)


async def create_port_group(request: web.Request) -> web.Response:
    """POST /v1/port-groups. 201. 400: addresses don't fit together. 409: name or VNI taken."""
    node, body, ids = node_of(request), await body_of(request, CreatePortGroup), ids_of(request)
    existing = node.store.all(PortGroup)
    service_ip, pool_first, pool_last = default_addresses(checked_network(body.cidr))
    group = PortGroup(
        id=ids.id_for("port-group"),
        name=check_name(body.name, "port group"),
        switch_id=node.store.find(DistributedSwitch, body.switch).id,
        vni=body.vni or free_vni(existing),
        cidr=body.cidr,
        service_ip=body.service_ip or service_ip,
        pool_first=body.pool_first or pool_first,
        pool_last=body.pool_last or pool_last,
        gateway=body.gateway,
        dns=body.dns,
        mtu=body.mtu,
        domain=body.domain,
        created_ms=node.clock.wall_ms(),
    )
    if node.store.get(PortGroup, group.id) is None:
        check_port_group(group, existing)
        await node.store.apply(puts=(group,), request_id=ids.request_id)
    return _created(request, node.store.need(PortGroup, group.id), "port-groups")


async def delete_port_group(request: web.Request) -> web.Response:
    """DELETE /v1/port-groups/{group}. 204. 409: NICs are in it."""
    group = target_of(request, PortGroup, "group")
    return await deleted(request, group)


async def create_security_group(request: web.Request) -> web.Response:
    """POST /v1/security-groups. 201. 409: name taken."""
    node, body, ids = node_of(request), await body_of(request, CreateSecurityGroup), ids_of(request)
    group_id = ids.id_for("security-group")
    if node.store.get(SecurityGroup, group_id) is None:
        group = SecurityGroup(
            id=group_id,
            name=check_name(body.name, "security group"),
            data_center_id=data_center_of(node.store, body.data_center).id,
            rules=default_rules(node.rng, group_id),
            created_ms=node.clock.wall_ms(),
        )
        await node.store.apply(puts=(group,), request_id=ids.request_id)
    return _created(request, node.store.need(SecurityGroup, group_id), "security-groups")


async def delete_security_group(request: web.Request) -> web.Response:
    """DELETE /v1/security-groups/{group}. 204. 409: NICs or other groups' rules use it."""
    return await deleted(request, _group(request))


async def add_rule(request: web.Request) -> web.Response:
    """POST /v1/security-groups/{group}/rules. 201: the rule; hosts have it within a second."""
    node, body, ids = node_of(request), await body_of(request, CreateRule), ids_of(request)
    group = _group(request)
    remote = node.store.find(SecurityGroup, body.remote_group).id if body.remote_group else ""
    rule = checked_rule(
        Rule(
            id=ids.id_for("rule"),
            direction=body.direction,
            protocol=body.protocol,
            port_first=body.port_first,
            port_last=body.port_last or body.port_first,
            cidr=body.cidr,
            remote_group_id=remote,
            family=body.family,
        )
    )
    if not any(r.id == rule.id for r in group.rules):
        if len(group.rules) >= SECURITY_RULES_MAX:
            raise InvalidError(f"a security group has {SECURITY_RULES_MAX} rules at most")
        await node.store.apply(
            puts=(replace(group, rules=(*group.rules, rule)),),
            request_id=ids.request_id,
        )
    return json_answer(msgspec.to_builtins(rule), status=201)


async def change_rule(request: web.Request) -> web.Response:
    """PATCH .../rules/{rule}. 200: switched on or off."""
    body, group = await body_of(request, ChangeRule), _group(request)
    rule = replace(_rule(request, group), enabled=body.enabled)
    rules = tuple(rule if r.id == rule.id else r for r in group.rules)
    await node_of(request).store.apply(puts=(replace(group, rules=rules),))
    return json_answer(msgspec.to_builtins(rule))


async def remove_rule(request: web.Request) -> web.Response:
    """DELETE .../rules/{rule}. 204. 409: a default rule, which can only be disabled."""
    group = _group(request)
    rule = _rule(request, group)
    if rule.default:
        raise ConflictError("a default rule can't be deleted: disable it instead")
    rules = tuple(r for r in group.rules if r.id != rule.id)
    await node_of(request).store.apply(puts=(replace(group, rules=rules),))
    return web.Response(status=204)


def _group(request: web.Request) -> SecurityGroup:
    return target_of(request, SecurityGroup, "group")


def _rule(request: web.Request, group: SecurityGroup) -> Rule:
    wanted = request.match_info["rule"]
    for rule in group.rules:
        if rule.id == wanted:
            return rule
    raise NotFoundError(f"security group {group.name!r} has no rule {wanted[:60]!r}")


def _created(
    request: web.Request, resource: PortGroup | SecurityGroup, plural: str
) -> web.Response:
    return json_answer(
        show(node_of(request).store, resource),
        status=201,
        headers={"Location": f"/v1/{plural}/{resource.id}"},
    )
