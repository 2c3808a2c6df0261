"""Remove every trace of a lab, in whatever state it was left.

Called by `Lab.up` (on leftovers), `Lab.down` and the command. It asks no one: it finds processes by
the mark in their environment, so it works after any part was killed. It may be repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from core.command import run
from tools.lab import processes
from tools.lab.layout import RUN_ROOT, STATE_ROOT, Layout
from tools.lab.provision import mount_points

DEADLINE_S = 20.0
COMMAND_TIMEOUT_S = 20.0
LOCK = Path("/run/lock/kvorum-lab.lock")


def known_labs() -> tuple[str, ...]:
    """Return the names of all labs that left files behind or are running."""
    names: set[str] = set()
    for root in (STATE_ROOT, RUN_ROOT):
        with contextlib.suppress(FileNotFoundError):  # whoever removes the last lab removes it too
            names.update(path.name for path in root.iterdir())
    return tuple(sorted(names))


@contextlib.contextmanager
def _machine_lock() -> Iterator[None]:
    """Let one lab at a time make or remove what all labs on the machine share."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_directories(layout: Layout) -> None:
    """Make the lab's own directories and the mount points that hosts need on the machine."""
    with _machine_lock():
        for path in (layout.shared, layout.run, *mount_points()):
            path.mkdir(parents=True, exist_ok=True)


def _remove_directories(layout: Layout) -> None:
    with _machine_lock():
        for path in (layout.run, layout.state):
            shutil.rmtree(path, ignore_errors=True)
        if known_labs():
            return  # removing a mount point would unmount it in the hosts of other labs
        for path in (*mount_points(), STATE_ROOT, RUN_ROOT):
            with contextlib.suppress(OSError):
                path.rmdir()  # only when empty


async def remove(lab: str) -> bool:
    """Kill what runs, then delete what is left; return whether there was anything.

    Raises:
        UnavailableError: a process could not be killed.
    """
    layout = Layout(lab)
    there = layout.state.exists() or layout.run.exists()

    def all_gone() -> bool:
        left = processes.of_lab(lab)
        processes.send(left, signal.SIGKILL)
        return not left

    await processes.poll(all_gone, deadline_s=DEADLINE_S, what=f"the processes of lab {lab} end")
    wire = Path("/run/netns") / layout.wire
    if wire.exists():
        there = True
        await run(["ip", "netns", "delete", layout.wire], timeout_s=COMMAND_TIMEOUT_S)
    _remove_directories(layout)
    return there
