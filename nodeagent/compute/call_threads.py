"""Threads for calls that may never return.

Used by the libvirt connection, and to look whether data storages answer (`nodeagent.services.storage_checks`). The
standard `ThreadPoolExecutor` joins its threads when the interpreter ends, so a single call into a hung libvirtd or
mount would keep the agent from exiting; these threads are daemons and are simply left behind.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CallThreads(Executor):
    """A fixed number of daemon threads that run calls in order of arrival."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call. It may be cancelled until a thread takes it."""
        future: Future[T] = Future()
        context = contextvars.copy_context()  # so that what is logged names the request

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(fn, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever holds the future
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let each thread end after its present call. Never waits, whatever `wait` says."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # results and connections must not live until the next call
