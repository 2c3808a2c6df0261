"""The operator's own certificates of the HTTPS API: imported, shown, taken back, and served on every host they are for.

The API calls it; `run` follows the store, so that a certificate imported anywhere is served by its hosts at once. Keys
are in the store sealed only. A certificate of one host goes before the one for all.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from core import command
from core.errors import InvalidError, NotFoundError, PlatformError
from core.identity.certificates import KeyPair, fingerprint, life_of
from core.identity.own_certificate import (
    BUNDLE_BYTES_MAX,
    PASSPHRASE_CHARS_MAX,
    Bundle,
    Reading,
    chain_of,
    check_usable,
    covers,
    names_of,
)
from core.identity.sealing import Keys, seal, unseal
from core.model import ApiCertificate, Host, Mesh
from nodeagent.api.tls import ApiTls, own_context
from nodeagent.joining.founding import MESH_ID
from nodeagent.node import Node
from nodeagent.services.sealing_guard import sealing_guards

log = logging.getLogger(__name__)

ALL_HOSTS = "all"
READ_TIMEOUT_S = 15.0
RETRY_S = 5.0
READER = (sys.executable, "-m", "core.identity.own_certificate")

Shown = dict[str, Any]


class OwnCertificates:
    """What is imported, and what of it this host serves."""

    def __init__(self, node: Node, tls: ApiTls, *, secrets_key: Callable[[], Keys]) -> None:
        self._node, self._tls, self._secrets_key = node, tls, secrets_key
        self._serves = ""

    async def run(self) -> None:
        """Serve what the store says until cancelled."""
        watch = self._node.store.watch(ApiCertificate)
        try:
            while True:
                try:
                    self.serve()
                    await watch.next()
                except PlatformError as error:
                    log.warning(
                        "can't serve the imported certificate", extra={"error": error.message}
                    )
                    await asyncio.sleep(RETRY_S)
        finally:
            self._node.store.unwatch(watch)

    def serve(self) -> None:
        """Answer new connections with the certificate that is imported for this host, or the cluster's if none is.

        Raises:
            FatalError: its key can't be opened here; the certificate before goes on.
        """
        store = self._node.store
        found = store.get(ApiCertificate, self._node.host_id) or store.get(
            ApiCertificate, ALL_HOSTS
        )
        if (found.sha256 if found else "") == self._serves:
            return
        own = None
        if found is not None:
            key_pem = unseal(self._secrets_key(), secret_name(found.id), found.sealed_key)
            own = KeyPair(found.chain_pem, key_pem.decode())
        self._tls.use(own)
        self._serves = found.sha256 if found else ""
        log.info("the API's certificate changed", extra={"sha256": self._serves or "the cluster's"})

    async def import_(
        self, content: bytes, passphrase: str, *, host: Host | None, request_id: str
    ) -> Shown:
        """Check a certificate with its key, keep it, and serve it. `host`: for that host only.

        Raises:
            InvalidError: it can't be read or used; nothing was changed.
            UnavailableError: no quorum.
        """
        pair = await read_apart(content, passphrase)
        now_ms = self._node.clock.wall_ms()
        check_usable(pair, now_ms=now_ms)
        own_context(pair)
        id_ = host.id if host is not None else ALL_HOSTS
        before = self._node.store.get(ApiCertificate, id_)
        guards = sealing_guards(self._node.store)
        certificate = ApiCertificate(
            id=id_,
            name=id_,
            revision=before.revision if before is not None else 0,
            created_ms=now_ms,
            host_id=host.id if host is not None else "",
            chain_pem=pair.certificate_pem,
            sealed_key=seal(self._secrets_key(), secret_name(id_), pair.key_pem.encode()),
            sha256=fingerprint(pair.certificate_pem),
        )
        await self._node.store.apply(puts=(certificate,), guards=guards, request_id=request_id)
        self.serve()
        return self._shown_own(certificate)

    async def reset(self, host: Host | None, *, request_id: str) -> None:
        """Go back to the cluster's certificate, or from a host's own to the one for all.

        Raises:
            NotFoundError: none is imported for that.
        """
        found = self._node.store.get(ApiCertificate, host.id if host is not None else ALL_HOSTS)
        if found is None:
            scope = f"host {host.name}" if host is not None else "all hosts"
            raise NotFoundError(f"no certificate is imported for {scope}")
        await self._node.store.apply(deletes=(found,), request_id=request_id)
        self.serve()

    def shown(self) -> list[Shown]:
        """Return the imported certificates, this host's own, and the authority's."""
        mesh = self._node.store.need(Mesh, MESH_ID)
        own = [self._shown_own(c) for c in self._node.store.all(ApiCertificate)]
        issued = self._node.paths.host_pem.read_text()
        about_host = {"kind": "host", "host_name": self._node.host_name}
        return [
            *own,
            {"name": self._node.host_name, **about_host, **_facts(issued), "warnings": []},
            {
                "name": "authority",
                "kind": "authority",
                "host_name": "",
                **_facts(mesh.ca_pem),
                "warnings": [],
            },
        ]

    def _shown_own(self, certificate: ApiCertificate) -> Shown:
        store = self._node.store
        host = store.get(Host, certificate.host_id) if certificate.host_id else None
        facts = _facts(certificate.chain_pem)
        concerned = [host] if host is not None else store.all(Host)
        missing = [h.name for h in concerned if not covers(facts["names"], h.name, h.address)]
        warnings = []
        if missing:
            warnings.append(f"it names neither name nor address of {', '.join(missing)}")
        return {
            "name": host.name if host is not None else certificate.host_id or ALL_HOSTS,
            "kind": "own",
            "host_name": host.name if host is not None else "",
            **facts,
            "warnings": warnings,
        }


async def read_apart(content: bytes, passphrase: str) -> KeyPair:
    """Open a container in a process of its own: it may be made to take any time, and this one must not stand still.

    Raises:
        InvalidError: see `core.identity.own_certificate.read_bundle`; or too large, or not opened in time.
    """
    if len(content) > BUNDLE_BYTES_MAX or len(passphrase) > PASSPHRASE_CHARS_MAX:
        raise InvalidError(
            f"a certificate file has at most {BUNDLE_BYTES_MAX >> 10} KiB, a passphrase {PASSPHRASE_CHARS_MAX} characters"
        )
    bundle = msgspec.msgpack.encode(Bundle(content=content, passphrase=passphrase))
    try:
        done = await command.run(READER, timeout_s=READ_TIMEOUT_S, input=bundle)
        reading = msgspec.msgpack.decode(done.stdout, type=Reading)
    except (PlatformError, msgspec.DecodeError) as error:
        log.warning("a certificate file could not be read", extra={"error": type(error).__name__})
        raise InvalidError(
            f"the certificate file could not be read within {READ_TIMEOUT_S:g} s: is it damaged?"
        ) from None
    if reading.error:
        raise InvalidError(reading.error)
    return KeyPair(reading.chain_pem, reading.key_pem)


def secret_name(id_: str) -> str:
    """Return the name under which the key of an imported certificate is sealed."""
    return ApiCertificate.SEALED["sealed_key"].format(id=id_)


def _facts(certificate_pem: str) -> Shown:
    own = chain_of(certificate_pem)[0]
    begin_ms, end_ms = life_of(certificate_pem)
    return {
        "subject": own.subject.rfc4514_string(),
        "issuer": own.issuer.rfc4514_string(),
        "names": names_of(own),
        "not_before_ms": begin_ms,
        "not_after_ms": end_ms,
        "sha256": fingerprint(certificate_pem),
    }
