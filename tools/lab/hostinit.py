"""Play systemd on a lab host: start its services, restart those that may be. Standard library only.

Run by tini (PID 1 of the host). SIGTERM stops the services in reverse order and ends, and with
it the host. Guests are not its business: QEMU daemons belong to PID 1, as on a real host.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

TICK_S = 0.25
RESTART_DELAY_S = 1.0
STOP_S = 10.0
STATUS = "/run/kvorum-lab/services.json"
WEIGHT_NICE = -15
"""On a real host systemd gives the services together as much of the processors as all guests together. Here each QEMU is a
session of its own, and the kernel shares between sessions: so a service has the weight of 28 of them."""


@dataclass(slots=True)
class Unit:
    """One service and what is known of its process; `starts` counts them."""

    service: dict[str, Any]
    pid: int = 0
    starts: int = 0
    ended_s: float = field(default=-RESTART_DELAY_S)

    def due(self, now_s: float) -> bool:
        """Return whether it should be started now."""
        if self.pid or (self.starts and not self.service["restart"]):
            return False
        after = self.service["after"]
        if after is not None and not os.path.exists(after):
            return False
        return now_s - self.ended_s >= RESTART_DELAY_S


def start(unit: Unit, log_directory: str) -> None:
    """Fork and execute a service with its output appended to its log."""
    unit.starts += 1
    unit.pid = os.fork()
    if unit.pid:
        return
    try:
        os.setsid()
        weigh()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        output = f"{log_directory}/{unit.service['name']}.log"
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(unit.service["cwd"])
        os.execv(unit.service["argv"][0], unit.service["argv"])  # noqa: S606 - no shell
    except OSError as error:
        os.write(2, f"hostinit: {unit.service['name']}: {error}\n".encode())
    finally:
        os._exit(127)


def weigh() -> None:
    """Give this process' session the weight of a service; a kernel that doesn't group by session has nothing to set."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/autogroup", "w") as file:
        file.write(str(WEIGHT_NICE))


def reap(units: list[Unit], now_s: float) -> bool:
    """Collect ended services; return whether there were any."""
    some = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return some
        if pid == 0:
            return some
        for unit in units:
            if unit.pid == pid:
                print(
                    f"hostinit: {unit.service['name']} ended ({status})",
                    file=sys.stderr,
                    flush=True,
                )
                unit.pid, unit.ended_s, some = 0, now_s, True


def write_status(units: list[Unit]) -> None:
    """Tell the lab which process (number inside this namespace) is which service."""
    state = {unit.service["name"]: {"pid": unit.pid, "starts": unit.starts} for unit in units}
    with open(STATUS + ".new", "w", encoding="utf-8") as file:
        json.dump(state, file)
    os.replace(STATUS + ".new", STATUS)


def stop_all(units: list[Unit]) -> None:
    """Ask each service to end, the last started first, and wait for each up to STOP_S."""
    for unit in reversed(units):
        if not unit.pid:
            continue
        os.kill(unit.pid, signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_S
        while unit.pid and time.monotonic() < deadline_s:
            signal.sigtimedwait({signal.SIGCHLD}, TICK_S)
            reap(units, time.monotonic())


def main() -> None:
    """Run until SIGTERM."""
    with open(sys.argv[1], encoding="utf-8") as file:
        boot = json.load(file)
    units = [Unit(service) for service in boot["services"]]
    waited = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    changed = True
    while True:
        now_s = time.monotonic()
        for unit in units:
            if unit.due(now_s):
                start(unit, boot["log_directory"])
                changed = True
        if changed:
            write_status(units)
        received = signal.sigtimedwait(waited, TICK_S)
        if received is not None and received.si_signo == signal.SIGTERM:
            stop_all(units)
            return
        changed = reap(units, time.monotonic())


if __name__ == "__main__":
    main()
