"""An agent's network part as a small process: reads one JSON command a line, answers one line each.

Started by `netfabric_hosts` inside a host's network and mount namespace, because drivers act where they run.
"""

import asyncio
import logging
import sys
from pathlib import Path

import msgspec
import uvloop

from netfabric.driver import NetworkReport
from netfabric.linux import LinuxNetwork
from netfabric.plan import NetworkView, desired_network


class Command(msgspec.Struct):
    """What the test asks for; `verb` is a name of `Worker`."""

    verb: str
    view: NetworkView = NetworkView()
    host_id: str = ""


class Answer(msgspec.Struct):
    """What came of it."""

    changes: int = 0
    problems: list[str] = []
    port_groups: list[int] = []


class Worker:
    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._network = LinuxNetwork(run_dir)

    async def obey(self, command: Command) -> Answer:
        match command.verb:
            case "apply":
                return _answer(
                    await self._network.apply(desired_network(command.view, command.host_id))
                )
            case "teardown":
                return _answer(await self._network.teardown())
            case "restart":
                self._network = LinuxNetwork(self._run_dir)
                return Answer()
            case "port_groups":
                return Answer(port_groups=list(await self._network.port_groups()))
        raise AssertionError(command.verb)


def _answer(report: NetworkReport) -> Answer:
    return Answer(report.changes, [f"{p.part} {p.vni}: {p.message}" for p in report.problems])


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    worker = Worker(Path(sys.argv[1]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        answer = await worker.obey(msgspec.json.decode(line, type=Command))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(main())
