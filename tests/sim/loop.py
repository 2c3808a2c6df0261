"""An event loop in virtual time: it jumps to the next timer instead of waiting, so a simulated hour takes seconds.

It knows which simulated process a callback belongs to (`CURRENT`, inherited by tasks and timers), so a process can be
frozen, have its clock jump, or be dead, without the code in it being prepared for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import selectors
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from typing import Any

PATIENT_CALLS = 1_000
SLOW_CALL_S = (0.001, 0.4)


class Process:
    """One simulated process from its start to its end. What it writes or sends once it is `dead` goes nowhere."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.offset_s = 0.0
        self.started = False
        self.dead = False
        self.frozen_until_s = 0.0
        self.parked: list[asyncio.Handle] = []

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let the caller act as this process."""
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
OUTSIDE = Context()  # for timers that belong to no process


class SimLoop(asyncio.SelectorEventLoop):
    """Deterministic as long as nothing in it waits for the real world.

    Written against the base loop of Python 3.11: it replaces `_run_once`, which saves a system call a turn.
    """

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now_s = 1_000.0
        self.rng = random.Random(0)
        self.frozen: set[Process] = set()
        self.busy_loops = 0
        self._asked = 0

    def time(self) -> float:
        """Return the time on the clock of whoever asks. Code that waits for it to pass in a loop is no trap, but counted."""
        self._asked += 1
        if self._asked > PATIENT_CALLS:
            self.busy_loops += self._asked == PATIENT_CALLS + 1
            self.now_s += 0.001
        process = CURRENT.get()
        return self.now_s if process is None else self.now_s + process.offset_s

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Arm a timer; `when` is on the clock of whoever arms it."""
        process = CURRENT.get()
        if process is not None:
            when -= process.offset_s
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def run_in_executor(
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run `func` on this thread, after a while: a thread would bring real time in."""
        del executor
        future = self.create_future()

        def call() -> None:
            process = CURRENT.get()
            if future.cancelled():
                return
            if process is not None and process.dead:
                future.cancel()
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - it goes to whoever awaits the call
                future.set_exception(error)

        self.call_later(self.rng.uniform(*SLOW_CALL_S), call)
        return future

    def freeze(self, process: Process, seconds: float) -> None:
        """Let nothing of `process` run for so long; its timers that are due by then fire at once, in order."""
        process.frozen_until_s = max(process.frozen_until_s, self.now_s + seconds)
        self.frozen.add(process)

    def thaw(self, process: Process) -> bool:
        """Let it go on, unless it has been frozen for longer meanwhile; tell whether it does."""
        if process not in self.frozen or process.frozen_until_s > self.now_s + 1e-6:
            return False
        self.wake(process)
        return True

    def wake(self, process: Process) -> None:
        """Let it go on now."""
        self.frozen.discard(process)
        self._ready.extend(process.parked)
        process.parked = []

    def jump(self, process: Process, seconds: float) -> None:
        """Put a process's clock forward: timers armed before the jump are that much nearer."""
        process.offset_s += seconds
        for timer in self._scheduled:
            if timer._context.get(CURRENT) is process:
                timer._when -= seconds
        heapq.heapify(self._scheduled)

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise RuntimeError("the simulation has come to a stop: no timer is armed")
            self.now_s = max(self.now_s, scheduled[0]._when)
        end_s = self.now_s + 1e-9
        while scheduled and scheduled[0]._when <= end_s:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self.frozen:
                process = handle._context.get(CURRENT)
                if process in self.frozen:
                    process.parked.append(handle)
                    continue
            self._asked = 0
            handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count: cancelled timers are dropped when they come up."""
