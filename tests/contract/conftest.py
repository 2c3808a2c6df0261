"""What contract tests of data storages share: one of each kind, and a running VM's QEMU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.directory_driver import LocalDriver, SharedDriver
from storage.memory_driver import MemoryDriver
from tests.storages import HOST, STORAGE, Subject, make_image, move_away

HOLDER = """
import subprocess, sys
qemu = subprocess.Popen(
    ["qemu-system-x86_64", "-S", "-machine", "none", "-display", "none", "-monitor", "stdio",
     "-blockdev", "driver=qcow2,node-name=d,file.driver=file,file.filename=" + sys.argv[1]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
qemu.stdout.readline()
print("open", flush=True)
sys.stdin.read()
qemu.kill()
qemu.wait()
"""


@pytest.fixture(params=["local", "shared", "memory"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    match request.param:
        case "local":
            driver: LocalDriver | SharedDriver = LocalDriver(
                STORAGE, tmp_path / "new" / "local", host_id=HOST
            )
            found = Subject(driver, make_image(driver), None)
        case "shared":
            (tmp_path / "mnt").mkdir()
            driver = SharedDriver(STORAGE, tmp_path / "mnt", host_id=HOST)
            found = Subject(driver, make_image(driver), lambda: move_away(tmp_path / "mnt"))
        case _:
            memory = MemoryDriver(STORAGE)
            found = Subject(memory, memory.add_image, lambda: setattr(memory, "mounted", False))
    await found.driver.create_storage()
    return found


@pytest.fixture
def hold() -> Iterator[Callable[[Path], None]]:
    """Open a disk as a running VM does."""
    holders: list[subprocess.Popen[bytes]] = []

    def start(path: Path) -> None:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"

    yield start
    for holder in holders:
        holder.communicate()
