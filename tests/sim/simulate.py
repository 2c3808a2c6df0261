"""Runs a story on a simulated cluster, and gives every failure its diary. Used by the tests here and by `long`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.sim import inside
from tests.sim.flavours import STORM, Flavour, of_seed
from tests.sim.loop import SimLoop
from tests.sim.power import Power
from tests.sim.raft_chaos import chaos
from tests.sim.raft_cluster import Cluster

Story = Callable[[Cluster], Awaitable[None]]


def simulate(directory: Path, seed: int, story: Story, *, flavour: Flavour = STORM) -> Counter[str]:
    """Run `story(cluster)` in virtual time and return what it reached; crashes of engines surface as errors."""
    rng = random.Random(seed)
    clusters: list[Cluster] = []

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            cluster = Cluster(directory, rng, group, flavour)
            clusters.append(cluster)
            cluster.power.install()
            await story(cluster)
            cluster.stop()
            raise _Over

    def changed(name: str, term: int, old: int, new: int) -> None:
        clusters[0].state_changed(name, term, old, new)

    def truncated(count: int) -> None:
        clusters[0].truncated(count)

    def logged(record: logging.LogRecord) -> None:
        clusters[0].logged(record)

    with inside.watched(
        flavour,
        rng,
        state_changed=changed,
        truncated=truncated,
        logged=logged,
    ):
        try:
            with asyncio.Runner(loop_factory=SimLoop) as runner:
                runner.run(play())
        except* _Over:
            pass
        except* Exception as group:
            group.add_note("\n".join(clusters[0].diary))
            raise
        finally:
            Power.remove()
    clusters[0].report["busy loops"] += clusters[0].loop.busy_loops
    return clusters[0].report


def storm(directory: Path, seed: int) -> Counter[str]:
    """Run one ordinary seed."""
    flavour = of_seed(seed)
    report = simulate(directory, seed, chaos, flavour=flavour)
    report[f"flavour {flavour.name}"] += 1
    return report


class _Over(Exception):
    """The story has ended: its endless tasks may go."""
