"""Look at processes from outside the lab's namespaces, by /proc alone.

Used to find what belongs to a lab (`cleanup`), to freeze a host (`lab`) and to watch its QEMUs
(`observer`). Every function copes with processes that end while it looks.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import UnavailableError
from tools.lab.layout import ENVIRONMENT_MARK, HOST_MARK

PROC = Path("/proc")
_LISTENS = "00010000"  # __SO_ACCEPTCON among the flags of a line of /proc/net/unix
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A process: `pid` as the machine sees it, `inner_pid` as its own namespace does."""

    pid: int
    inner_pid: int
    parent: int
    state: str
    name: str

    @property
    def stopped(self) -> bool:
        """Return whether it cannot run a single instruction (SIGSTOP, or a zombie)."""
        return self.state in "TtZX"


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def listens(pid: int, place: str) -> bool:
    """Tell whether somebody in the network namespace of a process takes connections at a unix socket."""
    lines = (line.split() for line in _read(pid, "net/unix").decode(errors="replace").splitlines())
    return any(words[3] == _LISTENS and words[-1] == place for words in lines)


def pids() -> Iterator[int]:
    """Return all process ids of the machine."""
    return (int(name) for name in os.listdir(PROC) if name.isdigit())


def describe(pid: int) -> Process | None:
    """Return a process, or None if it is gone."""
    fields = dict(
        line.split(":", 1) for line in _read(pid, "status").decode(errors="replace").splitlines()
    )
    if "State" not in fields:
        return None
    return Process(
        pid=pid,
        inner_pid=int(fields.get("NSpid", str(pid)).split()[-1]),
        parent=int(fields["PPid"]),
        state=fields["State"].split()[0],
        name=fields["Name"].strip(),
    )


def name(pid: int) -> str:
    """Return the kernel's short name of a process; empty if it is gone."""
    return _read(pid, "comm").decode(errors="replace").strip()


def state_and_start(pid: int) -> tuple[str, str]:
    """Return the state letter and start time of a process; ("X", "") if it is gone."""
    fields = _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("X", "")


def command_line(pid: int) -> tuple[str, ...]:
    """Return a process's arguments; empty if it is gone."""
    return tuple(_read(pid, "cmdline").decode(errors="replace").rstrip("\0").split("\0"))


def namespace(pid: int, kind: str) -> str:
    """Return what identifies a namespace of a process (`pid`, `net`, …); empty if it is gone."""
    try:
        return os.readlink(PROC / str(pid) / "ns" / kind)
    except OSError:
        return ""


def in_same_namespace(first_pid: int) -> tuple[Process, ...]:
    """Return all processes of the PID namespace that `first_pid` is the first of."""
    wanted = namespace(first_pid, "pid")
    if not wanted:
        return ()
    found = (describe(pid) for pid in pids() if namespace(pid, "pid") == wanted)
    return tuple(process for process in found if process is not None)


def of_lab(lab: str) -> tuple[int, ...]:
    """Return the processes that carry the mark of a lab in their environment."""
    mark = f"{ENVIRONMENT_MARK}={lab}".encode()
    me = os.getpid()
    return tuple(pid for pid in pids() if pid != me and mark in _read(pid, "environ").split(b"\0"))


def carries(pid: int, marks: dict[str, str]) -> bool:
    """Return whether a process has both marks (lab and host) of an environment in its own."""
    found = _read(pid, "environ").split(b"\0")
    return all(f"{name}={marks[name]}".encode() in found for name in (ENVIRONMENT_MARK, HOST_MARK))


def child_of(pid: int) -> int | None:
    """Return one child of a process, or None."""
    for other in pids():
        process = describe(other)
        if process is not None and process.parent == pid:
            return other
    return None


def send(targets: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes that may be gone already."""
    for pid in targets:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


async def poll(predicate: Callable[[], object], *, deadline_s: float, what: str) -> None:
    """Wait until `predicate()` is true.

    Raises:
        UnavailableError: it was not within `deadline_s`; `what` says what was waited for.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while not predicate():
        if loop.time() >= end_s:
            raise UnavailableError(f"{what}: not within {deadline_s:g} s")
        await asyncio.sleep(POLL_S)
