"""The bench reads the kernel's numbers right, and calls what is over its target over."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from core.errors import NotFoundError
from tools.bench.report import ProcessCost, Report, is_within_targets, table
from tools.bench.store_reads import measure_reads
from tools.bench.usage import Usage, cpu_percent, read_usage

STATUS = "Name:\tpython\nVmPeak:\t  999999 kB\nVmRSS:\t   98304 kB\nThreads:\t7\n"
ROLLUP = "5500-7fff ---p 00000000 00:00 0 [rollup]\nRss: 98304 kB\nPss: 51200 kB\nPss_Dirty: 1 kB\n"
STAT = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 7 0 12345 1 2\n"


def cost(service: str = "agent", *, rss: float = 90.0, cpu: float = 1.0) -> ProcessCost:
    return ProcessCost(
        host="h1", service=service, rss_mib=rss, pss_mib=50.0, cpu_percent=cpu, threads=7
    )


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    directory = tmp_path / "42"
    directory.mkdir()
    for name, text in (("status", STATUS), ("smaps_rollup", ROLLUP), ("stat", STAT)):
        (directory / name).write_text(text)
    return tmp_path


def test_a_reading_takes_own_and_ended_childrens_time_whatever_the_name_of_the_process(
    proc: Path,
) -> None:
    assert read_usage(42, proc=proc) == Usage(cpu_ticks=124, rss_mib=96.0, pss_mib=50.0, threads=7)


def test_a_process_that_is_gone_is_named(proc: Path) -> None:
    with pytest.raises(NotFoundError, match="43"):
        read_usage(43, proc=proc)


def test_the_share_of_a_core_is_of_the_window() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    before, after = (Usage(cpu_ticks=n, rss_mib=0, pss_mib=0, threads=1) for n in (0, ticks // 2))
    assert cpu_percent(before, after, 25.0) == pytest.approx(2.0)


async def test_a_busy_process_is_seen_as_busy() -> None:
    before, began_s = read_usage(os.getpid()), time.monotonic()
    end_s = time.process_time() + 0.2
    while time.process_time() < end_s:
        await asyncio.sleep(0)
    after = read_usage(os.getpid())
    assert after.cpu_ticks - before.cpu_ticks >= 0.15 * os.sysconf("SC_CLK_TCK")
    assert cpu_percent(before, after, time.monotonic() - began_s) > 0
    assert after.rss_mib >= after.pss_mib > 0


@pytest.mark.parametrize(
    ("costs", "within"),
    [
        ((cost(), cost("guard", rss=500.0, cpu=50.0)), True),
        ((cost(rss=120.1),), False),
        ((cost(), cost(cpu=2.01)), False),
        ((cost(rss=120.0, cpu=2.0),), True),
        ((cost("guard"),), False),
        ((), False),
    ],
)
def test_targets_are_those_of_agents_and_an_agent_must_have_been_measured(
    costs: tuple[ProcessCost, ...], within: bool
) -> None:
    assert is_within_targets(costs) is within


def test_the_table_says_what_is_over() -> None:
    report = Report(
        ok=False,
        settle_seconds=20,
        window_seconds=30,
        load_average=1.0,
        targets={},
        processes=(cost(), cost(rss=130.0, cpu=3.0), cost("guard", rss=500.0)),
        vm_create_seconds=1.26,
        vm_delete_seconds=1.0,
        commits_per_second=433.6,
    )
    lines = table(report).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["ok", "CPU"]
    assert "over: RSS, CPU" in lines[2]
    assert "over" not in lines[3]
    assert "create of a tiny VM: 1.3 s" in table(report)


async def test_reads_of_the_store_are_measured_against_the_shell(tmp_path):
    figures = await measure_reads(tmp_path, vms=3000)
    assert figures.vms == 3000
    assert 0 < figures.matching < 300
    assert figures.scan_ratio > 0
    assert figures.point_reads_per_s > 0
    assert figures.indexed_p99_ms > 0
