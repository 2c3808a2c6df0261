"""The TLS of the HTTPS API: whose certificate callers see, and how another takes its place while connections go on.

Made by `nodeagent.member`, served from by `nodeagent.lifecycle`. Each handshake chooses its certificate: the operator's
own if there is one, else the one that the cluster issued. Hosts that join, or ask where they stand, know the cluster's
authority only, so they ask for it by the server name `CLUSTER_NAME`, whatever the operator has imported.
"""

from __future__ import annotations

import os
import ssl

from core.errors import InvalidError
from core.identity.certificates import KeyPair
from core.mesh.tls import TlsFiles
from nodeagent.joining.messages import CLUSTER_NAME


class ApiTls:
    """`context` is the listener's for good; what it answers with may change at any time."""

    def __init__(self, files: TlsFiles) -> None:
        """Load the host's certificate. Raises OSError or ssl.SSLError if that isn't possible."""
        self._files = files
        self._issued = _issued_context(files)
        self._own: ssl.SSLContext | None = None
        self.context = _issued_context(files)
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Take the host's certificate from its files anew; raises as the constructor, and then changes nothing."""
        self._issued = _issued_context(self._files)

    def use(self, own: KeyPair | None) -> None:
        """Answer with the operator's own certificate from now on; None: with the cluster's.

        Raises:
            InvalidError: TLS can't work with it; nothing was changed.
        """
        self._own = own_context(own) if own is not None else None

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> None:
        own = self._own
        connection.context = own if own is not None and name != CLUSTER_NAME else self._issued


def own_context(pair: KeyPair) -> ssl.SSLContext:
    """Return a server's context of a certificate and key that lie in no file: Python reads them by a name only.

    Raises:
        InvalidError: OpenSSL doesn't take them.
    """
    descriptor = os.memfd_create("kvorum-api-certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as memory:
            memory.write(pair.key_pem.encode() + pair.certificate_pem.encode())
        context = _context()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise InvalidError(f"TLS can't use this certificate: {error.reason or error}") from None
    finally:
        os.close(descriptor)
    return context


def _issued_context(files: TlsFiles) -> ssl.SSLContext:
    context = _context()
    context.load_cert_chain(files.certificate, files.key)
    return context


def _context() -> ssl.SSLContext:
    """TLS 1.2 and up, no client certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
