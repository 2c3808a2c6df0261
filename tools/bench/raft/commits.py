"""Commits a second and how long one takes, ours and etcd's in turn, so that a busy moment of the machine hits both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tools.bench.figures import Figure
from tools.bench.raft.certificates import Authority
from tools.bench.raft.child import Child
from tools.bench.raft.cluster import Voters, hosts, voters
from tools.bench.raft.etcd import etcd_client
from tools.bench.raft.orders import Ask, Barrier, Done, Drive, Follow, Load, Status

MANY = 64
REPLICA = "replica"
REPLICA_ADDRESS = 31


@dataclass(slots=True)
class Commits:
    """All loads of all rounds, by who was driven, where the clients were and how many of them."""

    loads: dict[tuple[str, int], list[Load]] = field(default_factory=dict)

    def add(self, who: str, clients: int, load: Load) -> None:
        """Keep the result of one turn."""
        self.loads.setdefault((who, clients), []).append(load)

    def rate(self, who: str, clients: int) -> float:
        """Return the median of the rates."""
        return median(load.rate for load in self.loads[who, clients])

    def figures(self) -> list[Figure]:
        """Return the figures with their targets."""
        found: list[Figure] = []
        for (who, clients), loads in self.loads.items():
            if who == "etcd":
                continue
            theirs = self.loads["etcd", clients]
            where = f"{clients} client{'s' if clients > 1 else ''} at a {who}"
            found.append(
                Figure(
                    name=f"commits, {where}",
                    unit="1/s",
                    ours=self.rate(who, clients),
                    peer=self.rate("etcd", clients),
                    at_least=1.0 if clients == MANY else 0.5,
                )
            )
            for name, at_most in (("p50_ms", None), ("p99_ms", 1.5 if clients == MANY else None)):
                found.append(
                    Figure(
                        name=f"{name[:3]}, {where}",
                        unit="ms",
                        ours=median(getattr(load, name) for load in loads),
                        peer=median(getattr(load, name) for load in theirs),
                        at_most=at_most,
                    )
                )
        return found

    def rounds(self) -> dict[str, list[float]]:
        """Return the rates of each round."""
        return {
            f"{who}, {clients} clients": [load.rate for load in loads]
            for (who, clients), loads in self.loads.items()
        }


@asynccontextmanager
async def replica_of(
    directory: Path, authority: Authority, running: Voters
) -> AsyncIterator[Child | None]:
    """Run a replica that follows a voter which doesn't lead; None if this engine has no replicas."""
    first = next(iter(running.children.values()))
    if not (await first.tell(Ask(), Status)).can_follow:
        yield None
        return
    parent = await running.follower()
    async with hosts(
        directory, authority, (REPLICA,), first_address=REPLICA_ADDRESS, call=running.addresses
    ) as (process, _):
        await process.tell(Follow(REPLICA, ((parent, running.addresses[parent]),)), Done)
        await process.tell(Barrier(), Done)
        yield process


async def measure_commits(
    directory: Path, *, rounds: int, seconds: float, profile: Path | None
) -> tuple[Commits, bool]:
    """Drive both clusters in turn; return the loads, and whether there was a replica among the driven."""
    commits = Commits()
    authority = Authority()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(voters(directory, authority, profile=profile))
        etcd = await stack.enter_async_context(etcd_client(directory))
        replica = await stack.enter_async_context(replica_of(directory, authority, running))
        for clients in (MANY, 1):  # caches and connections warm up
            warm_up = Drive(clients, min(1.0, seconds))
            await etcd.tell(warm_up, Load)
            await running.children[await running.follower()].tell(warm_up, Load)
        for _ in range(rounds):
            for clients in (MANY, 1):
                order = Drive(clients, seconds)
                follower = running.children[await running.follower()]
                commits.add("follower", clients, await follower.tell(order, Load))
                commits.add("etcd", clients, await etcd.tell(order, Load))
                if replica is not None:
                    commits.add(REPLICA, clients, await replica.tell(order, Load))
    return commits, replica is not None
