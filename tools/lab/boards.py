"""Management boards that speak IPMI, for lab hosts: OpenIPMI's simulator, one a host, on the wire beside the hosts.

A board has the wire's own address and a port of its own, so it is reached while its host is off or cut off. What it does
goes through the power controller, and so with the manners that were chosen for it (`kvorum-lab bmc`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.lab.layout import WIRE_ADDRESS, Layout, environment, host_number
from tools.lab.processes import poll
from tools.lab.spawn import start

USER, PASSWORD = "kvorum", "lab-board"
FIRST_PORT = 6230
CIPHER_SUITE = 3  # the simulator knows no 17
READY_DEADLINE_S = 10.0
CHASSIS_CONTROL = Path(__file__).resolve().with_name("chassis_control.py")
MANAGEMENT_CONTROLLER = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
ALLOWED = "none md2 md5 straight"


@dataclass(frozen=True, slots=True)
class LabBoard:
    """Where a host's board is."""

    host: str
    address: str
    port: int


def board_of(host: str) -> LabBoard:
    """Return where the board of a host is, once it was started."""
    return LabBoard(host, WIRE_ADDRESS, FIRST_PORT + host_number(host))


async def start_board(layout: Layout, host: str) -> LabBoard:
    """Start a host's board and wait until it listens. It ends with the lab.

    Raises:
        UnavailableError: it isn't there in time.
    """
    board = board_of(host)
    place = layout.state / "boards" / host
    place.mkdir(parents=True, exist_ok=True)
    control = f"{sys.executable} -I -S {CHASSIS_CONTROL} {layout.bmc_socket} {host}"
    (place / "lan.conf").write_text(_config(board, control), encoding="ascii")
    (place / "lan.conf").chmod(0o600)
    (place / "commands").write_text(MANAGEMENT_CONTROLLER, encoding="ascii")
    argv = ["/usr/bin/nsenter", f"--net=/run/netns/{layout.wire}", "/usr/bin/ipmi_sim", "-n"]
    argv += ["-c", str(place / "lan.conf"), "-f", str(place / "commands"), "-s", str(place)]
    pid = start(argv, env=environment(layout.lab, ""), log=place / "log")
    await poll(_listens(pid, board.port), deadline_s=READY_DEADLINE_S, what=f"the BMC of {host}")
    return board


def _listens(pid: int, port: int) -> Callable[[], bool]:
    def listens() -> bool:
        try:
            lines = Path(f"/proc/{pid}/net/udp").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            return False
        return any(int(line.split()[1].rpartition(":")[2], 16) == port for line in lines)

    return listens


def _config(board: LabBoard, control: str) -> str:
    lines = (
        f'name "{board.host}"',
        "set_working_mc 0x20",
        "startlan 1",
        f"addr {board.address} {board.port}",
        "priv_limit admin",
        *(f"allowed_auths_{who} {ALLOWED}" for who in ("callback", "user", "operator", "admin")),
        f"guid {host_number(board.host):032x}",
        "endlan",
        f'chassis_control "{control}"',
        f'user 2 true "{USER}" "{PASSWORD}" admin 10 {ALLOWED}',
    )
    return "".join(f"{line}\n" for line in lines)
