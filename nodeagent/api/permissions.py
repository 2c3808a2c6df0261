"""What each route needs: the one table by which every request is judged, and the check that it names every route.

Read by `nodeagent.api.access`. A route that isn't here keeps the agent from starting, so none can be open by oversight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from aiohttp import web

from core.errors import FatalError
from core.identity.permissions import CHANGE, CREATE, DELETE, OPERATE, READ
from core.model import COLLECTIONS, KINDS, Resource, kind_of


class Gate(StrEnum):
    """How a caller is judged.

    `ROLE`: by a permission. `OWN`: by a permission, or it is about the caller's own account. `CALLER`: anybody known.
    `OPEN`: the handler checks a secret of its own. `LOCAL`: root on this host's unix socket.
    """

    ROLE = "role"
    OWN = "own"
    CALLER = "caller"
    OPEN = "open"
    LOCAL = "local"


class Audited(StrEnum):
    """When a change is recorded: before and after it; with the first transaction and after it, where all that the
    handler changes is in transactions of its own; only after it worked (a stranger's); around it, but it goes on where
    it can't be recorded, as without quorum; or never."""

    AROUND = "around"
    WITHIN = "within"
    AFTER = "after"
    IF_POSSIBLE = "if-possible"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Need:
    """What one route needs. `kind` is empty for a route that serves a collection named in its path.

    `streamed`: its body may be large, and the handler itself sees that it has the hash of `declared_sha256`.
    `each`: it is about many things, and the handler judges each of them by the limits of the caller's right.
    `alone`: it can't be asked of many at once, as each is confirmed by its name, or has its own secret in the answer.
    """

    gate: Gate
    kind: str = ""
    action: str = ""
    audited: Audited = Audited.AROUND
    streamed: bool = False
    each: bool = False
    alone: bool = False


def _role(kind: str, action: str) -> Need:
    return Need(Gate.ROLE, kind, action)


def _each(kind: str, action: str) -> Need:
    """Return the need of a route about many things: each is judged and recorded by the handler."""
    return Need(Gate.ROLE, kind, action, audited=Audited.NO, each=True)


def _stored(kind: str, action: str) -> Need:
    return Need(Gate.ROLE, kind, action, Audited.WITHIN)


def _alone(need: Need) -> Need:
    return replace(need, alone=True)


def _own(kind: str, action: str) -> Need:
    return Need(Gate.OWN, kind, action)


NEEDS: dict[str, Need] = {
    "POST /v1/login": Need(Gate.OPEN, audited=Audited.NO),  # records itself
    "POST /v1/logout": Need(Gate.CALLER, "session"),
    "GET /v1/whoami": Need(Gate.CALLER),
    "GET /v1/join/authority": Need(Gate.OPEN),
    "POST /v1/join": Need(Gate.OPEN, "host", audited=Audited.AFTER),
    "POST /v1/join/cancel": Need(Gate.OPEN, "host", audited=Audited.AFTER),
    "POST /v1/join/standing": Need(Gate.OPEN, audited=Audited.NO),
    "GET /v1/local/status": Need(Gate.LOCAL),
    "POST /v1/local/init": Need(Gate.LOCAL, "host", audited=Audited.AFTER),
    "POST /v1/local/join": Need(Gate.LOCAL, "host", audited=Audited.AFTER),
    "POST /v1/local/leave": Need(Gate.LOCAL, "host", audited=Audited.IF_POSSIBLE),
    "POST /v1/local/shutdown": Need(Gate.LOCAL, audited=Audited.NO),  # an event tells of it
    "POST /v1/local/lease": Need(Gate.LOCAL, audited=Audited.NO),  # the guard's, every second
    "GET /v1/status": _role("host", READ),
    "GET /v1/health": _role("host", READ),
    "GET /v1/state/backup": _role("state", READ),
    "POST /v1/join-tokens": _stored("join-token", CREATE),
    "DELETE /v1/join-tokens/{token}": _stored("join-token", DELETE),
    "POST /v1/access-tokens": _stored("access-token", CREATE),
    "DELETE /v1/access-tokens/{token}": _stored("access-token", DELETE),
    "POST /v1/access-keys": _stored("access-key", CREATE),
    "PATCH /v1/access-keys/{key}": _stored("access-key", CHANGE),
    "DELETE /v1/access-keys/{key}": _stored("access-key", DELETE),
    "POST /v1/access-keys/{key}/actions/rotate": _alone(_stored("access-key", CHANGE)),
    "GET /v1/clusters/{cluster}/room": _role("cluster", READ),
    "GET /v1/placement-rules/{rule}/check": _role("placement-rule", READ),
    "GET /v1/members": _role("host", READ),
    "GET /v1/members/policy": _role("host", READ),
    "PATCH /v1/members/policy": _role("host", CHANGE),
    "GET /v1/members/vip": _role("host", READ),
    "PATCH /v1/members/vip": _role("host", CHANGE),
    "GET /v1/members/arbitration": _role("host", READ),
    "PATCH /v1/members/arbitration": _role("host", CHANGE),
    "GET /v1/ha/status": _role("host", READ),
    "GET /v1/ha/profile": _role("host", READ),
    "PATCH /v1/ha/profile": _role("host", CHANGE),
    "POST /v1/ha/actions/disarm": _role("host", OPERATE),
    "POST /v1/ha/actions/arm": _role("host", OPERATE),
    "GET /v1/members/{host}": _role("host", READ),
    "DELETE /v1/members/{host}": _role("host", DELETE),
    "POST /v1/members/{host}/actions/promote": _role("host", OPERATE),
    "POST /v1/members/{host}/actions/demote": _role("host", OPERATE),
    "POST /v1/members/{host}/actions/auto": _role("host", OPERATE),
    "GET /v1/certificates": _role("api-certificate", READ),
    "POST /v1/certificates": _role("api-certificate", CREATE),
    "DELETE /v1/certificates/{scope}": _role("api-certificate", DELETE),
    "GET /v1/secrets": _role("secrets-key", READ),
    "POST /v1/secrets/actions/rotate": _role("secrets-key", OPERATE),
    "PATCH /v1/hosts/{host}": _role("host", CHANGE),
    "DELETE /v1/hosts/{host}": _role("host", DELETE),
    "POST /v1/hosts/{host}/actions/confirm-off": _alone(_role("host", OPERATE)),
    "GET /v1/hosts/{host}/maintenance": _role("host", READ),
    "POST /v1/hosts/{host}/actions/enter-maintenance": _alone(_role("host", OPERATE)),
    "POST /v1/hosts/{host}/actions/leave-maintenance": _role("host", OPERATE),
    "POST /v1/bmcs": _role("bmc", CREATE),
    "DELETE /v1/bmcs/{bmc}": _role("bmc", DELETE),
    "GET /v1/bmcs/{bmc}/power": _role("bmc", READ),
    "POST /v1/bmcs/{bmc}/actions/power-on": _role("bmc", OPERATE),
    "POST /v1/bmcs/{bmc}/actions/power-off": _alone(_role("bmc", OPERATE)),
    "POST /v1/drills": _role("drill", CREATE),
    "POST /v1/drills/actions/check": Need(Gate.ROLE, "drill", CREATE, audited=Audited.NO),
    "POST /v1/drills/{drill}/actions/abort": _role("drill", OPERATE),
    "GET /v1/drills/{drill}/report": _role("drill", READ),
    "POST /v1/vms": _stored("vm", CREATE),
    "PATCH /v1/vms/{vm}": _stored("vm", CHANGE),
    "DELETE /v1/vms/{vm}": _stored("vm", DELETE),
    "POST /v1/vms/{vm}/actions/start": _stored("vm", OPERATE),
    "POST /v1/vms/{vm}/actions/stop": _stored("vm", OPERATE),
    "POST /v1/vms/{vm}/actions/reboot": _stored("vm", OPERATE),
    "POST /v1/vms/{vm}/actions/migrate": _stored("vm", OPERATE),
    "POST /v1/vms/actions/start": _each("vm", OPERATE),
    "POST /v1/vms/actions/stop": _each("vm", OPERATE),
    "POST /v1/vms/actions/reboot": _each("vm", OPERATE),
    "POST /v1/vms/actions/migrate": _each("vm", OPERATE),
    "POST /v1/vms/actions/delete": _each("vm", DELETE),
    "POST /v1/snapshots": _stored("snapshot", CREATE),
    "DELETE /v1/snapshots/{snapshot}": _stored("snapshot", DELETE),
    "POST /v1/snapshots/{snapshot}/actions/revert": _alone(_stored("snapshot", OPERATE)),
    "POST /v1/distributed-switches/{switch}/actions/attach": _stored("distributed-switch", CHANGE),
    "POST /v1/distributed-switches/{switch}/actions/detach": _stored("distributed-switch", CHANGE),
    "POST /v1/image-storages/{storage}/actions/attach": _stored("image-storage", CHANGE),
    "POST /v1/image-storages/{storage}/actions/detach": _stored("image-storage", CHANGE),
    "POST /v1/images": Need(Gate.ROLE, "image", CREATE, streamed=True),
    "DELETE /v1/images/{image}": _role("image", DELETE),
    "POST /v1/data-storages": _role("data-storage", CREATE),
    "DELETE /v1/data-storages/{storage}": _role("data-storage", DELETE),
    "POST /v1/port-groups": _stored("port-group", CREATE),
    "DELETE /v1/port-groups/{group}": _stored("port-group", DELETE),
    "POST /v1/security-groups": _stored("security-group", CREATE),
    "DELETE /v1/security-groups/{group}": _stored("security-group", DELETE),
    "POST /v1/security-groups/{group}/rules": _stored("security-group", CHANGE),
    "PATCH /v1/security-groups/{group}/rules/{rule}": _stored("security-group", CHANGE),
    "DELETE /v1/security-groups/{group}/rules/{rule}": _stored("security-group", CHANGE),
    "GET /v1/tasks/{task}": _role("task", READ),
    "DELETE /v1/tasks/{task}": _stored("task", DELETE),
    "POST /v1/tasks/{task}/actions/retry": _stored("task", OPERATE),
    "POST /v1/tasks/{task}/actions/give-up": _alone(_stored("task", OPERATE)),
    "GET /v1/callback-key": Need(Gate.OPEN),
    "POST /v1/callback-key/actions/rotate": _role("callback-key", OPERATE),
    "GET /v1/events": _role("event", READ),
    "GET /v1/openapi.json": Need(Gate.CALLER),
    "POST /v1/accounts": _stored("account", CREATE),
    "PATCH /v1/accounts/{account}": _stored("account", CHANGE),
    "DELETE /v1/accounts/{account}": _stored("account", DELETE),
    "POST /v1/accounts/{account}/actions/set-password": _own("account", CHANGE),
    "POST /v1/accounts/{account}/actions/enable-totp": _own("account", CHANGE),
    "POST /v1/accounts/{account}/actions/confirm-totp": _own("account", CHANGE),
    "POST /v1/accounts/{account}/actions/disable-totp": _own("account", CHANGE),
    "POST /v1/accounts/{account}/actions/renew-recovery-codes": _own("account", CHANGE),
    "GET /v1/roles": _role("role", READ),
    "POST /v1/roles": _stored("role", CREATE),
    "PATCH /v1/roles/{role}": _stored("role", CHANGE),
    "DELETE /v1/roles/{role}": _stored("role", DELETE),
    "DELETE /v1/sessions/{session}": _stored("session", DELETE),
    "GET /v1/plugins": _role("host", READ),
    "GET /v1/system-tags": Need(Gate.CALLER),
    "GET /v1/workflows": Need(Gate.CALLER),
    "POST /v1/workflows/{workflow}/actions/run": _stored("workflow", OPERATE),
    "GET /v1/{plural}/{ref}/tags": Need(Gate.ROLE, "", READ),
    "PATCH /v1/{plural}/{ref}/tags": Need(Gate.ROLE, "", CHANGE, Audited.WITHIN),
    "POST /v1/{plural}/actions/delete": _each("", DELETE),
    "POST /v1/{plural}": Need(Gate.ROLE, "", CREATE),
    "PATCH /v1/{plural}/{ref}": Need(Gate.ROLE, "", CHANGE),
    "DELETE /v1/{plural}/{ref}": Need(Gate.ROLE, "", DELETE),
    "GET /v1/{plural}": Need(Gate.ROLE, "", READ),
    "GET /v1/{plural}/{ref}": Need(Gate.ROLE, "", READ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyVerb:
    """A verb on many of a collection: what is done to one is `method path`, which needs `need`."""

    plural: str
    verb: str
    method: str
    path: str
    need: Need


_OF_ONE = re.compile(r"(POST|DELETE) (/v1/([a-z-]+)/\{\w+\}(?:/actions/([a-z-]+))?)")
_DELETING = {"tasks": "cancel"}
"""What deleting one of a collection means, where it isn't to delete it."""


def _verbs_on_many(needs: Mapping[str, Need]) -> Iterator[ManyVerb]:
    """Yield the verbs that can be done to one resource of a stored kind, where many at once have none yet.

    Deleting belongs to the kind's own collection: hosts are deleted as hosts, not as members.
    """
    for route, need in needs.items():
        found, type_ = _OF_ONE.fullmatch(route), KINDS.get(need.kind)
        if found is None or need.gate is not Gate.ROLE or need.alone:
            continue
        method, path, plural, verb = found.groups()
        if type_ is None or not type_.PLURAL or (verb is None and plural != type_.PLURAL):
            continue
        verb = verb or _DELETING.get(plural, "delete")
        if f"POST /v1/{plural}/actions/{verb}" not in needs:
            yield ManyVerb(plural=plural, verb=verb, method=method, path=path, need=need)


MANY = tuple(_verbs_on_many(NEEDS))
NEEDS |= {f"POST /v1/{m.plural}/actions/{m.verb}": _each(m.need.kind, m.need.action) for m in MANY}


def need_of(request: web.Request) -> Need | None:
    """Return what the request's route needs; None when there is no such route."""
    resource = request.match_info.route.resource
    if resource is None:
        return None
    method = "GET" if request.method == "HEAD" else request.method
    need = NEEDS[f"{method} {resource.canonical}"]
    if need.kind or need.gate is not Gate.ROLE:
        return need
    type_ = COLLECTIONS.get(request.match_info["plural"])
    return _of_collection(need, type_) if type_ else None


@cache
def _of_collection(need: Need, type_: type[Resource]) -> Need:
    return replace(need, kind=kind_of(type_))


def check_routes(app: web.Application) -> None:
    """See that every route says what it needs.

    Raises:
        FatalError: one does not; the message names it.
    """
    for route in app.router.routes():
        assert route.resource is not None, "all routes have paths"
        method = "GET" if route.method == "HEAD" else route.method
        if f"{method} {route.resource.canonical}" not in NEEDS:
            raise FatalError(
                f"nobody says what {route.method} {route.resource.canonical} needs: name it in nodeagent.api.permissions"
            )
