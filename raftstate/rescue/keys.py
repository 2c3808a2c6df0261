"""The cluster's secrets key inside a backup, locked with a passphrase: scrypt (RFC 7914), then AES-256-GCM.

The state holds sealed secrets only, and without this key a backup of it is of little use to anybody, its owner
included. So an operator may put it into the backup, and keeps the passphrase elsewhere.
"""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from core.errors import ForbiddenError, InvalidError
from core.identity.sealing import KEY_BYTES, NONCE_BYTES

PASSPHRASE_CHARACTERS_MIN = 10
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES = 1 << 15, 8, 1  # 32 MiB, about a tenth of a second
SALT_BYTES = 16


class LockedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A secrets key that a passphrase opens. The cost is kept with it, and bounded: a file must not cost a host dear."""

    cost: Annotated[int, msgspec.Meta(ge=1 << 14, le=1 << 20)]
    block: Annotated[int, msgspec.Meta(ge=8, le=16)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=4)]
    salt: Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=64)]
    locked: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=256)]


def check_passphrase(passphrase: str) -> None:
    """Raise InvalidError for one that is easily tried out."""
    if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        raise InvalidError(
            f"a passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters: whoever has the file can try "
            "as many as they like"
        )


def lock_key(key: bytes, passphrase: str, cluster: str) -> LockedKey:
    """Lock a secrets key; `cluster` is what names the cluster, so that the key can't be moved to another's backup."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    derived = _derive(passphrase, salt, SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES)
    locked = nonce + AESGCM(derived).encrypt(nonce, key, cluster.encode())
    return LockedKey(
        cost=SCRYPT_COST, block=SCRYPT_BLOCK, lanes=SCRYPT_LANES, salt=salt, locked=locked
    )


def unlock_key(locked: LockedKey, passphrase: str, cluster: str) -> bytes:
    """Return the secrets key.

    Raises:
        ForbiddenError: the passphrase is wrong.
    """
    try:
        derived = _derive(passphrase, locked.salt, locked.cost, locked.block, locked.lanes)
        nonce, sealed = locked.locked[:NONCE_BYTES], locked.locked[NONCE_BYTES:]
        return AESGCM(derived).decrypt(nonce, sealed, cluster.encode())
    except (InvalidTag, ValueError):
        raise ForbiddenError("the passphrase doesn't open the key in this backup") from None


def _derive(passphrase: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=block, p=lanes).derive(passphrase.encode())
