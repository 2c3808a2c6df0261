"""Looking at the lab from outside the product: where does a guest's QEMU run, what did the guest write.

Nothing here asks the API. Used by the demo and the tests of the main job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from core.command import CommandError
from core.errors import UnavailableError
from tools.guests.records import Record
from tools.lab import processes
from tools.lab.diskreader import newest
from tools.lab.lab import Lab

EVERY_S = 0.2


def hosts_running(lab: Lab, vm_id: str) -> list[str]:
    """Return the hosts on which a QEMU process with this VM's id runs."""
    return [
        host
        for host in lab.hosts
        if any(vm_id in processes.command_line(qemu.pid) for qemu in lab.qemus(host))
    ]


async def until(
    what: str,
    check: Callable[[], Awaitable[object]],
    *,
    deadline_s: float,
    every_s: float = EVERY_S,
) -> float:
    """Ask again and again until the answer is true; return the seconds it took.

    Raises:
        UnavailableError: not within the deadline; names what was waited for.
    """
    began_s = time.monotonic()
    while not await check():
        if time.monotonic() - began_s > deadline_s:
            raise UnavailableError(f"{what}: not seen within {deadline_s:g} s")
        await asyncio.sleep(every_s)
    return time.monotonic() - began_s


async def last_write(disk: Path) -> Record | None:
    """Return the newest record on a tiny guest's disk; None when there is none, or it can't be read right now."""
    try:
        return await newest(disk)
    except CommandError:
        return None
