"""The power controller: a process outside the hosts that switches them and serves their watchdogs.

Started by `Lab.up` as `python -m tools.lab.power LAB HOST…`, one per lab. It stands for the mains,
the management boards and the hardware watchdogs. It dies with a signal only; the hosts go with it
when it is asked to end (SIGTERM), and `cleanup` kills them when it was killed itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable
from functools import partial
from pathlib import Path

import msgspec

from core.errors import PlatformError
from tools.lab.chassis import Chassis, Watchdog
from tools.lab.layout import Layout
from tools.lab.power_protocol import LINE_BYTES_MAX, BmcMode, Reply, Request

log = logging.getLogger("power")


class WatchdogLine(asyncio.Protocol):
    """One connection of a guard. Lines are obeyed in the reader's callback, before any timer runs,
    so that a controller that was slow to be scheduled does not reset a host that had fed in time."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; the last, unfinished line is kept."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self._watchdog.take(line.decode("ascii", "replace"))


class Controller:
    """All hosts of a lab, and the manners of their management boards."""

    def __init__(self, layout: Layout, hosts: list[str], group: asyncio.TaskGroup) -> None:
        self.layout = layout
        self.chassis = {host: Chassis(layout, host, group) for host in hosts}
        self._manners: dict[str, tuple[BmcMode, float]] = {}

    async def obey(self, request: Request) -> Reply:
        """Do what the lab's operator asks, and tell the truth."""
        chassis = self.chassis.get(request.host)
        if chassis is None:
            return Reply(error=f"no host {request.host!r} in lab {self.layout.lab}")
        match request.verb:
            case "on":
                await chassis.on("switched on")
            case "off":
                await chassis.off("switched off")
            case "reset":
                await chassis.reset("reset")
            case "shutdown":
                await chassis.shutdown()
            case "bmc":
                self._manners[request.host] = (request.mode, request.delay_s)
            case "after-reset":
                chassis.boot_after_reset = request.boot
            case "status":
                pass
        return chassis.status()

    async def obey_as_bmc(self, request: Request) -> Reply | None:
        """Answer as the host's management board does; None: never answer."""
        mode, delay_s = self._manners.get(request.host, ("honest", 0.0))
        if request.verb not in ("on", "off", "reset", "status"):
            return Reply(error=f"a management board knows no {request.verb}")
        match mode:
            case "dead":
                return None
            case "lying":
                return Reply(power="on" if request.verb in ("on", "reset") else "off", why="a lie")
            case "slow":
                await asyncio.sleep(delay_s)
            case "honest":
                pass
        return await self.obey(request)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, as_bmc: bool
    ) -> None:
        try:
            request = msgspec.json.decode(await reader.readline(), type=Request)
            reply = await (self.obey_as_bmc(request) if as_bmc else self.obey(request))
        except (msgspec.MsgspecError, ValueError) as error:
            reply = Reply(error=f"bad request: {error}")
        except PlatformError as error:
            reply = Reply(error=error.message)
        if reply is None:
            await reader.read()  # until the asker gives up
        else:
            writer.write(msgspec.json.encode(reply) + b"\n")
        writer.close()

    async def serve(self, stack: contextlib.AsyncExitStack) -> None:
        """Open all sockets; the operator's last, since it tells that the others are there."""
        loop = asyncio.get_running_loop()

        def on_bmc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
            return self._converse(reader, writer, as_bmc=True)

        def on_operator(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> Awaitable[None]:
            return self._converse(reader, writer, as_bmc=False)

        for host, chassis in self.chassis.items():
            path = self.layout.watchdog_socket(host)
            path.parent.mkdir(parents=True, exist_ok=True)
            await stack.enter_async_context(
                await loop.create_unix_server(partial(WatchdogLine, chassis.watchdog), path)
            )
        for path, callback in (
            (self.layout.bmc_socket, on_bmc),
            (self.layout.power_socket, on_operator),
        ):
            server = await asyncio.start_unix_server(callback, path, limit=LINE_BYTES_MAX)
            await stack.enter_async_context(server)


async def _run(layout: Layout, hosts: list[str]) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        controller = Controller(layout, hosts, group)
        await controller.serve(stack)
        await end.wait()
        for chassis in controller.chassis.values():
            await chassis.off("the lab ends")


def _write_pid(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{os.getpid()}\n", encoding="ascii")


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.power")
    parser.add_argument("lab")
    parser.add_argument("hosts", nargs="+")
    args = parser.parse_args()
    layout = Layout(args.lab)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    _write_pid(layout.power_pid)
    asyncio.run(_run(layout, args.hosts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
