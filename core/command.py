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
STREAM_LIMIT_BYTES = 1 << 16


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


def _without(text: str, secret_args: Sequence[str]) -> str:
    """Return a program's message without the secrets it was given: many repeat their arguments when they fail."""
    for secret in sorted(filter(None, secret_args), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def _end(process: asyncio.subprocess.Process, transport: asyncio.SubprocessTransport) -> None:
    """Kill the process group. What left the group keeps the pipes open, so they are closed before waiting."""
    _kill_group(process.pid)
    transport.close()
    await process.wait()


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
        CommandError: code other than 0, or the program does not exist (127) or can't be run (126).
        CommandTimeoutError: still running after `timeout_s`; its process group was killed.
    """
    shown = _masked(argv, secret_args)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        transport, protocol = await loop.subprocess_exec(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(STREAM_LIMIT_BYTES, loop),
            *argv,
            stdin=asyncio.subprocess.PIPE if input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
    except FileNotFoundError:
        raise CommandError(shown, 127, "no such program") from None
    except OSError as error:
        raise CommandError(shown, 126, error.strerror or "can't be run") from None
    process = asyncio.subprocess.Process(transport, protocol, loop)
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(input)
    except TimeoutError:
        await _end(process, transport)
        raise CommandTimeoutError(f"{shown[0]} did not end within {timeout_s:g} s") from None
    except asyncio.CancelledError:
        await _end(process, transport)
        raise
    log.debug("command ended", extra={"argv": shown, "seconds": round(loop.time() - began_s, 3)})
    if process.returncode != 0:
        tail = _without(stderr[-STDERR_TAIL_BYTES:].decode("utf-8", "replace"), secret_args)
        raise CommandError(shown, process.returncode or 0, tail)
    return CommandResult(stdout, stderr)
