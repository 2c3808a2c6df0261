"""Signatures of what the cluster sends to receivers outside: Ed25519 (RFC 8032), in the form of the Standard Webhooks.

The key signs `id.timestamp.body`. A receiver needs the public key only, so it keeps no secret, and one that is broken
into can't speak for the cluster. Used by `nodeagent.services.callbacks`.
"""

from __future__ import annotations

from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_PREFIX = "whpk_"
VERSION = "v1a"


def make_signing_key() -> tuple[bytes, str]:
    """Return a new private key, 32 bytes, and its public key in base64."""
    private = Ed25519PrivateKey.generate()
    return private.private_bytes_raw(), b64encode(private.public_key().public_bytes_raw()).decode()


def signed_headers(key: bytes, delivery_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that name a delivery and sign it."""
    signed = f"{delivery_id}.{timestamp_s}.".encode() + body
    signature = Ed25519PrivateKey.from_private_bytes(key).sign(signed)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"{VERSION},{b64encode(signature).decode()}",
    }
