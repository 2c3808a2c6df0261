#!/usr/bin/python3 -IS
"""Stand in for QEMU where a host shall have more guests than the machine could translate. Standard library only.

A lab that asks for hollow guests shows this file to its hosts as `qemu-system-x86_64`. libvirt runs it with QEMU's arguments. A
guest of `HOLLOW_MIB` becomes hollow: a process that has the guest's name, its disks open and its card's tap, answers libvirt's
monitor (QMP, as QEMU 7.2 and libvirt 9.0 speak it), and runs no instruction of the guest. So guard, agent, libvirt and observer
see a guest, and it costs an eighth of one to start. Everything else, libvirt's questions about QEMU among them, is handed to the real QEMU.
"""

from __future__ import annotations

import os
import sys
from _json import encode_basestring_ascii, make_encoder, make_scanner
from _socket import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# json, socket and typing take twice as long to load as Python itself; the first two are in C underneath.

HOLLOW_MIB = 64
"""Guests of just this memory are hollow: nothing else of what a user chooses is among QEMU's arguments."""
VERSION = {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "hollow"}
CLONE_NEWNS = 0x20000
MNT_DETACH = 2
LINE_MAX = 1 << 20
CPU = "/machine/unattached/device[0]"
BALLOON = "/machine/peripheral/balloon0"
STATS_INTERVAL = "guest-stats-polling-interval"


class _Plain:
    """How JSON is read: as it stands."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None


def _unreadable(value: object) -> object:
    raise TypeError(f"{value!r} has no JSON")


_scan = make_scanner(_Plain)  # type: ignore[arg-type]  # what is asked of it is there
_encode = make_encoder(
    None, _unreadable, encode_basestring_ascii, None, ": ", ", ", False, False, False
)


def read_json(text: str) -> Any:
    """Return what one line of JSON says; raises ValueError or StopIteration when it is none."""
    return _scan(text.strip(), 0)[0]


def written_json(value: object) -> str:
    """Return a value as JSON."""
    return "".join(_encode(value, 0))


def values(argv: list[str], option: str) -> list[str]:
    """Return what follows each occurrence of an option."""
    return [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == option]


def is_hollow(argv: list[str]) -> bool:
    """Tell whether these arguments make a guest of the memory that is hollow, and don't receive one that ran elsewhere."""
    memory = values(argv, "-m")
    return bool(memory) and memory[0] == str(HOLLOW_MIB) and "-incoming" not in argv


def blockdevs(argv: list[str]) -> dict[str, dict[str, Any]]:
    """Return the block nodes by name."""
    nodes = [read_json(value) for value in values(argv, "-blockdev")]
    return {node["node-name"]: node for node in nodes}


def disks(nodes: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Return the files of all formats, and whether each may be written."""
    return {
        nodes[node["file"]]["filename"]: not node.get("read-only", False)
        for node in nodes.values()
        if isinstance(node.get("file"), str)
    }


def monitor_fd(argv: list[str]) -> int:
    """Return the listening socket that libvirt made for the monitor."""
    for value in values(argv, "-chardev"):
        parts = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
        if parts.get("id") == "charmonitor":
            return int(parts["fd"])
    raise SystemExit("no monitor among the arguments")


class Hollow:
    """What a hollow guest says of itself. `answer` returns the reply of a command, or None for one it doesn't know."""

    def __init__(self, argv: list[str], terminal: str) -> None:
        self._nodes = blockdevs(argv)
        self._devices = [read_json(value) for value in values(argv, "-device")]
        self._terminal = terminal
        self.runs = False

    def answer(self, command: str, arguments: dict[str, Any]) -> Any:
        if command in ("cont", "stop"):
            self.runs = command == "cont"
            return {}
        said = {
            "query-status": self._status,
            "query-chardev": self._chardevs,
            "query-hotpluggable-cpus": self._cpu_slots,
            "query-cpus-fast": self._cpus,
            "query-named-block-nodes": self._block_nodes,
            "query-block": self._blocks,
            "query-blockstats": self._block_stats,
            "query-balloon": lambda: {"actual": HOLLOW_MIB << 20},
            "query-dirty-rate": self._dirty_rate,
        }.get(command)
        if said is not None:
            return said()
        if command == "qom-list":
            return self._properties(arguments["path"])
        if command == "qom-get":
            return {"stats": {}, "last-update": 0}
        if command in _NOTHING:
            return {}
        return [] if command in _NONE else None

    def _status(self) -> dict[str, Any]:
        return {"status": "running" if self.runs else "prelaunch", "running": self.runs}

    def _dirty_rate(self) -> dict[str, Any]:
        return {
            "status": "unstarted",
            "mode": "page-sampling",
            "start-time": 0,
            "calc-time": 0,
            "sample-pages": 0,
        }

    def _chardevs(self) -> list[dict[str, Any]]:
        return [
            {"label": "charserial0", "filename": f"pty:{self._terminal}", "frontend-open": True},
            {
                "label": "charchannel0",
                "filename": "disconnected:unix:,server=on",
                "frontend-open": False,
            },
        ]

    def _cpu_slots(self) -> list[dict[str, Any]]:
        place = {"socket-id": 0, "core-id": 0, "thread-id": 0}
        return [{"type": "Westmere-x86_64-cpu", "vcpus-count": 1, "props": place, "qom-path": CPU}]

    def _cpus(self) -> list[dict[str, Any]]:
        place = {"socket-id": 0, "core-id": 0, "thread-id": 0}
        return [
            {
                "cpu-index": 0,
                "thread-id": os.getpid(),
                "props": place,
                "qom-path": CPU,
                "target": "x86_64",
            }
        ]

    def _properties(self, path: str) -> list[dict[str, str]]:
        if path == "/machine/peripheral":
            return [
                {"name": it["id"], "type": f"child<{it['driver']}>"}
                for it in self._devices
                if "id" in it
            ]
        if path == BALLOON:
            return [{"name": STATS_INTERVAL, "type": "int"}]
        return []

    def _block_nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "node-name": name,
                "drv": node["driver"],
                "ro": bool(node.get("read-only", False)),
                "file": name,
                "image": {"filename": name, "format": node["driver"], "virtual-size": 0},
            }
            for name, node in self._nodes.items()
        ]

    def _drives(self) -> list[dict[str, Any]]:
        return [it for it in self._devices if it.get("drive")]

    def _blocks(self) -> list[dict[str, Any]]:
        return [
            {
                "device": "",
                "qdev": f"/machine/peripheral/{it['id']}/virtio-backend",
                "locked": False,
                "removable": False,
                "type": "unknown",
                "io-status": "ok",
                "inserted": {"node-name": it["drive"]},
            }
            for it in self._drives()
        ]

    def _block_stats(self) -> list[dict[str, Any]]:
        return [
            {
                "device": "",
                "qdev": f"/machine/peripheral/{it['id']}/virtio-backend",
                "node-name": it["drive"],
                "stats": dict.fromkeys(_COUNTERS, 0),
            }
            for it in self._drives()
        ]


_NOTHING = frozenset(
    ("qmp_capabilities", "migrate-set-capabilities", "qom-set", "balloon", "getfd", "query-migrate")
)
_NONE = frozenset(
    (
        "query-migrate-capabilities",
        "query-iothreads",
        "query-jobs",
        "query-block-jobs",
        "query-stats",
        "query-stats-schemas",
    )
)
_COUNTERS = (
    "rd_bytes",
    "wr_bytes",
    "rd_operations",
    "wr_operations",
    "flush_operations",
    "rd_total_time_ns",
    "wr_total_time_ns",
    "flush_total_time_ns",
    "wr_highest_offset",
)


class Monitor:
    """The guest's end of libvirt's monitor, one connection at a time; libvirtd comes again after a restart."""

    def __init__(self, listener: socket, guest: Hollow) -> None:
        self._listener = listener
        self._guest = guest

    def serve(self) -> None:
        """Answer until the guest is asked to end."""
        while True:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - all that _socket has
            connection = socket(fileno=descriptor)
            try:
                if self._talk(connection):
                    return
            except OSError:
                continue  # libvirtd was killed in the middle of a word
            finally:
                connection.close()

    def _talk(self, connection: socket) -> bool:
        _say(connection, {"QMP": {"version": VERSION, "capabilities": []}})
        heard = b""
        while True:
            received = connection.recv(1 << 16)
            heard += received
            if not received or len(heard) > LINE_MAX:
                return False
            *lines, heard = heard.split(b"\n")
            for line in lines:
                if line.strip() and self._obey(connection, read_json(line.decode())):
                    return True

    def _obey(self, connection: socket, asked: dict[str, Any]) -> bool:
        """Answer one command; return whether it ends the guest."""
        command = asked["execute"]
        if command in ("quit", "system_powerdown"):
            reason = "host-qmp-quit" if command == "quit" else "guest-shutdown"
            _say(connection, {"return": {}, "id": asked.get("id")})
            _tell(connection, "SHUTDOWN", guest=command != "quit", reason=reason)
            return True
        answer = self._guest.answer(command, asked.get("arguments", {}))
        if command in ("cont", "stop"):
            _tell(connection, "RESUME" if command == "cont" else "STOP")
        if answer is None:
            error = {"class": "CommandNotFound", "desc": f"a hollow guest can't {command}"}
            _say(connection, {"error": error, "id": asked.get("id")})
        else:
            _say(connection, {"return": answer, "id": asked.get("id")})
        return False


def _tell(connection: socket, event: str, **data: object) -> None:
    moment = {"seconds": 0, "microseconds": 0}
    _say(connection, {"event": event, "data": data, "timestamp": moment})


def _say(connection: socket, message: dict[str, Any]) -> None:
    connection.sendall(written_json(message).encode() + b"\r\n")


def become_real(argv: list[str]) -> NoReturn:
    """Execute the QEMU that this file is shown in front of; it needs its own path to find its firmware."""
    import ctypes  # here, as a hollow guest does without

    libc = ctypes.CDLL(None, use_errno=True)
    place = argv[0].encode()
    if libc.unshare(CLONE_NEWNS) != 0 or libc.umount2(place, MNT_DETACH) != 0:
        raise SystemExit(f"{argv[0]} can't be uncovered: {os.strerror(ctypes.get_errno())}")
    os.execv(argv[0], argv)  # noqa: S606 - no shell


def main(argv: list[str]) -> None:
    """Be the guest of these arguments until it ends."""
    if not is_hollow(argv):
        become_real(argv)
    for path, writable in disks(blockdevs(argv)).items():
        os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    _, terminal = os.openpty()
    listener = socket(fileno=monitor_fd(argv))
    Monitor(listener, Hollow(argv, os.ttyname(terminal))).serve()


if __name__ == "__main__":
    main(sys.argv)
