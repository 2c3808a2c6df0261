"""Certificates: those of the API that an operator imports, this host's own, and the cluster authority's.

Keys and passphrases go in and never come out.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from core.attributes import attribute
from core.model import Host
from nodeagent.api.requests import body_of, ids_of, json_answer, node_of, services_of
from nodeagent.services.own_certificates import ALL_HOSTS


class ImportCertificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/certificates`. `content` is the file in base64; `host` a name or id, empty for all hosts."""

    content: Annotated[bytes, attribute("The file (PEM, PKCS#12 or JKS), in base64.")]
    passphrase: Annotated[
        str, attribute("What opens it; empty: nothing is needed.", length_max=1024)
    ] = ""
    host: Annotated[str, attribute("Name or id of the host that shall serve it; empty: all.")] = ""

    def __repr__(self) -> str:
        return "ImportCertificate(***)"


def add_routes(app: web.Application) -> None:
    """Add the routes of certificates."""
    app.router.add_get("/v1/certificates", certificates)
    app.router.add_post("/v1/certificates", import_certificate)
    app.router.add_delete("/v1/certificates/{scope}", reset_certificate)


async def certificates(request: web.Request) -> web.Response:
    """GET /v1/certificates. 200: what is imported, this host's certificate, the authority's; without keys."""
    shown = services_of(request).certificates.shown()
    return json_answer({"items": shown, "index": node_of(request).store.index})


async def import_certificate(request: web.Request) -> web.Response:
    """POST /v1/certificates. 201: served to new connections from now on. 400: it can't be used; nothing was changed."""
    body = await body_of(request, ImportCertificate)
    host = node_of(request).store.find(Host, body.host) if body.host else None
    shown = await services_of(request).certificates.import_(
        body.content, body.passphrase, host=host, request_id=ids_of(request).request_id
    )
    return json_answer(shown, status=201)


async def reset_certificate(request: web.Request) -> web.Response:
    """DELETE /v1/certificates/{all or a host}. 204: back to the cluster's. 404: none is imported for that."""
    scope = request.match_info["scope"]
    host = node_of(request).store.find(Host, scope) if scope != ALL_HOSTS else None
    await services_of(request).certificates.reset(host, request_id=ids_of(request).request_id)
    return web.Response(status=204)
