"""Java keystores of the old format (JKS), decoded strictly: one private key and its certificates.

Used by `core.identity.own_certificate`, in a process of its own. The format is Sun's, as OpenJDK's
`sun.security.provider.JavaKeyStore` and `KeyProtector` describe it: big-endian numbers, an SHA-1 over the passphrase and
everything else at the end, keys hidden by a stream of SHA-1 digests. Newer Java writes PKCS#12 into files of the same name.
Every length is bounded before anything is read by it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from core.errors import InvalidError

MAGIC = b"\xfe\xed\xfe\xed"
JCEKS_MAGIC = b"\xce\xce\xce\xce"
WHITENER = b"Mighty Aphrodite"
PROTECTOR_OID = bytes.fromhex("060a2b060104012a02110101")  # 1.3.6.1.4.1.42.2.17.1.1 in DER
FILE_BYTES_MAX = 1 << 20
ENTRIES_MAX = 64
CHAIN_MAX = 10
NAME_BYTES_MAX = 1024
BLOCK_BYTES_MAX = 1 << 16
SHA1_BYTES = 20
KEY_ENTRY, TRUSTED_ENTRY = 1, 2

DAMAGED = "the Java keystore is damaged: make a new copy of it"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A private key (PKCS#8 DER) and its certificates (DER), the key's own first."""

    key_der: bytes
    chain_der: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "StoredKey(***)"


def read_java_keystore(content: bytes, passphrase: str) -> StoredKey:
    """Return the only private key of a keystore whose key has the keystore's own passphrase.

    Raises:
        InvalidError: damaged, a wrong passphrase, another format, or not exactly one private key.
    """
    if content[:4] == JCEKS_MAGIC:
        raise InvalidError(
            "JCEKS keystores are not supported: convert it with "
            "'keytool -importkeystore -deststoretype pkcs12'"
        )
    if len(content) > FILE_BYTES_MAX or len(content) < 12 + SHA1_BYTES or content[:4] != MAGIC:
        raise InvalidError(DAMAGED)
    secret = _utf16(passphrase)
    body, seal = content[:-SHA1_BYTES], content[-SHA1_BYTES:]
    if not hmac.compare_digest(_sha1(secret + WHITENER + body), seal):
        raise InvalidError("the passphrase is wrong, or the Java keystore is damaged")
    found = _entries(_Reader(body, 4))
    if len(found) != 1:
        raise InvalidError(
            f"the keystore holds {len(found)} private keys, one is needed: "
            "export the one that is meant into a keystore of its own"
        )
    hidden, chain = found[0]
    return StoredKey(_revealed(hidden, secret), chain)


class _Reader:
    """Takes numbers and blocks off a byte string, and never beyond its end."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self._content, self._at = content, at

    def take(self, count: int, most: int) -> bytes:
        if not 0 <= count <= min(most, len(self._content) - self._at):
            raise InvalidError(DAMAGED)
        self._at += count
        return self._content[self._at - count : self._at]

    def number(self, size: int, most: int) -> int:
        value = int.from_bytes(self.take(size, size))
        if value > most:
            raise InvalidError(DAMAGED)
        return value

    def block(self) -> bytes:
        return self.take(self.number(4, BLOCK_BYTES_MAX), BLOCK_BYTES_MAX)

    def name(self) -> bytes:
        return self.take(self.number(2, NAME_BYTES_MAX), NAME_BYTES_MAX)

    def at_end(self) -> bool:
        return self._at == len(self._content)


def _entries(reader: _Reader) -> list[tuple[bytes, tuple[bytes, ...]]]:
    """Return (hidden key, chain) of each key; certificates without a key are read over."""
    version = reader.number(4, 2)
    if version not in (1, 2):
        raise InvalidError(DAMAGED)
    found = []
    for _ in range(reader.number(4, ENTRIES_MAX)):
        tag = reader.number(4, TRUSTED_ENTRY)
        reader.name()  # the alias
        reader.take(8, 8)  # when it was made
        if tag == KEY_ENTRY:
            hidden = reader.block()
            count = reader.number(4, CHAIN_MAX)
            found.append((hidden, tuple(_certificate(reader, version) for _ in range(count))))
        elif tag == TRUSTED_ENTRY:
            _certificate(reader, version)
        else:
            raise InvalidError(DAMAGED)
    if not reader.at_end():
        raise InvalidError(DAMAGED)
    return found


def _certificate(reader: _Reader, version: int) -> bytes:
    if version == 2 and reader.name() != b"X.509":
        raise InvalidError("the keystore holds a certificate that is not X.509")
    return reader.block()


def _revealed(hidden: bytes, secret: bytes) -> bytes:
    """Undo Sun's key protector: salt, the key XOR a stream of digests, and a digest of the key."""
    protected = _octets_of(hidden)
    if len(protected) <= 2 * SHA1_BYTES:
        raise InvalidError(DAMAGED)
    salt, check = protected[:SHA1_BYTES], protected[-SHA1_BYTES:]
    covered = protected[SHA1_BYTES:-SHA1_BYTES]
    stream, digest = bytearray(), salt
    while len(stream) < len(covered):
        digest = _sha1(secret + digest)
        stream += digest
    key = bytes(a ^ b for a, b in zip(covered, stream, strict=False))
    if not hmac.compare_digest(_sha1(secret + key), check):
        raise InvalidError(
            "the key has another passphrase than the keystore: "
            "make them equal with 'keytool -keypasswd'"
        )
    return key


def _octets_of(der: bytes) -> bytes:
    """Return the octets of an EncryptedPrivateKeyInfo (RFC 5208 section 6) that names Sun's protector."""
    outer = _Reader(der)
    inner = _Reader(_value(outer, 0x30))
    algorithm = _value(inner, 0x30)
    if algorithm not in (PROTECTOR_OID, PROTECTOR_OID + b"\x05\x00"):
        raise InvalidError(
            "the keystore's key is protected in a way that is not supported: "
            "convert it with 'keytool -importkeystore -deststoretype pkcs12'"
        )
    octets = _value(inner, 0x04)
    if not inner.at_end() or not outer.at_end():
        raise InvalidError(DAMAGED)
    return octets


def _value(reader: _Reader, tag: int) -> bytes:
    """Return the content of the next DER element, which must have that tag."""
    if reader.number(1, 0xFF) != tag:
        raise InvalidError(DAMAGED)
    length = reader.number(1, 0x82)
    if length == 0x80:
        raise InvalidError(DAMAGED)
    if length > 0x80:
        length = reader.number(length - 0x80, BLOCK_BYTES_MAX)
    return reader.take(length, BLOCK_BYTES_MAX)


def _utf16(passphrase: str) -> bytes:
    return passphrase.encode("utf-16-be", "surrogatepass")


def _sha1(content: bytes) -> bytes:
    return hashlib.sha1(content, usedforsecurity=False).digest()
