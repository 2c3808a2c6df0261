"""Many seeds in worker processes, without the test runner: `make sim-ha-long SEEDS=50000 FROM=0`.

Goes on after a violation, and says how to repeat each. Writes `build/sim-ha.json`, also when it is interrupted (Ctrl-C).
`python -m tests.sim_ha.long --seed N` plays one seed and tells its story.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field

from tests.sim.report import Report
from tests.sim_ha.laws import Violation
from tests.sim_ha.world import play_seed, quiet

BATCH = 50
TELL_EVERY_S = 10.0
REPEAT = "repeat it: .venv/bin/python -m tests.sim_ha.long --seed"


@dataclass
class Done:
    """What a batch of seeds came to."""

    reached: list[Counter[str]] = field(default_factory=list)
    violations: dict[int, str] = field(default_factory=dict)


def run_batch(seeds: range) -> Done:
    """Play seeds one after the other, in a worker process."""
    quiet()
    done = Done()
    for seed in seeds:
        try:
            done.reached.append(play_seed(seed).reached)
        except Violation as violation:
            done.violations[seed] = str(violation)
        except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
            done.violations[seed] = traceback.format_exc()
    return done


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the workers, too; they finish what they have begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(first: int, count: int, workers: int) -> int:
    """Play the seeds and return the exit code."""
    report, violations = Report(), dict[int, str]()
    begun = told = time.monotonic()
    stopping: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopping.append(number))
    batches = [
        range(start, min(start + BATCH, first + count))
        for start in range(first, first + count, BATCH)
    ]
    with concurrent.futures.ProcessPoolExecutor(workers, initializer=_ignore_interrupts) as pool:
        waiting = {pool.submit(run_batch, batch) for batch in batches}
        while waiting and not stopping:
            done, waiting = concurrent.futures.wait(
                waiting, timeout=1.0, return_when="FIRST_COMPLETED"
            )
            for future in done:
                for reached in future.result().reached:
                    report.add(reached)
                violations |= future.result().violations
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                played = report.seeds + len(violations)
                print(f"{played} of {count} seeds, {len(violations)} violations", flush=True)
        pool.shutdown(wait=True, cancel_futures=True)
    took_s = time.monotonic() - begun
    report.write(
        "sim-ha.json",
        first=first,
        seconds=round(took_s, 1),
        violations=[{"seed": seed, "what": what} for seed, what in sorted(violations.items())],
    )
    print("\n".join(report.lines()))
    for seed, what in sorted(violations.items()):
        print(f"VIOLATION {what}; {REPEAT} {seed}")
    played = report.seeds + len(violations)
    print(f"{played} seeds in {took_s:.0f} s, {len(violations)} violations")
    return 1 if violations else 0


def tell(seed: int) -> int:
    """Play one seed and tell its story."""
    quiet()
    try:
        play_seed(seed, write=print)
    except Violation as violation:
        print(f"VIOLATION {violation}")
        return 1
    print("all laws held")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50_000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    if options.seed is not None:
        return tell(options.seed)
    return run(options.first, options.seeds, options.workers)


if __name__ == "__main__":
    sys.exit(main())
