"""Copies of the whole state: taken while commits go on, checked, and put in the place of the present one.

Used by `raftstate.state.machine` for the engine's snapshots. A dump is one SQLite file without a write-ahead log.
A database is replaced in an order that a crash at any moment leaves either whole:

1. the new one is made complete beside it, `state.db.staged-N`, and forced to disk;
2. renamed to `state.db.next`: from here on it counts, and `finish_swap` goes on at the next start;
3. the old one's side files are removed, so that its log is never replayed into the new one;
4. renamed to `state.db`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from core.errors import FatalError
from raftstate.state.schema import LAYOUT, Table, bring_up_to_date

NEXT = ".next"
STAGED = ".staged-"
SIDE_FILES = ("-wal", "-shm", "-journal")
ROLLBACK_MODE = (
    b"\x01\x01"  # SQLite file format, section 1.3.3: the read and write version are at offset 18
)


class Frozen:
    """The state as it was when `Machine.freeze` was called, whatever is applied since. Keeps disk space until closed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        row = db.execute("SELECT applied, digest FROM progress").fetchone()
        self.applied: int = row[0]
        self.digest: bytes = row[1]
        pages, page_bytes = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        self.size_bytes: int = pages * page_bytes

    def write(self, path: Path) -> None:
        """Write the state to a new file and force it to disk. Blocks; for a thread.

        Raises:
            OSError: it can't be written; what was written is removed.
        """
        path.unlink(missing_ok=True)
        try:
            copy = sqlite3.connect(path, isolation_level=None)
            try:
                copy.execute("PRAGMA journal_mode = OFF")  # nobody reads it before it is complete
                copy.execute("PRAGMA synchronous = OFF")
                self._db.backup(copy)
            finally:
                copy.close()
            with path.open("r+b") as file:
                file.seek(18)
                file.write(ROLLBACK_MODE)
                file.flush()
                os.fsync(file.fileno())
        except sqlite3.Error as error:
            path.unlink(missing_ok=True)
            raise OSError(errno.EIO, f"can't copy the state: {error}", str(path)) from error
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Let go of it. Not while `write` runs."""
        self._db.close()


def read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a database that this connection can't change; any thread may use it, one at a time."""
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(
        f"file:{quote(str(path))}?{options}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )


def check_dump(dump: Path) -> None:
    """Read a dump through.

    Raises:
        FatalError: it isn't a whole, sound database of ours.
    """
    try:
        db = read_only(dump, immutable=True)
        try:
            if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise FatalError("the snapshot received is damaged")
            layout = db.execute("PRAGMA user_version").fetchone()[0]
            if layout != LAYOUT:
                raise FatalError(
                    f"the snapshot has layout {layout}, this version reads {LAYOUT}: upgrade this host"
                )
            for query in (
                "SELECT applied, digest FROM progress",
                "SELECT kind, id, name, revision, claims, body FROM resource",
                "SELECT claim, holder FROM claim",
                "SELECT id, stamp_ms, outcome FROM request",
                "SELECT kind, shape FROM kind",
            ):
                db.execute(f"{query} LIMIT 1")
        finally:
            db.close()
    except sqlite3.Error as error:
        raise FatalError(f"the snapshot can't be loaded: {error}") from error


def stage_file(
    dump: Path, database: Path, number: int, tables: Mapping[str, Table]
) -> Callable[[], None]:
    """Check a dump and make a copy of it that can become the database; the function returned makes it so.

    The database must be closed by then; after it, open it again.

    Raises:
        FatalError: a damaged dump, or no place for the copy; nothing has changed.
    """
    check_dump(dump)
    staged = Path(f"{database}{STAGED}{number}")
    try:
        shutil.copyfile(dump, staged)
        db = sqlite3.connect(staged, isolation_level=None)
        try:
            bring_up_to_date(db, tables)
        finally:
            db.close()
        sync_file(staged)
    except (OSError, sqlite3.Error) as error:
        staged.unlink(missing_ok=True)
        raise FatalError(f"the snapshot can't be copied: {error}") from error

    def swap() -> None:
        staged.rename(f"{database}{NEXT}")
        finish_swap(database)

    return swap


def finish_swap(database: Path) -> None:
    """Put the next database in place, if there is one: the last steps of a swap, also of one that a crash broke off."""
    following = Path(f"{database}{NEXT}")
    if following.exists():
        sync_directory(
            database.parent
        )  # a killed process may have named it without the disk knowing
        for side in SIDE_FILES:
            Path(f"{database}{side}").unlink(missing_ok=True)
        sync_directory(
            database.parent
        )  # a log of the old one must not come back after the new one is in place
        following.rename(database)
        sync_directory(database.parent)


def remove_staged(database: Path) -> None:
    """Remove what stagings that never came to a swap have left."""
    for path in database.parent.glob(f"{database.name}{STAGED}*"):
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Force a file's content to disk."""
    _sync(path, os.O_RDWR)


def sync_directory(path: Path) -> None:
    """Force a directory's names to disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
