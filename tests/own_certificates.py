"""Certificates as an operator's authority issues them, in all the formats, for tests."""

import datetime as dt
import ipaddress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from tests.java_keystore import Keystore
from tests.one_member import NOW_MS

DAY = dt.timedelta(days=1)
NOW = dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8 = serialization.PrivateFormat.PKCS8
RSA_KEY = rsa.generate_private_key(65537, 2048)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Issued:
    """A certificate with its key and who issued it."""

    name: str
    names: tuple[str, ...] = ()
    by: "Issued | None" = None
    key: object = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    begins: dt.datetime = NOW - 400 * DAY
    ends: dt.datetime = NOW + 4000 * DAY
    usage: x509.ExtendedKeyUsage | None = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        issuer = self.by or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(issuer.name))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begins)
            .not_valid_after(self.ends)
            .add_extension(x509.BasicConstraints(ca=not self.names, path_length=None), True)
        )
        if self.names:
            builder = builder.add_extension(_alternatives(self.names), critical=False)
        if self.usage is not None:
            builder = builder.add_extension(self.usage, critical=False)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def chain(self) -> list["Issued"]:
        return [self, *(self.by.chain if self.by else ())]

    def key_pem(self, passphrase: str = "") -> bytes:
        return self.key.private_bytes(PEM, PKCS8, _hiding(passphrase))

    def as_pem(self, passphrase: str = "") -> bytes:
        return b"".join(c.pem for c in self.chain) + self.key_pem(passphrase)

    def as_pkcs12(self, passphrase: str = "") -> bytes:
        others = [c.certificate for c in reversed(self.chain[1:])]
        return pkcs12.serialize_key_and_certificates(
            b"kvorum", self.key, self.certificate, others, _hiding(passphrase)
        )

    def as_jks(self, passphrase: str = "") -> bytes:
        store = Keystore(passphrase=passphrase)
        plain = self.key.private_bytes(DER, PKCS8, serialization.NoEncryption())
        store.add_key(plain, [c.certificate.public_bytes(DER) for c in self.chain])
        return store.bytes()


def _hiding(passphrase: str) -> serialization.KeySerializationEncryption:
    if not passphrase:
        return serialization.NoEncryption()
    return serialization.BestAvailableEncryption(passphrase.encode())


def _alternatives(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    made = []
    for name in names:
        try:
            made.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            made.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(made)


ROOT = Issued("Example Root")
MIDDLE = Issued("Example Issuing", by=ROOT)


def for_names(*names: str, **fields) -> Issued:
    """A server's certificate of two levels of issuers."""
    return Issued(**({"name": names[0], "names": names, "by": MIDDLE} | fields))
