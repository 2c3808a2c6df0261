"""What this agent answers to other agents: POST /mesh/... on the mesh port, the caller known by certificate.

Only hosts that the state lists get this far (`MeshServer.admit`). Errors travel as small problem structs.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from core.bus import BusCall
from core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    PlatformError,
    UnavailableError,
)
from core.logs import REQUEST_ID
from core.mesh.client import GENERATION, REQUEST_HEADER, MeshProblem, Nothing
from core.mesh.tls import peer_id_of
from core.model import Host
from ha.lease import Renewal
from nodeagent.drills.target import (
    BEGIN_PATH,
    READY_PATH,
    AskReady,
    BeginFault,
)
from nodeagent.leaving import LeaveWish
from nodeagent.node import Node
from nodeagent.services.certificate_renewal import AskCertificate, IssuedCertificate
from nodeagent.services.fault_reporter import Fault, record_fault
from nodeagent.services.host_service import remove_host
from nodeagent.services.incoming import AboutIncoming, PrepareIncoming
from nodeagent.services.mesh_carrier import BUS_PATH
from nodeagent.services.rejoining import let_rejoin
from nodeagent.services.secrets_rotation import AskKey, KeyAnswer
from nodeagent.services.self_look import HEALTH_PATH, PING_PATH
from nodeagent.services.services import Services
from nodeagent.services.thin_feeds import AskThin
from raftstate.consensus.generation import shown
from raftstate.rescue.rejoin import WantsToRejoin

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_BYTES_MAX = 1 << 16
# To see who is left behind, to hear why, and to come back.
ANY_GENERATION = frozenset({"/mesh/state", "/mesh/fault", "/mesh/rejoin", PING_PATH, HEALTH_PATH})
REQUEST_ID_FORM = re.compile(r"[0-9a-f-]{1,64}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class MeshRpc:
    """The routes of the mesh."""

    def __init__(
        self, node: Node, services: Services, *, admits: Callable[[str], bool] | None = None
    ) -> None:
        self._node = node
        self._admits = admits or self.is_member
        self._services = services

    def app(self) -> web.Application:
        """Return the application that serves the mesh's HTTP channel."""
        app = web.Application(
            middlewares=[_problems, self._members_only(), self._one_generation(), _about_request],
            client_max_size=BODY_BYTES_MAX,
        )
        app.router.add_post("/mesh/lease", self._lease)
        app.router.add_post("/mesh/lease/forwarded", self._lease_forwarded)
        app.router.add_post("/mesh/state", self._state)
        app.router.add_post(PING_PATH, self._ping)
        app.router.add_post(HEALTH_PATH, self._health)
        app.router.add_post("/mesh/leave", self._leave)
        app.router.add_post("/mesh/fault", self._fault)
        app.router.add_post("/mesh/certificate", self._certificate)
        app.router.add_post("/mesh/secrets-key", self._secrets_key)
        app.router.add_post("/mesh/thin", self._thin)
        app.router.add_post(BUS_PATH, self._bus)
        app.router.add_post("/mesh/rejoin", self._rejoin)
        app.router.add_post(READY_PATH, self._drill_ready)
        app.router.add_post(BEGIN_PATH, self._drill_begin)
        app.router.add_post("/mesh/incoming/prepare", self._prepare_incoming)
        app.router.add_post("/mesh/incoming/state", self._incoming_state)
        app.router.add_post("/mesh/incoming/release", self._release_incoming)
        app.router.add_get("/mesh/images/{sha256}", self._image)
        return app

    async def _lease(self, request: web.Request) -> web.Response:
        renewal = await _body(request, Renewal)
        return _answer(await self._services.leases.renew_from_peer(_peer(request), renewal))

    async def _lease_forwarded(self, request: web.Request) -> web.Response:
        renewal = await _body(request, Renewal)
        return _answer(await self._services.leases.renew_forwarded(renewal))

    async def _state(self, request: web.Request) -> web.Response:
        """How far this host is in the log, and whether it is well."""
        del request
        return _answer(self._services.states.own())

    async def _ping(self, request: web.Request) -> web.Response:
        """Another host measures its way here."""
        del request
        return _answer(self._services.health.own.pong())

    async def _health(self, request: web.Request) -> web.Response:
        """What this host says of its health. Takes a second at most."""
        del request
        return _answer(await self._services.health.own.report())

    async def _leave(self, request: web.Request) -> web.Response:
        """A host asks to be removed. It asks for itself only."""
        wish = await _body(request, LeaveWish)
        await remove_host(self._node, self._node.store.need(Host, _peer(request)))
        if wish.audit_id:
            audits = self._services.identity.audits
            audits.end_of(wish.audit_id, of_host=_peer(request), result=200)
        return _answer(Nothing())

    async def _fault(self, request: web.Request) -> web.Response:
        """A host says why it takes no part any more, which it can't write down itself."""
        fault = await _body(request, Fault)
        await record_fault(self._node, self._node.store.need(Host, _peer(request)), fault.reason)
        return _answer(Nothing())

    async def _certificate(self, request: web.Request) -> web.Response:
        """A host asks for a new certificate. It asks for itself only."""
        question = await _body(request, AskCertificate)
        certificate_pem = self._services.renewal.sign(_peer(request), question.request_pem)
        return _answer(IssuedCertificate(certificate_pem=certificate_pem))

    async def _secrets_key(self, request: web.Request) -> web.Response:
        """A host that was not there when the secrets key was changed asks for it. Only members get this far."""
        question = await _body(request, AskKey)
        return _answer(KeyAnswer(key_hex=self._services.secrets.give(question.key_id).hex()))

    async def _thin(self, request: web.Request) -> web.Response:
        """What changed of the asking host's part of the state; waits for a change."""
        question = await _body(request, AskThin)
        delta = await self._services.thin.answer(_peer(request), question)
        return web.Response(body=msgspec.json.encode(delta), content_type="application/json")

    async def _rejoin(self, request: web.Request) -> web.Response:
        """A host that wants to let go of its state asks to be free to. It asks for itself only."""
        wish = await _body(request, WantsToRejoin)
        return _answer(await let_rejoin(self._node, _peer(request), wish))

    async def _bus(self, request: web.Request) -> web.Response:
        """Another agent has work on a resource that this host owns. Refusals are inside the answer."""
        return _answer(await self._services.bus.answer(await _body(request, BusCall)))

    async def _drill_ready(self, request: web.Request) -> web.Response:
        """Could this host break itself in a certain way? Nothing is done."""
        return _answer(await self._services.drill_target.ready(await _body(request, AskReady)))

    async def _drill_begin(self, request: web.Request) -> web.Response:
        """The observer of a committed drill asks this host to break itself; that is checked in the state."""
        order = await _body(request, BeginFault)
        return _answer(await self._services.drill_target.begin(_peer(request), order))

    async def _prepare_incoming(self, request: web.Request) -> web.Response:
        body = await _body(request, PrepareIncoming)
        return _answer(await self._services.incoming.prepare(_peer(request), body))

    async def _incoming_state(self, request: web.Request) -> web.Response:
        return _answer(await self._services.incoming.state(await _body(request, AboutIncoming)))

    async def _release_incoming(self, request: web.Request) -> web.Response:
        body = await _body(request, AboutIncoming)
        return _answer(await self._services.incoming.release(_peer(request), body))

    async def _image(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        if not SHA256.fullmatch(sha256):
            raise InvalidError("not a SHA-256")
        path = self._services.images.local_path(sha256)
        if path is None:
            raise NotFoundError("this host has no copy of that image")
        return web.FileResponse(path, chunk_size=1 << 20)

    def _members_only(self) -> Middleware:
        """Return what asks again at each request: a connection may be older than its host's removal."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._admits(peer_id_of(request.transport) or ""):
                raise ForbiddenError("the cluster has removed this host", code="not-a-member")
            return await handler(request)

        return middleware

    def _one_generation(self) -> Middleware:
        """Return what refuses hosts of another generation: what one of them believes isn't true in the other.

        A guard says no generation: it only tells that its host is alive, which is true in all of them.
        """

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            theirs, mine = request.headers.get(GENERATION, "0"), self._node.engine.generation()
            if request.path not in ANY_GENERATION and mine and theirs not in ("0", str(mine)):
                raise ConflictError(
                    f"this host, {self._node.host_name}, is of another generation of the cluster, {shown(mine)}",
                    code="other-generation",
                )
            return await handler(request)

        return middleware

    def is_member(self, peer_id: str) -> bool:
        """Tell whether a host may connect: its record exists. A removed host's certificate opens nothing."""
        return self._node.store.get(Host, peer_id) is not None


def _peer(request: web.Request) -> str:
    peer_id = peer_id_of(request.transport)
    assert peer_id is not None, "the mesh server admits only certified hosts"
    return peer_id


async def _body(request: web.Request, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"the call can't be read: {error}") from None


def _answer(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


@web.middleware
async def _about_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is logged from here on names the request that the calling host works on."""
    if REQUEST_ID_FORM.fullmatch(request_id := request.headers.get(REQUEST_HEADER, "")):
        REQUEST_ID.set(request_id)
    return await handler(request)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (asyncio.CancelledError, web.HTTPException, ConnectionError):
        raise
    except PlatformError as error:
        problem = MeshProblem(code=error.code, detail=error.message, status=error.http_status)
    except Exception:
        log.exception("a call of another agent failed unexpectedly", extra={"path": request.path})
        problem = MeshProblem(detail="internal error; see the agent's log", status=500)
    status = UnavailableError.http_status if problem.status == 503 else problem.status
    return web.Response(
        body=msgspec.json.encode(problem), status=status, content_type="application/json"
    )
