"""Letting a long step stop when its task is asked to cancel.

Used by steps that wait for something slow and know that stopping in the middle leaves nothing behind, or how to stop
it in order. Steps that don't use it end what they began.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from core.errors import PlatformError
from core.workflow import CancelledByUserError

log = logging.getLogger(__name__)

LOOK_S = 1.0

T = TypeVar("T")


async def stoppable(
    work: Coroutine[object, object, T],
    asked: Callable[[], bool],
    *,
    stop: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Do `work`; once `asked`, cancel it, or call `stop` every second and let it end by itself.

    Raises:
        CancelledByUserError: it was stopped before its end.
    """
    told = False
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(_caught(work), name="stoppable-work")
        while True:
            done, _ = await asyncio.wait({worker}, timeout=LOOK_S)
            if done:
                break
            if not asked():
                continue
            told = True
            if stop is None:
                worker.cancel()
            else:
                await _stop(stop)
    if worker.cancelled():
        if told:
            raise CancelledByUserError("the task was cancelled")
        raise asyncio.CancelledError
    result, error = worker.result()
    if error is None:
        return result[0]
    if told:
        raise CancelledByUserError("the task was cancelled") from error
    raise error


async def _caught(
    work: Coroutine[object, object, T],
) -> tuple[tuple[T, ...], PlatformError | None]:
    """Return an expected error instead of raising it, which would wrap it in a group."""
    try:
        return (await work,), None
    except PlatformError as error:
        return (), error


async def _stop(stop: Callable[[], Awaitable[None]]) -> None:
    try:
        await stop()
    except PlatformError as error:
        log.info("work could not be asked to stop yet", extra={"error": error.message})
