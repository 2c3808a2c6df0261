"""Run by systemd (`kvorum-host-shutdown.service`) when it stops that unit: has the agent end the guests if the host goes down.

Whether it does, and how, is what systemd is about to do, by its list of jobs: stopping or restarting this unit, or the agent,
is no shutdown. It always succeeds: a host that goes down is held up by nothing but the time that its guests need.
"""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from core.command import run
from core.errors import PlatformError
from core.logs import set_up_logging
from core.paths import Paths
from ha.shutdown import Going

log = logging.getLogger("kvorum-shutdown-hook")

REBOOTS = frozenset({"reboot.target", "kexec.target", "soft-reboot.target"})
POWERS_OFF = frozenset({"poweroff.target", "halt.target"})
TIMEOUT_S = 840.0
LIST_TIMEOUT_S = 10.0


def going_by(jobs: str) -> Going | None:
    """Return how the host goes down by `systemctl list-jobs --no-legend`; None when it doesn't."""
    started = {words[1] for line in jobs.splitlines() if "start" in (words := line.split())[2:3]}
    if started & REBOOTS:
        return Going.REBOOT
    return Going.POWER_OFF if started & POWERS_OFF else None


async def tell_agent(socket: str, going: Going) -> str:
    """Have the agent of this host end its guests; return what it says.

    Raises:
        OSError, TimeoutError, aiohttp.ClientError: it doesn't answer.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.UnixConnector(path=socket)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.post("http://local/v1/local/shutdown", json={"going": str(going)}) as answer,
    ):
        return await answer.text()


async def _work() -> None:
    jobs = await run(["systemctl", "list-jobs", "--no-legend"], timeout_s=LIST_TIMEOUT_S)
    going = going_by(jobs.stdout.decode(errors="replace"))
    if going is None:
        log.info("the host does not go down: guests go on")
        return
    log.info("what became of the guests", extra={"answer": await tell_agent(_socket(), going)})


def _socket() -> str:
    return str(Paths().api_socket)


def main() -> None:
    """Do it; whatever fails, the host goes down."""
    set_up_logging("info")
    try:
        asyncio.run(_work())
    except (PlatformError, OSError, TimeoutError, aiohttp.ClientError) as error:
        log.warning("the guests are left to the shutdown", extra={"error": str(error)})


if __name__ == "__main__":
    main()
