"""Signed requests: what an access key signs, the header that carries the signature, and the check of it. Pure.

Agents check with it, the SDK signs with it, and docs/identity.md explains it to programs in other languages. The secret
itself never travels. HMAC-SHA256 (RFC 2104) over a text of lines:

    KVORUM-HMAC-SHA256
    <id of the key>
    <time: Unix seconds>
    <nonce: never the same twice>
    <method, such as GET>
    <path with query, as it is sent>
    <SHA-256 of the body, 64 hex digits>
    <name>:<value>      for each header of SIGNED_HEADERS that is sent, in their order

without a line feed at the end. Nothing in it can hold a line feed, so two different requests never have one text.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import InvalidError

SCHEME = "KVORUM-HMAC-SHA256"
SIGNED_HEADERS = (
    "callback-url",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
)
"""The headers by which the meaning of a request changes, in the order in which they are signed."""

WINDOW_S = 900
"""How far the time of a signature may be from the agent's, before or after."""

KEY_PREFIX, SECRET_PREFIX = "kvk_", "kvks_"
SECRET_BYTES = 32
HEADER_LENGTH_MAX = 400
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SHA256 = r"[0-9a-f]{64}"
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "key": re.compile(KEY_PREFIX + r"[0-9a-f]{32}"),
    "time": re.compile(r"[1-9][0-9]{0,11}"),
    "nonce": re.compile(r"[A-Za-z0-9_-]{16,64}"),
    "sha256": re.compile(SHA256),
    "signature": re.compile(SHA256),
}


@dataclass(frozen=True, slots=True)
class Signed:
    """What is signed. `target` is the path with the query, as sent; `headers` have small letters for names."""

    method: str
    target: str
    headers: Mapping[str, str]
    sha256: str = EMPTY_SHA256


@dataclass(frozen=True, slots=True)
class Signature:
    """What an Authorization header says, each part within its bounds; nothing of it is true yet."""

    key_id: str
    time_s: int
    nonce: str
    sha256: str
    mac: str


def new_secret() -> str:
    """Return the text of a new secret, which has 256 random bits. Its bytes as they stand are the key of the HMAC."""
    return SECRET_PREFIX + base64.urlsafe_b64encode(os.urandom(SECRET_BYTES)).decode().rstrip("=")


def is_signed_scheme(header: str) -> bool:
    """Tell whether an Authorization header means to be a signature, good or not."""
    return header[: len(SCHEME)].upper() == SCHEME and header[len(SCHEME) :][:1] in ("", " ")


def parse(header: str) -> Signature | None:
    """Return what an Authorization header says; None unless it has each part once, and nothing else."""
    if len(header) > HEADER_LENGTH_MAX or not header.isascii() or not is_signed_scheme(header):
        return None
    found: dict[str, str] = {}
    for part in header[len(SCHEME) :].split(","):
        name, _, value = part.strip(" ").partition("=")
        pattern = PATTERNS.get(name)
        if pattern is None or name in found or not pattern.fullmatch(value):
            return None
        found[name] = value
    if len(found) != len(PATTERNS):
        return None
    return Signature(
        key_id=found["key"],
        time_s=int(found["time"]),
        nonce=found["nonce"],
        sha256=found["sha256"],
        mac=found["signature"],
    )


def authorization(secret: str, key_id: str, signed: Signed, *, time_s: int, nonce: str) -> str:
    """Return the Authorization header that signs a request.

    Raises:
        InvalidError: a part is not of its form, so that no agent would take it.
    """
    parts = {"key": key_id, "time": str(time_s), "nonce": nonce, "sha256": signed.sha256}
    for name, value in parts.items():
        if not PATTERNS[name].fullmatch(value):
            raise InvalidError(f"a request can't be signed with this {name}: {value[:80]!r}")
    text = canonical(signed, key_id=key_id, time_s=time_s, nonce=nonce)
    if text is None:
        raise InvalidError("a request with a line feed in its path or a header can't be signed")
    parts["signature"] = _mac(secret.encode(), text)
    return f"{SCHEME} " + ", ".join(f"{name}={value}" for name, value in parts.items())


def is_signed(secret: bytes, signature: Signature, signed: Signed) -> bool:
    """Tell whether a signature is of this request, in a time that doesn't depend on where it differs.

    That the body is what `sha256` says, that the time is now and the nonce is new is the caller's to see.
    """
    text = canonical(
        signed, key_id=signature.key_id, time_s=signature.time_s, nonce=signature.nonce
    )
    same = hmac.compare_digest(_mac(secret, text or b""), signature.mac)
    return same and text is not None and signed.sha256 == signature.sha256


def canonical(signed: Signed, *, key_id: str, time_s: int, nonce: str) -> bytes | None:
    """Return the text that is signed; None for a request that can't be written so that it is no other's as well."""
    lines = [SCHEME, key_id, str(time_s), nonce, signed.method, signed.target, signed.sha256]
    lines += [f"{name}:{signed.headers[name]}" for name in SIGNED_HEADERS if name in signed.headers]
    if any("\n" in line for line in lines):
        return None
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _mac(secret: bytes, text: bytes) -> str:
    return hmac.new(secret, text, hashlib.sha256).hexdigest()
