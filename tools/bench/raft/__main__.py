"""`make bench-raft`: the store's speed next to etcd's, what replicas cost, and how long recovery takes.

Prints a table and writes `build/bench-raft.json`. Exit code 0 when everything could be measured, whatever came out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.errors import PlatformError
from tools.bench.figures import Figure, make_report, table
from tools.bench.raft.commits import MANY, measure_commits
from tools.bench.raft.reads import figures_of_reads
from tools.bench.raft.recovery import measure_recovery
from tools.bench.raft.replicas import measure_replicas

BUILD = Path(__file__).resolve().parents[3] / "build"
PARTS = ("commits", "reads", "replicas", "recovery")
NO_REPLICAS = "this engine has no replicas"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    seconds: float
    replicas: int
    vms: int
    resources: int
    size_mib: int


FULL = Scale(rounds=5, seconds=4.0, replicas=100, vms=300_000, resources=1_000_000, size_mib=1024)
QUICK = Scale(rounds=1, seconds=0.5, replicas=3, vms=2000, resources=1000, size_mib=1)


@dataclass(slots=True)
class Found:
    """What has been measured so far."""

    figures: list[Figure] = field(default_factory=list)
    rounds: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def say(text: str) -> None:
    """Print at once, so that a pipe shows progress too."""
    print(text, flush=True)


async def measure(
    part: str, scale: Scale, found: Found, directory: Path, profile: Path | None
) -> None:
    """Measure one part in an empty directory."""
    match part:
        case "commits":
            commits, replica = await measure_commits(
                directory, rounds=scale.rounds, seconds=scale.seconds, profile=profile
            )
            found.figures += commits.figures()
            found.rounds |= commits.rounds()
            if not replica:
                found.left_out[f"commits, {MANY} clients at a replica"] = NO_REPLICAS
        case "reads":
            found.figures += await figures_of_reads(directory, vms=scale.vms)
        case "replicas":
            growth = await measure_replicas(
                directory, replicas=scale.replicas, rounds=scale.rounds, seconds=scale.seconds
            )
            if growth is None:
                found.left_out[f"cost of {scale.replicas} replicas"] = NO_REPLICAS
            else:
                found.figures.append(growth[0])
                found.rounds |= growth[1]
        case _:
            found.figures += await measure_recovery(
                directory, resources=scale.resources, size_mib=scale.size_mib
            )


async def bench(scale: Scale, *, parts: Sequence[str], out: Path, profile: Path | None) -> int:
    """Measure, print and write; return the exit code."""
    found = Found()
    began_s = time.perf_counter()
    out = out.resolve()  # the processes have a directory of their own
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-raft-", dir=out.parent) as name:
            for part in parts:
                say(f"{part} ...")
                directory = Path(name) / part
                directory.mkdir()
                await measure(part, scale, found, directory, profile)
    except PlatformError as error:
        say(f"the bench failed: {error.message}")
        return 1
    report = make_report(
        found.figures,
        peer="etcd",
        seconds=round(time.perf_counter() - began_s, 1),
        load_average=os.getloadavg()[0],
        rounds=found.rounds,
        left_out=found.left_out,
    )
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    say(f"\n{table(report)}\n(written to {out})")
    return 0


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.raft", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--rounds", type=int, help="how often ours and etcd take turns")
    parser.add_argument("--seconds", type=float, help="the length of a turn")
    parser.add_argument("--replicas", type=int, help="how many replicas")
    parser.add_argument("--resources", type=int, help="how many resources to recover")
    parser.add_argument("--mib", type=int, dest="size_mib", help="how big the state to recover is")
    parser.add_argument("--vms", type=int, help="how many VMs to read and query")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part (repeatable)")
    parser.add_argument(
        "--profile", type=Path, metavar="DIRECTORY", help="write cProfile files of the voters there"
    )
    parser.add_argument(
        "--out", type=Path, default=BUILD / "bench-raft.json", help="where the report goes"
    )
    arguments = parser.parse_args()
    base = QUICK if arguments.quick else FULL
    names = ("rounds", "seconds", "replicas", "vms", "resources", "size_mib")
    chosen = {name: getattr(arguments, name) for name in names}
    scale = Scale(**{n: v or getattr(base, n) for n, v in chosen.items()})
    parts = arguments.only or PARTS
    sys.exit(asyncio.run(bench(scale, parts=parts, out=arguments.out, profile=arguments.profile)))


if __name__ == "__main__":
    main()
