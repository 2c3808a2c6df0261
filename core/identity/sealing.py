"""Sealing of the secrets that the replicated state holds.

Each sealed value has a data key of its own, which is sealed by the secrets key (32 bytes): made by `init`, handed to
each joiner over TLS and kept in a file (0600). The store sees only sealed bytes. AES-256-GCM with random 96-bit nonces
(NIST SP 800-38D); the name of the secret is authenticated, so that one sealed value can't stand in for another.

Format 2: `KVS` 0x02, the id of the secrets key (8 bytes), nonce and sealed data key, nonce and sealed secret. What was
sealed before has neither mark nor data key, and stays readable.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import FatalError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
ID_BYTES = 8
MARK = b"KVS\x02"
HEAD_BYTES = len(MARK) + ID_BYTES
WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES

Keys = bytes | tuple[bytes, ...]
"""One secrets key, or several while they are being exchanged: the first one seals, each one opens."""


def make_key() -> bytes:
    """Return a new random key."""
    return os.urandom(KEY_BYTES)


def key_id(key: bytes) -> str:
    """Return the public name of a secrets key, 16 hex digits; nothing of the key can be found out from it."""
    return hashlib.sha256(b"kvorum secrets key id" + key).digest()[:ID_BYTES].hex()


def seal(keys: Keys, name: str, secret: bytes) -> bytes:
    """Return a secret sealed with the (first) secrets key."""
    key = keys if isinstance(keys, bytes) else keys[0]
    head, data_key = MARK + bytes.fromhex(key_id(key)), make_key()
    wrapped = _encrypt(key, data_key, head + name.encode())
    return head + wrapped + _encrypt(data_key, secret, head + name.encode())


def unseal(keys: Keys, name: str, sealed: bytes) -> bytes:
    """Return the secret.

    Raises:
        FatalError: this host's secrets key is not the cluster's, or the value is damaged.
    """
    for key in (keys,) if isinstance(keys, bytes) else keys:
        for opened in (_open, _open_old):
            try:
                return opened(key, name, sealed)
            except (InvalidTag, ValueError):  # the latter: a key or value of impossible length
                continue
    raise FatalError(
        f"the secret {name!r} can't be opened with this host's secrets key: "
        "restore /var/lib/kvorum/identity/secrets.key or join the host again"
    )


def sealed_by(sealed: bytes) -> str:
    """Return the id of the secrets key that opens a sealed value; empty for the format before, which doesn't say."""
    return sealed[len(MARK) : HEAD_BYTES].hex() if sealed.startswith(MARK) else ""


def opening_key(keys: Keys, sealed: bytes) -> bytes:
    """Return the one of the keys that a sealed value names; the first if it names none of them."""
    several = (keys,) if isinstance(keys, bytes) else keys
    return next((key for key in several if key_id(key) == sealed_by(sealed)), several[0])


def _open(key: bytes, name: str, sealed: bytes) -> bytes:
    head, rest = sealed[:HEAD_BYTES], sealed[HEAD_BYTES:]
    if head != MARK + bytes.fromhex(key_id(key)):
        raise ValueError("sealed with another key, or in the old format")
    about = head + name.encode()
    data_key = _decrypt(key, rest[:WRAPPED_BYTES], about)
    return _decrypt(data_key, rest[WRAPPED_BYTES:], about)


def _open_old(key: bytes, name: str, sealed: bytes) -> bytes:
    return _decrypt(key, sealed, name.encode())


def _encrypt(key: bytes, content: bytes, about: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, about)


def _decrypt(key: bytes, content: bytes, about: bytes) -> bytes:
    return AESGCM(key).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], about)
