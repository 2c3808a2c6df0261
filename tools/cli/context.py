"""What every command gets beside its arguments: the client, and where to read and write.

Made by `main`; commands use nothing else of the outside, so tests run them against any streams.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tools.cli.parser import UsageError

if TYPE_CHECKING:
    from tools.sdk.client import Client
    from tools.sdk.kvorum import AsyncKvorum


@dataclass(frozen=True, slots=True)
class Context:
    """One run of the command. Results go to `out`, everything else to `err`."""

    client: Client
    out: TextIO
    err: TextIO
    stdin: TextIO
    output: str = "table"
    quiet: bool = False
    session_file: Path | None = None  # where a log-in is kept; None on a host's own socket

    @property
    def kvorum(self) -> AsyncKvorum:
        """The typed client, on the same connections."""
        from tools.sdk.kvorum import AsyncKvorum

        return AsyncKvorum(self.client)

    @property
    def interactive(self) -> bool:
        """Whether a person can answer questions."""
        return self.stdin.isatty()

    def write(self, text: str) -> None:
        """Print a line of the result."""
        self.out.write(text + "\n")

    def say(self, text: str) -> None:
        """Tell the person something that is not the result."""
        self.err.write(text + "\n")
        self.err.flush()

    async def ask(self, question: str) -> str:
        """Return the answer of a person to a question; empty at end of input."""
        self.err.write(question)
        self.err.flush()
        await self._something_typed()
        return self.stdin.readline().strip()

    async def ask_secret(self, question: str) -> str:
        """Return the answer of a person on a terminal, which is not shown while it is typed."""
        import termios

        descriptor = self.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
        try:
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, silent)
            return await self.ask(question)
        finally:
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
            self.say("")

    async def _something_typed(self) -> None:
        """Wait until a terminal has a line; unlike a blocking read, this hears an interrupt."""
        try:
            descriptor = self.stdin.fileno()
        except OSError:  # a stream of a test
            return
        loop = asyncio.get_running_loop()
        typed = asyncio.Event()
        loop.add_reader(descriptor, typed.set)
        try:
            await typed.wait()
        finally:
            loop.remove_reader(descriptor)

    async def confirm(self, consequences: str, *, yes: bool) -> None:
        """Ask before something that cannot be undone; without a terminal the command is the consent.

        Raises:
            UsageError: the answer was not yes.
        """
        if yes or not self.interactive:
            return
        self.say(consequences)
        if (await self.ask("Go on? [y/N] ")).lower() not in {"y", "yes"}:
            raise UsageError("nothing was changed")
