"""The agent's process: `kvorum-agent`, or `python -m nodeagent.main`. Started by systemd, or by the lab.

Reads the one configuration file, sets up logging, and runs `nodeagent.lifecycle` on uvloop until told to stop. The
only module that knows the real clock, the real randomness and the environment of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from core.clock import SystemClock, system_random
from core.errors import FatalError, PlatformError, first_in
from core.logs import set_up_logging
from core.paths import Paths
from nodeagent.config import read_config
from nodeagent.lifecycle import Lifecycle
from nodeagent.member import Basics

log = logging.getLogger("kvorum-agent")

EXIT_REFUSED = 1


def main() -> None:
    """Run the agent; exit code 1 when it can't start or must not go on."""
    parser = argparse.ArgumentParser(
        prog="kvorum-agent", description="The Kvorum agent of this host."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("/etc/kvorum/agent.toml"),
        help="settings (default: %(default)s; may be absent)",
    )
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.config)
        set_up_logging(config.log_level)
        basics = Basics(config, Paths(), SystemClock(), system_random())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(basics))
    except PlatformError as error:
        log.critical("the agent stops: %s", error.message)
        sys.exit(EXIT_REFUSED)


async def _run(basics: Basics) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifecycle = Lifecycle(basics)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(lifecycle.run(), name="lifecycle")
            await stop.wait()
            log.info("the agent was told to stop; guests go on")
            await lifecycle.step_aside()
            running.cancel()
    except BaseExceptionGroup as errors:
        if (fatal := first_in(errors, FatalError)) is not None:
            raise fatal from errors
        raise


if __name__ == "__main__":
    main()
