"""The lab keeps its promises: hosts are hosts, faults are faults, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from core.command import CommandError, run
from core.errors import UnavailableError
from tests.integration.conftest import LabFactory, poll
from tools.lab import processes
from tools.lab.lab import Lab
from tools.lab.layout import REPOSITORY, RUN_ROOT, STATE_ROOT, environment
from tools.lab.power_protocol import PowerClient, Request
from tools.lab.services import LIBVIRTD, Service, plain_serf
from tools.lab.spawn import collect, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SLEEPER = Service(name="sleeper", argv=("/usr/bin/sleep", "3600"))
ONCE = Service(name="once", argv=("/usr/bin/sleep", "3600"), restart=False)
SOCKET = "/run/late.sock"
LISTENS_LATE = f"""
import os, socket, time
time.sleep(1)
if os.path.exists({SOCKET!r}):
    os.unlink({SOCKET!r})
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind({SOCKET!r})
    listener.listen()
    time.sleep(3600)
"""
LATE = Service(name="late", argv=("/usr/bin/python3", "-I", "-c", LISTENS_LATE), ready=SOCKET)


@pytest.fixture(scope="module")
def plain(lab_factory: LabFactory) -> Lab:
    """Three hosts with libvirtd, serf and two harmless services; h1 has one more, which takes its time to start."""
    usual = {host: (LIBVIRTD, plain_serf(host), SLEEPER, ONCE) for host in ("h1", "h2", "h3")}
    return lab_factory(3, usual | {"h1": (*usual["h1"], LATE)})


@pytest.fixture
async def healed(plain: Lab) -> Lab:
    """The same, every host on and no fault left of the test before."""
    await plain.heal()
    await plain.power_on(*plain.hosts)
    return plain


async def alive(lab: Lab, host: str) -> set[str]:
    lines = (await lab.text(host, "serf", "members")).splitlines()
    return {line.split()[0] for line in lines if line.split()[2] == "alive"}


async def reaches(lab: Lab, source: str, target: str) -> bool:
    try:
        await lab.run(source, "ping", "-c1", "-W1", lab.address(target))
    except CommandError:
        return False
    return True


async def test_each_host_is_a_machine_of_its_own(healed: Lab) -> None:
    lab = healed
    seen = {}
    for host in lab.hosts:
        text = await lab.text(host, "cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
        uri = ("virsh", "-q", "-c", "qemu:///system")
        capabilities = await lab.text(host, *uri, "capabilities")
        seen[host] = (*text.split(), capabilities.split("<uuid>")[1].split("<")[0])
        assert (await lab.text(host, "hostname")).strip() == host
    assert len({value for values in seen.values() for value in values}) == 9
    assert await lab.text("h1", "ls", "/run/netns") == ""


async def test_a_service_is_not_starved_by_guests_each_of_which_is_a_session(healed: Lab) -> None:
    lab = healed
    pid = (await lab.text("h1", "pgrep", "-x", "libvirtd")).strip()
    service = await lab.text("h1", "cat", f"/proc/{pid}/autogroup")
    session = await lab.text("h1", "setsid", "--wait", "cat", "/proc/self/autogroup")
    assert service.split()[-1] == "-15"
    assert session.split()[-1] == "0"


async def test_gossip_sees_a_cut_host_fail_and_come_back(healed: Lab) -> None:
    lab = healed
    await poll(lambda: _all_alive(lab), 20)
    await lab.cut("h3")
    assert not await reaches(lab, "h1", "h3")
    assert not await reaches(lab, "h3", "h1")
    await poll(lambda: _is_alive(lab, "h1", {"h1", "h2"}), 30)
    await lab.heal("h3")
    await poll(lambda: reaches(lab, "h1", "h3"), 10)
    await poll(lambda: _all_alive(lab), 30)


async def _all_alive(lab: Lab) -> bool:
    return await alive(lab, "h1") == set(lab.hosts)


async def _is_alive(lab: Lab, host: str, names: set[str]) -> bool:
    return await alive(lab, host) == names


async def test_a_cable_can_fail_in_one_direction_and_between_two_hosts(healed: Lab) -> None:
    lab = healed
    await lab.partial("h1", "h2")
    assert not await reaches(lab, "h1", "h2")
    await poll(lambda: reaches(lab, "h1", "h3"), 10)
    await poll(lambda: reaches(lab, "h2", "h3"), 10)
    await lab.heal("h2")
    await poll(lambda: reaches(lab, "h1", "h2"), 10)
    for direction in ("in", "out"):
        await lab.one_way("h1", direction)
        before = await _received(lab, "h2")
        assert not await reaches(lab, "h1", "h2")
        heard = await _received(lab, "h2") > before
        assert heard == (direction == "in")
        await lab.heal("h1")


async def _received(lab: Lab, host: str) -> int:
    """Return how many pings a host's kernel has received so far."""
    text = await lab.text(host, "cat", "/proc/net/snmp")
    names, values = [line.split() for line in text.splitlines() if line.startswith("Icmp:")]
    return int(values[names.index("InEchos")])


async def test_a_power_off_kills_everything_and_keeps_the_disks(healed: Lab) -> None:
    lab = healed
    boot = await lab.text("h2", "cat", "/proc/sys/kernel/random/boot_id")
    await lab.run(
        "h2", "sh", "-c", "echo kept >/var/lib/kvorum/disk; echo lost >/run/kvorum/memory"
    )
    await lab.run("h2", "ip", "netns", "add", "kdhcp1")
    pids = [process.pid for process in lab.processes("h2")]
    assert len(pids) > 4
    await lab.power_off("h2")
    assert [pid for pid in pids if processes.describe(pid) is not None] == []
    assert (await lab.status("h2")).why == "switched off"
    await lab.power_on("h2")
    assert await lab.text("h2", "cat", "/var/lib/kvorum/disk") == "kept\n"
    assert (
        await lab.text("h2", "sh", "-c", "ls /run/kvorum /run/netns | grep -c memory; true")
        == "0\n"
    )
    assert await lab.text("h2", "cat", "/proc/sys/kernel/random/boot_id") != boot
    await poll(lambda: reaches(lab, "h1", "h2"), 10)


async def test_a_killed_service_comes_back_unless_it_must_not(healed: Lab) -> None:
    lab = healed
    before = lab.service_pid("h1", "sleeper")
    lab.kill("h1", "sleeper")
    lab.kill("h1", "once")
    await poll(lambda: lab.service_pid("h1", "sleeper") not in (None, before), 5)
    assert lab.service_pid("h1", "once") is None


async def test_a_killed_service_is_not_ready_before_it_listens_again(healed: Lab) -> None:
    lab = healed
    before = lab.service_pid("h1", "late")
    lab.kill("h1", "late")
    await poll(lambda: lab.service_pid("h1", "late") not in (None, before), 5)
    await lab.wait_ready("h1")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(lab.inside("h1", SOCKET)))


async def test_a_frozen_host_does_nothing_until_thawed(healed: Lab) -> None:
    lab = healed
    await lab.freeze("h1")
    assert all(process.stopped for process in lab.processes("h1"))
    lab.thaw("h1")
    members = await lab.text("h1", "serf", "members", timeout_s=10)
    assert "h1" in members


def feed(lab: Lab, host: str, *lines: str) -> socket.socket:
    """Speak as a guard does, from outside, to a host's watchdog."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(lab.inside(host, "/run/kvorum/watchdog.sock")))
    connection.sendall("".join(f"{line}\n" for line in lines).encode())
    return connection


async def test_a_silent_watchdog_resets_the_host(healed: Lab) -> None:
    lab = healed
    with feed(lab, "h3", "arm 0.8", "feed"):
        await poll(lambda: _armed(lab, "h3"), 5)
    # The guard has hung up: that disarms nothing.
    await poll(lambda: _off_because(lab, "h3", "watchdog"), 5)
    assert lab.first_pid("h3") is None
    await lab.boot_after_reset("h3", True)
    await lab.power_on("h3")
    with feed(lab, "h3", "arm 0.5"):
        await poll(lambda: _booted_again(lab, "h3"), 10)
    await lab.boot_after_reset("h3", False)


async def test_a_fed_or_disarmed_watchdog_leaves_the_host_alone(healed: Lab) -> None:
    lab = healed
    first = lab.first_pid("h3")
    with feed(lab, "h3", "arm 1") as connection:
        loops = iter(range(1000))

        def fed_for_two_seconds() -> bool:
            connection.sendall(b"feed\n")
            return next(loops) >= 8

        await poll(fed_for_two_seconds, 10, every_s=0.25)
        connection.sendall(b"disarm\n")
        await poll(lambda: _disarmed(lab, "h3"), 5)
    assert lab.first_pid("h3") == first


async def _armed(lab: Lab, host: str) -> bool:
    return (await lab.status(host)).watchdog.armed


async def _disarmed(lab: Lab, host: str) -> bool:
    return not (await lab.status(host)).watchdog.armed


async def _off_because(lab: Lab, host: str, reason: str) -> bool:
    state = await lab.status(host)
    return state.power == "off" and reason in state.why


async def _booted_again(lab: Lab, host: str) -> bool:
    state = await lab.status(host)
    return state.power == "on" and "booted again" in state.why


async def test_a_management_board_may_be_dead_or_lie(healed: Lab) -> None:
    lab = healed
    board = PowerClient(lab.layout.bmc_socket)
    await lab.bmc("h2", "lying")
    assert (await board.ask(Request(verb="off", host="h2"))).power == "off"
    assert (await lab.status("h2")).power == "on"
    await lab.bmc("h2", "dead")
    with pytest.raises(UnavailableError):
        await board.ask(Request(verb="off", host="h2"), timeout_s=0.5)
    await lab.bmc("h2", "honest")
    assert (await board.ask(Request(verb="off", host="h2"))).power == "off"
    assert (await lab.status("h2")).power == "off"


def traces(name: str) -> list[str]:
    """Return everything a lab of that name has left on the machine."""
    found = [str(root / name) for root in (RUN_ROOT, STATE_ROOT) if (root / name).exists()]
    found += [str(path) for path in Path("/run/netns").glob(f"kvl-{name}-*")]
    found += [f"process {pid}" for pid in processes.of_lab(name)]
    found += [
        f"mount {line}"
        for line in Path("/proc/mounts").read_text().splitlines()
        if f"/{name}/" in line
    ]
    return found


async def test_up_and_down_leave_no_trace_though_killed_half_way(tmp_path: Path) -> None:
    name = f"t{os.getpid()}-killed"
    argv = [sys.executable, "-m", "tools.lab.main", "--lab", name, "up", "2"]
    environ = environment("none", "none") | {"PYTHONPATH": str(REPOSITORY)}
    for moment in (".", "power.pid", "h1/pid"):
        pid = start(argv, env=environ, log=tmp_path / "up.log")
        seen = RUN_ROOT / name / moment
        await poll(seen.exists, 20, every_s=0.005)
        os.kill(pid, signal.SIGKILL)
        collect(pid)
        assert traces(name)
    lab = await Lab.up(name, 2, services=(LIBVIRTD,))
    controller = int(lab.layout.power_pid.read_text())
    os.kill(controller, signal.SIGKILL)
    for _again in range(2):
        await run([*argv[:-2], "down"], timeout_s=30, env=environ)
        assert traces(name) == []
