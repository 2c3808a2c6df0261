"""What a hundred replicas cost the leader: its processor time for each commit, in a cluster with them and one without.

They live in one process, with the product's links, feed and state machine, in a tree below the voters.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from tools.bench.figures import Figure
from tools.bench.raft.certificates import Authority
from tools.bench.raft.child import Child
from tools.bench.raft.cluster import Voters, hosts, voters
from tools.bench.raft.commits import MANY
from tools.bench.raft.orders import Ask, Barrier, Done, Drive, Follow, Load, Status

FANOUT = 8
FIRST_ADDRESS = 256  # 127.0.1.0
GROWTH_MAX_PERCENT = 10.0
CATCH_UP_TIMEOUT_S = 300.0


async def measure_replicas(
    directory: Path, *, replicas: int, rounds: int, seconds: float
) -> tuple[Figure, dict[str, list[float]]] | None:
    """Return by how much the leader's cost of a commit grows, and each round's; None if this engine has no replicas."""
    authority = Authority()
    alone_us: list[float] = []
    among_us: list[float] = []
    writes: list[float] = []
    async with AsyncExitStack() as stack:
        clusters = []
        for name in ("alone", "among"):
            (directory / name).mkdir()
            clusters.append(await stack.enter_async_context(voters(directory / name, authority)))
        alone, among = clusters
        leader = among.children[await among.leader()]
        if not (await leader.tell(Ask(), Status)).can_follow:
            return None
        names = [f"r{number:03}" for number in range(replicas)]
        process, addresses = await stack.enter_async_context(
            hosts(
                directory / "among",
                authority,
                names,
                first_address=FIRST_ADDRESS,
                call=among.addresses,
            )
        )
        await plant(process, addresses, among, names)
        await process.tell(Barrier(), Done, timeout_s=CATCH_UP_TIMEOUT_S)
        for _ in range(rounds):
            for cluster, costs in ((alone, alone_us), (among, among_us)):
                cost_us, count = await _cost_us(cluster, seconds)
                costs.append(cost_us)
                writes.append(count)
        # Replicas that got nothing would cost nothing: they must have it all in the end.
        behind = await process.tell(Barrier(), Done, timeout_s=CATCH_UP_TIMEOUT_S)
    figure = Figure(
        name=f"growth of the leader's cost of a commit by {replicas} replicas",
        unit="%",
        ours=100 * (median(among_us) / median(alone_us) - 1),
        at_most=GROWTH_MAX_PERCENT,
    )
    return figure, {
        "leader's us for a commit, without replicas": alone_us,
        f"leader's us for a commit, with {replicas} replicas": among_us,
        "seconds until all replicas had everything": [behind.seconds],
        "commits of these rounds, without and with": writes,
    }


async def plant(
    process: Child, addresses: dict[str, str], running: Voters, names: list[str]
) -> None:
    """Make a tree: the first few replicas follow voters that don't lead, each of the others one before it."""
    leader = await running.leader()
    followers = [(n, address) for n, address in running.addresses.items() if n != leader]
    for number, name in enumerate(names):
        if number < FANOUT:
            parent = followers[number % len(followers)]
        else:
            above = names[number // FANOUT - 1]
            parent = (above, addresses[above])
        await process.tell(Follow(name, (parent,)), Done)


async def _cost_us(running: Voters, seconds: float) -> tuple[float, int]:
    """Return the leader's processor time for one commit while clients write at a follower, and how many there were."""
    leader = running.children[await running.leader()]
    follower = running.children[await running.follower()]
    before = await leader.tell(Ask(), Status)
    load = await follower.tell(Drive(MANY, seconds), Load)
    after = await leader.tell(Ask(), Status)
    return 1e6 * (after.cpu_s - before.cpu_s) / load.writes, load.writes
