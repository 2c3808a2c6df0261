"""Names that may become part of a path.

Every path of `storage` is made of a storage's directory and ids that went through here, so no request can
name a file outside.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from core.errors import InvalidError

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_id(text: str, what: str) -> str:
    """Return a canonical (lower case) UUID.

    Raises:
        InvalidError: anything else.
    """
    if not _UUID.fullmatch(text):
        raise InvalidError(f"{what} id {text[:80]!r} is not a UUID in lower case")
    return text


def is_id(text: str) -> bool:
    """Tell whether the text is a canonical UUID."""
    return _UUID.fullmatch(text) is not None


def check_sha256(text: str) -> str:
    """Return a SHA-256 in lower-case hex.

    Raises:
        InvalidError: anything else.
    """
    if not _SHA256.fullmatch(text):
        raise InvalidError(f"SHA-256 {text[:80]!r} must be 64 hex digits in lower case")
    return text


def is_sha256(text: str) -> bool:
    """Tell whether the text is a SHA-256 in lower-case hex."""
    return _SHA256.fullmatch(text) is not None


# A storage may be made below these, but not be one of them.
SYSTEM_DIRECTORIES = frozenset(
    {
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
    }
    | {"/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/var", "/var/lib"}
)
SYSTEM_TREES = (
    "/bin/",
    "/boot/",
    "/dev/",
    "/etc/",
    "/lib/",
    "/lib64/",
    "/proc/",
    "/sbin/",
    "/sys/",
    "/usr/",
)


def check_storage_path(path: str) -> Path:
    """Return a directory path that a storage may have.

    Raises:
        InvalidError: not absolute, not in its shortest form, with odd characters, or a directory of the system.
    """
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
        raise InvalidError(
            f"storage path {path[:200]!r} must be absolute and without '.', '..' or a slash at its end"
        )
    if not path.isprintable() or any(c in path for c in "\\\"'<>&,:") or len(path) > 1000:
        raise InvalidError(
            "storage path: use a plain path without quotes, commas, colons, backslashes or '<', '>', '&'"
        )
    if path in SYSTEM_DIRECTORIES or path.startswith(SYSTEM_TREES):
        raise InvalidError(
            f"storage path {path} belongs to the system: use a directory of its own, e.g. /srv/kvorum"
        )
    return Path(path)
