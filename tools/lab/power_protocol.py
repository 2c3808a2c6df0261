"""What is said on the power controller's sockets: one JSON line each way, then the line is closed.

`power` serves it; `PowerClient` is used by the lab, its tests, and by a lab driver for management
boards. Both sockets (operator's and management board's) speak it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import msgspec

from core.errors import PermanentError, UnavailableError

LINE_BYTES_MAX = 65536
Verb = Literal["on", "off", "reset", "shutdown", "status", "bmc", "after-reset"]
BmcMode = Literal["honest", "slow", "dead", "lying"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Do `verb` to `host`.

    `bmc` sets how that host's management board behaves from now on (`mode`, `delay_s` for slow),
    `after-reset` whether a reset leaves it off or boots it (`boot`).
    """

    verb: Verb
    host: str
    mode: BmcMode = "honest"
    delay_s: float = 0.0
    boot: bool = False


class WatchdogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a host's watchdog stands; `silent_s` counts from the last feed."""

    armed: bool = False
    timeout_s: float = 0.0
    silent_s: float = 0.0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A host's state after the verb; `why` tells what last switched it, `pid` its PID 1 outside."""

    power: Literal["on", "off"] = "off"
    pid: int = 0
    why: str = ""
    resets: int = 0
    watchdog: WatchdogStatus = WatchdogStatus()
    error: str = ""


class PowerClient:
    """Asks one power socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, request: Request, *, timeout_s: float = 20.0) -> Reply:
        """Send a request and wait for its effect.

        Raises:
            UnavailableError: nobody listens, or no answer in time.
            PermanentError: the controller refused.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(msgspec.json.encode(request) + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise UnavailableError(f"power controller at {self._path}: {reason}") from error
        if not line:
            raise UnavailableError(f"power controller at {self._path} hung up")
        reply = msgspec.json.decode(line, type=Reply)
        if reply.error:
            raise PermanentError(reply.error)
        return reply
