"""The guard's process. Started once per boot as root by the supervisor, and never restarted while guests run:

    /usr/bin/python3 -I -S <repository>/ha/guard/main.py [options]

    --run-dir DIR       guard.sock, guard.lock, guard-state.json, api.sock, watchdog.sock (default /run/kvorum; emptied
                        by a reboot, or leftovers carry another boot id)
    --state-dir DIR     guard.json and identity/{ca.pem,host.pem,host.key} (default /var/lib/kvorum)
    --watchdog WHAT     auto, none, unix:PATH or a device path (default auto: <run-dir>/watchdog.sock, /dev/watchdog)
    --boot-id-file FILE what names this boot (default /proc/sys/kernel/random/boot_id)

SIGTERM: ends at once and disarms the watchdog when no lease-bound guest runs; else refuses new guests and ends when the
last one is gone, so the supervisor must not follow up with SIGKILL. Killed or crashed: the watchdog resets the host.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from typing import TextIO

# Isolated mode has no path to this project; appended, so that nothing here can shadow the standard library.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))

from ha.guard.control import ControlServer
from ha.guard.guests import GuestTable
from ha.guard.loop import Guard
from ha.guard.renewal import Renewer
from ha.guard.settings import SettingsFile, read_state, write_state
from ha.guard.watchdog import open_watchdog

log = logging.getLogger("kvorum-guard")

MCL_CURRENT, MCL_FUTURE = 1, 2
PRIORITY = 10
THREAD_STACK_BYTES = 512 * 1024


def now_s() -> float:
    """Return CLOCK_BOOTTIME in seconds: it counts suspend, and no one can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def harden() -> None:
    """Lock memory, take real-time priority, and be the last one the kernel kills. Not permitted: logged, go on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        log.warning("memory is not locked: %s", os.strerror(ctypes.get_errno()))
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # else the supervisor has chosen
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError as error:
        log.warning("no real-time priority: %s", error)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-1000")
    except OSError as error:
        log.warning("not protected from the out-of-memory killer: %s", error)


def lock_single(run_dir: str) -> TextIO:
    """Make sure that this is the only guard of the host; keep the returned file open.

    Raises:
        SystemExit: another guard runs.
    """
    file = open(f"{run_dir}/guard.lock", "w", encoding="ascii")  # noqa: SIM115 - open for the life of the process
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit("another guard runs on this host already") from None
    file.write(str(os.getpid()))
    file.flush()
    return file


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="kvorum-guard", description="Hold this host's lease.")
    parser.add_argument("--run-dir", default="/run/kvorum")
    parser.add_argument("--state-dir", default="/var/lib/kvorum")
    parser.add_argument("--watchdog", default="auto")
    parser.add_argument("--boot-id-file", default="/proc/sys/kernel/random/boot_id")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run until stopped."""
    args = parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s guard: %(message)s", stream=sys.stderr
    )
    os.makedirs(args.run_dir, mode=0o755, exist_ok=True)
    lock = lock_single(args.run_dir)
    with open(args.boot_id_file, encoding="ascii") as file:
        boot_id = file.read().strip()
    state_path = f"{args.run_dir}/guard-state.json"

    selector = selectors.DefaultSelector()
    wake_r, wake_w = socket.socketpair()
    for end in (wake_r, wake_w):
        end.setblocking(False)

    def wake() -> None:
        try:
            wake_w.send(b"\0")
        except BlockingIOError:
            pass  # it is awake already

    threading.stack_size(THREAD_STACK_BYTES)
    renewer = Renewer(
        boot_id=boot_id,
        api_socket=f"{args.run_dir}/api.sock",
        identity_dir=f"{args.state_dir}/identity",
        now_s=now_s,
        wake=wake,
    )
    guard = Guard(
        boot_id=boot_id,
        clock=read_state(state_path, boot_id, now_s()),
        settings=SettingsFile(f"{args.state_dir}/guard.json"),
        guests=GuestTable(),
        renewer=renewer,
        open_watchdog=lambda: open_watchdog(args.watchdog, args.run_dir),
        save=lambda clock: write_state(state_path, boot_id, clock),
    )

    def stop(signum: int, frame: object) -> None:
        guard.ask_to_stop(now_s())

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.set_wakeup_fd(wake_w.fileno(), warn_on_full_buffer=False)
    selector.register(wake_r, selectors.EVENT_READ, lambda mask: wake_r.recv(4096))
    renewer.start()
    harden()
    control = ControlServer(
        f"{args.run_dir}/guard.sock", selector, lambda request: guard.handle(request, now_s())
    )
    log.info("guard of boot %s runs, %s", boot_id, guard.clock.phase)
    while True:
        wait_s = guard.tick(now_s())
        if guard.may_exit():
            break
        for key, mask in selector.select(wait_s):
            key.data(mask)
    renewer.stop()
    control.close()
    guard.shut_down()
    lock.close()
    log.info("guard ends")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
