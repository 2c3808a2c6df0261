"""The one way to run another program.

Drivers of all packages call `run`; nothing else may start processes. It never uses a shell, kills
the whole process group on timeout or cancellation, and keeps secrets out of the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import PlatformError

log = logging.getLogger(__name__)

STDERR_TAIL_BYTES = 4096


class CommandError(PlatformError):
    """A program ended with a non-zero code (`code_number`), or could not be started (127)."""

    code = "command-failed"

    def __init__(self, argv: Sequence[str], code_number: int, stderr_tail: str) -> None:
        super().__init__(
            f"{argv[0]} failed with code {code_number}: {stderr_tail.strip() or 'no message'}"
        )
        self.argv = tuple(argv)
        self.code_number = code_number
        self.stderr_tail = stderr_tail


class CommandTimeoutError(PlatformError):
    """A program did not end in time and was killed with all it had started."""

    code = "command-timeout"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a program that ended with code 0 wrote."""

    stdout: bytes
    stderr: bytes


def _masked(argv: Sequence[str], secret_args: Sequence[str]) -> list[str]:
    return ["***" if arg in secret_args else arg for arg in argv]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    input: bytes | None = None,  # noqa: A002 - the standard library's name for it
    secret_args: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> CommandResult:
    """Run a program to its end and return its output.

    `argv` goes to the kernel as it is. `env` replaces the environment when given.

    Raises:
        CommandError: code other than 0, or the program does not exist.
        CommandTimeoutError: still running after `timeout_s`; its process group was killed.
    """
    shown = _masked(argv, secret_args)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
    except FileNotFoundError:
        raise CommandError(shown, 127, "no such program") from None
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(input)
    except TimeoutError:
        _kill_group(process.pid)
        await process.wait()
        raise CommandTimeoutError(f"{shown[0]} did not end within {timeout_s:g} s") from None
    except asyncio.CancelledError:
        _kill_group(process.pid)
        await process.wait()
        raise
    log.debug("command ended", extra={"argv": shown, "seconds": round(loop.time() - began_s, 3)})
    if process.returncode != 0:
        tail = stderr[-STDERR_TAIL_BYTES:].decode("utf-8", "replace")
        raise CommandError(shown, process.returncode or 0, tail)
    return CommandResult(stdout, stderr)
