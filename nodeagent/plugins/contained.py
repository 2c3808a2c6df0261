"""Calls into plug-ins that failed must end here: whatever foreign code raises becomes an error of ours.

Used wherever the agent calls a plug-in after it was loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from core.errors import FatalError, PermanentError, PlatformError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

MESSAGE_LENGTH_MAX = 300


def contained(what: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a plug-in's function returns. `what` names it to people.

    Raises:
        PlatformError: the plug-in raised it. PermanentError: it raised something else.
    """
    try:
        return call(*args, **kwargs)
    except FatalError as error:  # it is not for a plug-in to end the agent
        raise failure_of(what, error) from error
    except PlatformError:
        raise
    except (Exception, SystemExit) as error:
        log.exception("a plug-in failed", extra={"plugin": what})
        raise failure_of(what, error) from error


def failure_of(what: str, error: BaseException) -> PermanentError:
    """Return what is said of a plug-in that raised something of its own."""
    text = f"{what} failed with {type(error).__name__}: {error}"
    return PermanentError(" ".join(text.split())[:MESSAGE_LENGTH_MAX])
