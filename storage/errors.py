"""Turn what a file system says into the errors of the platform.

Every module of `storage` that touches files goes through `translate`, so that a full disk, a read-only
mount and a dead file server read the same wherever they are met.
"""

from __future__ import annotations

import errno

from core.errors import PermanentError, PlatformError, TemporaryError

NO_SPACE_RETRY_S = 30.0

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EAGAIN, errno.EHOSTDOWN}
    | {errno.ENOTCONN, errno.ECONNREFUSED, errno.EREMOTEIO, errno.EINTR, errno.ENOMEM, errno.EMFILE}
)


class NoSpaceError(TemporaryError):
    """The storage is full; it may pass when someone makes room."""

    code = "no-space"
    http_status = 507

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=NO_SPACE_RETRY_S)


def translate(error: OSError, what: str) -> PlatformError:
    """Return the platform's error for `error`, met while doing `what` (e.g. "write the image")."""
    reason = error.strerror or type(error).__name__
    where = f" {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return NoSpaceError(f"cannot {what}: no space left{where}; free some space and try again")
    if error.errno in _PASSING:
        return TemporaryError(f"cannot {what}: {reason}{where}; is the storage reachable?")
    return PermanentError(
        f"cannot {what}: {reason}{where}; check the storage's directory and its permissions"
    )
