"""The witness of the main law: no disk is ever open for writing in two running QEMUs.

Used by tests, drills and the demo, as `with Observer(lab) as seen: …`. It trusts nobody: a thread of
its own looks at /proc of the whole machine ten times a second. A process that is stopped cannot write
and does not count. A QEMU that waits for an incoming migration may hold the disk beside its source;
once it has held it alone it counts as any other.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tools.lab import processes
from tools.lab.lab import Lab

EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Holder:
    """A running QEMU that has a disk open for writing."""

    host: str
    pid: int
    start: str  # the kernel's start time: tells two processes with one pid apart
    incoming: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """Who held a disk from some moment on. `at_s` is the monotonic clock."""

    at_s: float
    path: str
    holders: tuple[Holder, ...]


def _flags(pid: int, descriptor: str) -> int:
    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
    return 0


def open_for_writing(pid: int) -> dict[tuple[int, int], str]:
    """Return (device, inode) and path of every file and block device a process may write at will."""
    found: dict[tuple[int, int], str] = {}
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return found
    for name in names:
        try:
            status = os.stat(f"{directory}/{name}")
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                continue
            flags = _flags(pid, name)
            if flags & os.O_ACCMODE == os.O_RDONLY or flags & os.O_APPEND:
                continue
            path = os.readlink(f"{directory}/{name}")
        except OSError:
            continue  # closed, or the process ended, while we looked
        if not path.startswith(("/memfd:", "/dev/shm/")):  # noqa: S108 - names, not places we write
            found[status.st_dev, status.st_ino] = path
    return found


@dataclass(slots=True)
class _Memory:
    """What earlier samples taught."""

    settled: set[tuple[int, str]] = field(default_factory=set)
    current: dict[tuple[int, int], tuple[Holder, ...]] = field(default_factory=dict)
    paths: dict[tuple[int, int], str] = field(default_factory=dict)
    spaces: dict[str, str] = field(default_factory=dict)


class Observer:
    """Watches all QEMUs of a lab between `with` and its end.

    `double_writers` are the violations seen, `sightings` every change of who holds a disk,
    `samples` and `longest_gap_s` say how closely it looked.
    """

    def __init__(self, lab: Lab, *, every_s: float = EVERY_S) -> None:
        self.double_writers: list[Sighting] = []
        self.sightings: list[Sighting] = []
        self.samples = 0
        self.longest_gap_s = 0.0
        self._lab = lab
        self._every_s = every_s
        self._memory = _Memory()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def holders(self, path_end: str = "") -> tuple[Holder, ...]:
        """Return who held, at the last sample, disks whose path ends like this."""
        newest = {sighting.path: sighting for sighting in list(self.sightings)}
        return tuple(
            holder
            for path, sighting in newest.items()
            if path.endswith(path_end)
            for holder in sighting.holders
        )

    def _watch(self) -> None:
        last_s = time.monotonic()
        while not self._end.wait(self._every_s):
            now_s = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now_s - last_s)
            last_s = now_s
            self.sample(now_s)

    def _qemus(self) -> list[Holder]:
        # Namespaces seen once are remembered: a QEMU of a host that is just dying counts to its end.
        spaces = self._memory.spaces
        for name in self._lab.hosts:
            first = self._lab.first_pid(name)
            if first is not None:
                spaces[processes.namespace(first, "pid")] = name
        found: list[Holder] = []
        for pid in processes.pids():
            if not processes.name(pid).startswith("qemu-system"):
                continue
            host = spaces.get(processes.namespace(pid, "pid"))
            state, start = processes.state_and_start(pid)
            if host is not None and state not in "TtZX":
                incoming = "-incoming" in processes.command_line(pid)
                found.append(Holder(host, pid, start, incoming))
        return found

    def sample(self, now_s: float) -> None:
        """Look once. Called by the thread; tests may call it too."""
        memory = self._memory
        held: dict[tuple[int, int], list[Holder]] = {}
        for qemu in self._qemus():
            for inode, path in open_for_writing(qemu.pid).items():
                held.setdefault(inode, []).append(qemu)
                memory.paths[inode] = path
        for inode in memory.current.keys() | held.keys():
            holders = tuple(sorted(held.get(inode, ()), key=lambda it: it.pid))
            if holders == memory.current.get(inode, ()):
                continue
            sighting = Sighting(now_s, memory.paths[inode], holders)
            self.sightings.append(sighting)
            memory.current[inode] = holders
            if len(holders) == 1:
                memory.settled.add((holders[0].pid, holders[0].start))
            if len([holder for holder in holders if not self._waits(holder)]) > 1:
                self.double_writers.append(sighting)
        self.samples += 1

    def _waits(self, holder: Holder) -> bool:
        return holder.incoming and (holder.pid, holder.start) not in self._memory.settled
