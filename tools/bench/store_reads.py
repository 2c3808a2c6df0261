"""How fast the local store answers: reads by id, a scan by two attributes, and queries that an index serves.

`python -m tools.bench.store_reads` measures alone; the raft benchmark takes `measure_reads`. The scan is compared
with the same one in the `sqlite3` shell on the same file, so that the figure says something on any machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.clock import SystemClock, new_id
from core.command import run
from core.model import VM, kind_of
from raftstate.consensus.single import SingleNodeEngine
from raftstate.state.machine import Machine
from raftstate.state.query import Condition, Op
from raftstate.store import Store
from raftstate.txn import Put, Txn, encode_txn

VMS = 300_000
HOSTS = 3_000
PACKED = 512
POINT_READS = 100_000
SCANS = 5
INDEXED_QUERIES = 1_000
SHELL_TIMEOUT_S = 120.0

CPUS, MEMORY_MIB = tuple(range(1, 17)), tuple(512 << n for n in range(8))
WANTED = (Condition("cpus", Op.EQ, 7), Condition("memory_mib", Op.EQ, 4096))


class ReadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. `scan_ratio` is our query's time divided by the shell's, both the fastest of several."""

    vms: int
    matching: int
    apply_txns_per_s: float
    point_reads_per_s: float
    scan_s: float
    shell_scan_s: float
    scan_ratio: float
    indexed_p99_ms: float


async def measure_reads(directory: Path, *, vms: int = VMS, seed: int = 1) -> ReadFigures:
    """Fill a state with VMs in an empty directory and measure; takes about half a minute.

    Raises:
        CommandError: there is no `sqlite3`, or it failed.
    """
    rng = random.Random(seed)
    path = directory / "state.db"
    machine = Machine(path)
    try:
        ids, seconds = _fill(machine, vms, rng)
        engine = SingleNodeEngine(machine)
        store = Store(machine, engine, clock=SystemClock(), rng=rng)
        scan_s, matching = await _scan(store)
        shell_s = await _shell_scan(machine, path)
        return ReadFigures(
            vms=vms,
            matching=matching,
            apply_txns_per_s=round(vms / seconds),
            point_reads_per_s=round(_point_reads(store, ids, rng)),
            scan_s=round(scan_s, 4),
            shell_scan_s=round(shell_s, 4),
            scan_ratio=round(scan_s / shell_s, 2),
            indexed_p99_ms=round(await _indexed_p99_s(store, rng) * 1000, 3),
        )
    finally:
        machine.close()


def _fill(machine: Machine, vms: int, rng: random.Random) -> tuple[list[str], float]:
    """Apply one transaction for each VM; return the ids and the seconds that `apply` took."""
    ids, seconds, batch = [], 0.0, []
    for number, (id_, payload) in enumerate(_transactions(vms, rng), start=1):
        ids.append(id_)
        batch.append(payload)
        if len(batch) == PACKED or number == vms:
            began_s = time.perf_counter()
            machine.apply(machine.applied() + 1, batch)
            seconds += time.perf_counter() - began_s
            batch = []
    return ids, seconds


def _transactions(vms: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    for number in range(vms):
        vm = VM(
            id=new_id(rng),
            name=f"vm-{number}",
            cluster_id="cluster",
            host_id=f"host-{rng.randrange(HOSTS)}",
            cpus=rng.choice(CPUS),
            memory_mib=rng.choice(MEMORY_MIB),
            created_ms=number,
        )
        put = Put(
            kind=kind_of(VM),
            id=vm.id,
            name=vm.name,
            body=msgspec.msgpack.encode(vm),
            claims=vm.claims(),
        )
        # A second passes for each twenty, so that the memory of requests is as full as it gets.
        txn = Txn(
            request_id=new_id(rng),
            stamp_ms=number * 50,
            guards={f"{put.kind}/{vm.id}": 0},
            puts=(put,),
        )
        yield vm.id, encode_txn(txn)


def _point_reads(store: Store, ids: list[str], rng: random.Random) -> float:
    """Return reads by id a second, of VMs in random order."""
    wanted = rng.choices(ids, k=POINT_READS)
    began_s = time.perf_counter()
    for id_ in wanted:
        store.get(VM, id_)
    return POINT_READS / (time.perf_counter() - began_s)


async def _scan(store: Store) -> tuple[float, int]:
    """Return the seconds of the fastest of some queries by attributes without an index, and how many match."""
    seconds, matching = [], 0
    for _ in range(SCANS):
        began_s = time.perf_counter()
        matching = len(await store.select(VM, where=WANTED, limit=10_000, timeout_s=60))
        seconds.append(time.perf_counter() - began_s)
    return min(seconds), matching


async def _shell_scan(machine: Machine, path: Path) -> float:
    """Return the seconds of the fastest of the same scans in the shell, by the shell's own timer."""
    conditions = " AND ".join(f"{c.field} {c.op.value} {c.value}" for c in WANTED)
    query = f"SELECT * FROM {machine.table(kind_of(VM)).name} WHERE {conditions};"  # noqa: S608 - constants of this file
    script = ".timer on\n" + query * SCANS
    result = await run(
        ["sqlite3", "-readonly", str(path)], timeout_s=SHELL_TIMEOUT_S, input=script.encode()
    )
    times = [
        line.split()[3] for line in result.stdout.splitlines() if line.startswith(b"Run Time: real")
    ]
    return min(float(one) for one in times)


async def _indexed_p99_s(store: Store, rng: random.Random) -> float:
    """Return the 99th percentile of queries for the VMs of a host with a condition more."""
    seconds = []
    for _ in range(INDEXED_QUERIES):
        where = (
            Condition("host_id", Op.EQ, f"host-{rng.randrange(HOSTS)}"),
            Condition("cpus", Op.GT, 4),
        )
        began_s = time.perf_counter()
        await store.select(VM, where=where)
        seconds.append(time.perf_counter() - began_s)
    return sorted(seconds)[len(seconds) * 99 // 100]


def main() -> None:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=VMS)
    with tempfile.TemporaryDirectory(prefix="store-reads-") as directory:
        figures = asyncio.run(measure_reads(Path(directory), vms=parser.parse_args().vms))
    print(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode())


if __name__ == "__main__":
    main()
