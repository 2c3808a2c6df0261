"""Every error a user or a controller can meet, as one small family.

Raised everywhere, turned into RFC 9457 problem documents by the API middleware and into one line
and an exit code by the CLI. It exists so that each refusal has a stable code and says what to do.
"""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class PlatformError(Exception):
    """Base of all expected errors: `code` is stable for programs, the message is for people."""

    code = "error"
    http_status = 500

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidError(PlatformError):
    """The request can never succeed as it stands."""

    code = "invalid"
    http_status = 400


class UnauthenticatedError(PlatformError):
    """No credentials, or wrong ones."""

    code = "unauthenticated"
    http_status = 401


class ForbiddenError(PlatformError):
    """Known, but not allowed."""

    code = "forbidden"
    http_status = 403


class NotFoundError(PlatformError):
    """The named thing does not exist."""

    code = "not-found"
    http_status = 404


class ConflictError(PlatformError):
    """The state forbids it now: a name taken, a revision gone stale, a resource in use."""

    code = "conflict"
    http_status = 409


class PreconditionError(PlatformError):
    """The caller wanted it done only to a state that is no more."""

    code = "changed-meanwhile"
    http_status = 412


class UnavailableError(PlatformError):
    """No quorum, no leader, or an unknown outcome: try again with the same request id."""

    code = "unavailable"
    http_status = 503


class FatalError(PlatformError):
    """This process must not go on, e.g. its state is damaged or its disk is full."""

    code = "fatal"


class SupersededError(FatalError):
    """The cluster began anew elsewhere, in a newer generation; what this host has of it must go."""

    code = "superseded"


class TemporaryError(PlatformError):
    """A driver failed in a way that may pass; `retry_after_s` is a hint for the controller."""

    code = "temporary"
    http_status = 503

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermanentError(PlatformError):
    """A driver failed in a way that retrying cannot mend."""

    code = "permanent"


def first_in(error: BaseException, type_: type[E]) -> E | None:
    """Return the first error of a type that an error is, or holds if it is a group; None when there is none."""
    if isinstance(error, type_):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = (first_in(inner, type_) for inner in error.exceptions)
        return next((inner for inner in found if inner is not None), None)
    return None
