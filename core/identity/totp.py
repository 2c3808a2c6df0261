"""Time codes (RFC 6238) and the recovery codes that stand in for them. Pure but for the making of secrets.

Six digits, SHA-1, 30 seconds: what every authenticator app understands. A code is good in its own time step and the ones
beside it, and once only: the caller stores the step that was accepted, guarded by a transaction.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
from urllib.parse import quote

import segno
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

SECRET_BYTES = 20
STEP_S = 30
DIGITS = 6
STEPS_AROUND = 1

RECOVERY_CODES = 10
RECOVERY_BYTES = 10
RECOVERY_DOMAIN = b"kvorum recovery code\n"


def new_totp_secret() -> bytes:
    """Return 160 random bits (RFC 4226 section 4, R6)."""
    return os.urandom(SECRET_BYTES)


def code_at(secret: bytes, step: int) -> str:
    """Return the code of a time step."""
    return HOTP(secret, DIGITS, SHA1()).generate(step).decode()  # SHA-1: RFC 6238's default


def accepted_step(secret: bytes, code: str, *, now_ms: int, last_step: int) -> int | None:
    """Return the time step that a code is of, or None if it is of none that may be used now.

    Takes as long whatever the code. Steps up to `last_step` were used, or stand before one that was.
    """
    now_step = now_ms // 1000 // STEP_S
    found: int | None = None
    for step in range(now_step - STEPS_AROUND, now_step + STEPS_AROUND + 1):
        same = hmac.compare_digest(code_at(secret, max(0, step)).encode(), code.encode())
        if same and step > last_step and found is None:
            found = step
    return found


def totp_uri(secret: bytes, *, account: str, cluster: str) -> str:
    """Return the `otpauth:` address that an authenticator app takes, often as a QR code."""
    text = base64.b32encode(secret).decode().rstrip("=")
    label = quote(f"Kvorum {cluster}", safe="") + ":" + quote(account, safe="")
    issuer = quote(f"Kvorum {cluster}", safe="")
    return f"otpauth://totp/{label}?secret={text}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"


def qr_svg(text: str) -> str:
    """Return a QR code as an SVG document."""
    out = io.BytesIO()
    segno.make(text, error="m").save(out, kind="svg", scale=4, xmldecl=False)
    return out.getvalue().decode()


def qr_text(text: str) -> str:
    """Return a QR code for a terminal with a dark or light background."""
    out = io.StringIO()
    segno.make(text, error="l").terminal(out, compact=True)
    return out.getvalue()


def new_recovery_codes() -> tuple[str, ...]:
    """Return ten codes of 80 random bits each, such as `abcd-efgh-ijkl-mnop`."""
    texts = (
        base64.b32encode(os.urandom(RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)
    )
    return tuple("-".join(text[i : i + 4] for i in range(0, 16, 4)) for text in texts)


def recovery_hash(code: str) -> str:
    """Return what is stored of a recovery code, however it was typed. 80 random bits need no slow hash."""
    plain = "".join(sign for sign in code.lower() if sign.isalnum())
    return hashlib.sha256(RECOVERY_DOMAIN + plain.encode()).hexdigest()


def without_code(stored: tuple[str, ...], code: str) -> tuple[str, ...] | None:
    """Return the recovery codes that are left when this one is used, None if it is none of them."""
    wanted = recovery_hash(code)
    matches = [hmac.compare_digest(wanted, one) for one in stored]
    if not any(matches):
        return None
    return tuple(one for one, same in zip(stored, matches, strict=True) if not same)
