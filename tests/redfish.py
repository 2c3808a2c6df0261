"""A management board that speaks Redfish, on this machine, whose faults are told to it. Its host's power is `on`."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from aiohttp import encode_basic_auth, web
from cryptography.hazmat.primitives.serialization import Encoding

from tests.own_certificates import Issued

USER = "kvorum"
SYSTEMS, SYSTEM = "/redfish/v1/Systems", "/redfish/v1/Systems/1"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
Fault = Callable[[web.Request], web.StreamResponse | None]


@dataclass
class RedfishBoard:
    """`members`, `target`, `allowed`, `says` (instead of the truth) are what it answers; `slow_s` delays each answer.

    `fault` may answer in place of the board. `asked` has what it was asked, `log_ins` every Authorization header.
    """

    password: str
    on: bool = True
    members: list[str] = field(default_factory=lambda: [SYSTEM])
    target: str = RESET
    allowed: list[str] | None = field(
        default_factory=lambda: ["On", "ForceOff", "GracefulShutdown"]
    )
    says: object = ""
    slow_s: float = 0.0
    fault: Fault = lambda _: None
    port: int = 0
    fingerprint: str = ""
    asked: list[str] = field(default_factory=list)
    log_ins: list[str] = field(default_factory=list)
    _context: ssl.SSLContext = field(init=False)

    def renew_certificate(self) -> None:
        """Show a new certificate to whoever connects from now on."""
        issued = Issued("board", names=("board.test",))
        with tempfile.TemporaryDirectory(prefix="kvt-redfish-") as directory:
            chain = Path(directory) / "chain.pem"
            chain.write_bytes(issued.as_pem())
            self._context.load_cert_chain(chain)
        self.fingerprint = sha256(issued.certificate.public_bytes(Encoding.DER)).hexdigest()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RedfishBoard]:
        """Serve at a port of its own."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew_certificate()
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._context)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        given = request.headers.get("Authorization", "")
        self.log_ins.append(given)
        await asyncio.sleep(self.slow_s)
        if (broken := self.fault(request)) is not None:
            return broken
        if given != encode_basic_auth(USER, self.password):
            return web.Response(status=401)
        match request.method, request.path:
            case "GET", path if path == SYSTEMS:
                links = [{"@odata.id": path} for path in self.members]
                return web.json_response({"Members": links, "Members@odata.count": len(links)})
            case "GET", path if path in self.members:
                return web.json_response(self._system())
            case "POST", path if path == RESET:
                return self._reset(await request.json())
        return web.Response(status=404)

    def _system(self) -> dict[str, object]:
        reset: dict[str, object] = {"target": self.target}
        if self.allowed is not None:
            reset["ResetType@Redfish.AllowableValues"] = self.allowed
        truth = "On" if self.on else "Off"
        power = truth if self.says == "" else self.says
        return {"Id": "1", "PowerState": power, "Actions": {"#ComputerSystem.Reset": reset}}

    def _reset(self, body: dict[str, str]) -> web.Response:
        wanted = body["ResetType"]
        if wanted not in ("On", "ForceOff") or self.on == (wanted == "On"):
            return web.Response(status=400)
        self.on = wanted == "On"
        return web.Response(status=204)
