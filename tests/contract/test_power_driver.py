"""What every power driver does: the one in memory, IPMI by ipmitool against OpenIPMI's simulated board, and Redfish."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UnavailableError
from core.model import BmcProtocol
from nodeagent.power.driver import Board, PowerDriver
from nodeagent.power.drivers import PowerDrivers
from nodeagent.power.ipmi import Ipmi
from nodeagent.power.memory import MemoryPower
from tests.redfish import RedfishBoard

pytestmark = pytest.mark.timeout(60)

PASSWORD = "a-$ecret;'x"
BOARD = Board("127.0.0.1", 0, "kvorum", PASSWORD, 3)

# The host's power is a file: the simulator runs this to read and to switch it.
CHASSIS = """\
#!/bin/sh
[ "$1 $2" = "set power" ] && echo "$3" >{power}
[ "$1 $2" = "get power" ] && echo "power:$(cat {power})"
exit 0
"""
LAN = """\
name "test"
set_working_mc 0x20
startlan 1
addr 127.0.0.1 {port}
priv_limit admin
allowed_auths_admin none md2 md5 straight
guid 00000000000000000000000000000001
endlan
chassis_control "{chassis}"
user 2 true "kvorum" "{password}" admin 10 none md2 md5 straight
"""
COMMANDS = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""


class Bench:
    """A driver, a board that it reaches, and the truth about the board's host."""

    def __init__(self, driver: PowerDriver, board: Board, truth: Callable[[], bool]) -> None:
        self.driver, self.board, self.truth = driver, board, truth


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(int(line.split()[1].rpartition(":")[2], 16) == port for line in lines)


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Bench]:
    port, power, chassis = free_udp_port(), tmp_path / "power", tmp_path / "chassis"
    power.write_text("1\n")
    chassis.write_text(CHASSIS.format(power=power))
    chassis.chmod(0o700)
    lan = LAN.format(port=port, chassis=chassis, password=PASSWORD)
    (tmp_path / "lan.conf").write_text(lan)
    (tmp_path / "commands").write_text(COMMANDS)
    argv = ["ipmi_sim", "-n", "-c", tmp_path / "lan.conf", "-f", tmp_path / "commands"]
    simulator = subprocess.Popen(
        [*argv, "-s", tmp_path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + 10
        while not listens(port):
            assert time.monotonic() < deadline_s and simulator.poll() is None
            time.sleep(0.02)
        board = replace(BOARD, port=port)
        yield Bench(PowerDrivers(), board, lambda: power.read_text() == "1\n")
    finally:
        simulator.kill()
        simulator.wait()


@pytest.fixture
async def served() -> AsyncIterator[Bench]:
    async with RedfishBoard(PASSWORD).running() as stub:
        named = replace(BOARD, protocol=BmcProtocol.REDFISH, port=stub.port)
        board = await PowerDrivers().recognized(named)
        yield Bench(PowerDrivers(), board, lambda: stub.on)


REAL = {"ipmi": "simulated", "redfish": "served"}


@pytest.fixture(params=["memory", *REAL])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param in REAL:
        found: Bench = request.getfixturevalue(REAL[request.param])
        return found
    memory = MemoryPower(on={BOARD.address: True}, passwords={BOARD.address: PASSWORD})
    return Bench(memory, BOARD, lambda: memory.on[BOARD.address])


async def test_what_is_said_is_true_and_switching_may_be_repeated(bench: Bench) -> None:
    driver, board = bench.driver, bench.board
    assert await driver.is_on(board) and bench.truth()
    for _ in range(2):
        await driver.turn_off(board)
        assert not await driver.is_on(board) and not bench.truth()
    for _ in range(2):
        await driver.turn_on(board)
        assert await driver.is_on(board) and bench.truth()


async def test_a_board_that_is_known_is_recognized_as_it_is(bench: Bench) -> None:
    assert await bench.driver.recognized(bench.board) == bench.board


async def test_a_wrong_password_switches_nothing_and_is_not_repeated(bench: Bench) -> None:
    wrong = replace(bench.board, password="not the one")
    for act in (bench.driver.is_on, bench.driver.turn_off):
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1") as caught:
            await act(wrong)
        assert "not the one" not in caught.value.message
    assert bench.truth()


async def test_a_board_that_is_not_there_is_told_within_seconds(bench: Bench) -> None:
    nowhere = replace(bench.board, address="127.0.0.9", port=free_udp_port())
    began_s = time.monotonic()
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.9"):
        await bench.driver.is_on(nowhere)
    assert time.monotonic() - began_s < 10


async def test_without_ipmitool_people_are_told_what_to_install() -> None:
    with pytest.raises(UnavailableError, match="apt install ipmitool"):
        await Ipmi("/nowhere/ipmitool").is_on(BOARD)


def test_a_board_does_not_show_its_password() -> None:
    assert PASSWORD not in repr(BOARD)


async def test_the_password_is_in_no_argument(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = tmp_path / "ipmitool"
    program.write_text(f'#!/bin/sh\necho "$@" >{said}\necho Chassis Power is on\n')
    program.chmod(0o700)
    assert await Ipmi(str(program)).is_on(BOARD)
    assert PASSWORD not in said.read_text() and "chassis power status" in said.read_text()


@pytest.mark.parametrize("answer", ["", "Chassis Power is unknown", "Chassis Power Control: Up/On"])
async def test_an_answer_that_is_not_clear_is_no_answer(tmp_path: Path, answer: str) -> None:
    program = tmp_path / "ipmitool"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o700)
    with pytest.raises(UnavailableError, match="neither on nor off"):
        await Ipmi(str(program)).is_on(BOARD)
