"""What a host whose agent is stopped asks of the others, with its own certificate: who is there, and may I rejoin?

Used by `kvorum recover`. The asked agents answer in `nodeagent.mesh_rpc`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from core.errors import ConflictError, FatalError, PlatformError, UnavailableError
from core.member_file import MemberAddress
from core.mesh.client import MeshClient, Nothing
from core.mesh.dialer import MeshDialer
from core.mesh.tls import TlsFiles
from core.paths import Paths
from raftstate.rescue.rejoin import MayRejoin, Standing, WantsToRejoin, check_answer

LOOK_TIMEOUT_S = 3.0
REJOIN_TIMEOUT_S = 60.0
ASKED_AT_ONCE = 32


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a member's word about itself that matters here."""

    generation: int
    votes: bool
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Alive:
    """A member that answered."""

    member: MemberAddress
    about: About


class Others:
    """The other members, as this host can reach them. Use with `async with`."""

    def __init__(self, paths: Paths) -> None:
        """Read this host's identity.

        Raises:
            FatalError: it is gone or damaged.
        """
        try:
            self._client = MeshClient(MeshDialer(TlsFiles.in_directory(paths.identity)))
        except (OSError, ValueError) as error:
            raise FatalError(f"the identity of this host can't be read: {error}") from None

    async def __aenter__(self) -> Others:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    async def look(self, members: Sequence[MemberAddress]) -> list[Alive]:
        """Return who answers within seconds: the newest generation first, then the voters."""
        found: list[Alive] = []
        gate = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(member: MemberAddress) -> None:
            try:
                async with gate:
                    about = await self._client.call(
                        member, "/mesh/state", Nothing(), About, timeout_s=LOOK_TIMEOUT_S
                    )
                found.append(Alive(member, about))
            except (PlatformError, msgspec.DecodeError):
                return

        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(ask(member), name=f"look-{member.name}")
        return sorted(found, key=lambda a: (-a.about.generation, not a.about.votes, a.member.name))

    async def ask_to_rejoin(self, standing: Standing) -> MayRejoin:
        """Return the answer of the first member that lets this host rejoin.

        Raises:
            UnavailableError: nobody answers, or there is no quorum to end this host's vote.
            ConflictError: all that answer refuse.
        """
        alive = await self.look(standing.members)
        if not alive:
            names = ", ".join(member.name for member in standing.members) or "none is known here"
            raise UnavailableError(
                f"no other member answers, or lets this host in ({names}); nothing was changed. If the cluster has "
                "removed this host: 'kvorum leave --force', then join again"
            )
        refusal: PlatformError | None = None
        for one in alive:
            try:
                answer = await self._client.call(
                    one.member,
                    "/mesh/rejoin",
                    WantsToRejoin(generation=standing.generation),
                    MayRejoin,
                    timeout_s=REJOIN_TIMEOUT_S,
                )
                check_answer(standing, answer)
                return answer
            except UnavailableError as error:
                refusal = refusal or UnavailableError(f"{one.member.name}: {error.message}")
            except PlatformError as error:
                refusal = refusal or ConflictError(f"{one.member.name}: {error.message}")
        assert refusal is not None, "somebody was asked"
        raise refusal
