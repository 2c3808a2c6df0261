"""An operator's own certificate: read out of PEM, PKCS#12 or a Java keystore, put in order, and judged.

`nodeagent.services.own_certificates` has `read_bundle` done by a process of its own (`python -m
core.identity.own_certificate`), because opening a container can be made to take any time. What is secret goes through
pipes. The judgements are pure.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import sys
from collections.abc import Sequence

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from core.errors import InvalidError
from core.identity.certificates import KeyPair
from core.identity.java_keystore import CHAIN_MAX, JCEKS_MAGIC, MAGIC, read_java_keystore

BUNDLE_BYTES_MAX = 512 << 10
PASSPHRASE_CHARS_MAX = 1024
RSA_BITS_MIN = 2048
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
ServerKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_Chain = list[x509.Certificate]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What the reading process is given."""

    content: bytes
    passphrase: str

    def __repr__(self) -> str:
        return "Bundle(***)"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What it says: certificates with the key's own first, and the key; or what was wrong."""

    chain_pem: str = ""
    key_pem: str = ""
    error: str = ""

    def __repr__(self) -> str:
        return f"Reading({self.error or '***'})"


def read_bundle(content: bytes, passphrase: str) -> KeyPair:
    """Return the certificates, ordered from the key's own upwards, and the unencrypted key (PKCS#8).

    Raises:
        InvalidError: none of the three formats, damaged, a wrong passphrase, no key or several, a key that fits no
            certificate, or a certificate that is no part of its chain.
    """
    if content[:4] in (MAGIC, JCEKS_MAGIC):
        key, chain = _from_java(content, passphrase)
    elif b"-----BEGIN " in content:
        key, chain = _from_pem(content, passphrase)
    else:
        key, chain = _from_pkcs12(content, passphrase)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise InvalidError("the key must be RSA or ECDSA: others are not understood by all clients")
    ordered = _in_order(key, chain)
    pem = serialization.Encoding.PEM
    return KeyPair(
        "".join(c.public_bytes(pem).decode() for c in ordered),
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def check_usable(pair: KeyPair, *, now_ms: int) -> None:
    """Refuse what clients would refuse anyway.

    Raises:
        InvalidError: expired or not valid yet, a weak key, or not meant for servers.
    """
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    chain = chain_of(pair.certificate_pem)
    for certificate in chain:
        whose = certificate.subject.rfc4514_string() or "without a name"
        if certificate.not_valid_after_utc <= now:
            raise InvalidError(
                f"the certificate {whose!r} expired at {certificate.not_valid_after_utc:%F %T} UTC: get a new one"
            )
        if certificate.not_valid_before_utc > now:
            raise InvalidError(
                f"the certificate {whose!r} is valid only from {certificate.not_valid_before_utc:%F %T} UTC: "
                "is the clock of this host right?"
            )
    key = chain[0].public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise InvalidError(
            f"the RSA key has {key.key_size} bits, at least {RSA_BITS_MIN} are needed"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, CURVES):
        raise InvalidError(f"the curve {key.curve.name} is not one of P-256, P-384, P-521")
    try:
        usage = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise InvalidError(
            "the certificate isn't meant for servers: its extended key usage says so"
        )


def chain_of(certificate_pem: str) -> _Chain:
    """Return the certificates of a PEM text."""
    return x509.load_pem_x509_certificates(certificate_pem.encode())


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names and IP addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def covers(names: Sequence[str], host_name: str, address: str) -> bool:
    """Tell whether clients that call a host by name or by address would accept these names.

    A host that is known by a bare name, h1, is covered by h1.example.org and by *.example.org.
    """
    for name in names:
        low = name.lower()
        if low in (host_name, str(ipaddress.ip_address(address))):
            return True
        first, _, domain = low.partition(".")
        if first == host_name and domain:
            return True
        if first == "*" and host_name.partition(".")[2] in ("", domain):
            return True
    return False


def _from_pem(content: bytes, passphrase: str) -> tuple[object, _Chain]:
    blocks = [match.group(0) for match in KEY_BLOCK.finditer(content)]
    if len(blocks) != 1:
        raise InvalidError(
            f"the PEM file holds {len(blocks)} private keys, one is needed beside its certificates"
        )
    encrypted = b"ENCRYPTED" in blocks[0]
    if encrypted and not passphrase:
        raise InvalidError("the key is encrypted: give its passphrase")
    try:
        key = serialization.load_pem_private_key(
            blocks[0], passphrase.encode() if encrypted else None
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidError(
            "the private key can't be read: is the passphrase right, and is it RSA or ECDSA?"
        ) from None
    try:
        return key, x509.load_pem_x509_certificates(content)
    except ValueError:
        raise InvalidError("the PEM file holds no certificate that can be read") from None


def _from_pkcs12(content: bytes, passphrase: str) -> tuple[object, _Chain]:
    try:
        key, own, others = pkcs12.load_key_and_certificates(content, passphrase.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidError(
            "this is no PEM, no Java keystore, and no PKCS#12 that this passphrase opens"
        ) from None
    if key is None:
        raise InvalidError("the PKCS#12 file holds no private key")
    return key, [*([own] if own is not None else []), *others]


def _from_java(content: bytes, passphrase: str) -> tuple[object, _Chain]:
    stored = read_java_keystore(content, passphrase)
    try:
        key = serialization.load_der_private_key(stored.key_der, None)
        return key, [x509.load_der_x509_certificate(der) for der in stored.chain_der]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidError(
            "the keystore's key or certificates can't be read: are they RSA or ECDSA?"
        ) from None


def _in_order(key: ServerKey, certificates: _Chain) -> _Chain:
    """Return the key's own certificate, then each issuer; nothing may be left over."""
    if not 1 <= len(certificates) <= CHAIN_MAX:
        raise InvalidError(
            f"{len(certificates)} certificates were found: the key's own and up to {CHAIN_MAX - 1} issuers are needed"
        )
    left = list(dict.fromkeys(certificates))
    try:
        chain = [next(c for c in left if c.public_key() == key.public_key())]
    except (StopIteration, ValueError, UnsupportedAlgorithm):
        raise InvalidError("the private key fits none of the certificates") from None
    left.remove(chain[0])
    while left:
        issuer = next((c for c in left if _issued(chain[-1], by=c)), None)
        if issuer is None:
            name = left[0].subject.rfc4514_string()
            raise InvalidError(f"the certificate {name!r} is no part of the chain: leave it out")
        chain.append(issuer)
        left.remove(issuer)
    return chain


def _issued(certificate: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def main() -> None:
    """Read a `Bundle` from stdin and write a `Reading` to stdout."""
    bundle = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Bundle)
    try:
        pair = read_bundle(bundle.content, bundle.passphrase)
        reading = Reading(chain_pem=pair.certificate_pem, key_pem=pair.key_pem)
    except InvalidError as error:
        reading = Reading(error=error.message)
    sys.stdout.buffer.write(msgspec.msgpack.encode(reading))


if __name__ == "__main__":
    main()
