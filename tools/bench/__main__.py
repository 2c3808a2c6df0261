"""`make bench`: measure an idle cluster of three hosts in a fresh lab, and how quick small things are.

Prints a table and writes `build/bench.json`. Exit code 0 when everything could be measured, whatever came out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from core.errors import PlatformError
from tools.bench.measure import commits_per_second, idle_costs, vm_seconds
from tools.bench.report import CPU_PERCENT_MAX, RSS_MIB_MAX, Report, is_within_targets, table
from tools.guests.build import guest_image
from tools.lab.cluster import form_cluster
from tools.lab.lab import Lab

BUILD = Path(__file__).resolve().parents[2] / "build"
LAB = "bench"
HOSTS = 3
SETTLE_S, WINDOW_S, COMMITS_S = 20.0, 30.0, 5.0


def say(text: str) -> None:
    """Print at once, so that a pipe shows progress too."""
    print(text, flush=True)


async def bench(*, window_s: float, out: Path) -> int:
    """Measure, print and write; return the exit code."""
    image = str(await guest_image("tiny", say=say))
    lab: Lab | None = None
    try:
        say(f"{HOSTS} hosts start and form a cluster")
        lab = await Lab.up(LAB, HOSTS)
        await form_cluster(lab)
        say(f"idle: {SETTLE_S:.0f} s to settle, then {window_s:.0f} s measured")
        costs = await idle_costs(lab, settle_s=SETTLE_S, window_s=window_s)
        load = os.getloadavg()[0]
        say("a VM, and small changes")
        create_s, delete_s = await vm_seconds(lab, image)
        rate = await commits_per_second(lab, lab.hosts[1], seconds=COMMITS_S)
    except PlatformError as error:
        say(f"the bench failed: {error.message}")
        return 1
    finally:
        if lab is not None:
            await lab.down()
    report = Report(
        ok=is_within_targets(costs),
        settle_seconds=SETTLE_S,
        window_seconds=window_s,
        load_average=round(load, 1),
        targets={"rss_mib": RSS_MIB_MAX, "cpu_percent": CPU_PERCENT_MAX},
        processes=costs,
        vm_create_seconds=round(create_s, 2),
        vm_delete_seconds=round(delete_s, 2),
        commits_per_second=round(rate, 1),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    say(f"\n{table(report)}\n(written to {out})")
    return 0


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "--window", type=float, default=WINDOW_S, metavar="SECONDS", help="how long to watch idling"
    )
    parser.add_argument(
        "--out", type=Path, default=BUILD / "bench.json", help="where the report goes"
    )
    arguments = parser.parse_args()
    sys.exit(asyncio.run(bench(window_s=arguments.window, out=arguments.out)))


if __name__ == "__main__":
    main()
