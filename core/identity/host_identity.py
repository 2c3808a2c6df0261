"""A host's certificate and key on disk, exchanged so that a crash at any moment leaves two that fit together.

They are two files, which no system call replaces at once. So both are written down in a third first; whoever starts
finishes what was begun there. Used by the renewal of certificates, and by `nodeagent.main` at each start.
"""

from __future__ import annotations

import os

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from core.errors import InvalidError
from core.identity.certificates import KeyPair
from core.paths import Paths, write_file


class _Next(msgspec.Struct, frozen=True, kw_only=True):
    certificate_pem: str
    key_pem: str

    def __repr__(self) -> str:
        return "_Next(***)"


def exchange_identity(paths: Paths, pair: KeyPair) -> None:
    """Put a new certificate and key in the place of the present ones. Raises OSError if the disk doesn't take them."""
    coming = _Next(certificate_pem=pair.certificate_pem, key_pem=pair.key_pem)
    write_file(paths.next_identity, msgspec.json.encode(coming))
    finish_exchange(paths)


def finish_exchange(paths: Paths) -> None:
    """Finish an exchange that broke off. Does nothing when none did."""
    try:
        content = paths.next_identity.read_bytes()
    except FileNotFoundError:
        return
    coming = msgspec.json.decode(content, type=_Next)  # whole, for it came by rename
    write_file(paths.host_key, coming.key_pem.encode())
    write_file(paths.host_pem, coming.certificate_pem.encode(), mode=0o644)
    os.unlink(paths.next_identity)


def check_issued(pair: KeyPair, *, host_id: str, ca_pem: str) -> None:
    """Make sure that a certificate is this host's, fits its key and is of the cluster's authority.

    Raises:
        InvalidError: it must not be used.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate_pem.encode())
        key = serialization.load_pem_private_key(pair.key_pem.encode(), None)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
    except (ValueError, TypeError, InvalidSignature):
        raise InvalidError("the issued certificate is not of this cluster's authority") from None
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [host_id] or certificate.public_key() != key.public_key():
        raise InvalidError("the issued certificate is for another host or another key")
