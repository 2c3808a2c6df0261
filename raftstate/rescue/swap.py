"""Puts a host's new state into the place of the old one: all of it or nothing, whatever breaks off in between.

Used by every command that begins a host's state anew, and at the agent's start, which goes on where a crash broke off.

1. Everything new is made complete in `rescue.new`, and forced to disk.
2. `rescue.json`, the list of renames, gets its name: from here on the new state counts.
3. The old files go to a directory of their own (`before-restore-20261125T173544Z`), the new ones take their places.
4. `rescue.json` is removed.

Each rename is done or still to be done, and looking tells which, so step 3 can be repeated. A simulation or a test puts
its own `os` in the place of this module's.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from core.errors import FatalError
from core.paths import write_file
from raftstate.consensus.wal import sync_directory

WORK = "rescue.new"
PLAN = "rescue.json"
NOTE = "README"
NOTE_TEXT = """\
What this host had before 'kvorum {verb}', {when}. Nothing uses it any more.
Keep it until you are sure that you don't need it, then remove this directory.
"""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Renames inside the state directory, in order. `keep` says where the old files go."""

    keep: str
    note: str
    moves: list[tuple[str, str]]


def compact_time(wall_ms: int) -> str:
    """Return a time (UTC) for a file's name, like `20261125T173544Z`."""
    return dt.datetime.fromtimestamp(wall_ms // 1000, dt.UTC).strftime("%Y%m%dT%H%M%SZ")


def work_directory(state: Path) -> Path:
    """Return an empty directory for what is to become the new state.

    Raises:
        FatalError: it can't be made.
    """
    try:
        _finish(state)
        work = state / WORK
        os.makedirs(work, mode=0o700)
    except OSError as error:
        raise FatalError(f"can't make {state / WORK}: {error.strerror}") from error
    return work


def swap(
    state: Path, *, verb: str, when: str, old: Iterable[str], new: Sequence[str]
) -> Path | None:
    """Keep the files `old` of the state directory aside, and put the files `new` of the work directory there.

    `when` is as of `compact_time`. Returns where the old ones are, None if there were none.

    Raises:
        FatalError: not finished; the message says whether anything has changed.
    """
    keep = base = f"before-{verb.rpartition(' ')[2]}-{when}"
    number = 1
    while os.path.lexists(state / keep):  # twice in a second
        number += 1
        keep = f"{base}-{number}"
    moves = [(name, f"{keep}/{name}") for name in old if os.path.lexists(state / name)]
    moves += [(f"{WORK}/{name}", name) for name in new]
    plan = Plan(keep=keep, note=NOTE_TEXT.format(verb=verb, when=when), moves=moves)
    try:
        sync_directory(state / WORK)
        write_file(state / PLAN, msgspec.json.encode(plan))
    except OSError as error:
        raise FatalError(
            f"can't write {state / PLAN} ({error.strerror}): nothing was changed"
        ) from error
    finish(state)
    return state / keep if len(moves) > len(new) else None


def finish(state: Path) -> None:
    """Go on with what a crash broke off, or clear up what never came to count.

    Raises:
        FatalError: it can't be done now; calling again goes on.
    """
    try:
        _finish(state)
    except OSError as error:
        raise FatalError(
            f"can't put the new state of {state} into its place ({error.strerror}): it counts already, and the next "
            "start of the agent goes on with it"
        ) from error


def _finish(state: Path) -> None:
    try:
        plan = msgspec.json.decode((state / PLAN).read_bytes(), type=Plan)
    except FileNotFoundError:
        (state / f".{PLAN}.new").unlink(missing_ok=True)  # of a list that never got its name
        shutil.rmtree(state / WORK, ignore_errors=True)
        return
    except msgspec.DecodeError as error:
        raise FatalError(f"{state / PLAN} is damaged ({error}): move it away") from error
    sync_directory(state)  # a killed process may have named the plan without the disk knowing
    if any(not source.startswith(WORK) for source, _ in plan.moves):
        os.makedirs(state / plan.keep, mode=0o700, exist_ok=True)
        write_file(state / plan.keep / NOTE, plan.note.encode())
        sync_directory(state)
    for source, target in plan.moves:
        if not os.path.lexists(state / source):
            continue  # done before
        if source.startswith(WORK) or not os.path.lexists(state / target):
            os.rename(state / source, state / target)
            sync_directory(state)
            sync_directory((state / target).parent)
    os.unlink(state / PLAN)
    sync_directory(state)
    shutil.rmtree(state / WORK, ignore_errors=True)
