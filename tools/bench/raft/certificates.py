"""Throw-away identities for the mesh of a bench cluster, from the product's own kind of authority."""

from __future__ import annotations

from pathlib import Path

from core.clock import SystemClock
from core.identity.certificates import make_authority, make_request, sign_request
from core.mesh.tls import TlsFiles


class Authority:
    """A certificate authority that issues hosts' identity directories."""

    def __init__(self) -> None:
        self._now_ms = SystemClock().wall_ms()
        self._authority = make_authority("bench", now_ms=self._now_ms)

    def issue(self, host_id: str, directory: Path) -> TlsFiles:
        """Write the files of one host into `directory`."""
        request_pem, key_pem = make_request(host_id)
        certificate_pem = sign_request(
            self._authority,
            request_pem,
            host_id=host_id,
            host_name=host_id,
            address="127.0.0.1",
            now_ms=self._now_ms,
        )
        directory.mkdir(parents=True, exist_ok=True)
        files = TlsFiles.in_directory(directory)
        files.ca.write_text(self._authority.certificate_pem)
        files.certificate.write_text(certificate_pem)
        files.key.write_text(key_pem)
        return files
