"""Our three voters, each in a process of its own on a loopback address, seen from the bench."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UnavailableError
from tools.bench.raft.certificates import Authority
from tools.bench.raft.child import Child, child
from tools.bench.raft.orders import AddVoter, Ask, Barrier, Done, Ready, Status

NAMES = ("a", "b", "c")
START_TIMEOUT_S = 60.0
CHANGE_TIMEOUT_S = 45.0
ANSWER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Voters:
    """Running voters and their addresses, by name."""

    children: dict[str, Child]
    addresses: dict[str, str]

    async def leader(self) -> str:
        """Return the name of the leader. Raises UnavailableError if they don't agree on one."""
        leaders = {(await c.tell(Ask(), Status)).leader for c in self.children.values()}
        if len(leaders) != 1 or "" in leaders:
            raise UnavailableError(f"the voters don't agree on a leader: {sorted(leaders)}")
        return leaders.pop()

    async def follower(self) -> str:
        """Return the name of a voter that doesn't lead."""
        leader = await self.leader()
        return next(name for name in self.children if name != leader)


@contextlib.asynccontextmanager
async def hosts(
    directory: Path,
    authority: Authority,
    names: Sequence[str],
    *,
    first_address: int,
    call: dict[str, str],
    profile: Path | None = None,
) -> AsyncIterator[tuple[Child, dict[str, str]]]:
    """Run a process with these hosts, which call `call` (nobody: the first start founds a cluster); yield addresses too."""
    argv = ["tools.bench.raft.host", str(directory)]
    for number, name in enumerate(names, first_address):
        if not (directory / name / "identity").exists():
            authority.issue(name, directory / name / "identity")
        argv += ["--host", f"{name}=127.0.{number // 256}.{number % 256}:0"]
    for name, address in call.items():
        argv += ["--call", f"{name}={address}"]
    if profile is not None:
        argv += ["--profile", str(profile / f"{names[0]}.pstats")]
    async with child(names[0], *argv, log=directory / f"{names[0]}.log") as process:
        ready = await process.answer(Ready, timeout_s=START_TIMEOUT_S)
        yield process, ready.addresses


@contextlib.asynccontextmanager
async def voters(
    directory: Path, authority: Authority, *, profile: Path | None = None
) -> AsyncIterator[Voters]:
    """Run three voters of a new cluster."""
    running = Voters({}, {})
    async with contextlib.AsyncExitStack() as stack:
        for number, name in enumerate(NAMES, 11):
            call = {n: running.addresses[n] for n in NAMES[:1] if n != name}
            process, addresses = await stack.enter_async_context(
                hosts(
                    directory, authority, (name,), first_address=number, call=call, profile=profile
                )
            )
            running.children[name] = process
            running.addresses.update(addresses)
            first = running.children[NAMES[0]]
            if call:
                order = AddVoter(name, addresses[name], CHANGE_TIMEOUT_S)
                await first.tell(order, Done, timeout_s=ANSWER_TIMEOUT_S)
            else:
                await first.tell(Barrier(), Done)
        yield running
