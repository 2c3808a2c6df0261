#!/usr/bin/python3 -IS
"""Ask the guard whether a guest may start here now. Run by the hook beside it as qemu_hook_ask.py NAME; exit code 1 means no.

It closes the side doors: `virsh start`, autostart, a thread that comes late. No answer of the guard within a second means no.
libvirt waits for it with each start, so it does without modules that take longer to load than Python itself: `socket` and `json`.
"""

import _socket
import sys

GUARD_SOCKET = "/run/kvorum/guard.sock"
TIMEOUT_S = 1.0
ANSWER_BYTES_MAX = 65536
PREFIX = "kvorum-"
UUID_FORM = (8, 4, 4, 4, 12)
HEX = frozenset("0123456789abcdef")
YES = b'{"ok": true'
"""How the guard begins each answer that isn't a refusal (`ha.guard.control.answer`); whatever else begins an answer means no."""


def is_vm_id(text: str) -> bool:
    """Tell whether a text is a UUID in lower case with dashes."""
    parts = text.split("-")
    return tuple(map(len, parts)) == UUID_FORM and HEX.issuperset("".join(parts))


def answer_about(vm_id: str) -> bytes:
    """Return the guard's line about a VM.

    Raises:
        OSError: it doesn't answer.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(GUARD_SOCKET)
        connection.sendall(f'{{"op": "check", "vm_id": "{vm_id}"}}\n'.encode())
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES_MAX:
            received = connection.recv(ANSWER_BYTES_MAX)
            if not received:
                raise OSError("it ended the connection")
            answer += received
        return answer
    finally:
        connection.close()


def reason_in(answer: bytes) -> str:
    """Return why the guard refuses; nobody waits for that."""
    import json

    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace").strip()


def ask_guard(vm_id: str) -> str:
    """Return the empty string when the VM may start now, else why not."""
    try:
        answer = answer_about(vm_id)
    except OSError as error:
        return f"the guard does not answer for vm {vm_id} ({error}): is kvorum-guard running?"
    if answer.startswith(YES):
        return ""
    return f"the guard refuses vm {vm_id}: {reason_in(answer)}"


def main(name: str) -> int:
    """Return 0 to let libvirt go on, 1 to stop it."""
    vm_id = name.removeprefix(PREFIX)
    if is_vm_id(vm_id):
        refusal = ask_guard(vm_id)
    else:
        refusal = f"{name!r} is not a domain that kvorum made"
    if refusal:
        sys.stderr.write(refusal + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
