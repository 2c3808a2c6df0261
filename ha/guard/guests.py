"""Finding and killing QEMU processes, by /proc and pidfd.

Used by the guard's loop only. libvirtd is not asked: it may hang or be dead when guests have to die.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import select
import signal
from collections.abc import Collection, Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME = re.compile(rf"(?:guest=)?kvorum-({_UUID})")


def vm_of_cmdline(cmdline: bytes, known: Collection[str] = ()) -> str | None:
    """Return the VM id of a QEMU command line as /proc shows it; None for any other program.

    A guest is ours by its name (`-name guest=kvorum-<id>,…`), or by `-uuid` when that id is one of `known`.
    """
    args = cmdline.decode("utf-8", "replace").split("\0")
    for option, value in itertools.pairwise(args):
        if option == "-name":
            match = _NAME.fullmatch(value.split(",", 1)[0])
            if match:
                return match.group(1)
        elif option == "-uuid" and value in known:
            return value
    return None


@dataclass(frozen=True, slots=True)
class Guest:
    """A running QEMU. The pidfd becomes readable when all its threads are gone, and cannot name another process."""

    pid: int
    vm_id: str
    pidfd: int


class GuestTable:
    """All guests of this host that were ever seen and are not gone yet."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._guests: dict[int, Guest] = {}
        self._signalled: set[int] = set()
        self._poll = select.poll()

    def refresh(self, known: Collection[str] = ()) -> None:
        """Look through /proc for new guests and drop those that are gone. `known` are the granted VM ids."""
        self.drop_gone()
        for pid in self._pids():
            if pid not in self._guests:
                self._adopt(pid, known)

    def drop_gone(self) -> None:
        """Drop guests whose process has ended; a process in uninterruptible sleep stays."""
        gone = {fd for fd, _ in self._poll.poll(0)}
        for guest in [guest for guest in self._guests.values() if guest.pidfd in gone]:
            self._poll.unregister(guest.pidfd)
            os.close(guest.pidfd)
            del self._guests[guest.pid]
            self._signalled.discard(guest.pid)

    def running(self) -> frozenset[str]:
        """Return the ids of VMs that run as of the last look."""
        return frozenset(guest.vm_id for guest in self._guests.values())

    def kill(self, vm_ids: Collection[str]) -> int:
        """Send SIGKILL to the guests of these VMs; returns how many got it for the first time.

        They are gone only when `running` says so.
        """
        before = len(self._signalled)
        for guest in self._guests.values():
            if guest.vm_id in vm_ids:
                try:
                    signal.pidfd_send_signal(guest.pidfd, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self._signalled.add(guest.pid)
        return len(self._signalled) - before

    def _pids(self) -> Iterator[int]:
        return (int(name) for name in os.listdir(self._proc) if name.isdigit())

    def _cmdline(self, pid: int) -> bytes:
        try:
            with open(f"{self._proc}/{pid}/cmdline", "rb") as file:
                return file.read()
        except OSError:
            return b""

    def _adopt(self, pid: int, known: Collection[str]) -> None:
        if vm_of_cmdline(self._cmdline(pid), known) is None:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        vm_id = vm_of_cmdline(
            self._cmdline(pid), known
        )  # again: the pid may have been reused before the pidfd
        if vm_id is None:
            os.close(pidfd)
            return
        self._guests[pid] = Guest(pid, vm_id, pidfd)
        self._poll.register(pidfd, select.POLLIN)
        log.info("guest seen: vm %s, pid %d", vm_id, pid)
