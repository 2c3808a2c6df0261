"""What a host does to itself for a drill: the double and the real thing keep the same promises.

The real cuts are made in a network namespace of the test's own; that packets are lost is seen in the lab.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ConflictError, PlatformError
from nodeagent.drills.faults import Faults, LinuxFaults
from nodeagent.drills.memory_faults import MemoryFaults

GUARD = """\
import socket, sys, time
line = socket.socket(socket.AF_UNIX)
line.bind(sys.argv[1])
line.listen()
print("ready", flush=True)
time.sleep(60)
"""
CUT = """\
import asyncio, subprocess, time
from pathlib import Path
from nodeagent.drills.faults import LinuxFaults

def table():
    argv = ["nft", "list", "table", "inet", "kvorum_drill"]
    return subprocess.run(argv, capture_output=True, text=True).stdout

async def main():
    faults = LinuxFaults(Path("/nowhere"))
    await faults.heal()  # nothing to end
    await faults.cut(["192.0.2.9"], 60)
    await faults.cut(["192.0.2.1", "2001:db8::1"], 1)  # in place of the one before
    assert "192.0.2.1" in table() and "2001:db8::1" in table(), table()
    assert "192.0.2.9" not in table()
    deadline = time.monotonic() + 10
    while "expires" in table():
        assert time.monotonic() < deadline, table()
        await asyncio.sleep(0.1)
    assert "drop" in table()  # of nobody
    await faults.heal()
    assert table() == ""

asyncio.run(main())
"""


@pytest.fixture(params=["memory", "linux"])
def faults(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Faults]:
    if request.param == "memory":
        yield MemoryFaults(servers={"/srv/nfs": "192.0.2.50"})
        return
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:1 / /srv/nfs rw - nfs4 nas:/v rw,addr=192.0.2.50\n")
    socket = tmp_path / "guard.sock"
    argv = [sys.executable, "-c", GUARD, str(socket)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as guard:
        assert guard.stdout is not None
        guard.stdout.readline()
        yield LinuxFaults(socket, mounts)
        guard.kill()


def test_the_guard_that_is_killed_is_the_one_that_listens(faults: Faults) -> None:
    pid = faults.guard_pid()
    assert pid not in (0, 1, os.getpid())
    faults.kill_guard()
    if isinstance(faults, LinuxFaults):
        os.waitpid(pid, 0)
        with pytest.raises(PlatformError):
            faults.guard_pid()


def test_only_a_storage_that_comes_by_a_network_has_a_server(faults: Faults) -> None:
    assert faults.storage_server("/srv/nfs") == "192.0.2.50"
    with pytest.raises(ConflictError, match="not mounted by NFS"):
        faults.storage_server("/srv/local")


def test_an_agent_does_not_kill_itself_for_its_guard(tmp_path: Path) -> None:
    async def main() -> None:
        server = await asyncio.start_unix_server(lambda r, w: None, tmp_path / "mine.sock")
        with pytest.raises(ConflictError):
            LinuxFaults(tmp_path / "mine.sock").guard_pid()
        server.close()

    asyncio.run(main())


@pytest.mark.integration
def test_a_cut_is_of_the_named_ends_by_itself_and_leaves_nothing() -> None:
    argv = ["unshare", "--net", sys.executable, "-c", CUT]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
