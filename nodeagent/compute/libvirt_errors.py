"""Translate libvirt's errors into the platform's.

Used around every call into libvirt. Controllers retry a TemporaryError and show a PermanentError to people, so
what is not known to be final counts as temporary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import libvirt

from core.errors import ConflictError, NotFoundError, PermanentError, PlatformError, TemporaryError

T = TypeVar("T")
A = TypeVar("A")

MESSAGE_CHARS_MAX = 500

# Values are those of <libvirt/virterror.h>.
FINAL = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_MIGRATE_UNSAFE,
        libvirt.VIR_ERR_CPU_INCOMPATIBLE,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_OPERATION_DENIED,
    }
)
NOT_NOW = frozenset(
    {
        libvirt.VIR_ERR_OPERATION_INVALID,
        libvirt.VIR_ERR_DOM_EXIST,
        libvirt.VIR_ERR_OPERATION_ABORTED,
    }
)


def translated(what: str, error: libvirt.libvirtError) -> PlatformError:
    """Return the platform's error for one of libvirt's; its text is made one line and cut to a bearable length."""
    text = " ".join(str(error).split())[:MESSAGE_CHARS_MAX]
    message = f"libvirt: {what} failed: {text}"
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFoundError(message)
    if code in NOT_NOW:
        return ConflictError(message)
    if code in FINAL:
        return PermanentError(message)
    return TemporaryError(message)


def call_translated(what: str, work: Callable[[A], T], argument: A) -> T:
    """Call `work(argument)`; a libvirt error comes out as one of the platform's."""
    try:
        return work(argument)
    except libvirt.libvirtError as error:
        raise translated(what, error) from error
