"""Join tokens and access tokens: their text form, and the hash by which they are known.

Only hashes are stored (SHA-256 is enough: the secrets have 256 random bits). A join token carries what a new host
needs to reach the cluster and to be sure it is the right one: addresses, the authority's fingerprint and the secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import zlib

import msgspec

from core.errors import InvalidError

JOIN_PREFIX = "kvj_"
ACCESS_PREFIX = "kvt_"
SESSION_PREFIX = "kvs_"
LIMITED = "limited access token\n"
SECRET_BYTES = 32


class JoinTicket(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the text of a join token says. `addresses` are `ip:api port` of agents."""

    token_id: str
    secret: bytes
    ca_fingerprint: str
    cluster_name: str
    addresses: tuple[str, ...]

    def __repr__(self) -> str:
        return f"JoinTicket({self.token_id}, ***)"


def new_secret() -> bytes:
    """Return 256 random bits."""
    return os.urandom(SECRET_BYTES)


def secret_hash(secret: bytes | str) -> str:
    """Return the hex SHA-256 that is stored in place of a secret."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def is_secret(secret: bytes | str, stored_hash: str) -> bool:
    """Tell whether a secret belongs to a stored hash, in constant time."""
    return hmac.compare_digest(secret_hash(secret), stored_hash)


def format_join_token(ticket: JoinTicket) -> str:
    """Return the text that the operator carries to the new host; a checksum catches a cut copy."""
    payload = msgspec.msgpack.encode(ticket)
    checked = payload + zlib.crc32(payload).to_bytes(4, "big")
    return JOIN_PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def parse_join_token(text: str) -> JoinTicket:
    """Return what a join token says.

    Raises:
        InvalidError: it is not a whole join token.
    """
    text = text.strip()
    if not text.startswith(JOIN_PREFIX):
        raise InvalidError(
            f"this is not a join token: it should begin with {JOIN_PREFIX} "
            "(make one with 'kvorum token create' on a member)"
        )
    body = text.removeprefix(JOIN_PREFIX)
    try:
        checked = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        payload, checksum = checked[:-4], checked[-4:]
        if zlib.crc32(payload).to_bytes(4, "big") != checksum:
            raise ValueError("checksum")
        return msgspec.msgpack.decode(payload, type=JoinTicket)
    except (ValueError, msgspec.DecodeError):
        raise InvalidError(
            "the join token is damaged or cut off: copy it again, all of it"
        ) from None


def new_access_token() -> str:
    """Return a new bearer token; the caller stores `secret_hash` of it and shows it once."""
    return ACCESS_PREFIX + base64.urlsafe_b64encode(new_secret()).decode().rstrip("=")


def limited_hash(token: str) -> str:
    """Return what is stored of an access token with limits. An agent of a version that knows no limits doesn't find
    the token by it, and so refuses it instead of letting it do everything."""
    return secret_hash(LIMITED + token)


def new_session_token(session_id: str) -> tuple[str, str]:
    """Return a session's token, which names the session, and the hash of its secret part."""
    secret = base64.urlsafe_b64encode(new_secret()).decode().rstrip("=")
    return f"{SESSION_PREFIX}{session_id}.{secret}", secret_hash(secret)


def parse_session_token(token: str) -> tuple[str, str]:
    """Return session id and secret part, whatever they are worth."""
    id_, _, secret = token.removeprefix(SESSION_PREFIX).partition(".")
    return id_, secret
