"""Renews this host's certificate, with a new key, when two thirds of its life are over, or it isn't for the VIP.

A request is signed here if this host can open the authority's key, else by another member over the mesh; that member
signs for the calling host only, with the names that the state has for it. The new pair is exchanged on disk and taken
by the mesh and the API at once: new connections use it, open ones go on. A host that was off until its certificate had
expired renews it by itself when it starts, before anybody has to believe it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec

from core.errors import FatalError, PlatformError, UnavailableError
from core.identity.certificates import (
    KeyPair,
    is_for_address,
    make_request,
    renewal_due,
    sign_request,
)
from core.identity.host_identity import check_issued, exchange_identity
from core.identity.hsm import SecretsLockedError
from core.identity.sealing import Keys, unseal
from core.model import Host, Mesh
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.event_log import EventLog

log = logging.getLogger(__name__)

ROUND_S = 3600.0
RETRY_S = 60.0
ASKED_MAX = 8


class AskCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A host asks for a certificate of a new key of its own."""

    request_pem: Annotated[str, msgspec.Meta(max_length=8192)]


class IssuedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate; it is no secret."""

    certificate_pem: str


class CertificateRenewal:
    """`reload` makes everything that uses the host's certificate read it anew."""

    def __init__(
        self, node: Node, *, secrets_key: Callable[[], Keys], reload: Callable[[], None]
    ) -> None:
        self._node, self._secrets_key, self._reload = node, secrets_key, reload

    async def run(self) -> None:
        """Look every hour, and when the mesh's settings change, until cancelled; after a failure every minute."""
        watch = self._node.store.watch(Mesh)
        try:
            while True:
                pause_s = ROUND_S
                try:
                    await self.renew_if_due()
                except (PlatformError, OSError) as error:
                    log.warning(
                        "the host's certificate can't be renewed", extra={"error": str(error)}
                    )
                    pause_s = RETRY_S
                try:
                    async with asyncio.timeout(pause_s):
                        await watch.next()
                except TimeoutError:
                    continue
        finally:
            self._node.store.unwatch(watch)

    async def renew_if_due(self) -> bool:
        """Renew if it is time; tell whether it was.

        Raises:
            UnavailableError: no member could sign.
            OSError: the disk doesn't take it; the former pair stays.
        """
        node = self._node
        present = node.paths.host_pem.read_text()
        mesh = node.store.need(Mesh, MESH_ID)
        lacks_vip = bool(mesh.vip) and not is_for_address(present, mesh.vip)
        if not (lacks_vip or renewal_due(present, now_ms=node.clock.wall_ms())):
            return False
        request_pem, key_pem = make_request(node.host_id)
        pair = KeyPair(await self._signed(request_pem), key_pem)
        check_issued(pair, host_id=node.host_id, ca_pem=mesh.ca_pem)
        exchange_identity(node.paths, pair)
        self._reload()
        log.info("the host's certificate was renewed")
        message = f"the certificate of host {node.host_name} was renewed"
        await EventLog(node).record("certificate-renewed", node.host(), message)
        return True

    def sign(self, host_id: str, request_pem: str) -> str:
        """Return a certificate for a host of the state.

        Raises:
            NotFoundError: it is no member.
            InvalidError: the request is not signed by its own key.
            FatalError, SecretsLockedError: this host can't open the authority's key.
        """
        node = self._node
        host, mesh = node.store.need(Host, host_id), node.store.need(Mesh, MESH_ID)
        key_pem = unseal(self._secrets_key(), "ca-key", mesh.sealed_ca_key).decode()
        return sign_request(
            KeyPair(mesh.ca_pem, key_pem),
            request_pem,
            host_id=host.id,
            host_name=host.name,
            address=host.address,
            now_ms=node.clock.wall_ms(),
            vip=mesh.vip,
        )

    async def _signed(self, request_pem: str) -> str:
        node = self._node
        try:
            return self.sign(node.host_id, request_pem)
        except (FatalError, SecretsLockedError) as error:
            log.info("asking others to sign", extra={"reason": error.message})
        linked = node.engine.connected()
        others = [h for h in node.store.all(Host) if h.id != node.host_id]
        question = AskCertificate(request_pem=request_pem)
        for host in sorted(others, key=lambda h: h.id not in linked)[:ASKED_MAX]:
            try:
                answer = await node.mesh.call(
                    host, "/mesh/certificate", question, IssuedCertificate
                )
            except PlatformError as error:
                log.info(
                    "no certificate from there", extra={"to": host.name, "error": error.message}
                )
            else:
                return answer.certificate_pem
        raise UnavailableError("no member could sign this host's new certificate")
