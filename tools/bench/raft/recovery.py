"""How long a host takes to start with a big state, and a new one to be sent it."""

from __future__ import annotations

import time
from pathlib import Path

from tools.bench.figures import Figure
from tools.bench.raft.certificates import Authority
from tools.bench.raft.cluster import hosts
from tools.bench.raft.orders import AddVoter, Barrier, Done, Fill

OLD, NEW = "old", "new"
FIRST_ADDRESS = 41
FILL_TIMEOUT_S = 3600.0
MIB = 1 << 20


async def measure_recovery(directory: Path, *, resources: int, size_mib: int) -> list[Figure]:
    """Fill a lone voter with `resources` that make `size_mib`, start it again, then let another join."""
    authority = Authority()
    size_bytes = size_mib * MIB // resources
    async with hosts(directory, authority, (OLD,), first_address=FIRST_ADDRESS, call={}) as (
        old,
        _,
    ):
        filled = await old.tell(Fill(resources, size_bytes), Done, timeout_s=FILL_TIMEOUT_S)
    began_s = time.perf_counter()
    async with hosts(directory, authority, (OLD,), first_address=FIRST_ADDRESS, call={}) as (
        old,
        addresses,
    ):
        await old.tell(Barrier(), Done, timeout_s=FILL_TIMEOUT_S)
        started_s = time.perf_counter() - began_s
        async with hosts(
            directory, authority, (NEW,), first_address=FIRST_ADDRESS + 1, call=addresses
        ) as (new, found):
            began_s = time.perf_counter()
            join = AddVoter(NEW, found[NEW], FILL_TIMEOUT_S)
            await old.tell(join, Done, timeout_s=FILL_TIMEOUT_S)
            await new.tell(Barrier(), Done, timeout_s=FILL_TIMEOUT_S)
            joined_s = time.perf_counter() - began_s
    what = f"{resources} resources, {size_mib} MiB"
    return [
        Figure(name=f"filling with {what}", unit="s", ours=filled.seconds),
        Figure(name=f"start with {what}", unit="s", ours=started_s),
        Figure(name=f"sending a new host {what}", unit="s", ours=joined_s),
    ]
