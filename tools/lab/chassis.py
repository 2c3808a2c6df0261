"""One lab host as hardware: switched on by starting its namespaces, off by killing their PID 1.

Owned by the power controller (`power`). Also holds the host's watchdog timer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from core.errors import PermanentError
from tools.lab.layout import SYSTEM_PYTHON, Layout, environment
from tools.lab.power_protocol import Reply, WatchdogStatus
from tools.lab.processes import child_of, namespace, poll
from tools.lab.spawn import collect, start

log = logging.getLogger(__name__)

BOOT_DEADLINE_S = 20.0
OFF_DEADLINE_S = 20.0
SHUTDOWN_DEADLINE_S = 60.0
UNSHARE = (
    "/usr/bin/unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork",
    "--kill-child=SIGKILL", "--",
)  # fmt: skip
HOSTBOOT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "hostboot.py")


class Watchdog:
    """Counts from the last feed; calls `bite` once when it was silent too long.

    Once armed it counts on when the guard hangs up: only `disarm` or a power-off ends it.
    """

    def __init__(self, bite: Callable[[float], None]) -> None:
        self._bite = bite
        self._loop = asyncio.get_running_loop()
        self._timeout_s = 0.0
        self._fed_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, line: str) -> None:
        """Obey one line of the protocol; unknown lines are logged and ignored."""
        match line.split():
            case ["arm", seconds]:
                self._timeout_s = float(seconds)
                self._feed()
            case ["feed"] if self._timeout_s:
                self._fed_s = self._loop.time()
            case ["feed"]:
                pass
            case ["disarm"]:
                self.disarm()
            case _:
                log.warning("unknown watchdog message: %r", line)

    def _feed(self) -> None:
        self._fed_s = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._fed_s + self._timeout_s, self._check)

    def _check(self) -> None:
        deadline_s = self._fed_s + self._timeout_s
        if self._loop.time() < deadline_s:
            self._timer = self._loop.call_at(deadline_s, self._check)
            return
        timeout_s = self._timeout_s
        self.disarm()
        self._bite(timeout_s)

    def disarm(self) -> None:
        """Stop counting."""
        self._timeout_s = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def status(self) -> WatchdogStatus:
        """Return how it stands."""
        if not self._timeout_s:
            return WatchdogStatus()
        silent_s = round(self._loop.time() - self._fed_s, 3)
        return WatchdogStatus(armed=True, timeout_s=self._timeout_s, silent_s=silent_s)


class Chassis:
    """The power of one host. Every change goes through its lock, one at a time."""

    def __init__(self, layout: Layout, host: str, group: asyncio.TaskGroup) -> None:
        self.host = host
        self.boot_after_reset = False
        self.watchdog = Watchdog(self._bitten)
        self._layout = layout
        self._group = group
        self._lock = asyncio.Lock()
        self._holder: int = (
            0  # the `unshare` process; it ends when the last process of the host has
        )
        self._first_pid = 0
        self._why = "never switched on"
        self._cause = ""  # why it is being killed, for the record of its end
        self._resets = 0

    def status(self) -> Reply:
        """Return the truth about this host."""
        return Reply(
            power="on" if self._holder else "off",
            pid=self._first_pid,
            why=self._why,
            resets=self._resets,
            watchdog=self.watchdog.status(),
        )

    async def on(self, why: str) -> None:
        """Boot the host; returns when its PID 1 is there. Nothing to do when it is on."""
        async with self._lock:
            if self._holder:
                return
            self._holder = holder = self._spawn()
            self._group.create_task(self._wait_for_end(holder), name=f"{self.host} ends")
            outside = namespace(os.getpid(), "pid")

            def booted() -> bool:
                child = child_of(holder)
                self._first_pid = child or 0
                return self._holder == 0 or (
                    child is not None and namespace(child, "pid") not in ("", outside)
                )

            await poll(booted, deadline_s=BOOT_DEADLINE_S, what=f"{self.host} boots")
            if not self._holder:
                log_file = self._layout.service_log(self.host, "init")
                raise PermanentError(f"{self.host} did not boot: see {log_file}")
            self._layout.pid_file(self.host).write_text(f"{self._first_pid}\n", encoding="ascii")
            self._set_why(why)

    def _set_why(self, why: str) -> None:
        self._why = why
        log.info("%s: %s", self.host, why)

    def _spawn(self) -> int:
        boot_file = str(self._layout.host_boot_file(self.host))
        argv = [*UNSHARE, SYSTEM_PYTHON, "-I", "-S", HOSTBOOT, boot_file]
        env = environment(self._layout.lab, self.host)
        return start(argv, env=env, log=self._layout.service_log(self.host, "init"))

    async def _wait_for_end(self, holder: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(holder)
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        collect(holder)
        self._holder = self._first_pid = 0
        self._layout.pid_file(self.host).unlink(missing_ok=True)
        self.watchdog.disarm()
        self._set_why(self._cause or "ended by itself")
        self._cause = ""

    async def off(self, why: str) -> None:
        """Cut the power: every process of the host is gone when this returns."""
        async with self._lock:
            if not self._holder:
                return
            self._kill(why)
            await poll(lambda: not self._holder, deadline_s=OFF_DEADLINE_S, what=f"{self.host} off")

    def _kill(self, why: str) -> None:
        self._cause = why
        # PID 1 only: its parent, the holder, ends after it, and so tells that everything is gone.
        os.kill(self._first_pid or self._holder, signal.SIGKILL)

    async def shutdown(self) -> None:
        """Press the power button: services are asked to end, then the host goes off."""
        async with self._lock:
            if self._first_pid:
                self._cause = "shut down"
                os.kill(self._first_pid, signal.SIGTERM)
            what = f"{self.host} shuts down"
            await poll(lambda: not self._holder, deadline_s=SHUTDOWN_DEADLINE_S, what=what)

    async def reset(self, why: str) -> None:
        """Cut the power and, if it is set so, boot again."""
        await self.off(why)
        self._resets += 1
        if self.boot_after_reset:
            await self.on(f"{why}; booted again")

    def _bitten(self, timeout_s: float) -> None:
        if self._holder:
            why = f"watchdog: not fed for {timeout_s:g} s"
            self._kill(why)  # at once: whatever follows may have to wait for the lock
            self._group.create_task(self.reset(why), name=f"{self.host} watchdog reset")
