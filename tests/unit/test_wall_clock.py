"""The wall clock that can be set, in real processes: the time of day jumps, nothing else does."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.ha_matrix import wall_clock
from tools.lab.layout import SYSTEM_PYTHON

READ = """
import ctypes, json, sys, time
libc = ctypes.CDLL(None)
libc.time.restype = ctypes.c_long
pair = (ctypes.c_long * 2)()
for _ in sys.stdin:
    libc.gettimeofday(pair, None)
    wall = [time.time(), time.clock_gettime(5), libc.time(None), pair[0], time.localtime() and time.time_ns() / 1e9]
    steady = [time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC_RAW)]
    print(json.dumps([wall, steady]), flush=True)
"""
FAR_S = 3600
NEAR_S = 30.0

pytestmark = pytest.mark.skipif(
    shutil.which(wall_clock.COMPILER) is None, reason="there is no C compiler"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("wall-clock") / "wall_clock.so"
    asyncio.run(wall_clock.build(built))
    return built


class Reader:
    """A process that reads all its clocks when asked."""

    def __init__(self, library: Path, file: Path) -> None:
        given = dict(setting.split("=", 1) for setting in wall_clock.settings(str(file), library))
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, "-I", "-S", "-c", READ],
            env={**os.environ, **given},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def clocks(self) -> tuple[list[float], list[float]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, steady = json.loads(self._process.stdout.readline())
        return wall, steady

    def end(self) -> None:
        self._process.communicate(timeout=10.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wall-clock"


@pytest.fixture
def reader(library: Path, file: Path) -> Iterator[Reader]:
    one = Reader(library, file)
    yield one
    one.end()


def test_the_time_of_day_jumps_there_and_back_and_no_other_clock_does(
    reader: Reader, file: Path
) -> None:
    began_wall, began_steady = reader.clocks()
    for offset_s in (FAR_S, 0, -FAR_S, 0):
        wall_clock.set_offset(file, offset_s)
        wall, steady = reader.clocks()
        for before, now in zip(began_wall, wall, strict=True):
            assert now - before == pytest.approx(offset_s, abs=NEAR_S)
        for before, now in zip(began_steady, steady, strict=True):
            assert 0 <= now - before < NEAR_S


def test_a_process_that_starts_later_has_the_offset_from_its_first_look(
    library: Path, reader: Reader, file: Path
) -> None:
    began, _ = reader.clocks()
    wall_clock.set_offset(file, FAR_S)
    later = Reader(library, file)
    wall, _ = later.clocks()
    later.end()
    assert wall[0] - began[0] == pytest.approx(FAR_S, abs=NEAR_S)


def test_one_can_tell_whether_a_process_follows_the_clock(reader: Reader, file: Path) -> None:
    reader.clocks()
    assert wall_clock.follows(reader.pid, str(file))
    assert not wall_clock.follows(os.getpid(), str(file))


def test_without_a_file_that_can_be_made_the_time_is_the_machines(
    library: Path, tmp_path: Path
) -> None:
    alone = Reader(library, tmp_path / "missing" / "wall-clock")
    plain = Reader(library, tmp_path / "plain")
    (wall, _), (same, _) = alone.clocks(), plain.clocks()
    alone.end()
    plain.end()
    assert wall[0] == pytest.approx(same[0], abs=NEAR_S)
