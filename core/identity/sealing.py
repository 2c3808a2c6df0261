"""Sealing of the secrets that the replicated state holds.

The secrets key (32 bytes) is made by `init`, handed to each joiner over TLS and kept in a file (0600); the store
sees only sealed bytes. AES-256-GCM with a random 96-bit nonce in front (NIST SP 800-38D); the name of the secret is
authenticated, so that one sealed value can't stand in for another.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import FatalError

KEY_BYTES = 32
NONCE_BYTES = 12


def make_key() -> bytes:
    """Return a new random key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, name: str, secret: bytes) -> bytes:
    """Return nonce and ciphertext of a secret."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, name.encode())


def unseal(key: bytes, name: str, sealed: bytes) -> bytes:
    """Return the secret.

    Raises:
        FatalError: this host's secrets key is not the cluster's, or the value is damaged.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError):  # the latter: a key or value of impossible length
        raise FatalError(
            f"the secret {name!r} can't be opened with this host's secrets key: "
            "restore /var/lib/kvorum/identity/secrets.key or join the host again"
        ) from None
