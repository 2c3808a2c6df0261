"""Management boards of hosts: name one, forget it, ask it, and switch a host on or off by it.

Passwords go in and never come out.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute, check_bounds
from core.errors import InvalidError
from core.model import IPMI_PORT, REDFISH_PORT, Bmc, BmcProtocol, Host
from nodeagent.api.requests import body_of, json_answer, node_of, services_of, shown_to, target_of
from nodeagent.api.rights import check_named
from nodeagent.power.driver import Board

CIPHER_SUITES = (3, 17)
PORTS = {BmcProtocol.IPMI: IPMI_PORT, BmcProtocol.REDFISH: REDFISH_PORT}
IPMI_PASSWORD_MAX = 20


class PutBmc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/bmcs`: a host's board, in place of one that was named before."""

    host: Annotated[str, attribute("Name or id of the host whose power it switches.")]
    address: Annotated[
        str,
        attribute("IP address or name of the board.", length_max=253, pattern="^[0-9A-Za-z.:-]+$"),
    ]
    user: Annotated[str, attribute("Who logs in.", length_max=64, pattern="^[!-~]+$")]
    password: Annotated[
        str,
        attribute(
            "The password; it is never shown again. With `ipmi` of 20 characters at most.",
            length_max=128,
            pattern="^[ -~]+$",
        ),
    ]
    port: Annotated[
        int,
        attribute(
            "Port: UDP with `ipmi`, TCP with `redfish`; 0: the usual one, 623 or 443.",
            least=0,
            most=65_535,
        ),
    ] = 0
    cipher_suite: Annotated[
        int, attribute("Cipher suite of RMCP+: 17 (SHA-256) or 3 (SHA-1).", least=1, most=17)
    ] = 17
    protocol: Annotated[BmcProtocol, attribute("What the board speaks.")] = BmcProtocol.IPMI
    fingerprint: Annotated[
        str,
        attribute(
            "SHA-256 of the certificate that the board must show, in hexadecimal, with or without colons. Empty: the one "
            "that is known of it, or if none is, the one that it shows now. `redfish` only.",
            length_max=95,
            pattern="^(([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2})?$",
        ),
    ] = ""
    system: Annotated[
        str,
        attribute(
            "Id of the host's machine in its Redfish service, needed where it has several. `redfish` only.",
            length_max=128,
            pattern="^[0-9A-Za-z._~:@%-]*$",
        ),
    ] = ""

    def __repr__(self) -> str:
        return f"PutBmc({self.host}, {self.address}, ***)"


class ConfirmPowerOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`confirm` repeats the host's name: its guests lose their power too."""

    confirm: Annotated[
        str, attribute("The host's name, once more: its guests lose their power too.")
    ]


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What a board says of its host."""

    host: Annotated[str, attribute("The host's name.")]
    on: Annotated[bool, attribute("Whether it has power.")]


def add_routes(app: web.Application) -> None:
    """Add the routes of management boards."""
    app.router.add_post("/v1/bmcs", put_bmc)
    app.router.add_delete("/v1/bmcs/{bmc}", delete_bmc)
    app.router.add_get("/v1/bmcs/{bmc}/power", power)
    app.router.add_post("/v1/bmcs/{bmc}/actions/power-on", power_on)
    app.router.add_post("/v1/bmcs/{bmc}/actions/power-off", power_off)


async def put_bmc(request: web.Request) -> web.Response:
    """POST /v1/bmcs. 201: it was asked, and is recorded. 409: it belongs to another machine. 503: it doesn't answer."""
    body, node = await body_of(request, PutBmc), node_of(request)
    check_bounds(body)
    if body.cipher_suite not in CIPHER_SUITES:
        raise InvalidError("cipher_suite can be 17 or 3")
    if body.address.startswith("-") or body.user.startswith("-"):
        raise InvalidError("address and user can't begin with '-'")
    _check_protocol(body)
    check_named(request, node.store, (Host, body.host))
    board = Board(
        body.address,
        body.port or PORTS[body.protocol],
        body.user,
        body.password,
        body.cipher_suite,
        protocol=body.protocol,
        fingerprint=body.fingerprint.replace(":", "").lower(),
        system=body.system,
    )
    bmc = await services_of(request).bmcs.put(node.store.find(Host, body.host), board)
    return json_answer(shown_to(request, bmc), status=201)


async def delete_bmc(request: web.Request) -> web.Response:
    """DELETE /v1/bmcs/{bmc}. 204: forgotten. 404: none is known."""
    await services_of(request).bmcs.remove(_host(request))
    return web.Response(status=204)


async def power(request: web.Request) -> web.Response:
    """GET /v1/bmcs/{bmc}/power. 200: what the board says now. 404: none is known. 503: it doesn't answer."""
    host = _host(request)
    _, on = await services_of(request).bmcs.power(host)
    return json_answer(Power(host=host.name, on=on))


async def power_on(request: web.Request) -> web.Response:
    """POST .../actions/power-on. 204: it was told to switch its host on."""
    await services_of(request).bmcs.switch_on(_host(request))
    return web.Response(status=204)


async def power_off(request: web.Request) -> web.Response:
    """POST .../actions/power-off. 204: it was told to take the power away. 409: the host is the one that was asked."""
    body, host = await body_of(request, ConfirmPowerOff), _host(request)
    if body.confirm != host.name:
        raise InvalidError(f"confirm must be the host's name, {host.name!r}")
    await services_of(request).bmcs.switch_off(host)
    return web.Response(status=204)


def _check_protocol(body: PutBmc) -> None:
    if body.protocol is BmcProtocol.REDFISH:
        if ":" in body.user:  # RFC 7617
            raise InvalidError("user can't have a ':' with redfish")
        return
    if len(body.password) > IPMI_PASSWORD_MAX:
        raise InvalidError(f"password may have {IPMI_PASSWORD_MAX} characters at most with ipmi")
    if body.fingerprint or body.system:
        raise InvalidError("fingerprint and system are of redfish: name it as the protocol")


def _host(request: web.Request) -> Host:
    """Return the host whose board the path names, by the host's name or its id."""
    board = target_of(request, Bmc, "bmc")
    return node_of(request).store.need(Host, board.host_id)
