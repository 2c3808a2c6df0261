"""What resets the host when the guard stops feeding it: the lab's power controller, /dev/watchdog, or nothing.

Used by the guard's loop only. None of the calls blocks. A watchdog that is lost (socket closed) reports `armed` False,
so that nobody counts on it any more; it is never disarmed by an error.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
from typing import Protocol

log = logging.getLogger(__name__)

WDIOC_SETTIMEOUT = 0xC0045706
WDIOC_GETTIMEOUT = 0x80045707
SYSFS = "/sys/class/watchdog"


class Watchdog(Protocol):
    """A timer that resets the host unless it is fed in time."""

    kind: str
    armed: bool

    def arm(self, timeout_s: float) -> None:
        """Begin to count, or change the timeout. Sets `armed` when it worked."""
        ...

    def feed(self) -> None:
        """Begin to count anew. Clears `armed` when the watchdog is lost."""
        ...

    def disarm(self) -> None:
        """Stop counting, where the device allows it."""
        ...

    def may_disarm(self) -> bool:
        """Tell whether `disarm` would stop it, and not have the host reset."""
        ...


class NoWatchdog:
    """This host has none: a frozen guard is never reset, so nobody may take its guests by time alone."""

    kind = "none"
    armed = False

    def arm(self, timeout_s: float) -> None:
        """Do nothing."""

    def feed(self) -> None:
        """Do nothing."""

    def disarm(self) -> None:
        """Do nothing."""

    def may_disarm(self) -> bool:
        """There is nothing to stop."""
        return True


class SocketWatchdog:
    """A power controller behind a unix stream socket: lines `arm <seconds>`, `feed`, `disarm`."""

    kind = "socket"

    def __init__(self, path: str) -> None:
        self.armed = False
        self._path = path
        self._socket: socket.socket | None = None

    def arm(self, timeout_s: float) -> None:
        """Connect if needed and send `arm`."""
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                connection.connect(self._path)
            except OSError as error:
                connection.close()
                log.warning("the watchdog at %s does not answer: %s", self._path, error)
                return
            self._socket = connection
        self.armed = self._send(f"arm {timeout_s:g}\n")

    def feed(self) -> None:
        """Send `feed`."""
        if self._socket is not None:
            self.armed = self._send("feed\n") and self.armed

    def disarm(self) -> None:
        """Send `disarm` and hang up."""
        if self._socket is not None:
            self._send("disarm\n")
            self._hang_up()
        self.armed = False

    def may_disarm(self) -> bool:
        """It takes `disarm` at any time."""
        return True

    def _send(self, line: str) -> bool:
        assert self._socket is not None
        data = line.encode()
        try:
            if self._socket.send(data) == len(data):
                return True
            log.error("the watchdog socket is full")
        except OSError as error:
            log.error("the watchdog is lost: %s", error)
        self._hang_up()
        return False

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


class DeviceWatchdog:
    """A kernel watchdog device. With `nowayout` it cannot be disarmed: the host resets after the guard is stopped."""

    kind = "device"

    def __init__(self, path: str = "/dev/watchdog") -> None:
        self.armed = False
        self._path = path
        self._fd = -1

    def arm(self, timeout_s: float) -> None:
        """Open the device, which starts it, and set its timeout; armed only when the device took that timeout."""
        wanted = max(1, int(timeout_s))
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, struct.pack("i", wanted))
            (actual,) = struct.unpack(
                "i", fcntl.ioctl(self._fd, WDIOC_GETTIMEOUT, struct.pack("i", 0))
            )
        except OSError as error:
            log.error("the watchdog %s cannot be armed: %s", self._path, error)
            return
        self.armed = actual <= wanted
        if not self.armed:
            log.error("the watchdog %s insists on %d s instead of %d s", self._path, actual, wanted)

    def feed(self) -> None:
        """Write a byte. Fed whenever it is open, armed as wished or not, since it counts anyway."""
        if self._fd >= 0:
            try:
                os.write(self._fd, b"\0")
            except OSError as error:
                self.armed = False
                log.error("the watchdog %s takes no food: %s", self._path, error)

    def disarm(self) -> None:
        """Write the magic character and close."""
        if self._fd >= 0:
            try:
                os.write(self._fd, b"V")
            except OSError as error:
                log.error("the watchdog %s cannot be disarmed: %s", self._path, error)
            os.close(self._fd)
        self._fd = -1
        self.armed = False

    def may_disarm(self) -> bool:
        """Ask the kernel: with `nowayout` closing the device would be the end of the host. Not known: no."""
        name = os.path.basename(self._path)
        name = "watchdog0" if name == "watchdog" else name
        try:
            with open(f"{SYSFS}/{name}/nowayout", encoding="ascii") as file:
                return file.read().strip() == "0"
        except (OSError, ValueError):
            return False


def open_watchdog(choice: str, run_dir: str) -> Watchdog:
    """Return the watchdog that `choice` names: `none`, `unix:PATH`, a device path, or `auto`.

    `auto` takes `<run_dir>/watchdog.sock` when it exists, then /dev/watchdog, then none.
    """
    if choice == "auto":
        path = f"{run_dir}/watchdog.sock"
        if os.path.exists(path):
            return SocketWatchdog(path)
        return DeviceWatchdog() if os.path.exists("/dev/watchdog") else NoWatchdog()
    if choice == "none":
        return NoWatchdog()
    if choice.startswith("unix:"):
        return SocketWatchdog(choice.removeprefix("unix:"))
    return DeviceWatchdog(choice)
