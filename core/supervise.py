"""Keeps one service's failure from ending the others (ARC-5).

The composition root runs every service through `keep_running`. Only a `FatalError` ends the process: then going on
would be worse than being restarted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.errors import FatalError, first_in

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S, CALM_S = 0.5, 30.0, 60.0


async def keep_running(
    name: str,
    run: Callable[[], Awaitable[None]],
    *,
    on_fault: Callable[[str, Exception], None] = lambda _name, _error: None,
) -> None:
    """Run a service until cancelled; start it again when it fails, after 0.5 s, 1 s, 2 s … 30 s.

    `on_fault` hears of each failure.

    Raises:
        FatalError: the service says that the process must not go on.
    """
    loop = asyncio.get_running_loop()
    pause_s = FIRST_PAUSE_S
    while True:
        began_s = loop.time()
        try:
            await run()
        except FatalError:
            raise
        except Exception as error:
            if (fatal := first_in(error, FatalError)) is not None:
                raise fatal from error
            log.exception("a service failed and is started again", extra={"service": name})
            on_fault(name, error)
        else:
            log.error("a service ended and is started again", extra={"service": name})
        if loop.time() - began_s > CALM_S:
            pause_s = FIRST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
