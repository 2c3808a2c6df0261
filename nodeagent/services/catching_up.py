"""Waiting until this host's copy of the state has everything that was acknowledged before now.

An agent that starts anew has what its disk had applied, which may be older than what it had done by it: the guest of
a start that was just committed would look like one of an unknown generation, and be destroyed. So whoever acts on guests
waits for this once, before the first look. Later a host can't be behind its own acts: a commit returns when it is applied here.

Guests and tasks wait without end, as nothing could be recorded without a quorum. The network waits a little only: guests
that run need their DHCP and DNS back, quorum or not.
"""

from __future__ import annotations

import asyncio
import logging

from core.errors import UnavailableError
from raftstate.store import Store

log = logging.getLogger(__name__)

RETRY_S = 1.0


async def caught_up_within(store: Store, patience_s: float) -> None:
    """As `caught_up`, but return after so many seconds in any case."""
    try:
        async with asyncio.timeout(patience_s):
            await caught_up(store)
    except TimeoutError:
        log.warning("going on with a state that may be old", extra={"waited_s": patience_s})


async def caught_up(store: Store) -> None:
    """Return once the copy is that new."""
    said = False
    while True:
        try:
            await store.barrier()
            return
        except UnavailableError as error:
            if not said:
                log.warning("waiting for the state to catch up", extra={"error": error.message})
            said = True
        await asyncio.sleep(RETRY_S)
