"""Every change through the API is recorded: its begin stored before the handler runs or with its first transaction, its
end after it.

The middleware stands behind the one that judges the caller. Without quorum the begin can't be stored, so the change isn't
made. Audits are listed like all other resources.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from msgspec.structs import replace

from core.errors import ConflictError, NotFoundError, PlatformError
from core.logs import REQUEST_ID
from core.model import KINDS, Audit, Resource, key_of
from nodeagent.api.access import PRESENTED, address_of, claim
from nodeagent.api.deleting import is_dry
from nodeagent.api.keys import AGENT
from nodeagent.api.permissions import Audited, Gate, Need, need_of
from nodeagent.api.problems import Handler
from nodeagent.api.requests import node_of
from nodeagent.api.rights import CALLER, named_in
from nodeagent.api.views import Shown, show
from nodeagent.identity.audits import Audits
from nodeagent.node import Node

READING = frozenset({"GET", "HEAD"})
DETAILS_MAX = 8192
AUDIT_ID: web.RequestKey[str] = web.RequestKey("audit-id", str)
MASKED = frozenset({"user_data"})  # audits are kept for long, and secrets aren't shown at all


def audit_middleware() -> Middleware:
    """Return the middleware that records changes."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        need = None if request.method in READING else need_of(request)
        preview = request.method == "DELETE" and is_dry(request)
        if need is None or need.audited is Audited.NO or preview:
            await claim(request)
            return await handler(request)
        if need.audited is Audited.AFTER:
            await claim(request)
            response = await handler(request)
            await _recorded_after(request, need, response.status)
            return response
        if need.audited is Audited.IF_POSSIBLE:
            return await _recorded_if_possible(request, need, handler)
        before = _subject(node_of(request), request, need)
        return await _Recorded(request, need, before).run(handler)

    return middleware


async def recorded_item(
    request: web.Request,
    ref: str,
    resource: Resource | None,
    work: Callable[[], Awaitable[int]],
    *,
    within: bool = True,
) -> int:
    """Record one of the things that a request does, which it calls `ref`, around doing it; `work` returns its status.

    `within`: the begin is stored with its first transaction, else before anything is done.
    """
    need = need_of(request)
    assert need is not None, "there is a handler, so there is a route"
    recorded = _Recorded(request, need, resource, named=ref)

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=await work())

    return (await recorded.run_along(handler, within=within)).status


class _Recorded:
    """One change, its record, and what it is about."""

    def __init__(
        self, request: web.Request, need: Need, before: Resource | None, *, named: str = ""
    ) -> None:
        self._request = request
        self._need = need
        self._node = node_of(request)
        self._before = before
        self._named = named

    async def run(self, handler: Handler) -> web.StreamResponse:
        audits = audits_of(self._request)
        audit = self._begun(audits)
        signed = PRESENTED in self._request
        if self._need.audited is Audited.WITHIN and not signed:
            with audits.along(audit):
                return await self._ended(audits, audit, handler)
        # A signed request is claimed before anything is done for it, in the transaction of the begin.
        together = partial(claim, self._request) if signed else None
        return await self._ended(audits, await audits.begin(audit, together), handler)

    async def run_along(self, handler: Handler, *, within: bool) -> web.StreamResponse:
        """Run a part of a request that was claimed before; `within`: it stores the begin with its own transaction."""
        audits = audits_of(self._request)
        audit = self._begun(audits)
        if not within:
            return await self._ended(audits, await audits.begin(audit), handler)
        with audits.along(audit):
            return await self._ended(audits, audit, handler)

    async def _ended(self, audits: Audits, audit: Audit, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(self._request)
        except PlatformError as error:
            audits.end(audit, result=error.http_status, code=error.code)
            raise
        except web.HTTPException as error:
            audits.end(audit, result=error.status)
            raise
        except Exception:
            audits.end(audit, result=500, code="error")
            raise
        audits.end(audit, result=response.status, **self._details(response))
        return response

    def _begun(self, audits: Audits) -> Audit:
        audit = _audit(audits, self._request, self._need, named=self._named)
        if self._before is None:
            return audit
        return replace(audit, subject=key_of(self._before), subject_name=self._before.name)

    def _details(self, response: web.StreamResponse) -> dict[str, str]:
        """Return what differs now; what was made is found by the answer's Location."""
        store = self._node.store
        known: dict[str, str] = {}
        if self._before is not None:
            after = store.get(type(self._before), self._before.id)
        else:
            type_, id_ = KINDS.get(self._need.kind), response.headers.get("Location", "")
            after = store.get(type_, id_.rpartition("/")[2]) if type_ and id_ else None
            if after is not None:
                known |= {"subject": key_of(after), "subject_name": after.name}
        old = show(store, self._before) if self._before else {}
        new = show(store, after) if after else {}
        differing = [f for f in {**old, **new} if old.get(f) != new.get(f) and f != "revision"]
        return known | {"before": text_of(old, differing), "after": text_of(new, differing)}


async def _recorded_after(request: web.Request, need: Need, status: int) -> None:
    """Record what worked, if this host is a member now."""
    if request.app[AGENT].node is None:
        return
    audits = audits_of(request)
    audits.end(_audit(audits, request, need), result=status)


async def _recorded_if_possible(
    request: web.Request, need: Need, handler: Handler
) -> web.StreamResponse:
    """Record what must go on without quorum too. If this host is no member afterwards, whoever removed it writes the end."""
    agent = request.app[AGENT]
    audit = None
    if agent.node is not None:
        audits = audits_of(request)
        audit = await audits.begin_if_possible(_audit(audits, request, need))
    if audit is None:
        return await handler(request)
    request[AUDIT_ID] = audit.id
    try:
        response = await handler(request)
    except PlatformError as error:
        if agent.node is not None:
            audits_of(request).end(audit, result=error.http_status, code=error.code)
        raise
    if agent.node is not None:
        audits_of(request).end(audit, result=response.status)
    return response


def audits_of(request: web.Request) -> Audits:
    """Return this member's audit log."""
    services = request.app[AGENT].services
    assert services is not None, "a member has its services"
    return services.identity.audits


def _audit(audits: Audits, request: web.Request, need: Need, *, named: str = "") -> Audit:
    resource = request.match_info.route.resource
    assert resource is not None, "there is a route, as something is needed"
    named, node = named or named_in(request), request.app[AGENT].node
    own = node if need.gate is Gate.LOCAL else None  # such a change is about this very host
    if own is not None:
        named = own.host_id
    return replace(
        audits.make(
            request.get(CALLER),
            f"{request.method} {resource.canonical}",
            subject=f"{need.kind}/{named}" if named else need.kind,
            request_id=REQUEST_ID.get(),
        ),
        subject_name=own.host_name if own is not None else "",
        address=address_of(request),
    )


def _subject(node: Node, request: web.Request, need: Need) -> Resource | None:
    type_, ref = KINDS.get(need.kind), named_in(request)
    if type_ is None or not ref:
        return None
    try:
        return node.store.find(type_, ref)
    except (NotFoundError, ConflictError):
        return None


def text_of(shown: Shown, fields: list[str]) -> str:
    """Return some attributes as an audit keeps them: JSON, secrets masked, cut off where it gets long."""
    if not shown:
        return ""
    picked = {f: shown[f] for f in fields if f in shown}
    text = msgspec.json.encode(picked).decode()
    if any(f'"{name}"' in text for name in MASKED):  # seldom, and looking at each value takes long
        text = msgspec.json.encode(_masked(picked)).decode()
    return text if len(text) <= DETAILS_MAX else text[:DETAILS_MAX] + "…"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "***" if k in MASKED and v else _masked(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(one) for one in value]
    return value
