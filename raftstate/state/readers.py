"""Threads for what would hold up the event loop: heavy queries, and checkpoints of SQLite's write-ahead log.

Owned by `raftstate.state.machine`. A reader has its own read-only connection; it sees the last entry applied when
its query began, and never stands in the way of the next one. A state in memory has one connection only: there,
queries run on the loop itself, so simulations have no threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from core.errors import InvalidError, UnavailableError
from raftstate.state.dump import read_only

log = logging.getLogger(__name__)

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]

THREADS = 2
# Virtual machine instructions between two looks at the clock: some milliseconds. Each look waits for the
# interpreter's lock, so more of them would slow a query down beside a busy loop.
STEPS_BETWEEN_LOOKS = 200_000
LOG_BYTES = 16 << 20  # of the write-ahead log, at which a checkpoint begins
LOG_BYTES_HIGH = 128 << 20  # at which the loop itself finishes one
PASSES = 3


class Readers:
    """A small pool of connections on one database file."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._busy: set[sqlite3.Connection] = set()
        self._generation = 0  # counts how often the file was replaced
        self._closed = False
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="state-reader")

    async def run(self, query: Query[T], over: Callable[[], bool]) -> T:
        """Run `query` on a reader thread; it is broken off when `over()` says so, or when the caller is cancelled.

        Raises:
            InvalidError: it was broken off.
            UnavailableError: the state is being closed.
        """
        given_up = threading.Event()
        if self._closed:
            raise UnavailableError("this agent is stopping")
        work = self._executor.submit(self._run, query, lambda: given_up.is_set() or over())
        try:
            return await asyncio.wrap_future(work)
        finally:
            given_up.set()

    def _run(self, query: Query[T], over: Callable[[], bool]) -> T:
        with self._lock:
            if self._closed:
                raise UnavailableError("this agent is stopping")
            generation = self._generation
            db = self._idle.pop() if self._idle else None
        db = db or read_only(self._database)
        with self._lock:
            self._busy.add(db)
        try:
            return run_until(db, query, lambda: self._closed or over())
        except InvalidError:
            if self._closed:
                raise UnavailableError("this agent is stopping") from None
            raise
        finally:
            with self._lock:
                self._busy.discard(db)
                keep = generation == self._generation and not self._closed
                if keep:
                    self._idle.append(db)
            if not keep:
                db.close()

    def replaced(self) -> None:
        """Use the new file from now on; queries under way finish on the old one."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run something else on one of the threads."""
        return self._executor.submit(work)

    def close(self) -> None:
        """Break off queries and end the threads."""
        with self._lock:
            self._closed = True
            for db in self._busy:
                db.interrupt()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self.replaced()


def run_until(db: sqlite3.Connection, query: Query[T], over: Callable[[], bool]) -> T:
    """Run a query on this thread.

    Raises:
        InvalidError: `over()` became true before it was done.
    """
    db.set_progress_handler(over, STEPS_BETWEEN_LOOKS)
    try:
        return query(db)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
            raise
        raise InvalidError(
            "the query took too long and was broken off: narrow it down", code="query-too-slow"
        ) from error
    finally:
        db.set_progress_handler(None, 0)


class Checkpoints:
    """Moves SQLite's write-ahead log into the database off the event loop, and on it only when that doesn't keep up.

    A background pass never holds up a writer, but while it runs the log grows. Only when the log has been moved
    whole, and no reader needs it, does SQLite begin it anew.
    """

    def __init__(self, database: Path, readers: Readers) -> None:
        self._database = database
        self._log = f"{database}-wal"
        self._readers = readers
        self._pass: Future[None] | None = None
        self._next_bytes = LOG_BYTES

    def after_entry(self, db: sqlite3.Connection) -> None:
        """Look at the log's size; called on the loop after each commit."""
        size = os.stat(self._log).st_size
        if size < LOG_BYTES:
            self._next_bytes = LOG_BYTES
        elif self._pass is None:
            if size >= self._next_bytes:
                self._next_bytes = (
                    size + LOG_BYTES
                )  # not again and again while a reader needs the log
                self._pass = self._readers.submit(self._run_passes)
        elif self._pass.done():
            self._pass = None
            if size > LOG_BYTES_HIGH:  # what came since the last pass is small
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _run_passes(self) -> None:
        try:
            db = sqlite3.connect(self._database, isolation_level=None)
            try:
                for _ in range(PASSES):
                    _, frames, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    if frames == moved:
                        break
            finally:
                db.close()
        except sqlite3.Error as error:  # the next commit will say it, if it is a fault of the disk
            log.warning("can't checkpoint the state", extra={"error": str(error)})

    def wait(self) -> None:
        """Return when no pass is under way."""
        if self._pass is not None:
            self._pass.result()
            self._pass = None
