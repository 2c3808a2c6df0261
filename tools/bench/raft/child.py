"""A process of the bench, seen from the bench: started, given orders, ended. Its log goes to a file for the case that it fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

from core.errors import UnavailableError
from tools.bench.raft.orders import Answer, Order, answer_in, to_line

ROOT = Path(__file__).resolve().parents[3]
END_TIMEOUT_S = 30.0
LOG_TAIL_BYTES = 2000
LINE_BYTES = 1 << 20

A = TypeVar("A", bound=Answer)


class Child:
    """A running process that takes orders, one at a time."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self._process, self._log = name, process, log

    async def tell(self, order: Order, wanted: type[A], *, timeout_s: float = 120.0) -> A:
        """Give an order and return the answer.

        Raises:
            UnavailableError: the process has failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(to_line(order))
        return await self.answer(wanted, timeout_s=timeout_s)

    async def answer(self, wanted: type[A], *, timeout_s: float) -> A:
        """Return the next answer. Raises UnavailableError."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise UnavailableError(
                f"{self.name} gave no answer in {timeout_s:g} s{self._tail()}"
            ) from None
        if not line:
            raise UnavailableError(f"{self.name} has ended{self._tail()}")
        answer = answer_in(line)
        assert isinstance(answer, wanted), answer
        return answer

    def _tail(self) -> str:
        text = self._log.read_text(errors="replace")[-LOG_TAIL_BYTES:].strip()
        return f":\n{text}" if text else ""


@contextlib.asynccontextmanager
async def child(name: str, *argv: str, log: Path) -> AsyncIterator[Child]:
    """Run a module of ours as a process: `child("a", "tools.bench.raft.host", ...)`."""
    async with process(name, sys.executable, "-m", *argv, log=log) as running:
        yield Child(name, running, log)


@contextlib.asynccontextmanager
async def process(name: str, *argv: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the length of the context; end of input asks it to end, a signal makes it."""
    with log.open("wb") as file:
        running = await asyncio.create_subprocess_exec(
            *argv,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if argv[0] == sys.executable else file,
            stderr=file,
            limit=LINE_BYTES,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        assert running.stdin is not None
        running.stdin.close()
        try:
            if argv[0] != sys.executable:
                running.terminate()
            async with asyncio.timeout(END_TIMEOUT_S):
                await running.wait()
        except (TimeoutError, ProcessLookupError):
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            await running.wait()
