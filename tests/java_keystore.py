"""Writes Java keystores (JKS) as Sun's format describes them, for the decoder's tests: Java itself isn't needed."""

import hashlib
import os
from dataclasses import dataclass

PROTECTOR = bytes.fromhex("300e060a2b060104012a021101010500")


def sha1(content: bytes) -> bytes:
    return hashlib.sha1(content, usedforsecurity=False).digest()


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def text(value: str) -> bytes:
    return len(value).to_bytes(2) + value.encode()


def block(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content


def hidden(key_der: bytes, passphrase: str) -> bytes:
    """Sun's key protector: salt, key XOR digests chained from it, digest of the key."""
    secret, salt = passphrase.encode("utf-16-be"), os.urandom(20)
    stream, digest = b"", salt
    while len(stream) < len(key_der):
        digest = sha1(secret + digest)
        stream += digest
    covered = bytes(a ^ b for a, b in zip(key_der, stream, strict=False))
    octets = salt + covered + sha1(secret + key_der)
    return der(0x30, PROTECTOR + der(0x04, octets))


@dataclass
class Keystore:
    """What to write; each field can be made wrong."""

    passphrase: str = "changeit"
    version: int = 2
    magic: bytes = b"\xfe\xed\xfe\xed"
    kind: str = "X.509"
    entries: bytes = b""
    count: int = 0

    def add_key(self, key_der: bytes, chain: list[bytes], *, passphrase: str = "") -> None:
        self.entries += (1).to_bytes(4) + text("kvorum") + bytes(8)
        self.entries += block(hidden(key_der, passphrase or self.passphrase))
        self.entries += len(chain).to_bytes(4) + b"".join(map(self.certificate, chain))
        self.count += 1

    def add_trusted(self, certificate: bytes) -> None:
        self.entries += (2).to_bytes(4) + text("ca") + bytes(8) + self.certificate(certificate)
        self.count += 1

    def certificate(self, content: bytes) -> bytes:
        return (text(self.kind) if self.version == 2 else b"") + block(content)

    def bytes(self) -> bytes:
        body = self.magic + self.version.to_bytes(4) + self.count.to_bytes(4) + self.entries
        return body + sha1(self.passphrase.encode("utf-16-be") + b"Mighty Aphrodite" + body)
