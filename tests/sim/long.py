"""Many seeds in two worker processes, without the test runner: `make sim-long SEEDS=20000 FROM=0`.

Stops at the first violation and says how to repeat it. Writes `build/sim-long.json`, also when it is interrupted
(Ctrl-C): then it holds what was reached by then, and from where to go on.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import logging
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.sim.report import Report
from tests.sim.simulate import storm

BATCH = 20
TELL_EVERY_S = 5.0
SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Done:
    """What a batch of seeds came to; `violation` is the first failure, with its seed."""

    reached: list[Counter[str]]
    seed: int = -1
    violation: str = ""


def run_batch(seeds: range) -> Done:
    """Run seeds one after the other, in a worker process."""
    for name in ("raftstate", "pysyncobj", "asyncio"):
        logging.getLogger(name).propagate = False
    reached: list[Counter[str]] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as directory:
            try:
                reached.append(storm(Path(directory), seed))
            except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
                return Done(reached, seed, traceback.format_exc())
    return Done(reached)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the workers, too; they finish what they have begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(first: int, count: int, workers: int) -> int:
    """Run the seeds and return the exit code."""
    report, begun = Report(), time.monotonic()
    told, violations = begun, []
    batches = [
        range(start, min(start + BATCH, first + count))
        for start in range(first, first + count, BATCH)
    ]
    stopping: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopping.append(number))
    with concurrent.futures.ProcessPoolExecutor(workers, initializer=_ignore_interrupts) as pool:
        waiting = {pool.submit(run_batch, batch) for batch in batches}
        while waiting and not violations and not stopping:
            done, waiting = concurrent.futures.wait(
                waiting, timeout=1.0, return_when="FIRST_COMPLETED"
            )
            for future in done:
                for reached in future.result().reached:
                    report.add(reached)
                if future.result().violation:
                    violations.append(future.result())
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                rate = report.seeds / (told - begun)
                print(f"{report.seeds} of {count} seeds, {rate:.1f} a second", flush=True)
        pool.shutdown(wait=True, cancel_futures=True)
        for future in waiting:  # those that were under way
            if not future.cancelled() and not (outcome := future.result()).violation:
                for reached in outcome.reached:
                    report.add(reached)
            elif not future.cancelled():
                violations.append(outcome)
    took_s = time.monotonic() - begun
    failed = sorted((each.seed, each.violation) for each in violations)
    report.write(
        "sim-long.json",
        first=first,
        seconds=round(took_s, 1),
        violations=[{"seed": seed, "what": what} for seed, what in failed],
    )
    print("\n".join(report.lines()))
    for seed, violation in failed:
        print(f"{violation}\nVIOLATION; repeat it: make sim SEED={seed}")
    if stopping and not failed:
        print(f"interrupted; go on with: make sim-long FROM={first + report.seeds}")
    print(f"{report.seeds} seeds in {took_s:.0f} s, {report.seeds / took_s:.1f} a second")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    return run(options.first, options.seeds, options.workers)


if __name__ == "__main__":
    sys.exit(main())
