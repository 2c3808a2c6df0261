"""The cluster's own certificate authority, and the certificates of its hosts.

`init` makes the authority; any agent signs a joiner's request with it. Host certificates carry the host id as
common name (the mesh trusts nothing else) and the host's address and name for clients of the HTTPS API.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import InvalidError

CA_YEARS = 20
HOST_DAYS = 730
BACKDATED = dt.timedelta(hours=25)  # a host whose clock is a little behind must accept it too


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate_pem: str
    key_pem: str = ""

    def __repr__(self) -> str:
        return "KeyPair(***)"


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def make_authority(cluster_name: str, *, now_ms: int) -> KeyPair:
    """Return a new certificate authority (ECDSA P-256)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name(f"kvorum {cluster_name}"[:64])
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key))


def make_request(host_id: str) -> tuple[str, str]:
    """Return (signing request PEM, private key PEM) of a new host key; the key never leaves the host."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_common_name(host_id))
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode(), _key_pem(key)


def sign_request(
    authority: KeyPair,
    request_pem: str,
    *,
    host_id: str,
    host_name: str,
    address: str,
    now_ms: int,
    vip: str = "",
) -> str:
    """Return a host certificate (PEM) for a signing request. Names come from us, not from the request.

    `vip` is the cluster's management address, which any host may have; empty: none.

    Raises:
        InvalidError: the request is damaged or not signed by its own key.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
    except ValueError:
        raise InvalidError("the certificate signing request can't be read") from None
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not request.is_signature_valid:
        raise InvalidError("the certificate signing request is not signed by its own EC key")
    ca = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    ca_key = serialization.load_pem_private_key(authority.key_pem.encode(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey), "the authority's key is made by us"
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    end = min(now + dt.timedelta(days=HOST_DAYS), ca.not_valid_after_utc)
    names = [
        x509.DNSName(host_name),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address(address)),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    if vip:
        names.append(x509.IPAddress(ipaddress.ip_address(vip)))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_common_name(host_id))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate_pem: str) -> str:
    """Return the SHA-256 of a certificate's DER form, in hex."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def life_of(certificate_pem: str) -> tuple[int, int]:
    """Return when a certificate begins and ends to be valid, in Unix milliseconds."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return int(begin.timestamp() * 1000), int(end.timestamp() * 1000)


def is_for_address(certificate_pem: str, address: str) -> bool:
    """Tell whether a certificate is for an IP address."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return ipaddress.ip_address(address) in names.get_values_for_type(x509.IPAddress)


def renewal_due(certificate_pem: str, *, now_ms: int) -> bool:
    """Tell whether two thirds of a certificate's life are over, or it was issued by a clock that was ahead."""
    begin_ms, end_ms = life_of(certificate_pem)
    return not begin_ms <= now_ms < begin_ms + (end_ms - begin_ms) * 2 // 3


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
