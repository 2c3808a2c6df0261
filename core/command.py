"""The one way to run another program.

Drivers of all packages call `run`; nothing else may start processes. It never uses a shell, kills
the whole process group on timeout or cancellation, and keeps secrets out of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from core.errors import PlatformError

log = logging.getLogger(__name__)

STDERR_TAIL_BYTES = 4096
CHUNK_BYTES = 1 << 16


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


def _given(content: bytes) -> BinaryIO:
    """Return a file in memory that holds what a program is to read."""
    file = os.fdopen(os.memfd_create("input"), "w+b")
    file.write(content)
    file.seek(0)
    return file


class _Program:
    """A running program and the pipes it writes to.

    It isn't started by the event loop: that copies the memory map of the agent (`fork`), for which an agent stands still for 10 ms
    and more. The standard library doesn't (`vfork`). Nor are the pipes read by transports: those of uvloop close a pipe twice, and
    the second time the number may be another thread's file.
    """

    def __init__(
        self, argv: Sequence[str], given: bytes | None, env: Mapping[str, str] | None
    ) -> None:
        with contextlib.ExitStack() as stack:
            stdin = subprocess.DEVNULL if given is None else stack.enter_context(_given(given))
            self._process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=env,
            )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._stdout, self._stderr = self._process.stdout, self._process.stderr

    async def output(self) -> tuple[bytes, bytes]:
        """Return all it wrote, once it has ended; when this is cancelled, call `end`."""
        stdout, stderr = await asyncio.gather(
            _all_of(self._stdout.fileno()), _all_of(self._stderr.fileno())
        )
        await self._ended()
        return stdout, stderr

    async def end(self) -> None:
        """Kill the process group, and wait for the program; not for what left the group, which may hold the pipes for long."""
        _kill_group(self._process.pid)
        await self._ended()

    def close(self) -> None:
        """Close the pipes."""
        self._stdout.close()
        self._stderr.close()

    @property
    def code_number(self) -> int:
        """With what it ended; minus a signal's number if it was killed."""
        return self._process.wait()

    async def _ended(self) -> None:
        descriptor = os.pidfd_open(self._process.pid)
        try:
            await _until_readable(descriptor, lambda: True)
        finally:
            os.close(descriptor)
        self._process.wait()


async def _all_of(descriptor: int) -> bytes:
    """Return what comes through a pipe until nobody holds its other end any more."""
    os.set_blocking(descriptor, False)
    chunks: list[bytes] = []

    def read_some() -> bool:
        try:
            chunks.append(os.read(descriptor, CHUNK_BYTES))
        except BlockingIOError:
            return False
        return not chunks[-1]

    await _until_readable(descriptor, read_some)
    return b"".join(chunks)


async def _until_readable(descriptor: int, enough: Callable[[], bool]) -> None:
    """Call `enough` each time when there is something to read, until it says so."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def look() -> None:
        if not done.is_set() and enough():
            loop.remove_reader(descriptor)
            done.set()

    loop.add_reader(descriptor, look)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)


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
        program = _Program(argv, input, env)
    except FileNotFoundError:
        raise CommandError(shown, 127, "no such program") from None
    except OSError as error:
        raise CommandError(shown, 126, error.strerror or "can't be run") from None
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await program.output()
    except TimeoutError:
        await program.end()
        raise CommandTimeoutError(f"{shown[0]} did not end within {timeout_s:g} s") from None
    except BaseException:
        await program.end()
        raise
    finally:
        program.close()
    log.debug("command ended", extra={"argv": shown, "seconds": round(loop.time() - began_s, 3)})
    if program.code_number != 0:
        tail = _without(stderr[-STDERR_TAIL_BYTES:].decode("utf-8", "replace"), secret_args)
        raise CommandError(shown, program.code_number, tail)
    return CommandResult(stdout, stderr)
