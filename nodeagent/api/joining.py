"""Tokens, and what a joining host asks of a member.

The three open routes are guarded by the join token itself. `local` routes exist on the unix socket only.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.errors import ConflictError, InvalidError
from core.identity.permissions import ADMIN
from core.member_file import MemberRecord, bracketed
from core.model import AccessToken, Account, Host, JoinToken, Mesh, check_name
from nodeagent.api.access import caller_of
from nodeagent.api.auditing import AUDIT_ID
from nodeagent.api.keys import AGENT
from nodeagent.api.members import voters_shown
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of, target_of
from nodeagent.api.roles import role_ids
from nodeagent.identity.tokens import limited_hash, new_access_token, secret_hash
from nodeagent.joining.founding import MESH_ID
from nodeagent.joining.messages import (
    VERSION,
    AboutStanding,
    JoinCancel,
    JoinRequest,
    Standing,
)
from nodeagent.services.exclusion import Verdict

ACCESS_TTL_S_MAX = 10 * 365 * 86_400


class MakeJoinTokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/join-tokens`."""

    count: Annotated[int, attribute("How many.", least=1, most=100)] = 1
    ttl_s: Annotated[
        int, attribute("How long they are good.", unit="seconds", least=1, most=604_800)
    ] = 10_800
    cluster: Annotated[
        str, attribute("Name or id of the cluster that hosts join into; empty: the first.")
    ] = ""


class MakeAccessToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/access-tokens`. `ttl_s` 0: never expires. Without `account` and `roles` it may do everything."""

    name: Annotated[str, attribute("Its name: 1 to 63 of a-z, 0-9, `-` and `.`.")]
    ttl_s: Annotated[
        int, attribute("How long it is good; 0: for ever.", least=0, most=ACCESS_TTL_S_MAX)
    ] = 0
    account: Annotated[
        str, attribute("Name or id of the account that it acts for; empty: none.")
    ] = ""
    roles: Annotated[
        tuple[str, ...],
        attribute(
            "Names of the roles that say what it may do; with neither roles nor account it may do everything."
        ),
    ] = ()


class InitCluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/local/init`. Empty: derived from the host."""

    cluster_name: Annotated[str, attribute("Name of the cluster; empty: `kvorum`.")] = ""
    host_name: Annotated[str, attribute("Name of this host; empty: that of the machine.")] = ""
    address: Annotated[
        str, attribute("IP address of this host; empty: that of the default route.")
    ] = ""


class JoinCluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/local/join`. Empty names are derived from the host."""

    token: Annotated[str, attribute("A join token, made by a member.")]
    host_name: Annotated[str, attribute("Name of this host; empty: that of the machine.")] = ""
    address: Annotated[
        str, attribute("IP address of this host; empty: the one that reaches the cluster.")
    ] = ""
    witness: Annotated[bool, attribute("Vote and hold the state, but run no VMs.")] = False

    def __repr__(self) -> str:
        return "JoinCluster(***)"


class LeaveCluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/local/leave`. `force` needs `confirm`, this host's name."""

    force: Annotated[
        bool, attribute("Leave a cluster that has no place for this host any more.")
    ] = False
    confirm: Annotated[str, attribute("This host's name, once more; needed with `force`.")] = ""


def add_routes(app: web.Application) -> None:
    """Add the routes of joining and of tokens."""
    app.router.add_get("/v1/join/authority", authority)
    app.router.add_post("/v1/join", join)
    app.router.add_post("/v1/join/cancel", cancel)
    app.router.add_post("/v1/join/standing", standing)
    app.router.add_post("/v1/join-tokens", make_join_tokens)
    app.router.add_delete("/v1/join-tokens/{token}", revoke_join_token)
    app.router.add_post("/v1/access-tokens", make_access_token)
    app.router.add_delete("/v1/access-tokens/{token}", revoke_access_token)
    app.router.add_get("/v1/local/status", local_status)
    app.router.add_post("/v1/local/init", init_here)
    app.router.add_post("/v1/local/join", join_here)
    app.router.add_post("/v1/local/leave", leave_here)


async def authority(request: web.Request) -> web.Response:
    """GET /v1/join/authority. The certificate authority, public by nature; the token has its fingerprint."""
    mesh = node_of(request).store.need(Mesh, MESH_ID)
    return web.Response(text=mesh.ca_pem, content_type="application/x-pem-file")


async def join(request: web.Request) -> web.Response:
    """POST /v1/join. 200: admitted. 401: the token. 400/409: what else forbids it."""
    body = await body_of(request, JoinRequest)
    return json_answer(await services_of(request).doorkeeper.admit(body))


async def cancel(request: web.Request) -> web.Response:
    """POST /v1/join/cancel. 204: the admission is taken back."""
    await services_of(request).doorkeeper.forget(await body_of(request, JoinCancel))
    return web.Response(status=204)


async def standing(request: web.Request) -> web.Response:
    """POST /v1/join/standing. 200: whether this member's copy has a record of the host. Ids can't be guessed."""
    body, store = await body_of(request, AboutStanding), node_of(request).store
    member = store.get(Host, body.host_id) is not None
    return json_answer(Standing(member=member, index=store.index))


async def make_join_tokens(request: web.Request) -> web.Response:
    """POST /v1/join-tokens. 201: texts, shown this once."""
    body = await body_of(request, MakeJoinTokens)
    door = services_of(request).doorkeeper
    tokens, expires_ms = await door.make_tokens(body.count, body.ttl_s, body.cluster)
    return json_answer({"tokens": tokens, "expires_ms": expires_ms}, status=201)


async def revoke_join_token(request: web.Request) -> web.Response:
    """DELETE /v1/join-tokens/{token}. 204."""
    store = node_of(request).store
    await store.apply(deletes=(target_of(request, JoinToken, "token"),))
    return web.Response(status=204)


async def make_access_token(request: web.Request) -> web.Response:
    """POST /v1/access-tokens. 201: the token, shown this once."""
    node, body, ids = node_of(request), await body_of(request, MakeAccessToken), ids_of(request)
    if not 0 <= body.ttl_s <= ACCESS_TTL_S_MAX:
        raise InvalidError("ttl_s must be 0 (never expires) to ten years")
    now_ms = node.clock.wall_ms()
    if body.account and body.roles:
        raise InvalidError("a token has an account's rights or roles of its own, not both")
    caller, account = caller_of(request), None
    if body.account:
        account = node.store.find(Account, body.account)
        role_ids(node.store, caller, account.role_ids)
    elif not body.roles:
        role_ids(node.store, caller, (ADMIN.id,))
    secret = new_access_token()
    limited = bool(body.account or body.roles)
    token = AccessToken(
        id=ids.id_for("access-token"),
        name=check_name(body.name, "access token"),
        secret_sha256=limited_hash(secret) if limited else secret_hash(secret),
        account_id=account.id if account else "",
        role_ids=role_ids(node.store, caller, body.roles),
        expires_ms=now_ms + body.ttl_s * 1000 if body.ttl_s else 0,
        created_ms=now_ms,
    )
    if node.store.get(AccessToken, token.id) is not None:
        raise ConflictError(
            "this request was carried out before, and its token was shown then: revoke it and make another"
        )
    await node.store.apply(puts=(token,))
    return json_answer({"token": secret, "id": token.id, "name": token.name}, status=201)


async def revoke_access_token(request: web.Request) -> web.Response:
    """DELETE /v1/access-tokens/{token}. 204: refused everywhere at once."""
    store = node_of(request).store
    await store.apply(deletes=(target_of(request, AccessToken, "token"),))
    return web.Response(status=204)


async def local_status(request: web.Request) -> web.Response:
    """GET /v1/local/status. Works on a host that is no member yet."""
    node, services = request.app[AGENT].node, request.app[AGENT].services
    state, detail = "unconfigured", ""
    if node is not None and services is not None:
        state, detail = "member", node.engine.fault()
        if services.exclusion.verdict is Verdict.REMOVED:
            state = "removed"
            detail = (
                f"the cluster {node.store.need(Mesh, MESH_ID).name} has removed this host ({node.host_name}): "
                "'kvorum leave --force' wipes what is left here, then it can join again"
            )
    return json_answer(
        {
            "state": state,
            "detail": detail,
            "version": VERSION,
            "host_id": node.host_id if node else "",
            "host_name": node.host_name if node else "",
        }
    )


async def init_here(request: web.Request) -> web.Response:
    """POST /v1/local/init. 201: this host is the first of a new cluster. 409: it is a member already."""
    body = await body_of(request, InitCluster)
    agent = request.app[AGENT]
    record = await agent.init(
        cluster_name=body.cluster_name, host_name=body.host_name, address=body.address
    )
    node = node_of(request)
    return json_answer(
        {**_member(record), "admin_token_file": str(node.paths.admin_token)}, status=201
    )


async def join_here(request: web.Request) -> web.Response:
    """POST /v1/local/join. 200: this host is a member; how many vote now, and how many should."""
    body = await body_of(request, JoinCluster)
    token = re.sub(r"\s+", "", body.token)
    record = await request.app[AGENT].join(
        token=token, host_name=body.host_name, address=body.address, witness=body.witness
    )
    node = node_of(request)
    return json_answer(
        {**_member(record), "members": len(node.store.all(Host)), **voters_shown(node)}
    )


async def leave_here(request: web.Request) -> web.Response:
    """POST /v1/local/leave. 200: this host belongs to no cluster any more. 409: something is on it, or counts on it."""
    body = await body_of(request, LeaveCluster)
    record = await request.app[AGENT].leave(
        force=body.force, confirm=body.confirm, audit_id=request.get(AUDIT_ID, "")
    )
    return json_answer({"host_name": record.host_name, "cluster_name": record.cluster_name})


def _member(record: MemberRecord) -> dict[str, str]:
    return {
        "host_id": record.host_id,
        "host_name": record.host_name,
        "cluster_name": record.cluster_name,
        "address": record.address,
        "api": f"https://{bracketed(record.address)}:{record.api_port}",
    }
