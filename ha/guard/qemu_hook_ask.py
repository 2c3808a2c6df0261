#!/usr/bin/python3 -IS
"""Ask the guard whether a guest may start here now. Run by the hook beside it as qemu_hook_ask.py NAME; exit code 1 means no.

It closes the side doors: `virsh start`, autostart, a thread that comes late. No answer of the guard within a second means no.
"""

from __future__ import annotations

import json
import re
import socket
import sys

GUARD_SOCKET = "/run/kvorum/guard.sock"
TIMEOUT_S = 1.0
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


def main(name: str) -> int:
    """Return 0 to let libvirt go on, 1 to stop it."""
    match = OURS.fullmatch(name)
    refusal = ask_guard(match.group(1)) if match else f"{name!r} is not a domain that kvorum made"
    if refusal:
        sys.stderr.write(refusal + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
