"""The bench of the store: its figures judge rightly, its values have the size they claim, and a short run reports all parts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from core.model import Event
from tools.bench.figures import Figure, Report, make_report, table
from tools.bench.raft.clients import drive, quantile
from tools.bench.raft.host import make_event

SHORT = ("--quick", "--seconds", "0.3", "--resources", "200")


def figure(ours: float, etcd: float | None = None, **limits: float) -> Figure:
    return Figure(name="f", unit="1/s", ours=ours, peer=etcd, **limits)


@pytest.mark.parametrize(
    ("judged", "met"),
    [
        (figure(5.0, 4.0, at_least=1.0), True),
        (figure(3.9, 4.0, at_least=1.0), False),
        (figure(6.0, 4.0, at_most=1.5), True),
        (figure(6.1, 4.0, at_most=1.5), False),
        (figure(9.0, at_most=10.0), True),
        (figure(11.0, at_most=10.0), False),
        (figure(11.0), True),
        (figure(11.0, 0.0, at_least=1.0), False),
    ],
)
def test_a_limit_is_for_the_ratio_if_etcd_was_measured_too(judged: Figure, met: bool) -> None:
    assert judged.met is met


def test_one_missed_target_is_seen_in_table_and_report() -> None:
    figures = (figure(5.0, 4.0, at_least=1.0), figure(1.0, 4.0, at_least=0.5))
    report = make_report(
        figures,
        peer="etcd",
        seconds=1.0,
        load_average=0.5,
        rounds={"x": [1.0]},
        left_out={"y": "no y"},
    )
    assert not report.ok
    assert report.ratios == {"f": 0.25}
    assert "missed" in table(report)
    assert ">= 0.5 x etcd" in table(report) and " ETCD " in table(report)
    assert "not measured: y: no y" in table(report)


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (50, 99, 7)


async def test_every_client_writes_one_value_after_the_other() -> None:
    busy: set[int] = set()

    async def write(client: int, key: int) -> None:
        assert client not in busy
        busy.add(client)
        await asyncio.sleep(0)
        busy.discard(client)

    load = await drive(write, clients=3, seconds=0.05)
    assert load.writes > 3
    assert 0 < load.p50_ms <= load.p99_ms


@pytest.mark.parametrize("size", [256, 1024])
def test_a_value_has_the_size_that_is_compared(size: int) -> None:
    stored = len(msgspec.msgpack.encode(make_event("client-1-1", 0, size)))
    assert abs(stored - size) <= 2
    assert isinstance(make_event("x", 5, size), Event)


@pytest.mark.integration
@pytest.mark.timeout(180)
async def test_a_quick_run_reports_every_part_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    argv = (sys.executable, "-m", "tools.bench.raft", *SHORT, "--out", str(out))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    text, _ = await process.communicate()
    assert process.returncode == 0, text.decode()
    report = msgspec.json.decode(out.read_bytes(), type=Report)
    compared = {found.name for found in report.figures if found.peer}
    assert {"commits, 64 clients at a follower", "p99, 64 clients at a follower"} <= compared
    names = [found.name for found in report.figures]
    for begin in ("commits, 64 clients at a replica", "point reads", "growth", "start with"):
        assert any(name.startswith(begin) for name in names), begin
    assert report.left_out == {}
    assert all(found.ours > 0 for found in report.figures if found.unit != "%")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
