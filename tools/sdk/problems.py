"""Answers that are errors, turned into the errors of `core.errors`.

Called by the transport for every answer of 400 and above; the agent sends RFC 9457 problem documents,
but a proxy between may send anything.
"""

from __future__ import annotations

import msgspec

from core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    PlatformError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
NOT_A_MEMBER = "not-a-member"
"""The code of a host that belongs to no cluster yet: waiting will not change that."""

_BY_STATUS: dict[int, type[PlatformError]] = {
    400: InvalidError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionError,
    422: InvalidError,
    **dict.fromkeys(RETRIED_STATUSES, UnavailableError),
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a problem document that we use."""

    detail: str = ""
    title: str = ""
    code: str = ""
    request_id: str = ""


class ServerError(PlatformError):
    """The agent failed in a way it did not foresee."""

    code = "internal"


def error_of(status: int, body: bytes) -> PlatformError:
    """Return the error that an answer means; its message is the problem's detail in one line."""
    return error_from(status, _decode(body))


def error_from(status: int, problem: Problem) -> PlatformError:
    """Return the error that a problem means."""
    message = " ".join((problem.detail or problem.title).split()) or f"the agent answered {status}"
    kind = _BY_STATUS.get(status, InvalidError if status < 500 else ServerError)
    if kind is ServerError and problem.request_id:
        message += f" (request {problem.request_id}; see journalctl -u kvorum-agent)"
    return kind(message, code=problem.code or None)


def _decode(body: bytes) -> Problem:
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return Problem()
