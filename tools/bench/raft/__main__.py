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
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.errors import PlatformError
from tools.bench.raft.commits import MANY, measure_commits
from tools.bench.raft.recovery import measure_recovery
from tools.bench.raft.replicas import measure_replicas
from tools.bench.raft.report import Figure, make_report, table

BUILD = Path(__file__).resolve().parents[3] / "build"
NO_REPLICAS = "this engine has no replicas"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    seconds: float
    replicas: int
    resources: int
    size_mib: int


FULL = Scale(rounds=5, seconds=4.0, replicas=100, resources=1_000_000, size_mib=1024)
QUICK = Scale(rounds=1, seconds=0.5, replicas=3, resources=1000, size_mib=1)


def say(text: str) -> None:
    """Print at once, so that a pipe shows progress too."""
    print(text, flush=True)


async def bench(scale: Scale, *, only: str, out: Path, profile: Path | None) -> int:
    """Measure, print and write; return the exit code."""
    figures: list[Figure] = []
    rounds: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    began_s = time.perf_counter()
    out = out.resolve()  # the processes have a directory of their own
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-raft-", dir=out.parent) as name:
            for part in ("commits", "replicas", "recovery"):
                if only in ("", part):
                    say(f"{part} ...")
                    directory = Path(name) / part
                    directory.mkdir()
                    if part == "commits":
                        commits, replica = await measure_commits(
                            directory, rounds=scale.rounds, seconds=scale.seconds, profile=profile
                        )
                        figures += commits.figures()
                        rounds |= commits.rounds()
                        if not replica:
                            left_out[f"commits, {MANY} clients at a replica"] = NO_REPLICAS
                    elif part == "replicas":
                        growth = await measure_replicas(
                            directory,
                            replicas=scale.replicas,
                            rounds=scale.rounds,
                            seconds=scale.seconds,
                        )
                        if growth is None:
                            left_out[f"cost of {scale.replicas} replicas"] = NO_REPLICAS
                        else:
                            figures.append(growth)
                    else:
                        figures += await measure_recovery(
                            directory, resources=scale.resources, size_mib=scale.size_mib
                        )
    except PlatformError as error:
        say(f"the bench failed: {error.message}")
        return 1
    report = make_report(
        figures,
        seconds=round(time.perf_counter() - began_s, 1),
        load_average=os.getloadavg()[0],
        rounds=rounds,
        left_out=left_out,
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
    parser.add_argument(
        "--only", choices=("commits", "replicas", "recovery"), default="", help="one part"
    )
    parser.add_argument(
        "--profile", type=Path, metavar="DIRECTORY", help="write cProfile files of the voters there"
    )
    parser.add_argument(
        "--out", type=Path, default=BUILD / "bench-raft.json", help="where the report goes"
    )
    arguments = parser.parse_args()
    base = QUICK if arguments.quick else FULL
    names = ("rounds", "seconds", "replicas", "resources", "size_mib")
    chosen = {name: getattr(arguments, name) for name in names}
    scale = Scale(**{n: v or getattr(base, n) for n, v in chosen.items()})
    sys.exit(
        asyncio.run(bench(scale, only=arguments.only, out=arguments.out, profile=arguments.profile))
    )


if __name__ == "__main__":
    main()
