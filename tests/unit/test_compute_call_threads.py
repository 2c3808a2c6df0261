"""A call that never returns must not keep the program from ending."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from nodeagent.compute.call_threads import CallThreads

HANGING_PROGRAM = """
import threading
from nodeagent.compute.call_threads import CallThreads
started = threading.Event()
def hang():
    started.set()
    threading.Event().wait()
threads = CallThreads(1, "t")
threads.submit(hang)
started.wait()
threads.shutdown()
"""


def test_results_and_errors_come_back() -> None:
    threads = CallThreads(2, "t")
    assert threads.submit(lambda number: number + 1, 1).result(timeout=5) == 2
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(timeout=5)
    threads.shutdown()


def test_threads_end_after_shutdown_and_finish_what_was_queued() -> None:
    threads = CallThreads(1, "ending")
    gate = threading.Event()
    blocked = threads.submit(gate.wait, 5)
    queued = threads.submit(lambda: "done")
    threads.shutdown()
    gate.set()
    assert blocked.result(timeout=5) and queued.result(timeout=5) == "done"
    for thread in threading.enumerate():
        if thread.name.startswith("ending"):
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_a_cancelled_call_that_waits_is_never_made() -> None:
    threads = CallThreads(1, "t")
    gate = threading.Event()
    threads.submit(gate.wait, 5)
    calls: list[int] = []
    waiting = threads.submit(calls.append, 1)
    assert waiting.cancel()
    gate.set()
    threads.submit(lambda: None).result(timeout=5)
    assert calls == []
    threads.shutdown()


def test_a_hanging_call_does_not_keep_the_program_alive() -> None:
    subprocess.run([sys.executable, "-c", HANGING_PROGRAM], check=True, timeout=10)
