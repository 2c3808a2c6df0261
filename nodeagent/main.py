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
from core.errors import FatalError, PlatformError, SupersededError, first_in
from core.identity.host_identity import finish_exchange
from core.logs import set_up_logging
from core.paths import Paths
from nodeagent.config import read_config
from nodeagent.lifecycle import Lifecycle
from nodeagent.member import Basics
from nodeagent.workflows.resource_types import load_resource_types
from raftstate.rescue.lock import only_process
from raftstate.rescue.rejoin import follow_anew
from raftstate.rescue.swap import compact_time, finish

log = logging.getLogger("kvorum-agent")

EXIT_REFUSED = 1
RUNS_ALREADY = "another agent, or a kvorum recover or state command, works on /var/lib/kvorum: wait for its end"


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
        refused = load_resource_types()
        basics = Basics(config, Paths(), SystemClock(), system_random(), refused)
        basics.paths.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        with only_process(basics.paths.lock, RUNS_ALREADY):
            serve(basics)
    except PlatformError as error:
        log.critical("the agent stops: %s", error.message)
        sys.exit(EXIT_REFUSED)


def serve(basics: Basics) -> None:
    """Run the agent until told to stop; a replica of an older generation drops its copy and begins again.

    Raises:
        FatalError: it must not go on.
    """
    finish(basics.paths.state)
    finish_exchange(basics.paths)
    while True:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(basics))
        except SupersededError as error:
            log.warning("this host follows the cluster anew", extra={"reason": error.message})
            follow_anew(basics.paths, when=compact_time(basics.clock.wall_ms()))
        else:
            return


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
