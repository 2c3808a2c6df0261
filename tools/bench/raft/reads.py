"""What the local store answers, as figures of this report; `tools.bench.store_reads` measures."""

from __future__ import annotations

from pathlib import Path

from tools.bench.figures import Figure
from tools.bench.store_reads import measure_reads

POINT_READS_MIN = 50_000
SCAN_RATIO_MAX = 3.0
INDEXED_P99_MS_MAX = 5.0


async def figures_of_reads(directory: Path, *, vms: int) -> list[Figure]:
    """Measure the reads of a state with `vms` VMs in an empty directory.

    Raises:
        CommandError: there is no `sqlite3`.
    """
    found = await measure_reads(directory, vms=vms)
    return [
        Figure(
            name="point reads, on one core",
            unit="1/s",
            ours=found.point_reads_per_s,
            at_least=POINT_READS_MIN,
        ),
        Figure(
            name=f"query of {vms} VMs without an index, over the sqlite3 shell's time",
            unit="x",
            ours=found.scan_ratio,
            at_most=SCAN_RATIO_MAX,
        ),
        Figure(
            name=f"p99, query of {vms} VMs by an index",
            unit="ms",
            ours=found.indexed_p99_ms,
            at_most=INDEXED_P99_MS_MAX,
        ),
        Figure(name="transactions applied, on one core", unit="1/s", ours=found.apply_txns_per_s),
    ]
