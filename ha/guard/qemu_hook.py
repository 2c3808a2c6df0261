#!/usr/bin/python3 -IS
"""libvirt's QEMU hook: no guest of ours starts, and none comes in by migration, unless the guard allows it.

Run by libvirtd as /etc/libvirt/hooks/qemu NAME OPERATION SUB-OPERATION EXTRA. It closes the side doors: `virsh start`,
autostart, a thread that comes late. No answer of the guard within a second means no. Guests that are not ours, and
everything that is no start (`reconnect`, `started`, `stopped`, `release`, …), always pass.
"""

from __future__ import annotations

import json
import re
import socket
import sys

GUARD_SOCKET = "/run/kvorum/guard.sock"
TIMEOUT_S = 1.0
GATED = {("prepare", "begin"), ("migrate", "begin"), ("restore", "begin")}
OURS = re.compile(r"kvorum-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def ask_guard(vm_id: str) -> str:
    """Return the empty string when the VM may start now, else why not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(GUARD_SOCKET)
            connection.sendall(json.dumps({"op": "check", "vm_id": vm_id}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(65536))
        if answer["ok"] is True:
            return ""
        return f"the guard refuses vm {vm_id}: {answer['error']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the guard does not answer for vm {vm_id} ({error}): is kvorum-guard running?"


def main(argv: list[str]) -> int:
    """Return 0 to let libvirt go on, 1 to stop it."""
    if len(argv) < 3 or (argv[1], argv[2]) not in GATED or not argv[0].startswith("kvorum-"):
        return 0
    match = OURS.fullmatch(argv[0])
    refusal = (
        ask_guard(match.group(1)) if match else f"{argv[0]!r} is not a domain that kvorum made"
    )
    if refusal:
        sys.stderr.write(refusal + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
