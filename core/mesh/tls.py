"""TLS contexts of the mesh: mutual, TLS 1.3 only, a host is known by its certificate's common name.

Used by `core.mesh.server`, `core.mesh.dialer` and HTTP clients of other agents. The name is checked inside the
handshake, so that no byte is ever written to a wrong host, whichever library opens the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HTTP = "http/1.1"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one host: the cluster's CA, the host's certificate and its key."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def in_directory(cls, directory: Path) -> TlsFiles:
        """Return the usual names in an identity directory."""
        return cls(directory / "ca.pem", directory / "host.pem", directory / "host.key")


def server_context(files: TlsFiles, channels: tuple[str, ...]) -> ssl.SSLContext:
    """Return a context that demands a certificate of the cluster and offers `channels`, preferred first."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.set_alpn_protocols(list(channels))
    return context


def client_context(files: TlsFiles, *, peer_id: str, channel: str) -> ssl.SSLContext:
    """Return a context whose handshake fails unless the server is `peer_id`.

    Works with any library that takes an SSLContext, e.g. `session.post(url, ssl=context)`.
    """

    class ExpectedPeer(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if (found := _common_name(self)) != peer_id:
                raise ssl.SSLCertVerificationError(
                    f"expected host {peer_id}, found {found or 'none'}"
                )

    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.sslobject_class = ExpectedPeer
    context.set_alpn_protocols([channel])
    return context


def peer_id_of(transport: asyncio.BaseTransport | None) -> str | None:
    """Return the host id at the other end of a mesh connection; None if it isn't one.

    In an aiohttp handler: `peer_id_of(request.transport)`.
    """
    ssl_object = None if transport is None else transport.get_extra_info("ssl_object")
    return None if ssl_object is None else _common_name(ssl_object)


def channel_of(transport: asyncio.BaseTransport) -> str | None:
    """Return the channel agreed on in the handshake."""
    ssl_object = transport.get_extra_info("ssl_object")
    channel: str | None = None if ssl_object is None else ssl_object.selected_alpn_protocol()
    return channel


def cut(transport: asyncio.WriteTransport) -> None:
    """Abort a connection. Unlike `transport.abort()` it may be called again and again."""
    with contextlib.suppress(
        AttributeError
    ):  # asyncio's TLS transport forgets its protocol once it is closed
        transport.abort()


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # certificates name hosts by id, addresses may change
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


def _common_name(ssl_object: Any) -> str | None:
    certificate = ssl_object.getpeercert() or {}
    names = [
        value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"
    ]
    return names[0] if len(names) == 1 else None
